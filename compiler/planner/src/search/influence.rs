//! Attention influence: what masking an attention value does to the loss, summed over 64 x 64 blocks, as a file.
//!
//! # The quantity
//! `E[i][j]` of a head is the first-order change of the loss, in nats, when the attention of query `i` to key `j` is
//! set to zero and the row is renormalised, averaged over the calibration items. The loss of a mask is the sum of `E`
//! over what it hides.
//!
//! The loss of a *window* is not a sum over keys beyond first order in single weights: the effect of hiding one key depends on
//! the other hidden keys. A file whose header says `windows` holds, for each window, an estimate of the loss of
//! hiding all of its keys at once (after a sink of 64 tokens), to first order or from squares, as differences between
//! one window and the next, so that the sums below give the loss of a window as well.
//!
//! # Half-blocks
//! A window is a whole number of 64-token tiles, but it moves token by token: its edge `i - j = window` cuts the
//! blocks on one block diagonal along their own diagonals. So each block `(a, b)`, queries `64a..64a+64` and keys
//! `64b..64b+64`, is stored as two sums, and the loss of every span is exact:
//! - the **far** half, where `i mod 64 >= j mod 64`: distances `i - j >= 64 (a - b)`;
//! - the **near** half, where `i mod 64 < j mod 64`: distances `i - j < 64 (a - b)`.
//!
//! The block's own sum is far + near. On the diagonal (`a = b`) the near half is above the causal mask and zero.
//!
//! # The file
//! A safetensors file. For each length N, a multiple of 64, two little-endian F32 tensors `far.N` and `near.N` of
//! shape `[layers, heads, N/64, N/64]`, query block before key block, zero where the key block is after the query
//! block; `near.N` is zero on the diagonal too. `__metadata__` has the single key `moac`, a JSON string of
//! [`InfluenceHeader`]. Layers and heads count from 0; heads are query heads.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use moac_runtime::file;
use moac_runtime::plan::{MAX_LENGTH, ModelShape, TILE};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

/// The `format` of influence files.
pub const INFLUENCE_FORMAT: &str = "moac.influence/1";

/// Errors of reading and merging influence files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InfluenceError {
    /// The file cannot be read or written.
    #[error("cannot read or write `{path}`: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The underlying error.
        source: std::io::Error,
    },
    /// Not a safetensors file, or a damaged one.
    #[error("`{path}` is not a complete safetensors file: {message}")]
    Container {
        /// The file.
        path: PathBuf,
        /// The error of the safetensors reader.
        message: String,
    },
    /// The header is missing, is not JSON or lacks a field.
    #[error(
        "`{path}` has no usable `moac` header: {message}; expected a `{INFLUENCE_FORMAT}` file, as `moac profile` writes it"
    )]
    Header {
        /// The file.
        path: PathBuf,
        /// The problem.
        message: String,
    },
    /// A tensor is missing, has the wrong type or shape, or holds something it must not.
    #[error("`{path}`: tensor `{tensor}`: {message}")]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Found and expected.
        message: String,
    },
    /// Files that cannot be used together.
    #[error("the influence files do not match: {message}")]
    Merge {
        /// Found and expected.
        message: String,
    },
}

/// How many items were averaged at one length.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LengthItems {
    /// The context length in tokens, a multiple of 64.
    pub length: u32,
    /// Calibration items, at least one.
    pub items: u32,
}

/// The header of an influence file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InfluenceHeader {
    /// Always [`INFLUENCE_FORMAT`].
    pub format: String,
    /// The profiled model.
    pub model: ModelShape,
    /// The lengths in the file, ascending.
    pub lengths: Vec<LengthItems>,
    /// The seed of the calibration items.
    pub seed: u64,
    /// Whether `|E|` was summed instead of the signed `E`.
    pub absolute: bool,
    /// Whether the sums are those of windows behind a sink of 64 tokens instead of those of single keys.
    #[serde(default)]
    pub windows: bool,
    /// Whether the loss is that of all query heads of a KV head at once, an equal share of it with each.
    #[serde(default)]
    pub joint: bool,
    /// The calibration data, for a plan's provenance. Carried, never interpreted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<serde_json::Value>,
}

