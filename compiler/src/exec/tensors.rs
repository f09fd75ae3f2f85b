//! The tensors of `moac exec`: read from safetensors and checked, and written.

use std::path::{Path, PathBuf};

use moac_runtime::element::{from_bytes, to_bytes};
use moac_runtime::file;
use moac_runtime::plan::DType;
use ndarray::{Array3, Array4};
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensorError, SafeTensors};
use thiserror::Error;

/// Errors of reading the inputs and writing the outputs.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TensorError {
    /// The file cannot be read or written.
    #[error("cannot {action} `{}`: {source}", path.display())]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The underlying error.
        source: std::io::Error,
    },
    /// The file is not safetensors.
    #[error("`{}` is not a safetensors file: {source}", path.display())]
    Container {
        /// The file.
        path: PathBuf,
        /// The value found.
        source: SafeTensorError,
    },
    /// A tensor that is needed is not there.
    #[error("tensor `{tensor}` is missing; the file has {}", found.join(", "))]
    Missing {
        /// Its name.
        tensor: &'static str,
        /// The names there are.
        found: Vec<String>,
    },
    /// A tensor that means nothing here.
    #[error("unknown tensor `{found}`: expected q, k, v and optionally lengths")]
    Unknown {
        /// Its name.
        found: String,
    },
    /// A tensor of another type.
    #[error("tensor `{tensor}` is {found}, expected {expected}{}", if *castable { " (--cast converts it)" } else { "" })]
    Type {
        /// Its name.
        tensor: &'static str,
        /// Its type.
        found: String,
        /// The type that fits.
        expected: &'static str,
        /// Whether `--cast` would help.
        castable: bool,
    },
    /// A tensor of another shape.
    #[error("tensor `{tensor}` has shape {found:?}, expected {expected}")]
    Shape {
        /// Its name.
        tensor: &'static str,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that fits.
        expected: String,
    },
    /// A length that does not fit its row.
    #[error("lengths[{row}] is {found}, expected 0 to {most}, the tokens of q")]
    Length {
        /// The row.
        row: usize,
        /// The value.
        found: i32,
        /// Tokens of q.
        most: usize,
    },
    /// A value that is NaN or infinite.
    #[error("tensor `{tensor}`: element {at:?} is {found}, expected a finite number")]
    Value {
        /// Its name.
        tensor: &'static str,
        /// The element's index.
        at: [usize; 4],
        /// The value found.
        found: f32,
    },
}

/// The caller's tensors.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// `[rows, tokens, heads, head_dim]`
    pub q: Array4<f32>,
    /// `[rows, tokens, kv heads, head_dim]`
    pub k: Array4<f32>,
    /// `[rows, tokens, kv heads, head_dim]`
    pub v: Array4<f32>,
    /// Tokens of each row that count.
    pub lengths: Vec<u32>,
}

/// The shape and type that inputs must have.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// Element type.
    pub dtype: DType,
    /// Query heads.
    pub heads: usize,
    /// KV heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Whether tensors of another floating-point type are converted.
    pub cast: bool,
}

impl Inputs {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn read(path: &Path, expected: &Expected) -> Result<Self, TensorError> {
        let bytes = std::fs::read(path).map_err(|source| TensorError::File {
            action: "read",
            path: path.to_owned(),
            source,
        })?;
        let file = SafeTensors::deserialize(&bytes)
            .map_err(|source| TensorError::Container { path: path.to_owned(), source })?;
        if let Some(found) = file.names().into_iter().find(|name| !["q", "k", "v", "lengths"].contains(name))
        {
            return Err(TensorError::Unknown { found: found.to_owned() });
        }
        let Expected { heads, kv_heads, head_dim, .. } = *expected;
        let q = floats(&file, "q", expected, |shape| match *shape {
            [b, t, h, d] if b > 0 && t > 0 && h == heads && d == head_dim => Ok([b, t, h, d]),
            _ => Err(format!("[rows, tokens, {heads}, {head_dim}] with at least one row and token")),
        })?;
        let (rows, tokens, ..) = q.dim();
        let of_q = |shape: &[usize]| {
            let fits = [rows, tokens, kv_heads, head_dim];
            if shape == fits { Ok(fits) } else { Err(format!("{fits:?}, like q")) }
        };
        let (k, v) = (floats(&file, "k", expected, of_q)?, floats(&file, "v", expected, of_q)?);
        Ok(Self { lengths: lengths(&file, rows, tokens)?, q, k, v })
    }

    /// Some tokens of every row, packed: row 0's, then row 1's, and so on. `ranges` holds a range for each row.
    pub fn packed(&self, ranges: &[std::ops::Range<usize>]) -> [Array3<f32>; 3] {
        [&self.q, &self.k, &self.v].map(|tensor| {
            let (_, _, heads, dim) = tensor.dim();
            let tokens = ranges.iter().map(ExactSizeIterator::len).sum();
            let mut values = Vec::with_capacity(tokens * heads * dim);
            for (row, range) in tensor.outer_iter().zip(ranges) {
                range.clone().for_each(|token| values.extend(row.index_axis(ndarray::Axis(0), token)));
            }
            Array3::from_shape_vec((tokens, heads, dim), values).expect("every token has its heads")
        })
    }
}

