//! Happens-before: what each thread knows of the accesses of the others.
//!
//! Threads are ordered by clocks, but kept by warp, because nearly all synchronisation is warp-wide. A warp has one clock, which goes
//! up at every release by any of its lanes, and accesses are stamped with it. A [`Know`] says, for each warp, up to which clock the
//! accesses of *all* its lanes are known, and beside that, in `extra`, what is known of single lanes only (an elected lane that
//! releases alone says nothing of its neighbours: lock step orders nothing).
//!
//! Asynchronous operations are accesses of *agents*, which have ids beside those of the warps (see [`agent`]): who waits for the
//! operation learns of its agent. And as the asynchronous proxy sees what ordinary accesses wrote only across a proxy fence, a
//! [`Know`] also says, by space, what it knew when a fence stood somewhere along its way.

use std::collections::BTreeMap;
use std::sync::Arc;

/// All accesses of the lanes in `mask` of `warp` up to `clock`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LaneClock {
    /// Warp index in the grid.
    pub(crate) warp: u32,
    pub(crate) clock: u32,
    pub(crate) mask: u32,
}

/// Set in the ids of agents.
const AGENT: u32 = 1 << 31;
/// Agents of a CTA.
pub(crate) const AGENTS: u32 = 256;

/// Id of agent `index` of a CTA.
pub(crate) fn agent(cta: u32, index: u32) -> u32 {
    AGENT | (cta * AGENTS + index)
}

/// CTA and index of an agent; `None` for a warp's id.
pub(crate) fn is_agent(warp: u32) -> Option<(u32, u32)> {
    (warp & AGENT != 0).then_some(((warp & !AGENT) / AGENTS, warp % AGENTS))
}

/// Memory that a proxy fence can be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fenced {
    Shared = 0,
    Global = 1,
}

/// The events known to have happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Know {
    /// Grid index of the first warp of the CTA that `local` speaks of.
    first: u32,
    /// Clock by warp of that CTA; 0 is "nothing".
    local: Vec<u32>,
    /// Clock by agent of that CTA, as far as any is known.
    agents: Vec<u32>,
    /// The events known at a proxy fence, by [`Fenced`].
    fenced: [Option<Arc<Know>>; 2],
    /// Clocks of warps of other CTAs.
    remote: Option<Arc<BTreeMap<u32, u32>>>,
    /// Single lanes, beyond the above.
    extra: Vec<LaneClock>,
}

impl Know {
    /// Knows nothing; for threads of the CTA whose warps are `first .. first + warps`.
    pub(crate) fn new(first: u32, warps: u32) -> Self {
        Self { first, local: vec![0; warps as usize], ..Self::default() }
    }

    /// Knows nothing, for threads of the same CTA.
    pub(crate) fn nothing(&self) -> Self {
        Self::new(self.first, self.local.len() as u32)
    }

    /// The CTA's agent that an id stands for.
    fn own_agent(&self, warp: u32) -> Option<usize> {
        let (cta, index) = is_agent(warp)?;
        (cta as usize * self.local.len() == self.first as usize).then_some(index as usize)
    }

    /// The clock up to which all lanes of `warp` are known.
    fn clock(&self, warp: u32) -> u32 {
        if let Some(&c) = self.local.get(warp.wrapping_sub(self.first) as usize) {
            return c;
        }
        match self.own_agent(warp) {
            Some(i) => self.agents.get(i).copied().unwrap_or(0),
            None => self.remote.as_ref().and_then(|r| r.get(&warp).copied()).unwrap_or(0),
        }
    }

    /// Whether every access that `at` stands for is known.
    #[inline]
    pub(crate) fn covers(&self, at: LaneClock) -> bool {
        // Nearly every question is about a warp of the same CTA whose accesses are all known.
        let local = self.local.get(at.warp.wrapping_sub(self.first) as usize);
        local.is_some_and(|&c| c >= at.clock) || self.covers_otherwise(at)
    }

    #[inline(never)]
    fn covers_otherwise(&self, at: LaneClock) -> bool {
        if self.clock(at.warp) >= at.clock {
            return true;
        }
        let mut left = at.mask;
        for e in &self.extra {
            if e.warp == at.warp && e.clock >= at.clock {
                left &= !e.mask;
            }
        }
        left == 0
    }

    /// Learns about lanes of one warp; a full mask is about the whole warp.
    pub(crate) fn learn(&mut self, at: LaneClock) {
        if self.covers(at) {
            return;
        }
        if at.mask == u32::MAX {
            if let Some(c) = self.local.get_mut(at.warp.wrapping_sub(self.first) as usize) {
                *c = at.clock;
            } else if let Some(i) = self.own_agent(at.warp) {
                if self.agents.len() <= i {
                    self.agents.resize(i + 1, 0);
                }
                self.agents[i] = at.clock;
            } else {
                let remote = Arc::make_mut(self.remote.get_or_insert_with(Arc::default));
                remote.insert(at.warp, at.clock);
            }
            self.extra.retain(|e| e.warp != at.warp || e.clock > at.clock);
        } else {
            self.extra.retain(|e| !(e.warp == at.warp && e.clock <= at.clock && e.mask & !at.mask == 0));
            match self.extra.iter_mut().find(|e| e.warp == at.warp && e.clock == at.clock) {
                Some(e) => e.mask |= at.mask,
                None => self.extra.push(at),
            }
        }
    }

