//! Running an artifact on a GPU: `Artifact::open` -> [`load`](crate::artifact::Artifact::load) ->
//! [`layer(i)`](LoadedArtifact::layer) -> [`attend`](Layer::attend).
//!
//! A batch goes through the model in steps. [`Workspace::begin`] tells the device, once per step, whose slabs take part
//! and how many new tokens each brings; then every layer gets its call with the caller's q, k, v and o; then the step
//! is committed, which moves the slabs' positions. Some requests of a step may decode while others prefill.
//!
//! ```no_run
//! use moac_runtime::artifact::Artifact;
//! use moac_runtime::gpu::{Device, Order, Request, Shape, Tensors};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let device = Device::open(0)?;
//! let model = Artifact::open("llama-3-8b.moac")?.load(&device)?;
//! let stream = device.new_stream()?;
//! let pool = model.pool(8 << 30)?; // device memory for the slabs of all requests
//! let slab = pool.slab(5000)?; // prompt and generation; 5000 tokens live in the bucket of 5120
//! let mut workspace = model.workspace(&stream, 1)?;
//!
//! // A fused QKV product of 4096 tokens, 32 + 8 + 8 heads of 128, and room for the output.
//! let (dtype, fused, output) = (model.dtype(), Shape::new(4096, 48, 128), Shape::new(4096, 32, 128));
//! let qkv = device.alloc(fused.bytes(dtype), "qkv")?;
//! let mut out = device.alloc(output.bytes(dtype), "o")?;
//!
//! let step = workspace.begin(&stream, &[], &[Request::new(&slab, 4096)])?;
//! for layer in 0..model.layers() {
//!     // ... the model computes qkv on the same stream ...
//!     let qkv = qkv.tensor(dtype, fused)?;
//!     let tensors = Tensors {
//!         q: qkv.heads(0..32)?,
//!         k: qkv.heads(32..40)?,
//!         v: qkv.heads(40..48)?,
//!         o: out.tensor_mut(dtype, output, Order::Rows)?,
//!         lse: None,
//!     };
//!     model.layer(layer)?.attend(&stream, &step, &tensors)?;
//! }
//! step.commit();
//! # Ok(()) }
//! ```
//!
//! # Graphs
//!
//! Calls only launch, so a step's calls can be captured with [`Stream::capture`]. `begin` stays outside: it is what
//! makes the next replay another step. A decode loop captures once and then repeats `begin`, [`Graph::launch`],
//! `commit`. A graph holds the batch size of its capture and every request's rows ([`Request::idle`] and
//! [`Request::padded`] keep the places of requests that do not take part), and addresses (of the
//! workspace, the tensors and the kernels: they must outlive it).
//!
//! # Streams
//!
//! A slab and a workspace belong to one stream at a time; to move one, make the new stream wait for an [`Event`] of the
//! old. A machine without a driver gets [`GpuError::NoDriver`] from [`Device::open`] and [`Device::all`], and nothing
//! else can be reached without a device.

#![allow(unsafe_code)]

mod attention;
pub mod blas;
pub mod ceiling;
mod device;
mod driver;
mod engine;
mod error;
mod host;
mod load;
mod memory;
mod module;
mod part;
mod slab;
mod staging;
mod stream;
mod tensor;
mod tensor_map;
mod trial;
mod workspace;

pub use attention::{Layer, Tensors};
pub use device::{Device, DeviceInfo, Memory};
pub use engine::{
    ActivateCall, EmbedCall, Engine, LinearCall, NormCall, RotateCall, SampleCall, SampleScratch,
};
pub use error::GpuError;
pub use host::GpuLayer;
pub use load::LoadedArtifact;
pub use memory::Buffer;
pub use part::Part;
pub use slab::{Slab, SlabPool};
pub use staging::{Downloads, Uploads};
pub use stream::{Event, Graph, Stream};
pub use tensor::{LseMut, Order, Shape, Tensor, TensorMut};
pub use trial::{Trial, TrialGlue, TrialKernel};
pub use workspace::{Request, Step, Workspace};

/// A CUDA version of a driver, `[major, minor]`.
pub type DriverVersion = [u32; 2];

/// Ownership across threads.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<LoadedArtifact>();
    shared::<Slab>();
    shared::<Workspace>();
    shared::<Buffer>();
    shared::<Uploads>();
    shared::<Downloads>();
    shared::<blas::Products>();
};
