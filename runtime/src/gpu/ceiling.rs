//! What a device can do at best, to hold kernels against: a pass that only reads memory, and a large matrix product.
//!
//! Both only launch; the caller times them with events, in the same run as what it compares with them. The read pass
//! is compiled by the caller from [`READ_SOURCE`]; the product is cuBLASLt's, where the loader finds it.

use std::ffi::c_void;

use cudarc::cublaslt::result::{self as lt, CublasError};
use cudarc::cublaslt::sys as lt_sys;
use cudarc::driver::{CudaFunction, result};
use cudarc::nvrtc::Ptx;

use super::error::Doing;
use super::{Buffer, Device, GpuError, Stream};

/// The name of the read pass's function.
pub const READ_SYMBOL: &str = "moac_read_pass";

/// CUDA source of the read pass: it reads every 16 bytes once and writes nothing, unless all of them cancel out.
pub const READ_SOURCE: &str = r#"
extern "C" __global__ void __launch_bounds__(512)
moac_read_pass(const uint4* __restrict__ data, unsigned long long count, unsigned* sink) {
    const unsigned long long stride = (unsigned long long)gridDim.x * blockDim.x;
    unsigned long long at = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    unsigned sum = 0;
    for (; at + 7 * stride < count; at += 8 * stride) {
        uint4 part[8];
#pragma unroll
        for (int i = 0; i < 8; ++i) part[i] = __ldcs(data + at + i * stride);
#pragma unroll
        for (int i = 0; i < 8; ++i) sum += part[i].x ^ part[i].y ^ part[i].z ^ part[i].w;
    }
    for (; at < count; at += stride) {
        const uint4 part = __ldcs(data + at);
        sum += part.x ^ part.y ^ part.z ^ part.w;
    }
    if (sum == 0x9e3779b9u) atomicAdd(sink, 1u);
}
"#;

/// Threads of a CTA of the read pass, and CTAs for each multiprocessor.
const READ_SHAPE: (u32, u32) = (512, 4);

/// The read pass, loaded.
#[derive(Debug)]
pub struct ReadPass {
    device: Device,
    function: CudaFunction,
    sink: Buffer,
}

impl ReadPass {
    /// Loads the machine code of [`READ_SOURCE`]. As every cubin, it is trusted as much as the program that loads it.
    ///
    /// # Errors
    /// What the driver says.
    pub fn load(device: &Device, cubin: Vec<u8>) -> Result<Self, GpuError> {
        let module = device.context().load_module(Ptx::from_binary(cubin)).doing("load the read pass")?;
        let function = module.load_function(READ_SYMBOL).doing("load the read pass")?;
        let sink = device.alloc(16, "the read pass's result")?;
        Ok(Self { device: device.clone(), function, sink })
    }

    /// Reads all of `data` once but its last `bytes % 16` bytes.
    ///
    /// # Errors
    /// What the driver says.
    pub fn read(&self, stream: &Stream, data: &Buffer) -> Result<(), GpuError> {
        stream.bind(&self.device)?;
        stream.bind(data.device())?;
        let (mut address, mut count, mut sink) = (data.address(), data.bytes() / 16, self.sink.address());
        let (threads, per_sm) = READ_SHAPE;
        let mut params: [*mut c_void; 3] =
            [(&raw mut address).cast(), (&raw mut count).cast(), (&raw mut sink).cast()];
        // SAFETY: the parameters are those of `READ_SOURCE`: `count` 16-byte words that lie within `data`, and a
        // writable word. Buffers are 256-byte aligned, and freeing them waits for the device.
        unsafe {
            result::launch_kernel(
                self.function.cu_function(),
                (self.device.info().sms * per_sm, 1, 1),
                (threads, 1, 1),
                0,
                stream.raw(),
                &mut params,
            )
        }
        .doing("launch the read pass")
    }
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
        // SAFETY: loading a library runs its initialisers; under this name it is NVIDIA's, or whatever the machine's
        // owner put in its place. Asked first because cudarc panics where it is missing.
        if !unsafe { lt_sys::is_culib_present() } {
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
