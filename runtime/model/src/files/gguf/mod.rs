//! The GGUF container: a header of typed metadata and tensor descriptions, then aligned tensor data; one file, or several
//! whose names count them.
//!
//! Files are untrusted. Values are decoded when they are asked for. candle's own reader is not used, because it divides
//! by the file's alignment and multiplies its dimensions unchecked.

mod header;
mod split;

use std::collections::BTreeMap;
use std::path::Path;

use self::header::{Cursor, Header, Kind, TensorInfo, Value, array, integer};
use super::encoding::Encoding;
use super::mmap::Mapped;
use super::stored::{Description, Stored};
use crate::ModelError;
use crate::error::TensorProblem;

/// A GGUF file, version 2 or 3, little-endian, with all its shards.
#[derive(Debug)]
pub struct Gguf {
    /// The first shard, whose metadata is the model's.
    metadata: BTreeMap<String, Value>,
    files: Vec<Shard>,
    tensors: BTreeMap<String, Place>,
}

#[derive(Debug)]
struct Shard {
    file: Mapped,
    /// Where tensor data starts.
    data: u64,
}

#[derive(Debug)]
struct Place {
    shard: usize,
    info: TensorInfo,
}

impl Gguf {
    /// Whether the bytes start as a GGUF file does.
    pub fn is_gguf(start: &[u8]) -> bool {
        start.starts_with(b"GGUF")
    }

