//! The vectors of strings in an R package's data, which is a lazy-load database: `<stem>.rdx`, a gzipped index, and
//! `<stem>.rdb`, a zlib block per object. Both hold R's serialisation in its big-endian form.
//!
//! Only what such an index and such vectors consist of is read; anything else is an error that names it.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use flate2::read::{GzDecoder, ZlibDecoder};

use super::Result;

/// Far more than any text; what a damaged file might claim beyond it is not believed.
const MAX_BYTES: u64 = 1 << 28;

/// Every vector of strings of the database, by its name.
pub(super) fn strings(stem: &Path) -> Result<BTreeMap<String, Vec<String>>> {
    let (index, blocks) = (stem.with_extension("rdx"), stem.with_extension("rdb"));
    let read = |path: &Path| std::fs::read(path).map_err(|error| format!("`{}`: {error}", path.display()));
    let at = |path: &Path, error: Box<dyn std::error::Error>| format!("`{}`: {error}", path.display());
    let objects = objects(&read(&index)?).map_err(|error| at(&index, error))?;
    let bytes = read(&blocks)?;
    let mut found = BTreeMap::new();
    for (name, [offset, length]) in objects {
        let lines = block(&bytes, offset, length).map_err(|error| at(&blocks, error))?;
        found.insert(name, lines);
    }
    Ok(found)
}

/// Where the object of each name lies: (offset, length).
fn objects(compressed: &[u8]) -> Result<Vec<(String, [usize; 2])>> {
    let mut bytes = Vec::new();
    GzDecoder::new(compressed).take(MAX_BYTES).read_to_end(&mut bytes)?;
    let Value::List { items, names } = Reader::start(&bytes)?.value()? else {
        return Err("expected a list".into());
    };
    let member = |name: &str| names.iter().position(|it| it == name).and_then(|at| items.get(at));
    let Some(Value::List { items, names }) = member("variables") else {
        return Err("expected a list `variables`".into());
    };
    if !matches!(member("compressed"), Some(Value::Integers(how)) if how[..] == [1]) {
        return Err("expected objects compressed with zlib".into());
    }
    let place = |(name, value): (&String, &Value)| match value {
        Value::Integers(place) => match place[..] {
            [offset, length] => Ok((name.clone(), [usize::try_from(offset)?, usize::try_from(length)?])),
            _ => Err(format!("`{name}`: expected offset and length").into()),
        },
        _ => Err(format!("`{name}`: expected offset and length").into()),
    };
    names.iter().zip(items).map(place).collect()
}

/// One object: the length of its serialisation, which is what zlib makes of the rest.
fn block(blocks: &[u8], offset: usize, length: usize) -> Result<Vec<String>> {
    let end = offset.checked_add(length).ok_or("an offset beyond the file")?;
    let block = blocks.get(offset..end).ok_or("an offset beyond the file")?;
    let (size, compressed) = block.split_first_chunk::<4>().ok_or("a block without its size")?;
    let mut bytes = Vec::new();
    ZlibDecoder::new(compressed).take(MAX_BYTES).read_to_end(&mut bytes)?;
    if bytes.len() != u32::from_be_bytes(*size) as usize {
        return Err(
            format!("a block of {} bytes, expected {}", bytes.len(), u32::from_be_bytes(*size)).into()
        );
    }
    match Reader::start(&bytes)?.value()? {
        Value::Strings(lines) => Ok(lines),
        _ => Err("expected a vector of strings".into()),
    }
}

/// The R values that are read.
enum Value {
    Null,
    /// A symbol, or an element of a vector of strings.
    Text(String),
    Integers(Vec<i32>),
    Strings(Vec<String>),
    List {
        items: Vec<Value>,
        names: Vec<String>,
    },
    /// A linked list of tagged values: attributes.
    Pairs(Vec<(String, Value)>),
}

struct Reader<'a> {
    rest: &'a [u8],
    /// Symbols are written once and then referred to by number, from 1.
    symbols: Vec<String>,
    depth: usize,
}

