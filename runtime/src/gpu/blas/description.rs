//! cuBLASLt's handle and its descriptions of one product: made, asked for algorithms, destroyed.
//!
//! The library is column-major, so `y[rows, out] = x[rows, inner] w[out, inner]^T` is, for it, the `out x rows` matrix Y =
//! W^T X of the `inner x out` matrix W and the `inner x rows` matrix X: no copy is transposed.

use std::ffi::c_void;

use cudarc::cublaslt::result as lt;
use cudarc::cublaslt::sys::{
    self, cublasLtMatmulAlgo_t as Algorithm, cublasLtMatmulPreferenceAttributes_t as Preference,
};

use super::{Product, Refused, ResultType};
use crate::gpu::GpuError;
use crate::plan::DType;

/// Split sums are added up in float32 and in order, never in the elements' type nor as they arrive.
const REDUCTIONS: u32 = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;

/// The library, started on the device that is the thread's when it is made.
#[derive(Debug)]
pub(super) struct Handle(sys::cublasLtHandle_t);

// SAFETY: NVIDIA documents that a handle may be used by any number of threads.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Handle {
    pub(super) fn new() -> Result<Self, GpuError> {
        lt::create_handle().refused("start").map(Self)
    }

    /// The library's version, as a number.
    pub(super) fn version() -> usize {
        // SAFETY: the call takes nothing and has no precondition but that the library is there, which a handle shows.
        unsafe { sys::cublasLtGetVersion() }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the handle was made by `new` and is destroyed once. A library in error is past caring.
        let _ = unsafe { lt::destroy_handle(self.0) };
    }
}

/// The operands' addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    pub(super) x: u64,
    pub(super) w: u64,
    pub(super) y: u64,
    pub(super) scratch: u64,
}

/// One product, described.
#[derive(Debug)]
pub(super) struct Description {
    product: sys::cublasLtMatmulDesc_t,
    x: sys::cublasLtMatrixLayout_t,
    w: sys::cublasLtMatrixLayout_t,
    y: sys::cublasLtMatrixLayout_t,
    add: f32,
}

// SAFETY: the descriptions are plain memory of the library, owned, and only read once they are made.
unsafe impl Send for Description {}
// SAFETY: as above.
unsafe impl Sync for Description {}

impl Description {
    pub(super) fn new(of: &Product) -> Result<Self, GpuError> {
        let null = std::ptr::null_mut();
        let add = if of.add { 1.0 } else { 0.0 };
        let mut made = Self { product: null, x: null.cast(), w: null.cast(), y: null.cast(), add };
        let sums = sys::cudaDataType::CUDA_R_32F;
        made.product = lt::create_matmul_desc(sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, sums)
            .refused("describe a product")?;
        let transposed = 1_i32;
        // SAFETY: the description was just made, and the attribute is a 4-byte enum whose value 1 is `T`.
        unsafe {
            lt::set_matmul_desc_attribute(
                made.product,
                sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA,
                (&raw const transposed).cast(),
                size_of::<i32>(),
            )
        }
        .refused("describe a product")?;
        let element = match of.dtype {
            DType::Bf16 => sys::cudaDataType::CUDA_R_16BF,
            DType::F16 => sys::cudaDataType::CUDA_R_16F,
        };
        let result = match of.result {
            ResultType::Elements => element,
            ResultType::F32 => sums,
        };
        let [rows, out, inner] = [of.rows, of.out, of.inner].map(u64::from);
        let matrix = |element, height: u64, width| {
            lt::create_matrix_layout(element, height, width, height as i64).refused("describe a matrix")
        };
        made.w = matrix(element, inner, out)?;
        made.x = matrix(element, inner, rows)?;
        made.y = matrix(result, out, rows)?;
        Ok(made)
    }

