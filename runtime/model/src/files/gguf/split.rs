//! A GGUF file that is one of several: `NAME-00001-of-00003.gguf` and so on, as llama.cpp's `gguf-split` writes them.
//!
//! The first holds the model's metadata. All of them say how many they are and which one each is, so a shard that is
//! missing, or comes from elsewhere, is named.

use std::path::{Path, PathBuf};

use super::Gguf;
use crate::ModelError;

/// The most shards of a model that is read.
const MAX_SHARDS: u64 = 4096;
const NUMBER: &str = "split.no";
const COUNT: &str = "split.count";
const TENSORS: &str = "split.tensors.count";

/// Where the shards of a model are.
#[derive(Debug)]
pub(super) struct Split {
    folder: PathBuf,
    /// The common prefix of their names.
    prefix: String,
    pub(super) count: u64,
}

impl Split {
    /// The split that a file belongs to; `None` if it is whole.
    pub(super) fn of(gguf: &Gguf) -> Result<Option<Self>, ModelError> {
        let count = gguf.unsigned(COUNT)?.unwrap_or(1);
        if count <= 1 {
            return Ok(None);
        }
        if count > MAX_SHARDS {
            return Err(gguf.setting(COUNT, &count.to_string(), &format!("at most {MAX_SHARDS}")));
        }
        let number = gguf.unsigned(NUMBER)?.filter(|&number| number < count).ok_or_else(|| {
            let found = gguf.unsigned(NUMBER).ok().flatten().map_or("missing".into(), |n| n.to_string());
            gguf.setting(NUMBER, &found, &format!("below the {count} of `{COUNT}`"))
        })?;
        let path = gguf.path();
        let ending = ending(number, count);
        let prefix = path.file_name().and_then(|name| name.to_str()?.strip_suffix(&ending));
        let Some(prefix) = prefix else {
            let what = format!(
                "it is shard {} of {count}, but its name does not end in `{ending}`, so the others cannot be found: give all \
                 shards the names that they were made with, or merge them with `llama-gguf-split --merge`",
                number + 1
            );
            return Err(ModelError::Damaged { path: path.to_owned(), what });
        };
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        Ok(Some(Self { folder, prefix: prefix.to_owned(), count }))
    }

    /// The path of a shard.
    pub(super) fn shard(&self, number: u64) -> Result<PathBuf, ModelError> {
        let name = format!("{}{}", self.prefix, ending(number, self.count));
        let path = self.folder.join(&name);
        if path.is_file() {
            return Ok(path);
        }
        let what = format!(
            "the model is split in {} files, and `{name}` is missing: put all of them in one folder",
            self.count
        );
        Err(ModelError::Damaged {
            path: self.folder.join(format!("{}{}", self.prefix, ending(0, self.count))),
            what,
        })
    }

    /// Checks that a file is the shard that its name says.
    pub(super) fn check(&self, shard: &Gguf, number: u64) -> Result<(), ModelError> {
        for (key, expected) in [(COUNT, self.count), (NUMBER, number)] {
            let found = shard.unsigned(key)?;
            if found != Some(expected) {
                let found = found.map_or("missing".into(), |found| found.to_string());
                return Err(shard.setting(key, &found, &format!("{expected}, as the file's name says")));
            }
        }
        Ok(())
    }

    /// Checks the number of tensors in all shards.
    pub(super) fn check_total(&self, all: &Gguf) -> Result<(), ModelError> {
        match all.unsigned(TENSORS)? {
            Some(stated) if stated != all.tensors.len() as u64 => {
                let expected = format!("the {} tensors of the {} shards", all.tensors.len(), self.count);
                Err(all.setting(TENSORS, &stated.to_string(), &expected))
            }
            _ => Ok(()),
        }
    }
}

fn ending(number: u64, count: u64) -> String {
    format!("-{:05}-of-{count:05}.gguf", number + 1)
}