    /// Opens a file, and where it is one of several the others beside it. Headers are checked; tensors are when they are
    /// read.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let one = Self::open_one(path)?;
        let Some(split) = split::Split::of(&one)? else { return Ok(one) };
        let mut all: Option<Self> = None;
        for number in 0..split.count {
            let shard = Self::open_one(&split.shard(number)?)?;
            split.check(&shard, number)?;
            match &mut all {
                None => all = Some(shard),
                Some(all) => all.append(shard)?,
            }
        }
        let all = all.unwrap_or(one);
        split.check_total(&all)?;
        Ok(all)
    }

    fn open_one(path: &Path) -> Result<Self, ModelError> {
        let file = Mapped::open(path)?;
        let Header { metadata, tensors, data } =
            Header::read(&file).map_err(|what| ModelError::Damaged { path: path.to_owned(), what })?;
        let place = |(name, info)| (name, Place { shard: 0, info });
        Ok(Self {
            metadata,
            tensors: tensors.into_iter().map(place).collect(),
            files: vec![Shard { file, data }],
        })
    }

    /// Takes over the tensors of another shard.
    fn append(&mut self, other: Self) -> Result<(), ModelError> {
        let shard = self.files.len();
        for (name, Place { info, .. }) in other.tensors {
            if self.tensors.contains_key(&name) {
                let path = other.files[0].file.path().to_owned();
                return Err(ModelError::Damaged {
                    path,
                    what: format!("tensor `{name}` is in another shard too"),
                });
            }
            self.tensors.insert(name, Place { shard, info });
        }
        self.files.extend(other.files);
        Ok(())
    }

    /// The file, the first shard of several.
    pub fn path(&self) -> &Path {
        self.files[0].file.path()
    }

    /// Whether a key is there.
    pub fn has(&self, key: &str) -> bool {
        self.metadata.contains_key(key)
    }

    /// The keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.metadata.keys().map(String::as_str)
    }

    /// Whether a tensor is there.
    pub fn has_tensor(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The names of all tensors, in order.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// An unsigned integer, if the key is there.
    pub fn unsigned(&self, key: &str) -> Result<Option<u64>, ModelError> {
        self.get(key, "an unsigned integer", |kind, bytes| integer(kind, bytes)?.try_into().ok())
    }

    /// A number, if the key is there.
    pub fn number(&self, key: &str) -> Result<Option<f64>, ModelError> {
        self.get(key, "a number", number)
    }

    /// A flag, if the key is there.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, ModelError> {
        self.get(key, "a flag", |kind, bytes| (kind == Kind::Bool).then(|| bytes[0] != 0))
    }

    /// A text, if the key is there.
    pub fn text(&self, key: &str) -> Result<Option<&str>, ModelError> {
        self.get(key, "a text in UTF-8", |kind, bytes| {
            (kind == Kind::String).then(|| std::str::from_utf8(&bytes[8..]).ok()).flatten()
        })
    }

    /// A list of texts, if the key is there.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&str>>, ModelError> {
        self.get(key, "a list of texts in UTF-8", |kind, bytes| {
            let (Kind::String, count, bytes) = array(kind, bytes)? else { return None };
            let mut at = Cursor::new(bytes);
            (0..count).map(|_| at.text().ok()).collect()
        })
    }

    /// A list of integers, if the key is there.
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i128>>, ModelError> {
        self.get(key, "a list of integers", |kind, bytes| elements(kind, bytes, integer))
    }

    /// A list of numbers, if the key is there.
    pub fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>, ModelError> {
        self.get(key, "a list of numbers", |kind, bytes| elements(kind, bytes, number))
    }

    /// Whether a key says nothing: it is missing, 0, false or empty.
    pub fn is_unset(&self, key: &str) -> bool {
        self.metadata.get(key).is_none_or(|Value { kind, bytes }| {
            let bytes = &self.files[0].file[bytes.clone()];
            match kind {
                Kind::Bool => bytes == [0],
                Kind::String => bytes.len() == 8,
                Kind::Array => array(*kind, bytes).is_none_or(|(_, count, _)| count == 0),
                _ => number(*kind, bytes) == Some(0.0),
            }
        })
    }

    fn get<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        decode: impl FnOnce(Kind, &'a [u8]) -> Option<T>,
    ) -> Result<Option<T>, ModelError> {
        let Some(value) = self.metadata.get(key) else { return Ok(None) };
        match decode(value.kind, &self.files[0].file[value.bytes.clone()]) {
            Some(value) => Ok(Some(value)),
            None => Err(self.setting(key, &format!("of type {:?} or out of range", value.kind), expected)),
        }
    }

    /// The error of a key.
    pub fn setting(&self, key: &str, found: &str, expected: &str) -> ModelError {
        ModelError::Setting {
            path: self.path().to_owned(),
            key: key.to_owned(),
            found: found.to_owned(),
            expected: expected.to_owned(),
        }
    }

    /// A tensor of the given shape.
    pub(crate) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Stored<'_>, ModelError> {
        let Some((name, Place { shard, info })) = self.tensors.get_key_value(name) else {
            return Err(ModelError::Tensor {
                name: name.to_owned(),
                path: self.path().to_owned(),
                problem: TensorProblem::Missing { expected: shape.to_vec() },
            });
        };
        let Shard { file, data } = &self.files[*shard];
        let start = data.saturating_add(info.offset).min(file.len() as u64);
        let description = Description {
            name,
            path: file.path(),
            shape: &info.shape,
            encoding: Encoding::of_gguf(info.kind).ok_or_else(|| format!("number {}", info.kind)),
            bytes: &file[start as usize..],
        };
        description.check(shape)
    }
}

/// A number of any type.
fn number(kind: Kind, bytes: &[u8]) -> Option<f64> {
    match kind {
        Kind::F32 => Some(f64::from(f32::from_le_bytes(bytes.try_into().ok()?))),
        Kind::F64 => Some(f64::from_le_bytes(bytes.try_into().ok()?)),
        _ => integer(kind, bytes).map(|i| i as f64),
    }
}

/// The elements of a list.
fn elements<T>(kind: Kind, bytes: &[u8], decode: impl Fn(Kind, &[u8]) -> Option<T>) -> Option<Vec<T>> {
    let (kind, count, bytes) = array(kind, bytes)?;
    if count == 0 {
        return Some(Vec::new());
    }
    bytes.chunks(kind.size()?).map(|bytes| decode(kind, bytes)).collect()
}
