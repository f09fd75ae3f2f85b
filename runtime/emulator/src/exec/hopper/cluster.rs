//! Clusters: the barrier of a cluster's threads, and addresses of the other CTAs' shared memory.

use crate::exec::step::{Flow, Step};
use crate::ir::Reg;
use crate::ir::hopper::{SharedPlace, Window};
use crate::lanes::bits;
use crate::memory::{RANK_SHIFT, SHARED_WINDOW};
use crate::report::FindingKind;
use crate::state::warp::{State, Wait};

impl Step<'_, '_> {
    /// Position among the residents of a CTA of this CTA's cluster.
    pub(crate) fn cluster_cta(&self, rank: u32) -> Option<usize> {
        let linear = self.env.cluster_member(self.ctas[self.at].linear, rank)?;
        self.ctas.iter().position(|c| c.linear == linear)
    }

    pub(crate) fn map_shared(&mut self, d: Reg, a: SharedPlace, rank: Reg, active: u32) {
        let ranks = *self.reg(rank);
        let mut out = [0; 32];
        for lane in bits(active) {
            let address = self.address(a.address, lane);
            let base = if a.window == Window::Generic { SHARED_WINDOW } else { 0 };
            let local = address.wrapping_sub(base);
            let rank = ranks[lane as usize] as u32;
            if self.env.cluster_member(self.ctas[self.at].linear, rank).is_none() || local >> RANK_SHIFT != 0
            {
                self.report(FindingKind::Misuse, lane, None, || {
                    format!(
                        "{address:#x} is not a shared address of this CTA, or its cluster has no rank {rank}"
                    )
                });
            }
            out[lane as usize] = base + ((u64::from(rank) + 1) << RANK_SHIFT | local);
        }
        self.set(d, &out, active);
    }

    pub(crate) fn cta_rank(&mut self, d: Reg, a: SharedPlace, active: u32) {
        let own = self.env.cluster_rank(self.ctas[self.at].linear);
        let mut out = [0; 32];
        for lane in bits(active) {
            let address = self.address(a.address, lane) as u32;
            out[lane as usize] = (address >> RANK_SHIFT).checked_sub(1).unwrap_or(own).into();
        }
        self.set(d, &out, active);
    }

    pub(crate) fn cluster_arrive(&mut self, release: bool, aligned: bool, active: u32, mask: u32) -> Flow {
        if aligned && let Err(f) = self.whole_warp(active, mask) {
            return f;
        }
        let cluster = self.env.cluster(self.ctas[self.at].linear);
        let twice = self.warp.hopper.cluster.arrived & active;
        if twice != 0 {
            self.report(FindingKind::BarrierMisuse, twice.trailing_zeros(), None, || {
                format!("lanes {twice:#010x} arrive at the cluster's barrier again before they wait for it")
            });
        }
        let know = release.then(|| self.warp.release(active));
        let b = self.pending.clusters.entry(cluster).or_default();
        self.warp.hopper.cluster.arrived |= active;
        self.warp.hopper.cluster.phase = b.phase;
        b.arrived += active.count_ones();
        if let Some(know) = know {
            match &mut b.released {
                Some(k) => k.join(&know),
                none => *none = Some(know),
            }
        }
        self.recheck_cluster(0);
        Flow::Next
    }

    pub(crate) fn cluster_wait(&mut self, aligned: bool, active: u32, mask: u32) -> Flow {
        if aligned && let Err(f) = self.whole_warp(active, mask) {
            return f;
        }
        let cluster = self.env.cluster(self.ctas[self.at].linear);
        let mine = self.warp.hopper.cluster;
        let absent = active & !mine.arrived;
        if absent != 0 {
            self.report(FindingKind::BarrierMisuse, absent.trailing_zeros(), None, || {
                format!("lanes {absent:#010x} wait for the cluster's barrier without having arrived at it")
            });
            return Flow::Next;
        }
        let Some(b) = self.pending.clusters.get(&cluster) else { return Flow::Next };
        if b.phase == mine.phase {
            return Flow::Block(State::Async(Wait::Cluster));
        }
        let know = b.completed.clone();
        self.warp.hopper.cluster.arrived &= !active;
        if let Some(know) = know {
            self.warp.acquire(if active == self.warp.live { self.warp.present } else { active }, &know);
        }
        Flow::Next
    }

    /// Completes the cluster's phase if all threads that have not exited are there; `gone` are lanes of this warp that exit just now.
    pub(crate) fn recheck_cluster(&mut self, gone: u32) {
        let cluster = self.env.cluster(self.ctas[self.at].linear);
        let Some(b) = self.pending.clusters.get_mut(&cluster) else { return };
        let env = self.env;
        let here = |linear: u32| env.cluster(linear) == cluster;
        let others: u32 = self
            .ctas
            .iter()
            .filter(|c| here(c.linear))
            .flat_map(|c| c.warps.iter().flatten())
            .map(|w| w.live.count_ones())
            .sum();
        if b.arrived == 0 || b.arrived < others + (self.warp.live & !gone).count_ones() {
            return;
        }
        b.phase += 1;
        b.arrived = 0;
        b.completed = b.released.take();
        self.pending.progress += 1;
        for cta in self.ctas.iter_mut().filter(|c| here(c.linear)) {
            cta.wake(Wait::Cluster, self.woken);
        }
        for s in self.warp.splits.iter_mut().filter(|s| s.state == State::Async(Wait::Cluster)) {
            s.state = State::Ready;
        }
    }
}
