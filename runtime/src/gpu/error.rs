//! Errors of the GPU.

use cudarc::driver::DriverError;
use cudarc::driver::sys::CUresult;
use thiserror::Error;

use crate::artifact::LoadError;
use crate::attention::CallError;
use crate::plan::DType;

/// An error of the GPU.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GpuError {
    /// The machine has no CUDA driver.
    #[error(
        "no CUDA driver: none of {} could be loaded; install NVIDIA's driver, or use the CPU or the emulator",
        tried.join(", ")
    )]
    NoDriver {
        /// The library names that were tried.
        tried: Vec<String>,
    },
    /// The driver lacks a function that is used, or is older than what was asked of it.
    #[error("the CUDA driver supports CUDA {}.{}, at least {}.{} is needed: update the driver", found[0], found[1], expected[0], expected[1])]
    DriverVersion {
        /// The newest CUDA version of the driver, `[major, minor]`.
        found: [u32; 2],
        /// The requirement.
        expected: [u32; 2],
    },
    /// There is no such device.
    #[error("there is no CUDA device {ordinal}: the driver finds {count}")]
    NoDevice {
        /// The one asked for.
        ordinal: usize,
        /// How many there are.
        count: usize,
    },
    /// A call of the driver failed. Errors of earlier asynchronous work come out of later calls.
    #[error("the CUDA driver failed to {what}: {source}")]
    Driver {
        /// The operation.
        what: &'static str,
        /// Its message.
        source: DriverError,
    },
    /// A call of one of NVIDIA's libraries failed.
    #[error("{library} failed to {what}: {reason}")]
    Library {
        /// The library.
        library: &'static str,
        /// The operation.
        what: &'static str,
        /// Its message.
        reason: String,
    },
    /// Not enough device memory.
    #[error("out of device memory: {what} needs {needed} bytes, {free} of {total} are free")]
    OutOfMemory {
        /// The purpose of the memory.
        what: String,
        /// Bytes it takes.
        needed: u64,
        /// Bytes there are.
        free: u64,
        /// Bytes the device has.
        total: u64,
    },
    /// The artifact does not load on the device.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A call's tensors or batch are wrong.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A layer that the artifact does not have.
    #[error("there is no layer {layer}: the artifact has {layers}")]
    NoLayer {
        /// The one asked for.
        layer: usize,
        /// How many there are.
        layers: usize,
    },
    /// A request longer than the largest bucket.
    #[error(
        "a request of {max_len} tokens is beyond the largest bucket, {largest}: compile the plan with longer `--lengths`"
    )]
    NoBucket {
        /// The length asked for.
        max_len: u32,
        /// The largest bucket.
        largest: u32,
    },
    /// A request has no room left for its new tokens.
    #[error(
        "context full: request {request} has {cached} tokens cached and {new} more were given, but its bucket ends \
         at {length}; going on takes a new slab of a larger bucket and a new prefill from the tokens"
    )]
    ContextFull {
        /// The index of the request in the batch.
        request: usize,
        /// Tokens in its slab.
        cached: u32,
        /// Tokens given.
        new: u32,
        /// The bucket's length.
        length: u32,
    },
    /// A slab, a workspace or a step made for another artifact, or by another load of it.
    #[error("{what} belongs to another loaded artifact")]
    Foreign {
        /// Their indexes.
        what: &'static str,
    },
    /// A stream of one device used with memory or kernels of another.
    #[error("a stream of device {stream} cannot work on device {device}")]
    OtherDevice {
        /// The stream's device.
        stream: usize,
        /// The other.
        device: usize,
    },
    /// A copy between slabs of different buckets.
    #[error("cannot copy a slab of the bucket {from} into one of the bucket {to}: their rings differ")]
    Bucket {
        /// The source's context length.
        from: u32,
        /// The target's.
        to: u32,
    },
    /// A slab cannot be wound back to where it was.
    #[error(
        "a slab of {len} tokens cannot be wound back to {tokens}: expected at most as many, and no more than {ring} in the slab, \
         those of its shortest ring"
    )]
    Overwritten {
        /// Tokens in it.
        len: u32,
        /// Tokens asked for.
        tokens: u32,
        /// Tokens of the shortest ring.
        ring: u32,
    },
    /// A pool without room for a slab.
    #[error(
        "a slab of {needed} bytes does not fit: the pool has {free} bytes free, {largest} of them together"
    )]
    PoolFull {
        /// Bytes of the slab.
        needed: u64,
        /// Bytes that no slab takes.
        free: u64,
        /// Bytes of the largest free range.
        largest: u64,
    },
    /// A range of heads that a tensor does not have.
    #[error("heads {start}..{end} of a tensor that has {heads}: the range must be within 0..{heads}")]
    Heads {
        /// The first.
        start: u32,
        /// Behind the last.
        end: u32,
        /// How many the tensor has.
        heads: u32,
    },
    /// A tensor of other elements or another head dimension than the artifact's.
    #[error("`{tensor}` has heads of {found_dim} {found}, expected {expected_dim} {expected}")]
    Elements {
        /// Its name or index.
        tensor: &'static str,
        /// Its element type.
        found: DType,
        /// Elements of its heads.
        found_dim: u32,
        /// The artifact's element type.
        expected: DType,
        /// Elements of the artifact's heads.
        expected_dim: u32,
    },
    /// A step that is over: its workspace has begun another one.
    #[error("the step has ended: its workspace has begun a newer one")]
    StepOver,
    /// A slab that a step has, neither committed nor dropped.
    #[error("{what} takes part in a step that is neither committed nor dropped")]
    InStep {
        /// The purpose.
        what: &'static str,
    },
    /// A slab twice in one step.
    #[error("requests {first} and {second} of the step have the same slab")]
    SameSlab {
        /// A request.
        first: usize,
        /// A later one.
        second: usize,
    },
    /// More tables asked for than there are places to put them.
    #[error("all {turns} tables are in use: take one before asking for another")]
    Unread {
        /// Places.
        turns: usize,
    },
    /// More requests than the workspace was made for.
    #[error("{found} requests in a workspace for {capacity}")]
    Capacity {
        /// Requests given.
        found: usize,
        /// The capacity of the workspace.
        capacity: u32,
    },
    /// Something that a graph cannot hold was called while the stream was being captured.
    #[error("{what} cannot be captured in a graph: do it before the capture, and before each replay")]
    Capturing {
        /// The function called.
        what: &'static str,
    },
    /// An artifact that was compiled without the engine's kernels.
    #[error(
        "the artifact has attention only, no kernels of the engine: compile it with `--model` of the model"
    )]
    NoEngine,
    /// A linear layer that the artifact has no kernel for, or none for so many rows.
    #[error("no kernel for the linear layer `{}` of {rows} rows, expected one of sm_90a and at most {most} rows", op.name())]
    NoLinear {
        /// The layer.
        op: crate::glue::Op,
        /// How many rows were given.
        rows: u32,
        /// How many rows a kernel takes.
        most: u32,
    },
    /// Memory for a call of the engine that is too small, or not aligned to 16 bytes.
    #[error("`{what}` is {found} bytes at {address:#x}, expected at least {expected} at a multiple of 16")]
    Part {
        /// Its role in the call.
        what: &'static str,
        /// Its address.
        address: u64,
        /// Bytes given.
        found: u64,
        /// Bytes needed.
        expected: u64,
    },
    /// Memory that a model's calls need and that was not given, or the other way round.
    #[error("`{what}` is {}, but the model {}", if *given { "given" } else { "missing" }, if *given { "has none" } else { "has one" })]
    Optional {
        /// Its role in the call.
        what: &'static str,
        /// Whether it was given.
        given: bool,
    },
    /// A range outside a buffer.
    #[error("bytes {start}..{end} are outside a buffer of {bytes}")]
    Range {
        /// The first byte.
        start: u64,
        /// Behind the last byte.
        end: u64,
        /// Bytes of the buffer.
        bytes: u64,
    },
}

/// Names what the driver was doing.
pub(super) trait Doing<T> {
    /// Turns the driver's error into one that says what it was asked to do.
    fn doing(self, what: &'static str) -> Result<T, GpuError>;
}

impl<T> Doing<T> for Result<T, DriverError> {
    fn doing(self, what: &'static str) -> Result<T, GpuError> {
        self.map_err(|source| GpuError::Driver { what, source })
    }
}

/// Whether the driver says that memory ran out.
pub(super) fn is_out_of_memory(error: DriverError) -> bool {
    error.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY
}
