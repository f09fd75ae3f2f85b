//! The GGUF container: a header of typed metadata and tensor descriptions, then aligned tensor data.
//!
//! The file is untrusted. The header is walked once, and what is kept of it is bounded by [`MAX_ENTRIES`] names and
//! ranges into the map, whatever lengths it claims; values are decoded when they are asked for. candle's own reader
//! is not used, because it divides by the file's alignment and multiplies its dimensions unchecked.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{Device, Tensor};

use super::mmap::Mapped;
use crate::ModelError;
use crate::error::TensorProblem;

/// The most metadata keys, and the most tensors, of a file that is read. Real files have some hundreds.
const MAX_ENTRIES: u64 = 1 << 16;
/// Arrays of arrays deeper than this are refused. Real files have none.
const MAX_DEPTH: u32 = 4;
const DEFAULT_ALIGNMENT: u64 = 32;

/// A GGUF file, version 2 or 3, little-endian.
#[derive(Debug)]
pub struct Gguf {
    file: Mapped,
    metadata: BTreeMap<String, Value>,
    tensors: BTreeMap<String, TensorInfo>,
    /// Where tensor data starts.
    data: u64,
}

/// A metadata value: its type and where its bytes are.
#[derive(Clone, Debug)]
struct Value {
    kind: Kind,
    bytes: Range<usize>,
}

/// The types of metadata values, by their number in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

#[derive(Clone, Debug)]
struct TensorInfo {
    /// Outermost first, as candle has it; the file has it the other way round.
    shape: Vec<u64>,
    /// The number of the element type.
    kind: u32,
    /// From the start of tensor data.
    offset: u64,
}

impl Gguf {
    /// Whether the bytes start as a GGUF file does.
    pub fn is_gguf(start: &[u8]) -> bool {
        start.starts_with(b"GGUF")
    }

    /// Opens a file and checks its header; tensors are checked when they are read.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let file = Mapped::open(path)?;
        let damaged = |what| ModelError::Damaged { path: path.to_owned(), what };
        let header = Header::read(&file).map_err(damaged)?;
        Ok(Self { metadata: header.metadata, tensors: header.tensors, data: header.data, file })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Whether a key is there.
    pub fn has(&self, key: &str) -> bool {
        self.metadata.contains_key(key)
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
        self.get(key, "a number", |kind, bytes| match kind {
            Kind::F32 => Some(f64::from(f32::from_le_bytes(bytes.try_into().ok()?))),
            Kind::F64 => Some(f64::from_le_bytes(bytes.try_into().ok()?)),
            _ => integer(kind, bytes).map(|i| i as f64),
        })
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
        self.get(key, "a list of integers", |kind, bytes| {
            let (kind, count, bytes) = array(kind, bytes)?;
            if count == 0 {
                return Some(Vec::new());
            }
            bytes.chunks(kind.size()?).map(|bytes| integer(kind, bytes)).collect()
        })
    }