fn find<'f>(file: &SafeTensors<'f>, tensor: &'static str) -> Result<TensorView<'f>, TensorError> {
    file.tensor(tensor).map_err(|_| {
        let mut found: Vec<String> = file.names().into_iter().map(str::to_owned).collect();
        found.sort();
        TensorError::Missing { tensor, found }
    })
}

/// A floating-point tensor whose shape `shape` takes.
fn floats(
    file: &SafeTensors<'_>,
    tensor: &'static str,
    expected: &Expected,
    shape: impl FnOnce(&[usize]) -> Result<[usize; 4], String>,
) -> Result<Array4<f32>, TensorError> {
    let found = find(file, tensor)?;
    let (own, name) = match expected.dtype {
        DType::Bf16 => (Dtype::BF16, "BF16"),
        DType::F16 => (Dtype::F16, "F16"),
    };
    let castable = matches!(found.dtype(), Dtype::BF16 | Dtype::F16 | Dtype::F32 | Dtype::F64);
    if found.dtype() != own && !(expected.cast && castable) {
        let castable = castable && !expected.cast;
        return Err(TensorError::Type {
            tensor,
            found: format!("{:?}", found.dtype()),
            expected: name,
            castable,
        });
    }
    let shape = shape(found.shape()).map_err(|expected| TensorError::Shape {
        tensor,
        found: found.shape().to_vec(),
        expected,
    })?;
    let values = match found.dtype() {
        Dtype::BF16 => from_bytes(DType::Bf16, found.data()),
        Dtype::F16 => from_bytes(DType::F16, found.data()),
        Dtype::F64 => found.data().as_chunks().0.iter().map(|&it| f64::from_le_bytes(it) as f32).collect(),
        _ => moac_runtime::element::f32_from_bytes(found.data()),
    };
    // What is converted is rounded to the artifact's type first, whatever computes with it.
    let values = from_bytes(expected.dtype, &to_bytes(expected.dtype, values));
    let values =
        Array4::from_shape_vec(shape, values).expect("a safetensors file has an element for each place");
    match values.indexed_iter().find(|(_, value)| !value.is_finite()) {
        Some(((b, t, h, d), &found)) => Err(TensorError::Value { tensor, at: [b, t, h, d], found }),
        None => Ok(values),
    }
}

fn lengths(file: &SafeTensors<'_>, rows: usize, tokens: usize) -> Result<Vec<u32>, TensorError> {
    let tensor = "lengths";
    if !file.names().contains(&tensor) {
        return Ok(vec![tokens as u32; rows]);
    }
    let found = find(file, tensor)?;
    if found.dtype() != Dtype::I32 {
        let found = format!("{:?}", found.dtype());
        return Err(TensorError::Type { tensor, found, expected: "I32", castable: false });
    }
    if found.shape() != [rows] {
        let expected = format!("[{rows}], a length for each row of q");
        return Err(TensorError::Shape { tensor, found: found.shape().to_vec(), expected });
    }
    let values = found.data().as_chunks().0.iter().map(|&it| i32::from_le_bytes(it));
    let check = |(row, found): (usize, i32)| match u32::try_from(found) {
        Ok(length) if length as usize <= tokens => Ok(length),
        _ => Err(TensorError::Length { row, found, most: tokens }),
    };
    values.enumerate().map(check).collect()
}

/// The outputs.
#[derive(Clone, Debug)]
pub struct Results {
    /// `[rows, tokens, heads, head_dim]`, 0 beyond a row's length.
    pub o: Array4<f32>,
    /// `[rows, heads, tokens]`, 0 beyond a row's length.
    pub lse: Array3<f32>,
}

impl Results {
    /// Writes `o`, in `dtype` or in f32, and `lse`; the file is whole or not there.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path, dtype: Option<DType>) -> Result<(), TensorError> {
        let singles = |values: &mut dyn Iterator<Item = f32>| -> Vec<u8> {
            values.flat_map(f32::to_le_bytes).collect()
        };
        let (o_type, o) = match dtype {
            Some(dtype) => {
                let o_type = if dtype == DType::Bf16 { Dtype::BF16 } else { Dtype::F16 };
                (o_type, to_bytes(dtype, self.o.iter().copied()))
            }
            None => (Dtype::F32, singles(&mut self.o.iter().copied())),
        };
        let lse = singles(&mut self.lse.iter().copied());
        let file = |source| TensorError::File { action: "write", path: path.to_owned(), source };
        let refused = |source: SafeTensorError| file(std::io::Error::other(source));
        let views = [
            ("lse", TensorView::new(Dtype::F32, self.lse.shape().to_vec(), &lse).map_err(refused)?),
            ("o", TensorView::new(o_type, self.o.shape().to_vec(), &o).map_err(refused)?),
        ];
        let bytes = safetensors::serialize(views, None).map_err(refused)?;
        file::write(path, &bytes).map_err(file)
    }
}
