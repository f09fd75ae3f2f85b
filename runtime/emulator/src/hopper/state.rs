//! What Hopper's instructions keep beside a CTA's and a warp's ordinary state.

use std::collections::BTreeMap;
use std::collections::VecDeque;

use super::barriers::describe;
use super::cluster::ClusterPhase;
use super::mbarrier::Barrier;
use super::wgmma::{Warpgroup, WgmmaWarp};
use crate::exec::Cta;
use crate::exec::warp::State;
use crate::hb::{AGENTS, Know, LaneClock, agent};

/// Why a warp waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// For a phase of an `mbarrier` object.
    Phase,
    /// For its own bulk copies.
    Bulk,
    /// For the other warps of its warpgroup to issue what it waits for.
    Warpgroup,
    /// For registers of the CTA's pool.
    Registers,
    /// For the CTAs of its cluster.
    Cluster,
}

// Agents of a CTA by index: bulk reads and bulk writes of each warp, warpgroups, barriers.
const WRITES: u32 = 32;
const WARPGROUPS: u32 = 64;
const BARRIERS: u32 = 72;

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

/// Who waits on what, for reports.
pub(crate) fn waits(cta: &Cta) -> Vec<String> {
    let mut out = describe(&cta.hopper.barriers);
    for w in cta.warps.iter().flatten() {
        for s in &w.splits {
            if let State::Async(wait) = s.state {
                let what = match wait {
                    Wait::Phase => "a phase of an mbarrier object".to_owned(),
                    Wait::Bulk => "its bulk copies".to_owned(),
                    Wait::Warpgroup => "the other warps of its warpgroup".to_owned(),
                    Wait::Registers => format!("registers; {} are free", cta.hopper.free_registers),
                    Wait::Cluster => "the other CTAs of its cluster".to_owned(),
                };
                out.push(format!("warp {} lanes {:#010x} wait for {what}", w.index, s.mask));
            }
        }
    }
    out
}

/// Lets the warps of a CTA that wait for `wait` look again; those that had nothing else to run go to `ready`.
pub(crate) fn wake(cta: &mut Cta, wait: Wait, ready: &mut Vec<(u32, u32)>) {
    let linear = cta.linear;
    for warp in cta.warps.iter_mut().flatten() {
        let blocked = !warp.ready();
        let mut woke = false;
        for s in warp.splits.iter_mut().filter(|s| s.state == State::Async(wait)) {
            s.state = State::Ready;
            woke = true;
        }
        if woke && blocked {
            ready.push((linear, warp.index));
        }
    }
}
