//! A model on a GPU: its weights, the memory of its steps, and the engine's [`Runner`](crate::engine::runner::Runner) around
//! an artifact's kernels.

pub mod bench;
mod forward;
mod losses;
mod runner;
mod sizes;
mod tables;
mod weights;

pub use forward::Work;
pub use runner::{GpuRunner, Options, Profile, Spent};
pub use sizes::MemoryByKind;
pub use weights::GpuWeights;
