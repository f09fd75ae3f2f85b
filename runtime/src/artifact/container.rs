//! The file: a safetensors container of U8 tensors, with the manifest in its metadata.
//!
//! The metadata's one key, [`METADATA_KEY`](super::METADATA_KEY), holds the JSON text
//! `{"sha256": ..., "manifest": {...}}`. The digest covers the manifest's text exactly as it stands there, so fields
//! that a reader does not know are covered too. Writing is deterministic: fields in the order of the types, maps and
//! tensors sorted by name, nothing of the machine or the time.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Range;

use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::OpenError;
use super::manifest::Manifest;
use crate::digest::Digest;

/// The value of the metadata key.
#[derive(Deserialize)]
pub(super) struct Envelope {
    /// The digest of `manifest`'s text.
    pub(super) sha256: Digest,
    /// The manifest's text.
    pub(super) manifest: Box<RawValue>,
}

/// As much of a safetensors header as the first check reads.
#[derive(Deserialize)]
struct Header {
    #[serde(rename = "__metadata__")]
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    moac: String,
}

impl Envelope {
    /// Reads the metadata and nothing else: the file may be of any version.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, OpenError> {
        let container = |reason: String| OpenError::Container { reason };
        let (length, rest) = bytes
            .split_first_chunk::<8>()
            .ok_or_else(|| container(format!("{} bytes are too few for a header", bytes.len())))?;
        let length = u64::from_le_bytes(*length);
        let header = usize::try_from(length)
            .ok()
            .and_then(|length| rest.get(..length))
            .ok_or_else(|| container(format!("a header of {length} bytes in a file of {}", bytes.len())))?;
        let header: Header =
            serde_json::from_slice(header).map_err(|error| container(format!("no moac header: {error}")))?;
        serde_json::from_str(&header.metadata.moac)
            .map_err(|error| container(format!("no moac metadata: {error}")))
    }
}

/// Where each tensor lies in `bytes`. The tensors follow one another and end with the file.
pub(super) fn tensors(bytes: &[u8]) -> Result<BTreeMap<String, Range<usize>>, OpenError> {
    let (header, table) = SafeTensors::read_metadata(bytes)
        .map_err(|error| OpenError::Bounds { length: bytes.len(), reason: error.to_string() })?;
    let base = size_of::<u64>() + header;
    let mut ranges = BTreeMap::new();
    for name in table.offset_keys() {
        let Some(info) = table.info(&name) else { continue };
        if info.dtype != Dtype::U8 || info.shape.len() != 1 {
            let found = format!("{} {:?}", info.dtype, info.shape);
            return Err(OpenError::TensorType { tensor: name, found });
        }
        let (start, end) = info.data_offsets;
        ranges.insert(name, base + start..base + end);
    }
    Ok(ranges)
}

/// The bytes of an artifact. `manifest.tensors` is filled in here.
///
/// # Errors
/// If the header would be larger than a safetensors reader accepts (100 MB).
pub fn encode(mut manifest: Manifest, tensors: &BTreeMap<String, Vec<u8>>) -> io::Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Writing {
        sha256: Digest,
        manifest: Box<RawValue>,
    }
    manifest.tensors = tensors.iter().map(|(name, bytes)| (name.clone(), Digest::of(bytes))).collect();
    let manifest = serde_json::value::to_raw_value(&manifest)?;
    let sha256 = Digest::of(manifest.get().as_bytes());
    let envelope = serde_json::to_string(&Writing { sha256, manifest })?;
    let metadata = HashMap::from([(super::METADATA_KEY.to_owned(), envelope)]);
    let views = tensors
        .iter()
        .map(|(name, bytes)| Ok((name, TensorView::new(Dtype::U8, vec![bytes.len()], bytes)?)))
        .collect::<Result<Vec<_>, SafeTensorError>>()
        .map_err(io::Error::other)?;
    safetensors::serialize(views, Some(metadata)).map_err(io::Error::other)
}
