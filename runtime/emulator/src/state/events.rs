//! Asynchronous operations that are under way.

use super::cluster::ClusterBarriers;
use crate::hb::LaneClock;
use crate::hopper::swizzle::Swizzle;
use crate::hopper::tensor_map::Row;
use crate::ir::hopper::{ReduceOp, ReduceTy};
use crate::schedule::Rng;

/// Where a copy to shared memory goes, and the barrier that it completes on: linear CTA indexes and offsets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) cta: u32,
    pub(crate) offset: usize,
    pub(crate) signal: u32,
    pub(crate) barrier: u32,
    /// The stamp of its writes.
    pub(crate) agent: LaneClock,
}

#[derive(Debug)]
pub(crate) enum What {
    Load {
        rows: Vec<Row>,
        bytes: usize,
        swizzle: Swizzle,
        targets: Vec<Target>,
    },
    /// It lands twice: `data` is what it has read.
    Store {
        rows: Vec<Row>,
        bytes: usize,
        swizzle: Swizzle,
        offset: usize,
        group: u32,
        reduce: Option<(ReduceOp, ReduceTy)>,
        data: Option<Vec<u8>>,
    },
    Send {
        from: usize,
        bytes: usize,
        target: Target,
    },
    Value {
        data: Vec<u8>,
        target: Target,
    },
    /// The arrival behind the first `copies` of a lane's `cp.async`.
    CopyArrive {
        copies: usize,
        barrier: u32,
    },
}

/// An operation under way.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) pc: u32,
    /// Linear CTA index, warp and lane.
    pub(crate) issuer: (u32, u32, u32),
    pub(crate) what: What,
}

impl Event {
    /// Whether it still reads or writes a CTA's shared memory.
    pub(crate) fn uses(&self, linear: u32) -> bool {
        match &self.what {
            What::Load { targets, .. } => targets.iter().any(|t| t.cta == linear || t.signal == linear),
            What::Store { data, .. } => data.is_none() && self.issuer.0 == linear,
            What::Send { target, .. } => {
                self.issuer.0 == linear || target.cta == linear || target.signal == linear
            }
            What::Value { target, .. } => target.cta == linear || target.signal == linear,
            What::CopyArrive { .. } => self.issuer.0 == linear,
        }
    }
}

/// The operations under way of a group of CTAs.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) events: Vec<Event>,
    pub(crate) clusters: ClusterBarriers,
    /// Chance of its own, so that kernels without such operations are scheduled as if this were not here.
    pub(crate) rng: Rng,
    /// One in so many turns, an operation lands.
    pub(crate) laziness: usize,
    /// Goes up whenever something happens that a wait may wait for.
    pub(crate) progress: u64,
    /// Progress when waits were last allowed to give up.
    pub(crate) expired_at: Option<u64>,
}

impl Pending {
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x5eed, stream);
        // Some schedules are prompt, some nearly wait until nothing else can run.
        let laziness = [1, 3, 16, 256][rng.below(4)];
        Self {
            events: Vec::new(),
            clusters: ClusterBarriers::new(),
            rng,
            laziness,
            progress: 0,
            expired_at: None,
        }
    }
}
