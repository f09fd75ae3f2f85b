//! The measured ceilings of the device: reading memory, and multiplying matrices.

use moac_runtime::arch::Arch;
use moac_runtime::gpu::blas::{Product, Products, ResultType};
use moac_runtime::gpu::ceiling::{READ_SOURCE, READ_SYMBOL, ReadPass};
use moac_runtime::gpu::{Buffer, Device, GpuError, Stream};
use moac_runtime::plan::DType;
use serde::Serialize;

use super::time::{median_ms, random};
use crate::nvrtc::{Allowance, Nvrtc, Source};

/// Bytes that the read pass reads: far more than any cache.
const READ_BYTES: u64 = 2 << 30;
/// Rows and columns of the matrices.
const MATRIX: u32 = 8192;

/// The ceilings of a run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Ceilings {
    /// GB/s of a pass that only reads; `None` where it could not be measured.
    pub read_gb_per_s: Option<f64>,
    /// TFLOP/s of a bf16 matrix product of 8192 x 8192 x 8192; `None` where it could not be measured.
    pub matrix_tflop_per_s: Option<f64>,
    /// The reason.
    pub unknown: Vec<String>,
}

impl Ceilings {
    /// Measures both. What cannot be measured is said in [`unknown`](Self::unknown), and no error.
    pub fn measure(device: &Device, stream: &Stream, arch: Arch) -> Self {
        let mut ceilings = Self::default();
        match read(device, stream, arch) {
            Ok(rate) => ceilings.read_gb_per_s = Some(rate),
            Err(why) => ceilings.unknown.push(format!("the read ceiling is unknown: {why}")),
        }
        match matrix(device, stream) {
            Ok(Some(rate)) => ceilings.matrix_tflop_per_s = Some(rate),
            Ok(None) => ceilings.unknown.push(
                "the matrix ceiling is unknown: the loader finds no libcublasLt; name its folder in LD_LIBRARY_PATH"
                    .to_owned(),
            ),
            Err(why) => ceilings.unknown.push(format!("the matrix ceiling is unknown: {why}")),
        }
        ceilings
    }
}

fn read(device: &Device, stream: &Stream, arch: Arch) -> Result<f64, String> {
    let nvrtc = Nvrtc::find().map_err(|error| error.to_string())?;
    let source = Source {
        symbol: READ_SYMBOL.to_owned(),
        text: READ_SOURCE.to_owned(),
        headers: Vec::new(),
        arch,
        allowance: Allowance::default(),
    };
    let compiled = nvrtc.compile(&source).map_err(|error| error.to_string())?;
    let measured = || -> Result<f64, GpuError> {
        let pass = ReadPass::load(device, compiled.cubin)?;
        let mut data = device.alloc(READ_BYTES, "the read ceiling")?;
        random(&mut data, stream, DType::Bf16, 0)?;
        let ms = median_ms(device, stream, || Ok(()), || pass.read(stream, &data))?;
        Ok(READ_BYTES as f64 / ms / 1e6)
    };
    measured().map_err(|error| error.to_string())
}

fn matrix(device: &Device, stream: &Stream) -> Result<Option<f64>, GpuError> {
    let Some(mut products) = Products::new(device, None)? else { return Ok(None) };
    let (rows, out, inner) = (MATRIX, MATRIX, MATRIX);
    let (dtype, result) = (DType::Bf16, ResultType::Elements);
    let product = Product { rows, out, inner, dtype, result, add: false };
    let mut seed = 0;
    let mut matrix = |bytes| -> Result<Buffer, GpuError> {
        let mut buffer = device.alloc(bytes, "the matrix ceiling")?;
        seed += 1;
        random(&mut buffer, stream, dtype, seed)?;
        Ok(buffer)
    };
    let [x, w, y] = product.bytes();
    let (x, w, mut y) = (matrix(x)?, matrix(w)?, matrix(y)?);
    let ms = median_ms(device, stream, || Ok(()), || products.run(stream, &product, &x, &w, &mut y))?;
    Ok(Some(product.flops() as f64 / ms / 1e9))
}
