//! The barriers of clusters, and where a warp stands between arriving and waiting.

use std::collections::BTreeMap;

use crate::hb::Know;

/// The barrier of a cluster.
#[derive(Debug, Default)]
pub(crate) struct ClusterBarrier {
    /// Completed phases.
    pub(crate) phase: u32,
    /// Threads that have arrived.
    pub(crate) arrived: u32,
    pub(crate) released: Option<Know>,
    pub(crate) completed: Option<Know>,
}

/// Barriers by linear cluster index.
pub(crate) type ClusterBarriers = BTreeMap<u32, ClusterBarrier>;

/// Where the lanes of a warp are between arriving and waiting.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ClusterPhase {
    /// Lanes that have arrived and not yet waited.
    pub(crate) arrived: u32,
    /// The phase that they arrived at.
    pub(crate) phase: u32,
}