impl<'a> Reader<'a> {
    /// Reads the header.
    fn start(bytes: &'a [u8]) -> Result<Self> {
        let rest = bytes.strip_prefix(b"X\n").ok_or("not R's big-endian serialisation")?;
        let mut reader = Self { rest, symbols: Vec::new(), depth: 0 };
        let [version, _writer, _oldest_reader] = [reader.integer()?, reader.integer()?, reader.integer()?];
        match version {
            2 => {}
            3 => {
                let encoding = reader.integer()?;
                reader.take(usize::try_from(encoding)?)?;
            }
            _ => return Err(format!("serialisation version {version}, expected 2 or 3").into()),
        }
        Ok(reader)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or("it ends in the middle of a value")?;
        self.rest = rest;
        Ok(taken)
    }

    fn integer(&mut self) -> Result<i32> {
        let bytes = self.take(4)?;
        Ok(i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// The length of a vector whose elements take at least four bytes each.
    fn length(&mut self) -> Result<usize> {
        let length = usize::try_from(self.integer()?)?;
        if length > self.rest.len() / 4 {
            Err("a vector that is longer than its file".into())
        } else {
            Ok(length)
        }
    }

    fn value(&mut self) -> Result<Value> {
        const ATTRIBUTES: u32 = 1 << 9;
        const TAG: u32 = 1 << 10;
        let flags = self.integer()?.cast_unsigned();
        self.depth += 1;
        if self.depth > 64 {
            return Err("values nested too deeply".into());
        }
        let value = match flags & 0xff {
            0xfe => Value::Null,
            0xff => {
                let number = if flags >> 8 == 0 { self.integer()?.cast_unsigned() } else { flags >> 8 };
                let symbol = (number as usize).checked_sub(1).and_then(|at| self.symbols.get(at));
                Value::Text(symbol.ok_or("a reference to nothing")?.clone())
            }
            1 => {
                let name = self.text()?;
                self.symbols.push(name.clone());
                Value::Text(name)
            }
            2 => {
                if flags & ATTRIBUTES != 0 {
                    self.value()?;
                }
                let tag = if flags & TAG != 0 { self.text()? } else { String::new() };
                let mut pairs = vec![(tag, self.value()?)];
                if let Value::Pairs(others) = self.value()? {
                    pairs.extend(others);
                }
                Value::Pairs(pairs)
            }
            9 => {
                let length = self.integer()?;
                // -1 is a missing string.
                let bytes = self.take(usize::try_from(length.max(0))?)?;
                Value::Text(str::from_utf8(bytes)?.to_owned())
            }
            // Integers and truth values.
            10 | 13 => {
                let length = self.length()?;
                Value::Integers((0..length).map(|_| self.integer()).collect::<Result<_>>()?)
            }
            16 => {
                let length = self.length()?;
                Value::Strings((0..length).map(|_| self.text()).collect::<Result<_>>()?)
            }
            19 => {
                let length = self.length()?;
                let items = (0..length).map(|_| self.value()).collect::<Result<_>>()?;
                Value::List { items, names: Vec::new() }
            }
            other => return Err(format!("a value of R's type {other}, which is not read").into()),
        };
        self.depth -= 1;
        if flags & ATTRIBUTES == 0 || flags & 0xff == 2 || flags & 0xff >= 0xfe {
            return Ok(value);
        }
        let Value::Pairs(attributes) = self.value()? else { return Err("expected attributes".into()) };
        let named = attributes.into_iter().find(|(tag, _)| tag == "names");
        Ok(match (value, named) {
            (Value::List { items, .. }, Some((_, Value::Strings(names)))) => Value::List { items, names },
            (value, _) => value,
        })
    }

    fn text(&mut self) -> Result<String> {
        match self.value()? {
            Value::Text(text) => Ok(text),
            _ => Err("expected a string".into()),
        }
    }
}
