//! Opens, checks, loads and runs the attention kernels that moac compiled.
//!
//! The crate owns the vocabulary that compiler and runtime share ([`plan`], [`geometry`], [`arch`], [`abi`]) and
//! everything that happens after compilation. It never names the compiler or the emulator.

pub mod abi;
pub mod arch;
pub mod geometry;
pub mod launch;
pub mod plan;