    fn get<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        decode: impl FnOnce(Kind, &'a [u8]) -> Option<T>,
    ) -> Result<Option<T>, ModelError> {
        let Some(value) = self.metadata.get(key) else { return Ok(None) };
        match decode(value.kind, &self.file[value.bytes.clone()]) {
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

    /// A tensor of the given shape, dequantised to float32.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, ModelError> {
        let problem =
            |problem| ModelError::Tensor { name: name.to_owned(), path: self.path().to_owned(), problem };
        let info = self
            .tensors
            .get(name)
            .ok_or_else(|| problem(TensorProblem::Missing { expected: shape.to_vec() }))?;
        if !info.shape.iter().copied().eq(shape.iter().map(|&d| d as u64)) {
            let found = info.shape.iter().map(|&d| usize::try_from(d).unwrap_or(usize::MAX)).collect();
            return Err(problem(TensorProblem::Shape { found, expected: shape.to_vec() }));
        }
        let Some(dtype) = element_type(info.kind) else {
            return Err(problem(TensorProblem::ElementType {
                found: format!("number {}", info.kind),
                expected: "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K to Q6_K",
            }));
        };
        // The expected shape comes from a checked configuration, so this cannot overflow.
        let elements = shape.iter().product::<usize>();
        if !shape.last().is_some_and(|row| row.is_multiple_of(dtype.block_size())) {
            return Err(problem(TensorProblem::ElementType {
                found: format!("{dtype:?}, whose blocks of {} do not divide a row", dtype.block_size()),
                expected: "one whose blocks divide a row",
            }));
        }
        let expected = (elements / dtype.block_size() * dtype.type_size()) as u64;
        let start = self.data.saturating_add(info.offset).min(self.file.len() as u64);
        let found = (self.file.len() as u64 - start).min(expected);
        if found < expected {
            return Err(problem(TensorProblem::Truncated { found, expected }));
        }
        let bytes = &self.file[start as usize..(start + expected) as usize];
        let tensor = QTensor::new(QStorage::from_data(bytes.into(), &Device::Cpu, dtype)?, shape)?
            .dequantize(&Device::Cpu)?;
        Ok(tensor)
    }
}

/// The element types that candle dequantises.
fn element_type(number: u32) -> Option<GgmlDType> {
    Some(match number {
        0 => GgmlDType::F32,
        1 => GgmlDType::F16,
        2 => GgmlDType::Q4_0,
        3 => GgmlDType::Q4_1,
        6 => GgmlDType::Q5_0,
        7 => GgmlDType::Q5_1,
        8 => GgmlDType::Q8_0,
        10 => GgmlDType::Q2K,
        11 => GgmlDType::Q3K,
        12 => GgmlDType::Q4K,
        13 => GgmlDType::Q5K,
        14 => GgmlDType::Q6K,
        30 => GgmlDType::BF16,
        _ => return None,
    })
}

/// An integer of any width.
fn integer(kind: Kind, bytes: &[u8]) -> Option<i128> {
    let unsigned = bytes.iter().rev().fold(0u64, |value, &byte| value << 8 | u64::from(byte));
    let unused = 64 - 8 * bytes.len().min(8) as u32;
    match kind {
        Kind::U8 | Kind::U16 | Kind::U32 | Kind::U64 => Some(i128::from(unsigned)),
        Kind::I8 | Kind::I16 | Kind::I32 | Kind::I64 => {
            Some(i128::from((unsigned << unused) as i64 >> unused))
        }
        _ => None,
    }
}

/// The element type, length and elements of an array.
fn array(kind: Kind, bytes: &[u8]) -> Option<(Kind, u64, &[u8])> {
    let mut at = Cursor::new(bytes);
    if kind != Kind::Array {
        return None;
    }
    Some((at.kind().ok()?, at.u64().ok()?, &bytes[at.at..]))
}

impl Kind {
    fn from_number(number: u32) -> Option<Self> {
        use Kind::{Array, Bool, F32, F64, I8, I16, I32, I64, String, U8, U16, U32, U64};
        [U8, I8, U16, I16, U32, I32, F32, Bool, String, Array, U64, I64, F64].get(number as usize).copied()
    }

    /// Bytes of a value, if they are always as many.
    fn size(self) -> Option<usize> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::String | Self::Array => None,
        }
    }
}

/// What is kept of the header.
struct Header {
    metadata: BTreeMap<String, Value>,
    tensors: BTreeMap<String, TensorInfo>,
    data: u64,
}

