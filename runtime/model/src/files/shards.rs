//! The weights of a Hugging Face folder: one safetensors file, or shards and their index, memory-mapped.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use super::json;
use super::mmap::Mapped;
use crate::ModelError;
use crate::error::TensorProblem;

/// The most shards of a model that is read.
const MAX_SHARDS: usize = 4096;
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The tensors of a folder.
#[derive(Debug)]
pub struct Shards {
    folder: PathBuf,
    files: Vec<Mapped>,
    tensors: BTreeMap<String, Place>,
}

/// Where a tensor is.
#[derive(Debug)]
struct Place {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    /// Within the file.
    bytes: Range<usize>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Shards {
    /// Opens a folder: `model.safetensors.index.json` and its shards, or `model.safetensors`.
    pub fn open(folder: &Path) -> Result<Self, ModelError> {
        let index_path = folder.join(INDEX);
        let names = if index_path.is_file() {
            let index: Index = json::read(&index_path)?;
            let mut names: Vec<String> = index.weight_map.into_values().collect();
            names.sort();
            names.dedup();
            names
        } else {
            vec![SINGLE.to_owned()]
        };
        if names.len() > MAX_SHARDS {
            let what = format!("{} shards, expected at most {MAX_SHARDS}", names.len());
            return Err(ModelError::Damaged { path: index_path, what });
        }
        let mut shards = Self { folder: folder.to_owned(), files: Vec::new(), tensors: BTreeMap::new() };
        for name in names {
            // A shard is a file of the folder, nowhere else.
            if Path::new(&name).file_name().is_none_or(|plain| plain != name.as_str()) {
                let what = format!("the shard `{name}` is not the plain name of a file in the folder");
                return Err(ModelError::Damaged { path: index_path, what });
            }
            shards.add(Mapped::open(&folder.join(name))?)?;
        }
        Ok(shards)
    }

    fn add(&mut self, file: Mapped) -> Result<(), ModelError> {
        let damaged = |what: String| ModelError::Damaged { path: file.path().to_owned(), what };
        // Before the library looks at it: it adds up the offsets unchecked, and does not say which tensor is cut.
        check_ends(&file)?;
        let (header, metadata) = SafeTensors::read_metadata(&file).map_err(|e| damaged(e.to_string()))?;
        // The header's length comes in 8 bytes, and offsets count from its end.
        let start = header + 8;
        // Into an ordered map, whose order decides.
        let infos: BTreeMap<_, _> = metadata.tensors().into_iter().collect();
        for (name, info) in infos {
            let bytes = start + info.data_offsets.0..start + info.data_offsets.1;
            let place = Place { file: self.files.len(), dtype: info.dtype, shape: info.shape.clone(), bytes };
            if self.tensors.insert(name.clone(), place).is_some() {
                return Err(damaged(format!("tensor `{name}` is in another shard too")));
            }
        }
        self.files.push(file);
        Ok(())
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The names of all tensors, in order.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor of the given shape, as float32.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, ModelError> {
        let place = self.tensors.get(name);
        let path = place.map_or(self.folder.as_path(), |place| self.files[place.file].path());
        let problem = |problem| ModelError::Tensor { name: name.to_owned(), path: path.to_owned(), problem };
        let Some(place) = place else {
            return Err(problem(TensorProblem::Missing { expected: shape.to_vec() }));
        };
        if place.shape != shape {
            return Err(problem(TensorProblem::Shape {
                found: place.shape.clone(),
                expected: shape.to_vec(),
            }));
        }
        let dtype = match place.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::F64 => DType::F64,
            other => {
                let found = format!("{other:?}");
                return Err(problem(TensorProblem::ElementType { found, expected: "F32, F16, BF16, F64" }));
            }
        };
        // The expected shape comes from a checked configuration, so this cannot overflow.
        let expected = shape.iter().product::<usize>() * dtype.size_in_bytes();
        let bytes = &self.files[place.file][place.bytes.clone()];
        if bytes.len() != expected {
            let (found, expected) = (bytes.len() as u64, expected as u64);
            return Err(problem(TensorProblem::Truncated { found, expected }));
        }
        Ok(Tensor::from_raw_buffer(bytes, dtype, shape, &Device::Cpu)?.to_dtype(DType::F32)?)
    }
}

/// Checks that every tensor of a file ends within it.
fn check_ends(file: &Mapped) -> Result<(), ModelError> {
    #[derive(Deserialize)]
    struct Info {
        data_offsets: (u64, u64),
    }
    let damaged = |what: String| ModelError::Damaged { path: file.path().to_owned(), what };
    let (length, rest) = file.split_at_checked(8).ok_or_else(|| damaged("it has no header".into()))?;
    let length = length.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte));
    let header = usize::try_from(length).ok().and_then(|length| rest.get(..length)).ok_or_else(|| {
        damaged(format!("its header takes {length} bytes, but the file has {} behind its length", rest.len()))
    })?;
    let data = (rest.len() - header.len()) as u64;
    let entries: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(header).map_err(|e| damaged(format!("its header: {e}")))?;
    for (name, info) in entries.into_iter().filter(|(name, _)| name != "__metadata__") {
        let Info { data_offsets: (start, end) } =
            serde_json::from_value(info).map_err(|e| damaged(format!("tensor `{name}`: {e}")))?;
        if start > end || end > data {
            let problem = TensorProblem::Truncated {
                found: data.saturating_sub(start),
                expected: end.saturating_sub(start),
            };
            return Err(ModelError::Tensor { name, path: file.path().to_owned(), problem });
        }
    }
    Ok(())
}
