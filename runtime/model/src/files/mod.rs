//! Models as they lie in files: configuration, GGUF, safetensors, weights. Everything read here is untrusted.

mod config;
mod gguf;
pub(crate) mod json;
#[allow(unsafe_code)]
mod mmap;
mod shards;
mod weights;

pub use config::{Config, Rope, RopeScaling};
pub use gguf::Gguf;
pub use mmap::Mapped;
pub use shards::Shards;
pub use weights::{LayerWeights, Source, Weights};
