//! Matrix products of cuBLASLt, where the machine has it.
//!
//! cudarc loads the library on its first call and panics where it is missing, so nothing calls it before [`present`] has
//! said that it is there. The library is looked for here, and not by cudarc's own test: that one is left out when another
//! crate of the program has cudarc link CUDA instead of loading it.

use std::ffi::c_void;
use std::sync::OnceLock;

use cudarc::cublaslt::result::{self as lt, CublasError};
use cudarc::cublaslt::sys as lt_sys;

use super::error::Doing;
use super::{Buffer, Device, GpuError, Stream};

/// The library's names, all of them among those that cudarc tries.
#[cfg(windows)]
const NAMES: [&str; 3] = ["cublasLt.dll", "cublasLt64_13.dll", "cublasLt64_12.dll"];
#[cfg(not(windows))]
const NAMES: [&str; 3] = ["libcublasLt.so", "libcublasLt.so.13", "libcublasLt.so.12"];

/// Whether the loader finds cuBLASLt.
pub fn present() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| NAMES.into_iter().any(loads))
}

fn loads(name: &str) -> bool {
    // SAFETY: loading a library runs its initialisers. Under these names it is NVIDIA's, or whatever the machine's owner
    // put in its place.
    let library = unsafe { libloading::Library::new(name) };
    // cudarc opens it again: unloading it in between would only cost time.
    library.map(std::mem::forget).is_ok()
}

/// A square product of bf16 matrices, accumulated in f32, as cuBLASLt does it.
#[derive(Debug)]
pub struct MatrixProduct {
    device: Device,
    library: Library,
    size: u64,
    algorithm: lt_sys::cublasLtMatmulAlgo_t,
    operands: [Buffer; 3],
    workspace: Buffer,
}

/// cuBLASLt's handle and descriptions, destroyed when dropped.
#[derive(Debug)]
struct Library {
    handle: lt_sys::cublasLtHandle_t,
    product: lt_sys::cublasLtMatmulDesc_t,
    matrix: lt_sys::cublasLtMatrixLayout_t,
}

impl MatrixProduct {
    /// Bytes of scratch, as NVIDIA advises for Hopper.
    const WORKSPACE: u64 = 32 << 20;

    /// A product of two `size` x `size` matrices; `None` where the loader finds no cuBLASLt. `fill` puts values into
    /// the operands.
    ///
    /// # Errors
    /// [`GpuError::Library`], [`GpuError::OutOfMemory`], what the driver says, or what `fill` does.
    pub fn new(
        device: &Device,
        size: u64,
        mut fill: impl FnMut(&mut Buffer) -> Result<(), GpuError>,
    ) -> Result<Option<Self>, GpuError> {
        if !present() {
            return Ok(None);
        }
        device.context().bind_to_thread().doing("use the device")?;
        let library = Library::new(size)?;
        let mut buffer = |what: &str| -> Result<Buffer, GpuError> {
            let mut buffer = device.alloc(size * size * 2, what)?;
            fill(&mut buffer)?;
            Ok(buffer)
        };
        let operands = [buffer("matrix A")?, buffer("matrix B")?, buffer("matrix C")?];
        let workspace = device.alloc(Self::WORKSPACE, "the product's scratch")?;
        let algorithm = library.algorithm(Self::WORKSPACE as usize)?;
        Ok(Some(Self { device: device.clone(), library, size, algorithm, operands, workspace }))
    }

    /// Floating-point operations of one product.
    pub fn flops(&self) -> u64 {
        2 * self.size.pow(3)
    }

    /// Gives one product to `stream`.
    ///
    /// # Errors
    /// [`GpuError::Library`].
    pub fn run(&self, stream: &Stream) -> Result<(), GpuError> {
        stream.bind(&self.device)?;
        let (one, zero) = (1.0_f32, 0.0_f32);
        let [a, b, c] = self.operands.each_ref().map(|buffer| buffer.address() as *mut c_void);
        let Library { handle, product, matrix } = self.library;
        // SAFETY: the handle and descriptions live in `self`; the three matrices and the scratch are of the described
        // sizes and live until the device is done, since freeing them waits; alpha and beta are host f32, read before
        // the call returns.
        unsafe {
            lt::matmul(
                handle,
                product,
                (&raw const one).cast(),
                (&raw const zero).cast(),
                a,
                matrix,
                b,
                matrix,
                c,
                matrix,
                c,
                matrix,
                &raw const self.algorithm,
                self.workspace.address() as *mut c_void,
                Self::WORKSPACE as usize,
                stream.raw().cast(),
            )
        }
        .refused("multiply matrices")
    }
}

impl Library {
    fn new(size: u64) -> Result<Self, GpuError> {
        let handle = lt::create_handle().refused("start")?;
        let mut library = Self { handle, product: std::ptr::null_mut(), matrix: std::ptr::null_mut() };
        let scale = lt_sys::cudaDataType::CUDA_R_32F;
        library.product = lt::create_matmul_desc(lt_sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, scale)
            .refused("describe a product")?;
        let transposed = 1_i32;
        // SAFETY: the description was just made, and the attribute is a 4-byte enum whose value 1 is `T`.
        unsafe {
            lt::set_matmul_desc_attribute(
                library.product,
                lt_sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA,
                (&raw const transposed).cast(),
                size_of::<i32>(),
            )
        }
        .refused("describe a product")?;
        let element = lt_sys::cudaDataType::CUDA_R_16BF;
        library.matrix =
            lt::create_matrix_layout(element, size, size, size as i64).refused("describe a matrix")?;
        Ok(library)
    }

    fn algorithm(&self, workspace: usize) -> Result<lt_sys::cublasLtMatmulAlgo_t, GpuError> {
        let preference = lt::create_matmul_pref().refused("choose an algorithm")?;
        let Self { handle, product, matrix } = *self;
        // SAFETY: the preference was just made and is destroyed once, below; the attribute is a `size_t`; the handle
        // and descriptions live in `self`.
        let found = unsafe {
            lt::set_matmul_pref_attribute(
                preference,
                lt_sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                (&raw const workspace).cast(),
                size_of::<usize>(),
            )
            .and_then(|()| {
                lt::get_matmul_algo_heuristic(handle, product, matrix, matrix, matrix, matrix, preference)
            })
        };
        // SAFETY: as above.
        unsafe { lt::destroy_matmul_pref(preference) }.refused("choose an algorithm")?;
        Ok(found.refused("choose an algorithm")?.algo)
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: what is not null was made by `new` and is destroyed once. A library in error is past caring.
        unsafe {
            if !self.matrix.is_null() {
                let _ = lt::destroy_matrix_layout(self.matrix);
            }
            if !self.product.is_null() {
                let _ = lt::destroy_matmul_desc(self.product);
            }
            let _ = lt::destroy_handle(self.handle);
        }
    }
}

trait Refused<T> {
    fn refused(self, what: &'static str) -> Result<T, GpuError>;
}

impl<T> Refused<T> for Result<T, CublasError> {
    fn refused(self, what: &'static str) -> Result<T, GpuError> {
        self.map_err(|error| GpuError::Library { library: "cuBLASLt", what, reason: error.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::loads;

    #[test]
    fn a_library_that_is_not_there_is_not_found() {
        assert!(!loads("libcublasLt-that-is-not-there.so"));
        #[cfg(target_os = "linux")]
        assert!(loads("libm.so.6"));
    }
}
