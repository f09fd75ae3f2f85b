//! Hopper's instructions: `mbarrier` objects, bulk and tensor copies, `wgmma`, proxy fences, register counts, clusters.
//!
//! Pure parts, each from the ISA document: `swizzle`, `descriptor`, `fragment`, `product`, `tensor_map`, `mbarrier`. On top of them, the
//! instructions: `barriers`, `copies` with `access`, `wgmma` with `operands`, `cluster`, `control`; and `events`, where asynchronous operations land.

mod access;
mod barriers;
pub(crate) mod cluster;
mod control;
mod copies;
mod descriptor;
pub(crate) mod events;
mod fragment;
mod mbarrier;
mod operands;
pub(crate) mod ops;
mod product;
pub(crate) mod state;
pub(crate) mod swizzle;
pub(crate) mod tensor_map;
pub(crate) mod wgmma;
