//! Opens, checks, loads and runs the attention kernels that moac compiled.
//!
//! The crate owns the vocabulary that compiler and runtime share ([`plan`], [`geometry`], [`arch`], [`abi`]) and
//! everything that happens after compilation. It never names the compiler or the emulator.

#![deny(unsafe_code)]

pub mod abi;
pub mod arch;
pub mod artifact;
pub mod backend;
pub mod call;
#[cfg(feature = "candle")]
pub mod candle;
pub mod element;
pub mod geometry;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod launch;
pub mod plan;
pub mod reference;
