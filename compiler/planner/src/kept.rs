//! Results of long computations, saved by content: nothing is computed twice.
//!
//! A result is a small JSON file, named by the digest of all of its inputs. It repeats these inputs and holds a
//! digest of the result. Files are written to a temporary name, synced and renamed, so none is ever partial; a file
//! that is damaged or of another key is ignored.

use std::io;
use std::path::{Path, PathBuf};

use moac_runtime::digest::Digest;
use moac_runtime::file;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::eval::Spans;
use crate::items::Item;

/// A folder of results. Made when something is stored.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

#[derive(Serialize, Deserialize)]
struct Kept {
    key: Digest,
    /// Of the text of `value`.
    sha256: Digest,
    value: Box<RawValue>,
}

impl Folder {
    /// One at this path.
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Where the result of a key is, if it is there.
    pub fn path(&self, key: Digest) -> PathBuf {
        self.0.join(format!("{key}.json"))
    }

    /// The result of a key, if it is there.
    pub fn load<T: DeserializeOwned>(&self, key: Digest) -> Option<T> {
        let kept: Kept = serde_json::from_slice(&std::fs::read(self.path(key)).ok()?).ok()?;
        let text = kept.value.get();
        (kept.key == key && kept.sha256 == Digest::of(text.as_bytes()))
            .then(|| serde_json::from_str(text).ok())
            .flatten()
    }

    /// Keeps the result of a key.
    pub fn save<T: Serialize>(&self, key: Digest, value: T) -> io::Result<()> {
        std::fs::create_dir_all(&self.0)?;
        let value = serde_json::value::to_raw_value(&value)?;
        let kept = Kept { key, sha256: Digest::of(value.get().as_bytes()), value };
        file::write(&self.path(key), &serde_json::to_vec(&kept)?)
    }
}

/// The key of the loss of an item's answer under some spans: `format` says what is computed, `model` is the digest of
/// the model's files.
pub fn key(format: &str, model: Digest, item: &Item, spans: &Spans) -> Digest {
    let tokens: Vec<u8> = item.tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
    let [model, answer, spans] = [model.to_string(), item.answer.to_string(), spans.digest().to_string()];
    let fields = [format, &model, &answer, &spans].map(str::as_bytes);
    Digest::of_fields(fields.into_iter().chain([tokens.as_slice()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_damaged_or_of_another_key_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Folder::new(&folder.path().join("made"));
        let (key, other) = (Digest::of(b"1"), Digest::of(b"2"));
        assert_eq!(kept.load::<Vec<f64>>(key), None);
        kept.save(key, [0.1, 2.0]).unwrap();
        assert_eq!(kept.load(key), Some(vec![0.1, 2.0]));
        std::fs::copy(kept.path(key), kept.path(other)).unwrap();
        assert_eq!(kept.load::<Vec<f64>>(other), None);
        let text = std::fs::read(kept.path(key)).unwrap();
        std::fs::write(kept.path(key), &text[..text.len() - 1]).unwrap();
        assert_eq!(kept.load::<Vec<f64>>(key), None);
        // Another number, and still JSON.
        let changed = String::from_utf8(text).unwrap().replace("0.1", "0.7");
        std::fs::write(kept.path(key), changed).unwrap();
        assert_eq!(kept.load::<Vec<f64>>(key), None);
        kept.save(key, [0.5]).unwrap();
        assert_eq!(kept.load(key), Some(vec![0.5]));
    }
}