/// The influence of all heads at one length.
#[derive(Clone, Debug, PartialEq)]
pub struct LengthInfluence {
    /// The context length in tokens, a multiple of 64.
    pub length: u32,
    /// Calibration items averaged.
    pub items: u32,
    /// `[layers][heads][blocks][blocks]`: the far halves.
    pub far: Vec<f32>,
    /// `[layers][heads][blocks][blocks]`: the near halves.
    pub near: Vec<f32>,
}

impl LengthInfluence {
    /// Zeros, to be filled by a profile.
    pub fn zeros(model: &ModelShape, length: u32, items: u32) -> Self {
        let size = (model.num_layers * model.num_heads) as usize * blocks(length) * blocks(length);
        Self { length, items, far: vec![0.0; size], near: vec![0.0; size] }
    }

    /// One head's blocks; `head` counts through all layers.
    pub fn head(&self, head: usize) -> HeadInfluence<'_> {
        let n = blocks(self.length);
        let range = head * n * n..(head + 1) * n * n;
        HeadInfluence { blocks: n, far: &self.far[range.clone()], near: &self.near[range] }
    }

    /// The loss of hiding everything but the first block and windows of one block, for all heads.
    pub fn most(&self) -> f64 {
        let heads = self.far.len() / blocks(self.length).pow(2);
        (0..heads).map(|head| self.head(head).losses(1)[1]).sum()
    }
}

/// 64-token blocks in `length` tokens.
fn blocks(length: u32) -> usize {
    (length / TILE) as usize
}

/// One head at one length: `[blocks][blocks]`, query block before key block.
#[derive(Clone, Copy, Debug)]
pub struct HeadInfluence<'a> {
    /// 64-token blocks of the context.
    pub blocks: usize,
    /// The far halves.
    pub far: &'a [f32],
    /// The near halves.
    pub near: &'a [f32],
}

impl HeadInfluence<'_> {
    /// The loss of hiding what a window of `w` tiles hides, for each `w` in `0..=blocks`: the keys from block
    /// `sink_blocks` on at a distance of at least `64 w`. Exact.
    pub fn losses(&self, sink_blocks: usize) -> Vec<f64> {
        let n = self.blocks;
        let (mut whole, mut far) = (vec![0.0; n + 1], vec![0.0; n + 1]);
        for query in sink_blocks..n {
            for key in sink_blocks..=query {
                let at = query * n + key;
                far[query - key] += f64::from(self.far[at]);
                whole[query - key] += f64::from(self.far[at]) + f64::from(self.near[at]);
            }
        }
        // A window of w tiles hides the whole blocks beyond block distance w, and the far halves at w.
        let mut beyond = 0.0;
        let mut losses = vec![0.0; n + 1];
        for window in (0..n).rev() {
            losses[window] = beyond + far[window];
            beyond += whole[window];
        }
        losses
    }
}

/// The influence of one model at several lengths.
#[derive(Clone, Debug, PartialEq)]
pub struct Influence {
    /// The profiled model.
    pub model: ModelShape,
    /// Ascending by length, at least one.
    pub lengths: Vec<LengthInfluence>,
    /// The seed of the calibration items.
    pub seed: u64,
    /// Whether `|E|` was summed instead of the signed `E`.
    pub absolute: bool,
    /// Whether the sums are those of windows behind a sink of 64 tokens instead of those of single keys.
    pub windows: bool,
    /// Whether the loss is that of all query heads of a KV head at once, an equal share of it with each: it says nothing
    /// of a query head alone.
    pub joint: bool,
    /// The calibration data, for a plan's provenance.
    pub data: Option<serde_json::Value>,
}

impl Influence {
    /// The header of this influence's file.
    pub fn header(&self) -> InfluenceHeader {
        InfluenceHeader {
            format: INFLUENCE_FORMAT.to_owned(),
            model: self.model.clone(),
            lengths: self
                .lengths
                .iter()
                .map(|at| LengthItems { length: at.length, items: at.items })
                .collect(),
            seed: self.seed,
            absolute: self.absolute,
            windows: self.windows,
            joint: self.joint,
            data: self.data.clone(),
        }
    }