impl Header {
    fn read(file: &[u8]) -> Result<Self, String> {
        let mut at = Cursor::new(file);
        if at.take(4)? != b"GGUF" {
            return Err("it does not start with `GGUF`".into());
        }
        let version = at.u32()?;
        if !(2..=3).contains(&version) {
            return Err(format!("its GGUF version is {version}, expected 2 or 3 in little-endian order"));
        }
        let (tensor_count, key_count) = (at.u64()?, at.u64()?);
        for (count, what) in [(tensor_count, "tensors"), (key_count, "metadata keys")] {
            if count > MAX_ENTRIES {
                return Err(format!("its header claims {count} {what}, expected at most {MAX_ENTRIES}"));
            }
        }
        let mut metadata = BTreeMap::new();
        for _ in 0..key_count {
            let key = at.text()?.to_owned();
            let kind = at.kind().map_err(|e| format!("metadata `{key}`: {e}"))?;
            let start = at.at;
            at.skip(kind, 0).map_err(|e| format!("metadata `{key}`: {e}"))?;
            let value = Value { kind, bytes: start..at.at };
            if metadata.insert(key.clone(), value).is_some() {
                return Err(format!("metadata `{key}` is there twice"));
            }
        }
        let mut tensors = BTreeMap::new();
        for _ in 0..tensor_count {
            let name = at.text()?.to_owned();
            let info = at.tensor().map_err(|e| format!("tensor `{name}`: {e}"))?;
            if tensors.insert(name.clone(), info).is_some() {
                return Err(format!("tensor `{name}` is there twice"));
            }
        }
        let alignment = match metadata.get("general.alignment") {
            None => DEFAULT_ALIGNMENT,
            Some(Value { kind: Kind::U32, bytes }) => {
                integer(Kind::U32, &file[bytes.clone()]).unwrap_or(0) as u64
            }
            Some(value) => {
                return Err(format!("`general.alignment` is of type {:?}, expected U32", value.kind));
            }
        };
        // A multiple of 8 also aligns every element type that is read in place.
        if alignment == 0 || !alignment.is_multiple_of(8) {
            return Err(format!("`general.alignment` is {alignment}, expected a multiple of 8"));
        }
        for (name, info) in &tensors {
            if !info.offset.is_multiple_of(alignment) {
                return Err(format!(
                    "tensor `{name}` is at offset {}, expected a multiple of {alignment}",
                    info.offset
                ));
            }
        }
        Ok(Self { metadata, tensors, data: (at.at as u64).next_multiple_of(alignment) })
    }
}

/// A place in the header. Every read is checked against the file's end.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], String> {
        let left = self.bytes.len() - self.at;
        let count = usize::try_from(count).ok().filter(|&count| count <= left).ok_or_else(|| {
            format!("{count} bytes at offset {} run past the end of the file, {left} are left", self.at)
        })?;
        let taken = &self.bytes[self.at..self.at + count];
        self.at += count;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut number = [0; N];
        number.copy_from_slice(self.take(N as u64)?);
        Ok(number)
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.number().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.number().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Result<&'a str, String> {
        let at = self.at;
        let length = self.u64()?;
        std::str::from_utf8(self.take(length)?).map_err(|_| format!("the text at offset {at} is not UTF-8"))
    }

    fn kind(&mut self) -> Result<Kind, String> {
        let number = self.u32()?;
        Kind::from_number(number).ok_or_else(|| format!("type number {number}, expected at most 12"))
    }

    fn skip(&mut self, kind: Kind, depth: u32) -> Result<(), String> {
        match kind {
            Kind::String => {
                let length = self.u64()?;
                self.take(length)?;
            }
            Kind::Array if depth == MAX_DEPTH => {
                return Err(format!("arrays nested deeper than {MAX_DEPTH}"));
            }
            Kind::Array => {
                let (kind, count) = (self.kind()?, self.u64()?);
                match kind.size() {
                    Some(size) => {
                        self.take(count.saturating_mul(size as u64))?;
                    }
                    // Every element takes at least eight bytes, so the end of the file ends the loop.
                    None => (0..count).try_for_each(|_| self.skip(kind, depth + 1))?,
                }
            }
            _ => {
                self.take(kind.size().unwrap_or(0) as u64)?;
            }
        }
        Ok(())
    }

    fn tensor(&mut self) -> Result<TensorInfo, String> {
        let rank = self.u32()?;
        if !(1..=4).contains(&rank) {
            return Err(format!("{rank} dimensions, expected 1 to 4"));
        }
        let mut shape = (0..rank).map(|_| self.u64()).collect::<Result<Vec<_>, _>>()?;
        shape.reverse();
        Ok(TensorInfo { shape, kind: self.u32()?, offset: self.u64()? })
    }
}
