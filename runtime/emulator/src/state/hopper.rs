//! The state that Hopper's instructions add to that of a CTA and of a warp.

use std::collections::{BTreeMap, VecDeque};

use super::agents::BARRIERS;
use super::cluster::ClusterPhase;
use super::products::{Warpgroup, WgmmaWarp};
use crate::hb::{AGENTS, Know, LaneClock, agent};
use crate::hopper::mbarrier::Barrier;

/// Hopper's part of a CTA.
#[derive(Debug)]
pub(crate) struct CtaState {
    cta: u32,
    pub(crate) nothing: Know,
    /// By offset in shared memory.
    pub(crate) barriers: BTreeMap<u32, Barrier>,
    /// Agents of the places that were barriers, and the clock that the next object there starts at.
    places: BTreeMap<u32, LaneClock>,
    pub(crate) groups: Vec<Warpgroup>,
    /// Registers that no warp holds.
    pub(crate) free_registers: u32,
}

impl CtaState {
    pub(crate) fn new(cta: u32, first: u32, warps: u32) -> Self {
        Self {
            cta,
            nothing: Know::new(first, warps),
            barriers: BTreeMap::new(),
            places: BTreeMap::new(),
            groups: (0..warps.div_ceil(4)).map(|_| Warpgroup::default()).collect(),
            free_registers: 0,
        }
    }

    /// The agent of a barrier that is initialised at `offset`; `None` if there are too many places.
    pub(crate) fn place(&mut self, offset: u32) -> Option<LaneClock> {
        let next = BARRIERS + self.places.len() as u32;
        let cta = self.cta;
        if next >= AGENTS && !self.places.contains_key(&offset) {
            return None;
        }
        Some(*self.places.entry(offset).or_insert_with(|| LaneClock {
            warp: agent(cta, next),
            clock: 1,
            mask: u32::MAX,
        }))
    }

    /// Ends the object at `offset`, if there is one.
    pub(crate) fn remove(&mut self, offset: u32) -> Option<Barrier> {
        let b = self.barriers.remove(&offset)?;
        if let Some(p) = self.places.get_mut(&offset) {
            p.clock = b.agent().clock + 1;
        }
        Some(b)
    }
}

/// Bulk copies of a lane by group.
#[derive(Clone, Debug, Default)]
pub(crate) struct BulkGroups {
    /// Groups committed.
    pub(crate) committed: u32,
    /// Groups before this one were waited for, at least for their reads.
    pub(crate) waited: u32,
    /// Copies of the group that is not committed yet.
    pub(crate) open: u32,
    /// Copies that have still to read, and to write, by group.
    pending: VecDeque<(u32, u32, u32)>,
}

impl BulkGroups {
    /// A copy joins the open group.
    pub(crate) fn issue(&mut self) {
        self.open += 1;
        match self.pending.back_mut() {
            Some(p) if p.0 == self.committed => *p = (p.0, p.1 + 1, p.2 + 1),
            _ => self.pending.push_back((self.committed, 1, 1)),
        }
    }

    /// A copy of `group` has read, or written.
    pub(crate) fn landed(&mut self, group: u32, wrote: bool) {
        if let Some(p) = self.pending.iter_mut().find(|p| p.0 == group) {
            if wrote { p.2 -= 1 } else { p.1 -= 1 }
        }
        self.pending.retain(|p| p.1 + p.2 > 0);
    }

    /// Whether groups before `end` have read (and written).
    pub(crate) fn done(&self, end: u32, read_only: bool) -> bool {
        self.pending.iter().filter(|p| p.0 < end).all(|p| p.1 == 0 && (read_only || p.2 == 0))
    }
}

/// Hopper's part of a warp.
#[derive(Debug, Default)]
pub(crate) struct WarpState {
    /// By lane; empty until the first copy.
    pub(crate) bulk: Vec<BulkGroups>,
    pub(crate) wgmma: Option<Box<WgmmaWarp>>,
    /// Registers per thread, once `setmaxnreg` has changed them.
    pub(crate) registers: Option<u32>,
    /// A wait that nothing can end any more gives up once, as `try_wait` may.
    pub(crate) expired: bool,
    pub(crate) cluster: ClusterPhase,
}