    /// Writes the file: beside its place, synced, then renamed. The same influence gives the same bytes.
    pub fn write(&self, path: &Path) -> Result<(), InfluenceError> {
        let io = |source| InfluenceError::Io { path: path.to_owned(), source };
        let container = |error: safetensors::SafeTensorError| InfluenceError::Container {
            path: path.to_owned(),
            message: error.to_string(),
        };
        let header = serde_json::to_string(&self.header())
            .map_err(|error| InfluenceError::Header { path: path.to_owned(), message: error.to_string() })?;
        let bytes: Vec<(String, usize, Vec<u8>)> = self
            .lengths
            .iter()
            .flat_map(|at| [("far", at, &at.far), ("near", at, &at.near)])
            .map(|(half, at, values)| {
                let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                (format!("{half}.{}", at.length), blocks(at.length), bytes)
            })
            .collect();
        let mut tensors = Vec::new();
        for (name, n, bytes) in &bytes {
            let shape = vec![self.model.num_layers as usize, self.model.num_heads as usize, *n, *n];
            tensors.push((name.as_str(), TensorView::new(Dtype::F32, shape, bytes).map_err(container)?));
        }
        let metadata = HashMap::from([("moac".to_owned(), header)]);
        let file = safetensors::serialize(tensors, Some(metadata)).map_err(container)?;
        file::write(path, &file).map_err(io)
    }

    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self, InfluenceError> {
        let file =
            std::fs::read(path).map_err(|source| InfluenceError::Io { path: path.to_owned(), source })?;
        Self::parse(&file, path)
    }

    /// Parses the bytes of a file; `path` is for messages only.
    pub fn parse(file: &[u8], path: &Path) -> Result<Self, InfluenceError> {
        let container = |error: safetensors::SafeTensorError| InfluenceError::Container {
            path: path.to_owned(),
            message: error.to_string(),
        };
        let header_error = |message: String| InfluenceError::Header { path: path.to_owned(), message };
        let (_, metadata) = SafeTensors::read_metadata(file).map_err(container)?;
        let text = metadata.metadata().as_ref().and_then(|map| map.get("moac"));
        let text = text.ok_or_else(|| header_error("it is missing".to_owned()))?;
        let header: InfluenceHeader =
            serde_json::from_str(text).map_err(|error| header_error(error.to_string()))?;
        check_header(&header).map_err(header_error)?;
        let tensors = SafeTensors::deserialize(file).map_err(container)?;
        let mut lengths = Vec::new();
        for LengthItems { length, items } in &header.lengths {
            let half = |name: &str| -> Result<Vec<f32>, InfluenceError> {
                let tensor = format!("{name}.{length}");
                read_half(&tensors, &tensor, &header.model, *length, name == "near").map_err(|message| {
                    InfluenceError::Tensor { path: path.to_owned(), tensor: tensor.clone(), message }
                })
            };
            lengths.push(LengthInfluence {
                length: *length,
                items: *items,
                far: half("far")?,
                near: half("near")?,
            });
        }
        let InfluenceHeader { format: _, model, lengths: _, seed, absolute, windows, joint, data } = header;
        Ok(Self { model, lengths, seed, absolute, windows, joint, data })
    }

    /// Joins files of one model. A length that several hold is averaged, weighted by items.
    pub fn merge(parts: Vec<Self>) -> Result<Self, InfluenceError> {
        let merge = |message: String| InfluenceError::Merge { message };
        let mut parts = parts.into_iter();
        let mut first = parts.next().ok_or_else(|| merge("there are none".to_owned()))?;
        let mut by_length: BTreeMap<u32, LengthInfluence> =
            first.lengths.drain(..).map(|at| (at.length, at)).collect();
        let mut data: Vec<_> = first.data.take().into_iter().collect();
        for part in parts {
            if part.model != first.model {
                return Err(merge(format!("found the model {:?}, expected {:?}", part.model, first.model)));
            }
            let kind = |of: &Self| {
                format!("absolute = {}, windows = {}, joint = {}", of.absolute, of.windows, of.joint)
            };
            if kind(&part) != kind(&first) {
                return Err(merge(format!("found {}, expected {}", kind(&part), kind(&first))));
            }
            for at in part.lengths {
                match by_length.entry(at.length) {
                    std::collections::btree_map::Entry::Vacant(entry) => {
                        entry.insert(at);
                    }
                    std::collections::btree_map::Entry::Occupied(mut entry) => average(entry.get_mut(), &at),
                }
            }
            data.extend(part.data);
        }
        first.lengths = by_length.into_values().collect();
        first.data = match data.len() {
            0 => None,
            1 => data.pop(),
            _ => Some(serde_json::Value::Array(data)),
        };
        Ok(first)
    }
}

