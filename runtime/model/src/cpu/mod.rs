//! The forward and the reverse pass on the CPU, in float32.

mod ablation;
pub mod backward;
mod cache;
pub mod candle;
mod forward;
pub mod ops;
mod runner;

pub use ablation::Ablation;
pub use cache::{Attention, Batch, Branches, Cache};
pub use forward::{CHUNK, Decoder};
pub use runner::{CpuOptions, CpuRunner, CpuSlab};
