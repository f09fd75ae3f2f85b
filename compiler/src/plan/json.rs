//! Untrusted JSON with bounded cost: a size limit, and values that are looked at only where the schema names them.
//!
//! Values stay raw text until they are asked for, so a number that no f64 holds and a key that stands twice are
//! problems with a path instead of a parser's position.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::Error;

/// The most bytes of a file. The largest real plan, with a rule for each of 128 x 128 heads, has under one million.
const MAX_BYTES: u64 = 32 << 20;

/// A value as it stands in the text, `NaN` and infinities put so that JSON can hold them.
pub(super) struct Document(Box<RawValue>);

/// The fields of an object in the order of the text, or what stands in its place.
pub(super) type Fields<'a> = Result<Vec<(String, &'a RawValue)>, String>;

/// Reads a text file of bounded size. `expected` says what it should be.
pub(super) fn read_text(path: &Path, expected: &'static str) -> Result<String, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(Error::Folder { path: path.to_owned(), expected });
    }
    // The length that a file claims bounds nothing: devices and pipes claim none.
    let mut bytes = Vec::new();
    if metadata.len() <= MAX_BYTES {
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    }
    if metadata.len() > MAX_BYTES || bytes.len() as u64 > MAX_BYTES {
        return Err(Error::TooLarge { path: path.to_owned(), expected, max: MAX_BYTES });
    }
    let text = String::from_utf8(bytes).map_err(|error| Error::NotUtf8 {
        path: path.to_owned(),
        offset: error.utf8_error().valid_up_to(),
    })?;
    Ok(text)
}

/// Parses a file's text. `path` is what the error calls it.
pub(super) fn document(text: &str, path: &Path) -> Result<Document, Error> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let parsed = serde_json::from_str(text).or_else(|error| {
        // Python writes NaN and Infinity bare. The position of any other fault is that in the original.
        serde_json::from_str(&quote_non_finite(text)).map_err(|_| error)
    });
    parsed.map(Document).map_err(|source| Error::NotJson { path: path.to_owned(), source })
}

/// `text` with every bare `NaN` and `Infinity` quoted.
fn quote_non_finite(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 64);
    let mut rest = text;
    let mut in_string = false;
    while let Some(next) = rest.chars().next() {
        let word = if in_string {
            None
        } else {
            ["NaN", "Infinity", "-Infinity"].into_iter().find(|&word| rest.starts_with(word))
        };
        let taken = if let Some(word) = word {
            quoted.extend(["\"", word, "\""]);
            word.len()
        } else {
            // An escape is taken whole, so that an escaped quote ends no string.
            let whole = if in_string && next == '\\' { rest.chars().take(2) } else { rest.chars().take(1) };
            let length = whole.map(char::len_utf8).sum();
            in_string ^= next == '"';
            quoted.push_str(&rest[..length]);
            length
        };
        rest = &rest[taken..];
    }
    quoted
}

impl Document {
    /// The document's fields.
    pub(super) fn fields(&self) -> Fields<'_> {
        fields(&self.0)
    }
}

/// The fields of `value`, or what it is instead of an object.
pub(super) fn fields(value: &RawValue) -> Fields<'_> {
    struct Raw<'a>(Vec<(String, &'a RawValue)>);

    impl<'de> Deserialize<'de> for Raw<'de> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct AllFields;

            impl<'de> Visitor<'de> for AllFields {
                type Value = Raw<'de>;

                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("an object")
                }

                fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw<'de>, A::Error> {
                    let mut fields = Vec::new();
                    while let Some(field) = map.next_entry()? {
                        fields.push(field);
                    }
                    Ok(Raw(fields))
                }
            }
            deserializer.deserialize_map(AllFields)
        }
    }
    serde_json::from_str::<Raw<'_>>(value.get()).map(|raw| raw.0).map_err(|_| describe(value))
}

/// The items of `value`, or what it is instead of a list.
pub(super) fn items(value: &RawValue) -> Result<Vec<&RawValue>, String> {
    serde_json::from_str(value.get()).map_err(|_| describe(value))
}

/// The number that `value` is, infinite where no f64 holds it, or what it is instead.
pub(super) fn number(value: &RawValue) -> Result<f64, String> {
    let text = value.get();
    if text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
        text.parse().map_err(|_| describe(value))
    } else {
        Err(describe(value))
    }
}

/// The text that `value` is, or what it is instead.
pub(super) fn string(value: &RawValue) -> Result<String, String> {
    serde_json::from_str(value.get()).map_err(|_| describe(value))
}

/// A value as a message shows it: a scalar as it stands, anything longer by its kind.
pub(super) fn describe(value: &RawValue) -> String {
    const LONGEST: usize = 40;
    let text = value.get();
    let kind = match text.as_bytes().first() {
        Some(b'{') => return "an object".to_owned(),
        Some(b'[') => return "a list".to_owned(),
        Some(b'"') => match text.trim_matches('"') {
            // What `document` quoted.
            word @ ("NaN" | "Infinity" | "-Infinity") => return word.to_owned(),
            _ => "text",
        },
        _ => "",
    };
    let shown: String = text.chars().take(LONGEST).collect();
    let more = if shown.len() < text.len() { "..." } else { "" };
    format!("{kind}{}{shown}{more}", if kind.is_empty() { "" } else { " " })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn only_bare_words_are_quoted() {
        let text = r#"{"NaN \" NaN": [NaN, -Infinity,Infinity], "é": "\\"}"#;
        let quoted = r#"{"NaN \" NaN": ["NaN", "-Infinity","Infinity"], "é": "\\"}"#;
        assert_eq!(quote_non_finite(text), quoted);
    }

    #[test]
    fn a_number_no_double_holds_is_infinite() {
        assert_eq!(number(&raw("1e999")), Ok(f64::INFINITY));
        assert_eq!(number(&raw("-1e999")), Ok(f64::NEG_INFINITY));
        assert_eq!(number(&raw("1e-999")), Ok(0.0));
        assert_eq!(number(&raw("-12.5")), Ok(-12.5));
        assert_eq!(number(&raw("\"1\"")), Err("text \"1\"".to_owned()));
        assert_eq!(number(&raw("null")), Err("null".to_owned()));
        assert_eq!(number(&raw("[1]")), Err("a list".to_owned()));
    }

    #[test]
    fn a_field_that_stands_twice_is_seen_twice() {
        let object = raw(r#"{"a": 1, "b": {"a": 2}, "a": [3]}"#);
        let names: Vec<String> = fields(&object).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "b", "a"]);
        assert_eq!(fields(&raw("[1]")).unwrap_err(), "a list");
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        let shown = describe(&raw(&format!("\"{}\"", "é".repeat(100))));
        assert!(shown.starts_with("text \"é") && shown.ends_with("é..."), "{shown}");
    }
}
