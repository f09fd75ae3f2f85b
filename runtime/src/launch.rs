//! The facts about a compiled kernel that a launch needs: phase, family, launch rule; and the
//! workspaces that follow from them.
//!
//! Pure data and arithmetic, shared by the compiler, the artifact and every device. [`crate::attention`] makes launches
//! of it.

use serde::{Deserialize, Serialize};

use crate::abi::Task;
use crate::plan::TILE;

/// The phase of attention that a kernel computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// A chunk of any length; and, as a second launch ([`Task::Fill`]), its append to the ring.
    Prefill,
    /// One token per request, appended to the ring by the same launch.
    Decode,
}

impl Phase {
    /// The name in symbols and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prefill => "prefill",
            Self::Decode => "decode",
        }
    }
}

/// A family of kernels: the folder of headers below `moac/` and the namespace that a kernel's algorithm comes from. It
/// decides the parameter block of each phase and how the rings lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// `mma.sync` and `cp.async`: every architecture from `sm_80` on.
    Sm80,
    /// `wgmma`, bulk and tensor copies: `sm_90a`.
    Sm90,
}

impl Family {
    /// The folder and the namespace.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sm80 => "sm80",
            Self::Sm90 => "sm90",
        }
    }

    /// How the rings lie that its kernels read and write.
    pub const fn ring_layout(self) -> RingLayout {
        match self {
            Self::Sm80 => RingLayout::Rows,
            Self::Sm90 => RingLayout::Swizzled,
        }
    }
}

/// Slots of a tile of a ring.
const TILE_SLOTS: u64 = TILE as u64;
/// Bytes of a row of a [`RingLayout::Swizzled`] panel.
pub const PANEL_ROW_BYTES: u64 = 128;
/// Bytes that kernels move at once.
pub const VECTOR_BYTES: u64 = 16;

/// How the slots of a ring lie. All layouts keep the bytes of a tile of 64 slots together and in order of tiles, so
/// ring offsets and slab sizes do not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RingLayout {
    /// Slot after slot, each `head_dim` elements.
    Rows,
    /// A tile is `head_dim / 64` panels of 64 rows of 128 bytes. Vector `v` of 16 bytes of row `r` of a panel lies
    /// where vector `v ^ (r % 8)` of a plain row would: the 128-byte swizzle of Hopper's matrix operands.
    Swizzled,
}

impl RingLayout {
    /// Where the vector of 16 bytes that starts at byte `byte` of slot `slot` lies, in bytes from the ring's start.
    pub const fn vector(self, slot: u64, byte: u64, row_bytes: u64) -> u64 {
        match self {
            Self::Rows => slot * row_bytes + byte,
            Self::Swizzled => {
                let (tile, row) = (slot / TILE_SLOTS, slot % TILE_SLOTS);
                let (panel, vector) = (byte / PANEL_ROW_BYTES, byte % PANEL_ROW_BYTES / VECTOR_BYTES);
                (tile * row_bytes + panel * PANEL_ROW_BYTES) * TILE_SLOTS
                    + row * PANEL_ROW_BYTES
                    + (vector ^ (row % 8)) * VECTOR_BYTES
            }
        }
    }

    /// Calls `visit` for each vector of slot `slot` with where it starts, in bytes from the ring's start and in bytes from
    /// the row's.
    pub fn each_vector(self, slot: u64, row_bytes: u64, mut visit: impl FnMut(usize, usize)) {
        for byte in (0..row_bytes).step_by(VECTOR_BYTES as usize) {
            visit(self.vector(slot, byte, row_bytes) as usize, byte as usize);
        }
    }
}

/// How a kernel is launched, fixed when it is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LaunchRule {
    /// Threads of a CTA.
    pub threads: u32,
    /// Bytes of dynamic shared memory of a CTA.
    pub shared_bytes: u32,
    /// How many CTAs there are, and of what.
    pub grid: Grid,
}

/// The grid of a kernel's launches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grid {
    /// A CTA for `rows` query rows of a head of a request: `(tiles of the longest chunk, heads, requests)`; for an append
    /// `(tiles, KV heads, requests)`.
    Tiles {
        /// Query rows of a CTA.
        rows: u32,
    },
    /// A CTA per multiprocessor, which takes items of `rows` query rows of a head one after the other, as long as there are
    /// any. With a CTA for each item, CTA i takes item i. An append has the grid of [`Grid::Tiles`].
    Items {
        /// Query rows of an item.
        rows: u32,
    },
    /// `per_sm` CTAs per multiprocessor, which take equal ranges of all keys of the batch. Any number gives the right
    /// answer; this one fills the device.
    Split {
        /// CTAs per multiprocessor.
        per_sm: u32,
    },
    /// `parts` CTAs for each row: `(rows, parts, 1)`. The engine's own kernels.
    Rows {
        /// CTAs of a row.
        parts: u32,
    },
    /// CTAs that share `tiles` tiles equally, at most one per multiprocessor: `(CTAs, 1, 1)`. Any number gives the same
    /// answer. The engine's linear layers.
    Wave {
        /// Tiles.
        tiles: u32,
    },
}

