//! A tensor as it lies in a file, checked, and its elements row by row.

use std::path::Path;

use rayon::prelude::*;

use super::element::{Element, Sealed as _};
use super::encoding::{Encoding, READ};
use crate::ModelError;
use crate::error::TensorProblem;

/// Bytes of the elements that are handed on at a time: far more than a hand-over costs, far less than a model.
const PIECE: usize = 4 << 20;
/// Elements that are decoded at a time on the way to another type: whole blocks of every encoding.
const STEP: usize = 1024;
/// Elements that are worth a thread of their own.
const GRAIN: usize = 1 << 15;

/// A tensor whose bytes are all there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored<'a> {
    /// Its name in the file.
    name: &'a str,
    path: &'a Path,
    encoding: Encoding,
    bytes: &'a [u8],
    /// Elements of a row: the last dimension.
    width: usize,
}

/// A tensor's description in a file.
#[derive(Debug)]
pub(super) struct Description<'a> {
    pub(super) name: &'a str,
    /// The file that holds it.
    pub(super) path: &'a Path,
    /// Outermost first.
    pub(super) shape: &'a [u64],
    /// The element type, or its name if it is not supported.
    pub(super) encoding: Result<Encoding, String>,
    /// The bytes from the tensor's start, as far as the file goes.
    pub(super) bytes: &'a [u8],
}

/// The order in which rows are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// As they lie.
    Plain,
    /// Heads of so many rows, whose rotary pairs lie side by side and are read as two halves.
    Halves(usize),
}

impl Order {
    fn source(self, row: usize) -> usize {
        match self {
            Self::Plain => row,
            Self::Halves(dim) => {
                let (head, at) = (row / dim, row % dim);
                head * dim + 2 * (at % (dim / 2)) + at / (dim / 2)
            }
        }
    }
}

impl<'a> Description<'a> {
    /// The tensor, if it has the shape that a checked configuration asks for and all its bytes.
    pub(super) fn check(self, expected: &[usize]) -> Result<Stored<'a>, ModelError> {
        let problem =
            |problem| ModelError::Tensor { name: self.name.to_owned(), path: self.path.to_owned(), problem };
        if !self.shape.iter().copied().eq(expected.iter().map(|&d| d as u64)) {
            let found = self.shape.iter().map(|&d| usize::try_from(d).unwrap_or(usize::MAX)).collect();
            return Err(problem(TensorProblem::Shape { found, expected: expected.to_vec() }));
        }
        let encoding = self
            .encoding
            .as_ref()
            .map_err(|found| problem(TensorProblem::ElementType { found: found.clone(), expected: READ }))?;
        let width = expected.last().copied().unwrap_or(1);
        if !width.is_multiple_of(encoding.block()) {
            return Err(problem(TensorProblem::ElementType {
                found: format!("{encoding:?}, whose blocks of {} do not divide a row", encoding.block()),
                expected: "one whose blocks divide a row",
            }));
        }
        // The expected shape comes from a checked configuration, so this cannot overflow.
        let size = encoding.row_bytes(expected.iter().product());
        let Some(bytes) = self.bytes.get(..size) else {
            let (found, expected) = (self.bytes.len() as u64, size as u64);
            return Err(problem(TensorProblem::Truncated { found, expected }));
        };
        Ok(Stored { name: self.name, path: self.path, encoding: *encoding, bytes, width })
    }
}

impl Stored<'_> {
    /// Bytes that it takes in the file.
    pub(super) fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Whether two hold the same bytes of one type.
    pub(super) fn same(&self, other: &Self) -> bool {
        self.encoding == other.encoding && self.bytes == other.bytes
    }

    /// The error of a problem with it.
    pub(super) fn error(&self, problem: TensorProblem) -> ModelError {
        ModelError::Tensor { name: self.name.to_owned(), path: self.path.to_owned(), problem }
    }

    /// Hands on all elements in order, some whole rows at a time, each checked to be finite; with every piece the bytes
    /// of the file that it took.
    pub(super) fn stream<T: Element, E: From<ModelError>>(
        &self,
        order: Order,
        mut sink: impl FnMut(&[T], u64) -> Result<(), E>,
    ) -> Result<(), E> {
        // A file may hold a tensor without elements, and a configuration that is not checked yet ask for one.
        if self.bytes.is_empty() {
            return Ok(());
        }
        let row_bytes = self.encoding.row_bytes(self.width);
        let rows = self.bytes.len() / row_bytes;
        let at_once = (PIECE / (self.width * size_of::<T>())).clamp(1, rows);
        let mut piece = vec![T::default(); at_once * self.width];
        for start in (0..rows).step_by(at_once) {
            let count = at_once.min(rows - start);
            let piece = &mut piece[..count * self.width];
            let problem = piece
                .par_chunks_mut(self.width)
                .with_min_len(GRAIN.div_ceil(self.width))
                .enumerate()
                .map(|(row, out)| {
                    let from = order.source(start + row) * row_bytes;
                    decode(self.encoding, &self.bytes[from..from + row_bytes], out).err()
                })
                .find_map_first(|problem| problem);
            if let Some(problem) = problem {
                return Err(self.error(problem).into());
            }
            sink(piece, (count * row_bytes) as u64)?;
        }
        Ok(())
    }

    /// All elements as they lie.
    pub(super) fn read(&self) -> Result<Vec<f32>, ModelError> {
        let mut all = Vec::new();
        self.stream(Order::Plain, |piece: &[f32], _| {
            all.extend_from_slice(piece);
            Ok::<_, ModelError>(())
        })?;
        Ok(all)
    }
}

/// Decodes whole blocks. One infinity or NaN spreads over every token, so it is found here, where its tensor is known.
fn decode<T: Element>(encoding: Encoding, bytes: &[u8], out: &mut [T]) -> Result<(), TensorProblem> {
    if encoding == T::ENCODING {
        T::copy(bytes, out);
        return if T::finite(out) { Ok(()) } else { Err(TensorProblem::NotFinite) };
    }
    let mut buffer = [0.0; STEP];
    for (bytes, out) in bytes.chunks(encoding.row_bytes(STEP)).zip(out.chunks_mut(STEP)) {
        let values = &mut buffer[..out.len()];
        encoding.decode(bytes, values);
        if !f32::finite(values) {
            return Err(TensorProblem::NotFinite);
        }
        T::round(values, out);
        if !T::finite(out) {
            let largest = values.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            return Err(TensorProblem::TooLarge {
                found: format!("{largest:e}"),
                dtype: format!("{:?}", T::ENCODING),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_without_elements_is_empty() {
        let path = Path::new("m.gguf");
        let empty =
            Description { name: "t", path, shape: &[0], encoding: Ok(Encoding::Q4_K), bytes: &[1, 2] };
        assert_eq!(empty.check(&[0]).unwrap().read().unwrap(), Vec::<f32>::new());
    }
}
