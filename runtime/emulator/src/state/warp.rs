//! A warp: its registers, its groups of threads that stand at one instruction, and what its lanes know of other threads.

use super::copies::Copies;
use super::hopper::WarpState;
use crate::hb::{Fenced, Know, LaneClock, Published, Scope};
use crate::ir::Code;
use crate::lanes::{Lanes, bits};
use crate::memory::shadow::Entry;

/// The reason a group of threads is not running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Ready,
    /// Waits for the other lanes in the mask to arrive at the same instruction.
    Converge(u32),
    /// Waits in `bar.warp.sync` of a mask.
    WarpBarrier(u32),
    /// Waits at a CTA barrier.
    Barrier(u32),
    /// Waits for something asynchronous, and looks again once that has gone on.
    Async(Wait),
}

/// The asynchronous thing that a group of threads waits for.
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

/// Threads of a warp that stand at the same instruction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Split {
    pub(crate) pc: u32,
    pub(crate) mask: u32,
    pub(crate) state: State,
    /// How often this group has run for so long that others had their turn, and for how long it has run since.
    pub(crate) turns: u32,
    pub(crate) ran: u32,
}

/// The pending effects of a lane's fences.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fences {
    /// The events that a later strong store publishes.
    pub(crate) release: Option<Published>,
    /// The releases observed by earlier strong loads, for a later fence to acquire.
    pub(crate) pending: Vec<Published>,
}

#[derive(Debug)]
pub(crate) struct Warp {
    /// Index in its CTA, and in the grid.
    pub(crate) index: u32,
    pub(crate) id: u32,
    /// Lanes that the block has, and those that have not exited.
    pub(crate) present: u32,
    pub(crate) live: u32,
    pub(crate) splits: Vec<Split>,
    pub(crate) regs: Vec<Lanes>,
    pub(crate) preds: Vec<u32>,
    pub(crate) carry: u32,
    pub(crate) local: Vec<u8>,
    pub(crate) local_init: Vec<u64>,
    pub(crate) executed: u64,
    pub(crate) copies: Copies,
    pub(crate) hopper: WarpState,
    clock: u32,
    know: Know,
    /// The events that single lanes know beyond `know`.
    lanes: Vec<Option<Box<Know>>>,
    pub(crate) fences: Vec<Fences>,
}

impl Warp {
    pub(crate) fn new(code: &Code, index: u32, id: u32, present: u32, know: Know) -> Self {
        Self {
            index,
            id,
            present,
            live: present,
            splits: vec![Split { pc: 0, mask: present, state: State::Ready, turns: 0, ran: 0 }],
            regs: vec![[0; 32]; code.regs as usize],
            preds: vec![0; code.preds as usize],
            carry: 0,
            local: vec![0; code.local as usize * 32],
            local_init: vec![0; (code.local as usize * 32).div_ceil(64)],
            executed: 0,
            copies: Copies::default(),
            hopper: WarpState::default(),
            clock: 1,
            know,
            lanes: Vec::new(),
            fences: Vec::new(),
        }
    }

    /// Joins groups that stand at the same instruction, and picks the one to run.
    pub(crate) fn pick(&mut self, rank: &[u32]) -> Option<usize> {
        if self.splits.len() == 1 {
            return (self.splits[0].state == State::Ready).then_some(0);
        }
        let mut i = 0;
        while i < self.splits.len() {
            let a = self.splits[i];
            let same = |b: &Split| b.pc == a.pc && a.state == State::Ready && b.state == State::Ready;
            if let Some(j) = self.splits[..i].iter().position(same) {
                self.splits[j].mask |= a.mask;
                self.splits[j].turns = self.splits[j].turns.min(a.turns);
                self.splits[j].ran = self.splits[j].ran.max(a.ran);
                self.splits.swap_remove(i);
            } else {
                i += 1;
            }
        }
        let ready = |s: &&Split| s.state == State::Ready;
        let best =
            self.splits.iter().filter(ready).min_by_key(|s| (s.turns, rank[s.pc as usize], s.mask))?.pc;
        self.splits.iter().position(|s| s.pc == best && s.state == State::Ready)
    }

    /// Whether some group can run.
    pub(crate) fn ready(&self) -> bool {
        self.splits.iter().any(|s| s.state == State::Ready)
    }

    /// Lets groups that wait for their neighbours look again.
    pub(crate) fn recheck(&mut self) {
        for s in &mut self.splits {
            if matches!(s.state, State::Converge(_)) {
                s.state = State::Ready;
            }
        }
    }

