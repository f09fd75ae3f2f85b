//! A call, as data: from a kernel's facts, tensors and a batch of requests to an ordered list of launches.
//!
//! Every check that a call gets is made here, and no device is named: a GPU, the emulator and the verifier execute the
//! same list, each launch after what it says it waits for.
//!
//! `tensors` where q, k, v, o and lse lie; `batch` the requests and their arrays on the device; `launches` the list;
//! `block` the parameter block of each kernel family.

mod batch;
mod block;
mod error;
mod launches;
mod tensors;

pub use batch::{Batch, MAX_BATCH, Request, Table};
pub use block::{Block, TensorMap};
pub use error::CallError;
pub use launches::{KernelFacts, Launch, LayerCall, Scratch, StepTable, WaitsFor};
pub use tensors::{HeadShape, Tensors, View};

#[cfg(test)]
mod tests;
