//! Results of long computations, kept by content: what was computed once is never computed again.
//!
//! A result is a small JSON file named by the digest of all that it depends on, which it repeats inside: written beside its
//! place, synced and renamed, so there are whole ones and none other, and one that is damaged or of another key is none.

use std::io;
use std::path::{Path, PathBuf};

use moac_runtime::artifact::{self, Digest};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A folder of results. Made when something is stored.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

#[derive(Serialize, Deserialize)]
struct Kept<T> {
    key: Digest,
    value: T,
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
        let kept: Kept<T> = serde_json::from_slice(&std::fs::read(self.path(key)).ok()?).ok()?;
        (kept.key == key).then_some(kept.value)
    }

    /// Keeps the result of a key.
    pub fn save<T: Serialize>(&self, key: Digest, value: T) -> io::Result<()> {
        std::fs::create_dir_all(&self.0)?;
        artifact::write(&self.path(key), &serde_json::to_vec(&Kept { key, value })?)
    }
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
        kept.save(key, [0.5]).unwrap();
        assert_eq!(kept.load(key), Some(vec![0.5]));
    }
}
