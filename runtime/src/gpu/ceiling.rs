//! The memory bandwidth ceiling of a device, measured by a pass that only reads.
//!
//! It only launches; the caller times it with events, in the same run as what it compares with it, and compiles it from
//! [`READ_SOURCE`]. The ceiling of arithmetic is a product of [`blas`](super::blas).

use std::ffi::c_void;

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
    /// Any error of the driver.
    pub fn load(device: &Device, cubin: Vec<u8>) -> Result<Self, GpuError> {
        let module = device.context().load_module(Ptx::from_binary(cubin)).doing("load the read pass")?;
        let function = module.load_function(READ_SYMBOL).doing("load the read pass")?;
        let sink = device.alloc(16, "the read pass's result")?;
        Ok(Self { device: device.clone(), function, sink })
    }

    /// Reads all of `data` once but its last `bytes % 16` bytes.
    ///
    /// # Errors
    /// Any error of the driver.
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
