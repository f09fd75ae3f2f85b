//! What a family of kernels decides: its tiles, how it is launched, and in which order its CTAs take their work.
//!
//! A family is chosen by architecture, phase and head dimension. Everything that depends on the choice is a function of
//! this module, so that nobody else matches on a [`Family`]; the parameter blocks are
//! [`moac_runtime::attention`]'s, and what a kernel may read is `verify::budget`'s.

pub mod sm80;

use moac_runtime::arch::Arch;
pub use moac_runtime::launch::Family;
use moac_runtime::launch::{LaunchRule, Phase};
use moac_runtime::plan::DType;
use serde::Serialize;

/// The tiles of one kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TileConfig {
    /// Query rows of a CTA: positions in prefill, heads of a group (padded) in decode.
    pub tile_m: u32,
    /// Keys of a tile.
    pub tile_n: u32,
    /// Warps of a CTA.
    pub warps: u32,
    /// K and V tiles in flight.
    pub stages: u32,
    /// Decode: the fewest tiles of a split. Prefill: 0.
    pub min_tiles: u32,
}

/// The shape of a kernel that tiles follow from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelShape {
    /// Prefill or decode.
    pub phase: Phase,
    /// Element type of q, k, v, o and the cache.
    pub dtype: DType,
    /// Elements of a head.
    pub head_dim: u32,
    /// Query heads per KV head.
    pub group_size: u32,
}

/// The family of a kernel for `arch`.
pub fn of(_arch: Arch, _shape: KernelShape) -> Family {
    Family::Sm80
}

/// The tiles of a kernel and how it is launched.
pub fn configure(family: Family, shape: KernelShape, arch: Arch) -> (TileConfig, LaunchRule) {
    match family {
        Family::Sm80 | Family::Sm90 => sm80::configure(shape, arch),
    }
}

/// CTAs that the launch bounds make room for on a multiprocessor.
pub fn launch_bound(family: Family) -> u32 {
    match family {
        Family::Sm80 | Family::Sm90 => sm80::CTAS_PER_SM,
    }
}

/// The CTA of a prefill grid that attends the query rows of tile `index` of a chunk, for query head number `rank` of the
/// kernel's head order: what lets a verifier launch a single one.
pub fn prefill_cta(family: Family, grid: [u32; 3], request: u32, rank: u32, index: u32) -> (u32, u32, u32) {
    match family {
        Family::Sm80 | Family::Sm90 => sm80::prefill_cta(grid, request, rank, index),
    }
}