    /// A proxy fence by lanes that know this and did `own`.
    pub(crate) fn fence(&mut self, space: Fenced, own: LaneClock) {
        let mut now = Self { fenced: [None, None], ..self.clone() };
        now.learn(own);
        match &mut self.fenced[space as usize] {
            Some(old) => Arc::make_mut(old).join(&now),
            none => *none = Some(Arc::new(now)),
        }
    }

    /// The events known at the last proxy fence.
    pub(crate) fn across_fence(&self, space: Fenced, at: LaneClock) -> bool {
        self.fenced[space as usize].as_ref().is_some_and(|k| k.covers(at))
    }

    /// Whether everything that `other` knows is known, as far as that is cheap to say.
    pub(crate) fn includes(&self, other: &Self) -> bool {
        let all = |mine: &[u32], theirs: &[u32]| {
            theirs.iter().enumerate().all(|(i, &t)| mine.get(i).copied().unwrap_or(0) >= t)
        };
        let same = |mine: &Option<Arc<Self>>, theirs: &Option<Arc<Self>>| match (mine, theirs) {
            (_, None) => true,
            (Some(m), Some(t)) => Arc::ptr_eq(m, t) || m.includes(t),
            (None, Some(_)) => false,
        };
        self.first == other.first
            && all(&self.local, &other.local)
            && all(&self.agents, &other.agents)
            && (0..2).all(|i| same(&self.fenced[i], &other.fenced[i]))
            && (other.remote.is_none() || self.remote == other.remote)
            && other.extra.iter().all(|&e| self.covers(e))
    }

    /// Learns everything that `other` knows.
    pub(crate) fn join(&mut self, other: &Self) {
        for (mine, theirs) in self.fenced.iter_mut().zip(&other.fenced) {
            match (mine, theirs) {
                (_, None) => {}
                (mine @ None, Some(theirs)) => *mine = Some(theirs.clone()),
                (Some(mine), Some(theirs)) => {
                    if !Arc::ptr_eq(mine, theirs) {
                        Arc::make_mut(mine).join(theirs);
                    }
                }
            }
        }
        if other.first == self.first {
            for (a, &b) in self.local.iter_mut().zip(&other.local) {
                *a = (*a).max(b);
            }
            if self.agents.len() < other.agents.len() {
                self.agents.resize(other.agents.len(), 0);
            }
            for (a, &b) in self.agents.iter_mut().zip(&other.agents) {
                *a = (*a).max(b);
            }
        } else {
            let cta = other.first / other.local.len().max(1) as u32;
            for (i, &clock) in other.agents.iter().enumerate() {
                if clock > 0 {
                    self.learn(LaneClock { warp: agent(cta, i as u32), clock, mask: u32::MAX });
                }
            }
            for (i, &clock) in other.local.iter().enumerate() {
                if clock > 0 {
                    self.learn(LaneClock { warp: other.first + i as u32, clock, mask: u32::MAX });
                }
            }
        }
        match (&mut self.remote, &other.remote) {
            (_, None) => {}
            (mine @ None, Some(theirs)) if other.first == self.first => *mine = Some(theirs.clone()),
            (mine, Some(theirs)) => {
                if mine.as_ref().is_none_or(|m| !Arc::ptr_eq(m, theirs)) {
                    for (&warp, &clock) in theirs.iter() {
                        self.learn(LaneClock { warp, clock, mask: u32::MAX });
                    }
                }
            }
        }
        for &e in &other.extra {
            self.learn(e);
        }
        if !self.extra.is_empty() {
            let extra = std::mem::take(&mut self.extra);
            for e in extra {
                self.learn(e);
            }
        }
    }
}

/// Where a release can be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    Cta,
    Cluster,
    /// The device or wider.
    Gpu,
}

/// Something released at a location: what an acquirer within `scope` of `cta` learns.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) scope: Scope,
    /// Linear CTA and cluster of the releasing thread.
    pub(crate) cta: u32,
    pub(crate) cluster: u32,
    pub(crate) know: Know,
}

impl Published {
    /// Whether a thread of (`cta`, `cluster`) that acquires at `scope` synchronises with this release.
    pub(crate) fn reaches(&self, scope: Scope, cta: u32, cluster: u32) -> bool {
        match self.scope.min(scope) {
            Scope::Cta => self.cta == cta,
            Scope::Cluster => self.cluster == cluster,
            Scope::Gpu => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(warp: u32, clock: u32, mask: u32) -> LaneClock {
        LaneClock { warp, clock, mask }
    }

    #[test]
    fn a_lane_speaks_for_itself_alone() {
        let mut k = Know::new(4, 2);
        k.learn(at(5, 3, 1));
        assert!(k.covers(at(5, 3, 1)) && k.covers(at(5, 2, 1)));
        assert!(!k.covers(at(5, 3, 3)) && !k.covers(at(5, 4, 1)));
        k.learn(at(5, 3, !1));
        assert!(k.covers(at(5, 3, u32::MAX)));
    }

    #[test]
    fn join_carries_over_to_another_cta() {
        let mut a = Know::new(0, 2);
        a.learn(at(1, 7, u32::MAX));
        a.learn(at(0, 2, 4));
        let mut b = Know::new(2, 2);
        b.join(&a);
        assert!(b.covers(at(1, 7, u32::MAX)) && b.covers(at(0, 2, 4)) && !b.covers(at(0, 1, 8)));
        let mut c = Know::new(2, 2);
        c.join(&b);
        let mut back = Know::new(0, 2);
        back.join(&c);
        assert!(back.covers(at(1, 7, 1)) && back.covers(at(0, 2, 4)));
    }
}