/// Averages `other` into `sum`, weighted by items.
fn average(sum: &mut LengthInfluence, other: &LengthInfluence) {
    let items = sum.items.saturating_add(other.items);
    let share = f64::from(other.items) / (f64::from(sum.items) + f64::from(other.items));
    let mix = |a: &mut Vec<f32>, b: &[f32]| {
        for (a, b) in a.iter_mut().zip(b) {
            *a = (f64::from(*a) * (1.0 - share) + f64::from(*b) * share) as f32;
        }
    };
    mix(&mut sum.far, &other.far);
    mix(&mut sum.near, &other.near);
    sum.items = items;
}

fn check_header(header: &InfluenceHeader) -> Result<(), String> {
    let InfluenceHeader { format, model, lengths, seed: _, absolute: _, windows: _, joint: _, data: _ } =
        header;
    if format != INFLUENCE_FORMAT {
        return Err(format!("found the format `{format}`, expected `{INFLUENCE_FORMAT}`"));
    }
    let (layers, heads, kv) = (model.num_layers, model.num_heads, model.num_kv_heads);
    if layers == 0 || heads == 0 || kv == 0 || !heads.is_multiple_of(kv) {
        return Err(format!(
            "found {layers} layers, {heads} heads and {kv} KV heads, expected at least one of each and heads that the KV heads divide"
        ));
    }
    if let Some(defect) = model.defect() {
        return Err(defect);
    }
    if lengths.is_empty() {
        return Err("found no lengths, expected at least one".to_owned());
    }
    for LengthItems { length, items } in lengths {
        if *length == 0 || !length.is_multiple_of(TILE) || *length > MAX_LENGTH {
            return Err(format!(
                "found the length {length}, expected a multiple of {TILE} up to {MAX_LENGTH}"
            ));
        }
        if *items == 0 {
            return Err(format!("found no items at length {length}, expected at least one"));
        }
    }
    if lengths.windows(2).any(|pair| pair[0].length >= pair[1].length) {
        let found: Vec<u32> = lengths.iter().map(|at| at.length).collect();
        return Err(format!("found the lengths {found:?}, expected ascending ones"));
    }
    Ok(())
}

fn read_half(
    tensors: &SafeTensors<'_>,
    name: &str,
    model: &ModelShape,
    length: u32,
    near: bool,
) -> Result<Vec<f32>, String> {
    let tensor = tensors.tensor(name).map_err(|_| "it is missing".to_owned())?;
    if tensor.dtype() != Dtype::F32 {
        return Err(format!("found the type {:?}, expected F32", tensor.dtype()));
    }
    let n = blocks(length);
    let shape = [model.num_layers as usize, model.num_heads as usize, n, n];
    if tensor.shape() != shape {
        return Err(format!("found the shape {:?}, expected {shape:?}", tensor.shape()));
    }
    let values: Vec<f32> =
        tensor.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    for (at, &value) in values.iter().enumerate() {
        let (head, query, key) = (at / (n * n), at / n % n, at % n);
        let place = || format!("[{}][{}][{query}][{key}]", head / shape[1], head % shape[1]);
        if !value.is_finite() {
            return Err(format!("found {value} at {}, expected finite numbers", place()));
        }
        if value != 0.0 && (key > query || (near && key == query)) {
            return Err(format!("found {value} at {}, expected 0 above the causal mask", place()));
        }
    }
    Ok(values)
}
