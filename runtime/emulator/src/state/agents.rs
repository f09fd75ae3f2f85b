//! The agents that asynchronous reads and writes are attributed to.

use crate::hb::agent;

// Agents of a CTA by index: bulk reads and bulk writes of each warp, warpgroups, barriers.
const WRITES: u32 = 32;
const WARPGROUPS: u32 = 64;
pub(super) const BARRIERS: u32 = 72;

/// The agent of a warp's bulk copies as far as they read shared memory.
pub(crate) fn bulk_reads(cta: u32, warp: u32) -> u32 {
    agent(cta, warp)
}

/// The agent of a warp's bulk copies as far as they write global memory.
pub(crate) fn bulk_writes(cta: u32, warp: u32) -> u32 {
    agent(cta, WRITES + warp)
}

/// The agent of a warpgroup's products.
pub(crate) fn products(cta: u32, group: u32) -> u32 {
    agent(cta, WARPGROUPS + group)
}

/// The warp that issued what an agent of a CTA did; barriers' agents have none.
pub(crate) fn issuing_warp(index: u32) -> u32 {
    match index {
        i if i < WARPGROUPS => i % WRITES,
        i if i < BARRIERS => (i - WARPGROUPS) * 4,
        _ => 0,
    }
}
