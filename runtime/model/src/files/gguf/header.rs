//! The header of a GGUF file, walked once.
//!
//! The file is untrusted: every read is checked against its end, and what is kept is bounded by [`MAX_ENTRIES`] names and
//! ranges into the map, whatever lengths it claims.

use std::collections::BTreeMap;
use std::ops::Range;

/// The most metadata keys, and the most tensors, of a file that is read. Real files have some hundreds.
const MAX_ENTRIES: u64 = 1 << 16;
/// Arrays of arrays deeper than this are refused. Real files have none.
const MAX_DEPTH: u32 = 4;
const DEFAULT_ALIGNMENT: u64 = 32;

/// A metadata value: its type and where its bytes are.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub(super) kind: Kind,
    pub(super) bytes: Range<usize>,
}

/// The types of metadata values, by their number in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
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
pub(super) struct TensorInfo {
    /// Outermost first, as candle has it; the file has it the other way round.
    pub(super) shape: Vec<u64>,
    /// The number of the element type.
    pub(super) kind: u32,
    /// From the start of tensor data.
    pub(super) offset: u64,
}

/// The parts of the header that are kept.
pub(super) struct Header {
    pub(super) metadata: BTreeMap<String, Value>,
    pub(super) tensors: BTreeMap<String, TensorInfo>,
    /// Where tensor data starts.
    pub(super) data: u64,
}

impl Header {
    pub(super) fn read(file: &[u8]) -> Result<Self, String> {
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
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
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

    pub(super) fn text(&mut self) -> Result<&'a str, String> {
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

/// An integer of any width.
pub(super) fn integer(kind: Kind, bytes: &[u8]) -> Option<i128> {
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
pub(super) fn array(kind: Kind, bytes: &[u8]) -> Option<(Kind, u64, &[u8])> {
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
    pub(super) fn size(self) -> Option<usize> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::String | Self::Array => None,
        }
    }
}
