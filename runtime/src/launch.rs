//! What a launch needs to know of a kernel, and the shapes that follow from it: grids and workspaces.
//!
//! Pure arithmetic, shared by every way of running a kernel. One kernel serves one (layer spec, phase, dtype, arch);
//! the grid and the workspace are the only things the host decides per call.

use serde::{Deserialize, Serialize};

use crate::abi::Task;

/// Which half of attention a kernel computes.
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

/// How a kernel is launched, fixed when it is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LaunchRule {
    /// Threads of a CTA.
    pub threads: u32,
    /// Bytes of dynamic shared memory of a CTA.
    pub shared_bytes: u32,
    /// Prefill: query rows of a CTA. Decode: 0.
    pub tile_m: u32,
    /// Decode: CTAs per SM that the grid is made of. Prefill: 0.
    pub ctas_per_sm: u32,
}

impl LaunchRule {
    /// The prefill grid of `task` for the longest chunk of the batch: `(tiles of the chunk, heads or KV heads, batch)`.
    pub fn prefill_grid(
        &self,
        task: Task,
        max_chunk: u32,
        heads: u32,
        kv_heads: u32,
        batch: u32,
    ) -> [u32; 3] {
        let rows = match task {
            Task::Attend => heads,
            Task::Fill => kv_heads,
        };
        [max_chunk.div_ceil(self.tile_m).max(1), rows, batch]
    }

    /// The decode grid on a device of `sms` multiprocessors. Any size gives the right answer; this one fills it.
    pub fn decode_grid(&self, sms: u32) -> [u32; 3] {
        [sms * self.ctas_per_sm, 1, 1]
    }
}

/// Bytes of the decode workspace's split results for `grid` CTAs: at most two split results each.
pub fn partials_bytes(grid: u32, group_size: u32, head_dim: u32) -> u64 {
    2 * u64::from(grid) * u64::from(group_size) * u64::from(head_dim + 2) * 4
}

/// Bytes of the decode workspace's arrival counters, which must be zero before the first launch.
pub fn counters_bytes(batch: u32, kv_heads: u32) -> u64 {
    u64::from(batch) * u64::from(kv_heads) * 4
}
