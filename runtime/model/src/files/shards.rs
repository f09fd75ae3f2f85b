//! The weights of a Hugging Face folder: one safetensors file, or shards and their index, memory-mapped.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::encoding::Encoding;
use super::json;
use super::mmap::Mapped;
use super::stored::{Description, Stored};
use crate::ModelError;
use crate::error::TensorProblem;

/// The most shards of a model that is read.
const MAX_SHARDS: usize = 4096;
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// The largest header of a file, as the format has it.
const MAX_HEADER: u64 = 100_000_000;
const ADAPTER: &str = "adapter_config.json";

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
    shape: Vec<u64>,
    /// Within the file.
    bytes: Range<usize>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Shards {
    /// Opens a folder: `model.safetensors`, or `model.safetensors.index.json` and its shards. Where both are there, the
    /// single file counts, as in transformers: an index beside it is left over from another save.
    pub fn open(folder: &Path) -> Result<Self, ModelError> {
        // Other programs would add the adapter's weights to those here.
        if folder.join(ADAPTER).exists() {
            return Err(ModelError::Unsupported { path: folder.join(ADAPTER), what: "an adapter".into() });
        }
        let mut shards = Self { folder: folder.to_owned(), files: Vec::new(), tensors: BTreeMap::new() };
        let index_path = folder.join(INDEX);
        if folder.join(SINGLE).exists() || !index_path.exists() {
            shards.add(Mapped::open(&folder.join(SINGLE)).map_err(|error| no_weights(folder, error))?)?;
            return Ok(shards);
        }
        let Index { weight_map } = json::read(&index_path)?;
        let mut names: Vec<&String> = weight_map.values().collect();
        names.sort();
        names.dedup();
        let damaged = |what| ModelError::Damaged { path: index_path.clone(), what };
        if names.len() > MAX_SHARDS {
            return Err(damaged(format!("{} shards, expected at most {MAX_SHARDS}", names.len())));
        }
        for name in names {
            // A shard is a file of the folder, nowhere else.
            if Path::new(name).file_name().is_none_or(|plain| plain != name.as_str()) {
                return Err(damaged(format!(
                    "the shard `{name}` is not the plain name of a file in the folder"
                )));
            }
            shards.add(Mapped::open(&folder.join(name))?)?;
        }
        // An index of another save would take a tensor from one file and its neighbour from another.
        for (tensor, file) in &weight_map {
            let found = shards.tensors.get(tensor).map(|place| shards.files[place.file].path());
            if found.and_then(Path::file_name).is_none_or(|found| found != file.as_str()) {
                let found = found.map_or("in no shard".into(), |found| format!("in `{}`", found.display()));
                return Err(damaged(format!(
                    "tensor `{tensor}` should be in `{file}` but is {found}: the index and the shards are of different saves"
                )));
            }
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
            let shape = info.shape.iter().map(|&d| d as u64).collect();
            let place = Place { file: self.files.len(), dtype: info.dtype, shape, bytes };
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

    /// Whether a tensor is there.
    pub fn has_tensor(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// A tensor of the given shape.
    pub(crate) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Stored<'_>, ModelError> {
        let Some((name, place)) = self.tensors.get_key_value(name) else {
            return Err(ModelError::Tensor {
                name: name.to_owned(),
                path: self.folder.clone(),
                problem: TensorProblem::Missing { expected: shape.to_vec() },
            });
        };
        let file = &self.files[place.file];
        let encoding = match place.dtype {
            Dtype::F64 => Ok(Encoding::F64),
            Dtype::F32 => Ok(Encoding::F32),
            Dtype::F16 => Ok(Encoding::F16),
            Dtype::BF16 => Ok(Encoding::BF16),
            other => Err(format!("{other:?}")),
        };
        let bytes = &file[place.bytes.clone()];
        Description { name, path: file.path(), shape: &place.shape, encoding, bytes }.check(shape)
    }
}

/// Says what a folder without safetensors has instead, where that is known.
fn no_weights(folder: &Path, error: ModelError) -> ModelError {
    let missing =
        matches!(&error, ModelError::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound);
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let mut names: Vec<String> = names.filter_map(|name| name.into_string().ok()).collect();
    names.sort();
    let ends = |ending: &str| names.iter().find(|name| name.ends_with(ending));
    let what = if !missing {
        return error;
    } else if let Some(shard) =
        names.iter().find(|name| name.contains("-of-") && name.ends_with(".safetensors"))
    {
        format!("`{shard}` is a shard, but `{INDEX}`, which lists all of them, is missing")
    } else if let Some(other) = ends(".bin").or_else(|| ends(".pt")).or_else(|| ends(".pth")) {
        format!("its weights are in `{other}`, which is not read: convert them to safetensors")
    } else {
        return error;
    };
    ModelError::Damaged { path: folder.to_owned(), what }
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
    if length > MAX_HEADER {
        return Err(damaged(format!("its header takes {length} bytes, expected at most {MAX_HEADER}")));
    }
    let data = (rest.len() - header.len()) as u64;
    // As text, so that memory is bounded by that of the header.
    let entries: BTreeMap<String, Box<RawValue>> =
        json::parse(header).map_err(|e| damaged(format!("its header: {e}")))?;
    for (name, info) in entries.into_iter().filter(|(name, _)| name != "__metadata__") {
        let Info { data_offsets: (start, end) } =
            serde_json::from_str(info.get()).map_err(|e| damaged(format!("tensor `{name}`: {e}")))?;
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