    /// The events that a lane knows.
    #[inline]
    pub(crate) fn know(&self, lane: u32) -> &Know {
        match self.lanes.get(lane as usize) {
            Some(Some(k)) => k,
            _ => &self.know,
        }
    }

    /// The stamp of an access by a lane now; `pc` with its flags.
    #[inline]
    pub(crate) fn stamp(&self, lane: u32, pc: u32) -> Entry {
        Entry { at: LaneClock { warp: self.id, clock: self.clock, mask: 1 << lane }, pc }
    }

    /// Everything that the lanes of `mask` know and have done, for another thread to acquire.
    pub(crate) fn release(&mut self, mask: u32) -> Know {
        let mut out = self.know.clone();
        for lane in bits(mask) {
            if let Some(Some(k)) = self.lanes.get(lane as usize) {
                out.join(k);
            }
        }
        let mask = if mask == self.present { u32::MAX } else { mask };
        out.learn(LaneClock { warp: self.id, clock: self.clock, mask });
        self.clock += 1;
        out
    }

    /// Lets the lanes of `mask` know `other`.
    pub(crate) fn acquire(&mut self, mask: u32, other: &Know) {
        if mask == self.present {
            self.know.join(other);
            for k in self.lanes.iter_mut().flatten() {
                k.join(other);
            }
            return;
        }
        if self.lanes.is_empty() {
            self.lanes = vec![None; 32];
        }
        for lane in bits(mask) {
            self.lanes[lane as usize].get_or_insert_with(|| Box::new(self.know.clone())).join(other);
        }
    }

    /// Lets the lanes of `mask` know of one stamp.
    pub(crate) fn learn(&mut self, mask: u32, at: LaneClock) {
        let mut know = self.know.nothing();
        know.learn(at);
        self.acquire(mask, &know);
    }

    /// The events that any lane knows.
    pub(crate) fn together(&self) -> Know {
        let mut out = self.know.clone();
        for k in self.lanes.iter().flatten() {
            out.join(k);
        }
        out
    }

    /// The lanes of `mask` have seen a release without acquiring it: a later fence does.
    pub(crate) fn saw(&mut self, mask: u32, what: &Published) {
        if self.fences.is_empty() {
            self.fences = vec![Fences::default(); 32];
        }
        for lane in bits(mask) {
            self.fences[lane as usize].pending.push(what.clone());
        }
    }

    /// A fence between the generic and the asynchronous proxy by the lanes of `mask`.
    pub(crate) fn proxy_fence(&mut self, mask: u32, space: Fenced) {
        let at = LaneClock { warp: self.id, clock: self.clock, mask: u32::MAX };
        if mask == self.present {
            self.know.fence(space, at);
            for k in self.lanes.iter_mut().flatten() {
                k.fence(space, at);
            }
        } else {
            if self.lanes.is_empty() {
                self.lanes = vec![None; 32];
            }
            for lane in bits(mask) {
                let know = self.lanes[lane as usize].get_or_insert_with(|| Box::new(self.know.clone()));
                know.fence(space, LaneClock { mask: 1 << lane, ..at });
            }
        }
        self.clock += 1;
    }

    /// Orders the lanes of `mask` among each other; what they know afterwards.
    pub(crate) fn sync(&mut self, mask: u32) -> Know {
        let know = self.release(mask);
        if mask == self.present {
            self.know = know.clone();
            self.lanes.clear();
        } else {
            self.acquire(mask, &know);
        }
        know
    }

    /// A fence by the lanes of `mask`.
    pub(crate) fn fence(&mut self, mask: u32, scope: Scope, cta: u32, cluster: u32) {
        if self.fences.is_empty() {
            self.fences = vec![Fences::default(); 32];
        }
        for lane in bits(mask) {
            let pending = std::mem::take(&mut self.fences[lane as usize].pending);
            for p in pending {
                if p.reaches(scope, cta, cluster) {
                    self.acquire(1 << lane, &p.know);
                } else {
                    self.fences[lane as usize].pending.push(p);
                }
            }
        }
        for lane in bits(mask) {
            let mut know = self.know(lane).clone();
            know.learn(LaneClock { warp: self.id, clock: self.clock, mask: 1 << lane });
            let new = Published { scope, cta, cluster, know };
            let slot = &mut self.fences[lane as usize].release;
            // A narrower fence does not undo a wider one; the latest of the widest counts.
            if slot.as_ref().is_none_or(|old| old.scope <= scope) {
                *slot = Some(new);
            }
        }
        self.clock += 1;
    }
}
