//! Models as they lie in files: configuration, GGUF, safetensors, weights. Everything read here is untrusted.
//!
//! [`Checkpoint`] opens either kind of file and streams its weights; containers ([`Gguf`], [`Shards`]) give a tensor as it
//! is stored, [`encoding`] decodes it, [`parts`] says which tensors a model has.

mod checkpoint;
mod config;
mod element;
mod encoding;
mod gguf;
pub(crate) mod json;
#[allow(unsafe_code)]
mod mmap;
mod parts;
mod random;
mod shards;
mod stored;
mod weights;

pub use checkpoint::Checkpoint;
pub(crate) use checkpoint::open_gguf;
pub use config::{Config, Rope, RopeScaling};
pub use element::Element;
#[cfg(test)]
pub(crate) use encoding::Encoding;
pub use gguf::Gguf;
pub use mmap::Mapped;
pub(crate) use mmap::refuse_pointer;
pub use parts::Weight;
pub use shards::Shards;
pub use weights::{LayerWeights, Weights};
