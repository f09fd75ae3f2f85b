//! Reading the JSON files of a model folder.
//!
//! Two things are taken care of for all of them: a byte order mark in front is skipped, as editors on Windows write it,
//! and a name that stands twice in an object is refused, since readers do not agree on which one counts.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::mmap::refuse_pointer;
use crate::ModelError;

/// The largest file that is read: far beyond any real one, and parsed it still fits.
const MAX_BYTES: u64 = 64 << 20;
const BOM: &[u8] = b"\xef\xbb\xbf";

/// Reads a JSON file.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, ModelError> {
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut text))
        .map_err(|source| ModelError::Read { path: path.to_owned(), source })?;
    refuse_pointer(path, &text)?;
    let damaged = |what| ModelError::Damaged { path: path.to_owned(), what };
    if text.len() as u64 > MAX_BYTES {
        return Err(damaged(format!("it has more than {MAX_BYTES} bytes")));
    }
    parse(&text).map_err(damaged)
}

/// Parses JSON text.
pub(crate) fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    if text.starts_with(b"\xff\xfe") || text.starts_with(b"\xfe\xff") {
        return Err("it is text in UTF-16, expected UTF-8: save it as UTF-8".into());
    }
    let text = text.strip_prefix(BOM).unwrap_or(text);
    let parsed = serde_json::from_slice::<T>(text).map_err(|error| error.to_string())?;
    serde_json::from_slice::<NamesOnce>(text).map_err(|error| error.to_string())?;
    Ok(parsed)
}

/// Any JSON value no object of which has a name twice.
struct NamesOnce;

impl<'de> Deserialize<'de> for NamesOnce {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for NamesOnce {
    type Value = Self;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self, A::Error> {
        while list.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut names = BTreeSet::new();
        while let Some((name, _)) = map.next_entry::<String, Self>()? {
            if let Some(twice) = names.replace(name) {
                return Err(A::Error::custom(format_args!("`{twice}` stands there twice")));
            }
        }
        Ok(self)
    }
}
