//! The decisions of a kernel family: its tiles, its launch, and the order in which its CTAs take their work.
//!
//! A family is chosen by architecture. Everything that depends on the choice is a function of
//! this module, so that nobody else matches on a [`Family`]; the parameter blocks are
//! [`moac_runtime::attention`]'s, and what a kernel may read is `verify::budget`'s.

pub mod sm80;
pub mod sm90;

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
pub fn of(arch: Arch) -> Family {
    match arch {
        Arch::Sm90a => Family::Sm90,
        _ => Family::Sm80,
    }
}

/// The tiles of a kernel and how it is launched.
pub fn configure(family: Family, shape: KernelShape, arch: Arch) -> (TileConfig, LaunchRule) {
    match family {
        Family::Sm80 => sm80::configure(shape, arch),
        Family::Sm90 => sm90::configure(shape),
    }
}

/// The type of a kernel's parameter block.
pub fn params(family: Family, phase: Phase) -> &'static str {
    match (family, phase) {
        (Family::Sm80, _) => "moac::Params",
        (Family::Sm90, Phase::Prefill) => "moac::sm90::PrefillParams",
        (Family::Sm90, Phase::Decode) => "moac::sm90::DecodeParams",
    }
}

/// CTAs that the launch bounds make room for on a multiprocessor.
pub fn launch_bound(family: Family) -> u32 {
    match family {
        Family::Sm80 => sm80::CTAS_PER_SM,
        Family::Sm90 => sm90::CTAS_PER_SM,
    }
}

/// One tile of query rows of a prefill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tile {
    /// The request, by index in the batch.
    pub request: u32,
    /// The query head.
    pub head: u32,
    /// The rows of the chunk, by index: as many as a CTA takes.
    pub index: u32,
}