impl LaunchRule {
    /// Query rows of a CTA; 0 where CTAs split keys.
    pub const fn tile_rows(&self) -> u32 {
        match self.grid {
            Grid::Tiles { rows } | Grid::Items { rows } => rows,
            Grid::Split { .. } | Grid::Rows { .. } | Grid::Wave { .. } => 0,
        }
    }
}

impl Grid {
    /// The name in a manifest.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tiles { .. } => "tiles",
            Self::Items { .. } => "items",
            Self::Split { .. } => "split",
            Self::Rows { .. } => "rows",
            Self::Wave { .. } => "wave",
        }
    }

    /// CTAs that split keys among them on a device of `sms` multiprocessors, each of which may leave split results.
    pub const fn split_ctas(self, sms: u32) -> u32 {
        match self {
            Self::Tiles { .. } | Self::Items { .. } | Self::Rows { .. } | Self::Wave { .. } => 0,
            Self::Split { per_sm } => sms * per_sm,
        }
    }

    /// The CTAs of a launch over `rows` rows of activations, in x, y and z.
    pub const fn of_rows(self, rows: u32) -> [u32; 3] {
        match self {
            Self::Rows { parts } => [rows, parts, 1],
            Self::Wave { tiles } => [tiles, 1, 1],
            Self::Tiles { .. } | Self::Items { .. } | Self::Split { .. } => [rows, 1, 1],
        }
    }

    /// The same on a device of `sms` multiprocessors.
    pub const fn of_rows_on(self, rows: u32, sms: u32) -> [u32; 3] {
        match self {
            Self::Wave { tiles } => [tiles.div_ceil(tiles.div_ceil(sms)), 1, 1],
            _ => self.of_rows(rows),
        }
    }

    /// The CTAs of a launch of attention's `task`, in x, y and z.
    pub fn ctas(self, task: Task, shape: &GridShape) -> [u32; 3] {
        let GridShape { longest_chunk, heads, kv_heads, batch, sms } = *shape;
        match self {
            Self::Items { rows } if task == Task::Attend => {
                let items = longest_chunk.div_ceil(rows).saturating_mul(heads).saturating_mul(batch);
                [items.clamp(1, sms), 1, 1]
            }
            Self::Tiles { rows } | Self::Items { rows } => {
                let tiles = longest_chunk.div_ceil(rows).max(1);
                [tiles, if task == Task::Attend { heads } else { kv_heads }, batch]
            }
            Self::Split { .. } => [self.split_ctas(sms), 1, 1],
            Self::Rows { .. } | Self::Wave { .. } => {
                self.of_rows_on(batch.saturating_mul(longest_chunk), sms)
            }
        }
    }
}

/// The quantity that a grid depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GridShape {
    /// New tokens of the request that has the most.
    pub longest_chunk: u32,
    /// Query heads.
    pub heads: u32,
    /// KV heads.
    pub kv_heads: u32,
    /// Requests.
    pub batch: u32,
    /// Multiprocessors of the device.
    pub sms: u32,
}

/// Bytes of the decode workspace's split results for `grid` CTAs: at most two split results each.
pub fn partials_bytes(grid: u32, group_size: u32, head_dim: u32) -> u64 {
    2 * u64::from(grid) * u64::from(group_size) * u64::from(head_dim + 2) * 4
}

/// Bytes of the workspace's counters, which must be zero before the first launch: of arrivals at each KV head of a
/// decode, or the two of a prefill's items.
pub fn counters_bytes(batch: u32, kv_heads: u32) -> u64 {
    (u64::from(batch) * u64::from(kv_heads)).max(2) * 4
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// A swizzled tile holds every vector once, within the bytes of its own tile.
    #[test]
    fn a_layout_moves_vectors_within_their_tile() {
        for row_bytes in [128, 256] {
            for layout in [RingLayout::Rows, RingLayout::Swizzled] {
                let mut seen = BTreeSet::new();
                for slot in 64..192 {
                    layout.each_vector(slot, row_bytes, |ring, _| assert!(seen.insert(ring as u64)));
                    let tile = slot / 64 * 64 * row_bytes;
                    layout.each_vector(slot, row_bytes, |ring, _| {
                        assert!((tile..tile + 64 * row_bytes).contains(&(ring as u64)));
                    });
                }
                let all: BTreeSet<u64> = (64 * row_bytes..192 * row_bytes).step_by(16).collect();
                assert_eq!(seen, all);
            }
        }
        // Row 3 of the second panel: its third vector lies at 2 ^ 3.
        assert_eq!(RingLayout::Swizzled.vector(67, 128 + 32, 256), 64 * 256 + 64 * 128 + 3 * 128 + 16);
    }
}
