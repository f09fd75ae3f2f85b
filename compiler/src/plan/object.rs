//! A JSON object read field by field, every fault of a field becoming a problem with its path.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde_json::value::RawValue;

use super::json::{self, Fields};
use super::problem::Problems;

/// The fields of an object that are not read yet.
pub(super) struct Object<'a> {
    path: String,
    fields: BTreeMap<String, &'a RawValue>,
}

impl<'a> Object<'a> {
    /// The object at `path`; a problem where there is none, and for each field that stands twice.
    pub(super) fn new(path: &str, fields: Fields<'a>, problems: &mut Problems) -> Option<Self> {
        let listed = fields.map_err(|found| problems.add(path, found, "an object")).ok()?;
        let mut object = Self { path: path.to_owned(), fields: BTreeMap::new() };
        for (name, value) in listed {
            let place = object.place(&name);
            if object.fields.insert(name, value).is_some() {
                problems.add(place, "it twice", "it once");
            }
        }
        Some(object)
    }

    /// The path of a field.
    pub(super) fn place(&self, name: &str) -> String {
        let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if plain {
            format!("{}.{name}", self.path)
        } else {
            let name: String = name.chars().take(60).collect();
            format!("{}[{name:?}]", self.path)
        }
    }

    /// Whether the field stands there and is not null.
    pub(super) fn has(&self, name: &str) -> bool {
        self.fields.get(name).is_some_and(|value| value.get() != "null")
    }

    /// Whether the field stands there, if only as null, and is not taken yet.
    pub(super) fn states(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    /// Takes a field; null is as good as none.
    pub(super) fn take(&mut self, name: &str) -> Option<&'a RawValue> {
        self.fields.remove(name).filter(|value| value.get() != "null")
    }

    /// Takes a field that must be there.
    pub(super) fn require(
        &mut self,
        name: &str,
        expected: &str,
        problems: &mut Problems,
    ) -> Option<&'a RawValue> {
        let value = self.take(name);
        if value.is_none() {
            problems.add(self.place(name), "nothing", expected);
        }
        value
    }

    /// Takes a whole number within `range`, if the field is there.
    pub(super) fn whole(
        &mut self,
        name: &str,
        range: RangeInclusive<u32>,
        problems: &mut Problems,
    ) -> Option<u32> {
        let value = self.take(name)?;
        let expected = || format!("a whole number from {} to {}", range.start(), range.end());
        match json::number(value) {
            Ok(number) if number.fract() == 0.0 && within(number, &range) => Some(number as u32),
            Ok(_) => {
                problems.add(self.place(name), json::describe(value), expected());
                None
            }
            Err(found) => {
                problems.add(self.place(name), found, expected());
                None
            }
        }
    }

    /// Takes a whole number that must be there.
    pub(super) fn require_whole(
        &mut self,
        name: &str,
        range: RangeInclusive<u32>,
        problems: &mut Problems,
    ) -> Option<u32> {
        if !self.has(name) {
            problems.add(
                self.place(name),
                "nothing",
                format!("a whole number from {} to {}", range.start(), range.end()),
            );
        }
        self.whole(name, range, problems)
    }

    /// Takes a finite number above zero, if the field is there.
    pub(super) fn positive(&mut self, name: &str, problems: &mut Problems) -> Option<f64> {
        let value = self.take(name)?;
        let found = match json::number(value) {
            Ok(number) if number.is_finite() && number > 0.0 => return Some(number),
            Ok(_) => json::describe(value),
            Err(found) => found,
        };
        problems.add(self.place(name), found, "a finite number above 0");
        None
    }

    /// Takes text, if the field is there.
    pub(super) fn text(&mut self, name: &str, problems: &mut Problems) -> Option<String> {
        let value = self.take(name)?;
        json::string(value).map_err(|found| problems.add(self.place(name), found, "text")).ok()
    }

    /// A problem for each unknown field: a misspelt one must not silently mean its default.
    pub(super) fn finish(self, known: &str, problems: &mut Problems) {
        for name in self.fields.keys() {
            problems.add(self.place(name), "an unknown field", format!("only {known}"));
        }
    }
}

fn within(number: f64, range: &RangeInclusive<u32>) -> bool {
    (f64::from(*range.start())..=f64::from(*range.end())).contains(&number)
}