    /// The library's best guesses, at most `most` of them, best first; none that takes more than `scratch` bytes.
    pub(super) fn guesses(
        &self,
        handle: &Handle,
        scratch: usize,
        most: usize,
    ) -> Result<Vec<Algorithm>, GpuError> {
        let preference = lt::create_matmul_pref().refused("choose an algorithm")?;
        let mut found = vec![empty(); most];
        let mut count = 0_i32;
        let set = |attribute, value: *const c_void, bytes| {
            // SAFETY: the preference was just made and is destroyed once, below; the callers pass the attribute's type.
            unsafe { lt::set_matmul_pref_attribute(preference, attribute, value, bytes) }
        };
        let asked = set(
            Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
            (&raw const scratch).cast(),
            size_of::<usize>(),
        )
        .and_then(|()| {
            let schemes = REDUCTIONS;
            let mask = (&raw const schemes).cast();
            set(Preference::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, mask, size_of::<u32>())
        })
        .and_then(|()| {
            // SAFETY: the handle, the descriptions and the preference live; the array has room for `most` results.
            unsafe {
                sys::cublasLtMatmulAlgoGetHeuristic(
                    handle.0,
                    self.product,
                    self.w,
                    self.x,
                    self.y,
                    self.y,
                    preference,
                    most as i32,
                    found.as_mut_ptr(),
                    &raw mut count,
                )
            }
            .result()
        });
        // SAFETY: as above.
        unsafe { lt::destroy_matmul_pref(preference) }.refused("choose an algorithm")?;
        asked.refused("choose an algorithm")?;
        found.truncate(count.max(0) as usize);
        Ok(found.iter().filter(|guess| guess.state.result().is_ok()).map(|guess| guess.algo).collect())
    }

    /// Whether an algorithm, wherever it comes from, computes this product in no more than `scratch` bytes.
    pub(super) fn takes(&self, handle: &Handle, algorithm: &Algorithm, scratch: usize) -> bool {
        let mut result = empty();
        // SAFETY: the handle and the descriptions live; the algorithm is read and checked, the result written.
        let checked = unsafe {
            sys::cublasLtMatmulAlgoCheck(
                handle.0,
                self.product,
                self.w,
                self.x,
                self.y,
                self.y,
                algorithm,
                &raw mut result,
            )
        };
        checked.result().is_ok() && result.workspaceSize <= scratch
    }

    /// Gives the product to a stream.
    ///
    /// # Safety
    /// The addresses must be device memory of the described sizes, and `scratch_bytes` of scratch, for as long as the work
    /// takes; `algorithm` one of this product's; `stream` a stream of the handle's device.
    pub(super) unsafe fn run(
        &self,
        handle: &Handle,
        algorithm: &Algorithm,
        addresses: Addresses,
        scratch_bytes: usize,
        stream: sys::cudaStream_t,
    ) -> Result<(), GpuError> {
        let one = 1.0_f32;
        let Addresses { x, w, y, scratch } = addresses;
        let pointer = |address: u64| address as *mut c_void;
        // SAFETY: by the caller's promise; alpha and beta are host f32, read before the call returns.
        unsafe {
            lt::matmul(
                handle.0,
                self.product,
                (&raw const one).cast(),
                (&raw const self.add).cast(),
                pointer(w),
                self.w,
                pointer(x),
                self.x,
                pointer(y),
                self.y,
                pointer(y),
                self.y,
                algorithm,
                pointer(scratch),
                scratch_bytes,
                stream,
            )
        }
        .refused("multiply matrices")
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        for matrix in [self.x, self.w, self.y] {
            if !matrix.is_null() {
                // SAFETY: what is not null was made by `new` and is destroyed once.
                let _ = unsafe { lt::destroy_matrix_layout(matrix) };
            }
        }
        if !self.product.is_null() {
            // SAFETY: as above.
            let _ = unsafe { lt::destroy_matmul_desc(self.product) };
        }
    }
}

fn empty() -> sys::cublasLtMatmulHeuristicResult_t {
    sys::cublasLtMatmulHeuristicResult_t {
        algo: Algorithm { data: [0; 8] },
        workspaceSize: 0,
        state: sys::cublasStatus_t::CUBLAS_STATUS_NOT_INITIALIZED,
        wavesCount: 0.0,
        reserved: [0; 4],
    }
}
