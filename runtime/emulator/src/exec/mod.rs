//! Running a kernel: groups of CTAs that share a view of memory, their warps picked by a seeded scheduler.

mod async_copy;
mod atomics;
mod barrier;
mod collective;
pub(crate) mod findings;
mod matrix;
pub(crate) mod mem;
mod mma;
pub(crate) mod step;
mod traffic;
pub(crate) mod warp;

use std::collections::BTreeMap;

use crate::count::Tally;
use crate::exec::barrier::Barrier;
use crate::exec::findings::{Defect, Findings};
use crate::exec::step::Step;
use crate::exec::warp::{State, Warp};
use crate::hb::{Know, Published};
use crate::hopper::events::Pending;
use crate::hopper::state::CtaState;
use crate::ir::{Code, Constant, Special};
use crate::launch::Launch;
use crate::memory::shared::Shared;
use crate::memory::touched::Touched;
use crate::memory::view::View;
use crate::module::{Kernel, Module};
use crate::report::{Dim3, FindingKind};
use crate::schedule::Rng;

/// What all CTAs of a launch share and nobody changes.
pub(crate) struct Env<'a> {
    pub(crate) module: &'a Module,
    pub(crate) kernel: &'a Kernel,
    pub(crate) code: &'a Code,
    pub(crate) launch: &'a Launch,
    /// Addresses of the module's variables.
    variables: Vec<u64>,
    /// Threads and warps of a CTA.
    pub(crate) threads: u32,
    pub(crate) warps: u32,
}

impl<'a> Env<'a> {
    pub(crate) fn new(
        module: &'a Module,
        kernel: &'a Kernel,
        launch: &'a Launch,
        variables: Vec<u64>,
    ) -> Self {
        let threads = launch.block.0 * launch.block.1 * launch.block.2;
        Self { module, kernel, code: &kernel.code, launch, variables, threads, warps: threads.div_ceil(32) }
    }

    /// Index of a CTA from its linear one.
    pub(crate) fn cta(&self, linear: u32) -> Dim3 {
        let (x, y, _) = self.launch.grid;
        (linear % x, linear / x % y, linear / x / y)
    }

    /// CTAs of a cluster, by axis.
    pub(crate) fn cluster_shape(&self) -> Dim3 {
        self.launch.cluster.or(self.kernel.cluster.map(|[x, y, z]| (x, y, z))).unwrap_or((1, 1, 1))
    }

    /// Linear index of a CTA's cluster.
    pub(crate) fn cluster(&self, cta: u32) -> u32 {
        let (c, s, g) = (self.cta(cta), self.cluster_shape(), self.launch.grid);
        c.0 / s.0 + g.0 / s.0 * (c.1 / s.1 + g.1 / s.1 * (c.2 / s.2))
    }

    /// CTAs of a cluster.
    pub(crate) fn cluster_size(&self) -> u32 {
        let s = self.cluster_shape();
        s.0 * s.1 * s.2
    }

    /// Linear index of the CTA at a rank of another's cluster, if the cluster has that rank.
    pub(crate) fn cluster_member(&self, cta: u32, rank: u32) -> Option<u32> {
        let (c, s, g) = (self.cta(cta), self.cluster_shape(), self.launch.grid);
        let r = (rank % s.0, rank / s.0 % s.1, rank / s.0 / s.1);
        let at = (c.0 / s.0 * s.0 + r.0, c.1 / s.1 * s.1 + r.1, c.2 / s.2 * s.2 + r.2);
        (r.2 < s.2).then_some(at.0 + g.0 * (at.1 + g.1 * at.2))
    }

    /// Rank of a CTA in its cluster.
    pub(crate) fn cluster_rank(&self, cta: u32) -> u32 {
        let (c, s) = (self.cta(cta), self.cluster_shape());
        c.0 % s.0 + s.0 * (c.1 % s.1 + s.1 * (c.2 % s.2))
    }

    /// The clusters that CTAs are in, each with all its CTAs: those of a cluster only run together.
    pub(crate) fn clusters(&self, ctas: &[u32]) -> Vec<Vec<u32>> {
        let mut out = BTreeMap::new();
        for &cta in ctas {
            out.entry(self.cluster(cta)).or_insert_with(|| {
                (0..self.cluster_size()).filter_map(|r| self.cluster_member(cta, r)).collect()
            });
        }
        out.into_values().collect()
    }

    /// Bytes of shared memory of a CTA.
    fn shared(&self) -> u32 {
        if self.launch.dynamic_shared == 0 {
            self.kernel.static_shared
        } else {
            self.kernel.dynamic_shared_offset + self.launch.dynamic_shared
        }
    }

    fn special(&self, s: Special, cta: u32, warp: u32, lane: u32) -> u32 {
        let axis = |v: Dim3, a: u8| [v.0, v.1, v.2][usize::from(a)];
        let b = self.launch.block;
        let t = warp * 32 + lane;
        match s {
            Special::Tid(a) => axis((t % b.0, t / b.0 % b.1, t / b.0 / b.1), a),
            Special::Ntid(a) => axis(b, a),
            Special::Ctaid(a) => axis(self.cta(cta), a),
            Special::Nctaid(a) => axis(self.launch.grid, a),
            Special::ClusterId(a) => axis(self.cta(cta), a) / axis(self.cluster_shape(), a),
            Special::NClusterId(a) => axis(self.launch.grid, a) / axis(self.cluster_shape(), a),
            Special::LaneId => lane,
            Special::WarpId => warp,
            Special::NWarpId => self.warps,
            Special::SmId => cta % self.launch.sm_count.max(1),
            Special::NSmId => self.launch.sm_count,
            Special::LaneMaskEq => 1 << lane,
            Special::LaneMaskLt => (1 << lane) - 1,
            Special::LaneMaskLe => (1 << lane) | ((1 << lane) - 1),
            Special::LaneMaskGe => !((1 << lane) - 1),
            Special::LaneMaskGt => !((1 << lane) | ((1 << lane) - 1)),
            Special::DynamicShared => self.launch.dynamic_shared,
            Special::TotalShared => self.shared(),
            Special::ClusterNCtaId(a) => axis(self.cluster_shape(), a),
            Special::ClusterNCtaRank => self.cluster_size(),
            Special::ClusterCtaId(a) => axis(self.cta(cta), a) % axis(self.cluster_shape(), a),
            Special::ClusterCtaRank => self.cluster_rank(cta),
            Special::GridId => 0,
        }
    }
}

/// One resident CTA.
pub(crate) struct Cta {
    /// Linear index in the grid.
    pub(crate) linear: u32,
    pub(crate) shared: Shared,
    /// A warp is absent while it runs.
    pub(crate) warps: Vec<Option<Box<Warp>>>,
    pub(crate) barriers: Vec<Barrier>,
    pub(crate) tally: Tally,
    pub(crate) touched: Touched,
    /// What was released at shared addresses.
    pub(crate) locations: Locations,
    /// Warps with threads that have not exited.
    pub(crate) running: u32,
    pub(crate) hopper: CtaState,
}

impl Cta {
    fn new(env: &Env, linear: u32) -> Self {
        let first = linear * env.warps;
        let mut warps = Vec::with_capacity(env.warps as usize);
        for w in 0..env.warps {
            let lanes = (env.threads - w * 32).min(32);
            let present = if lanes == 32 { u32::MAX } else { (1 << lanes) - 1 };
            let mut warp = Warp::new(env.code, w, first + w, present, Know::new(first, env.warps));
            let from = env.code.regs as usize - env.code.constants.len();
            for (reg, c) in warp.regs[from..].iter_mut().zip(&env.code.constants) {
                for (lane, slot) in reg.iter_mut().enumerate() {
                    *slot = match *c {
                        Constant::Bits(v) => v,
                        Constant::Variable(i, offset) => {
                            env.variables[i as usize].wrapping_add(offset as u64)
                        }
                        Constant::DynamicShared(_) => 0,
                        Constant::Special(s) => env.special(s, linear, w, lane as u32).into(),
                    };
                }
            }
            warps.push(Some(Box::new(warp)));
        }
        Self {
            linear,
            shared: Shared::new(env.shared() as usize),
            running: env.warps,
            hopper: CtaState::new(linear, first, env.warps),
            warps,
            barriers: (0..16).map(|_| Barrier::new(first, env.warps)).collect(),
            tally: Tally::default(),
            touched: Touched::default(),
            locations: Locations::default(),
        }
    }
}

/// What strong stores have published, by address.
#[derive(Clone, Debug, Default)]
pub(crate) struct Locations(BTreeMap<u64, Vec<Published>>);

impl Locations {
    /// What a strong load of `address` sees.
    pub(crate) fn at(&self, address: u64) -> &[Published] {
        self.0.get(&address).map_or(&[], Vec::as_slice)
    }

    /// A strong store that releases `what`; one that is no read-modify-write ends the release sequences before it.
    pub(crate) fn publish(&mut self, address: u64, what: Option<Published>, rmw: bool) {
        if what.is_none() && (rmw || !self.0.contains_key(&address)) {
            return;
        }
        let list = self.0.entry(address).or_default();
        if !rmw {
            list.clear();
        }
        if let Some(p) = what {
            match list.iter_mut().find(|o| o.scope == p.scope && o.cta == p.cta) {
                Some(o) => o.know.join(&p.know),
                None => list.push(p),
            }
        }
    }
}

/// What running a group gave.
pub(crate) struct Outcome {
    pub(crate) completed: bool,
    pub(crate) findings: Findings,
    pub(crate) ctas: Vec<(u32, Tally, Touched)>,
}

/// CTAs that share a view of global memory.
pub(crate) struct Group<'a, 'm> {
    env: &'a Env<'a>,
    pub(crate) view: View<'m>,
    /// Clusters of CTAs still to start, the next one last.
    waiting: Vec<Vec<u32>>,
    pub(crate) ctas: Vec<Cta>,
    locations: Locations,
    rng: Rng,
    pub(crate) findings: Findings,
    done: Vec<(u32, Tally, Touched)>,
    /// Asynchronous operations under way.
    pub(crate) pending: Pending,
}

/// How a warp's turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It could go on, or is blocked; look at it.
    Over,
    /// The launch cannot go on.
    Fatal,
}

impl<'a, 'm> Group<'a, 'm> {
    pub(crate) fn new(env: &'a Env<'a>, view: View<'m>, clusters: Vec<Vec<u32>>) -> Self {
        let stream = clusters.first().and_then(|c| c.first()).copied().unwrap_or(0);
        let mut rng = Rng::new(env.launch.schedule, u64::from(stream) + 1);
        let mut waiting = clusters;
        // CTAs start in any order; so they do here.
        for i in (1..waiting.len()).rev() {
            waiting.swap(i, rng.below(i + 1));
        }
        let findings = Findings::new(env.launch.max_findings);
        Self {
            env,
            view,
            waiting,
            ctas: Vec::new(),
            locations: Locations::default(),
            rng,
            findings,
            done: Vec::new(),
            pending: Pending::new(env.launch.schedule, u64::from(stream)),
        }
    }

    /// Runs all CTAs to their end, or to the first fatal defect.
    pub(crate) fn run(mut self) -> (View<'m>, Outcome) {
        let mut completed = true;
        let mut ready: Vec<(u32, u32)> = Vec::new();
        self.refill(&mut ready);
        while !self.ctas.is_empty() {
            self.land_some(&mut ready);
            if ready.is_empty() {
                self.deadlock();
                completed = false;
                break;
            }
            let pick = self.rng.below(ready.len());
            let (linear, w) = ready[pick];
            let Some(at) = self.ctas.iter().position(|c| c.linear == linear) else {
                ready.swap_remove(pick);
                continue;
            };
            let Some(mut warp) = self.ctas[at].warps[w as usize].take() else {
                ready.swap_remove(pick);
                continue;
            };
            // Short turns now and then find what long ones miss, and the other way round.
            let scale = self.rng.below(7);
            let quantum = 1 + self.rng.below(4 << scale);
            let mut woken = Vec::new();
            let mut step = Step {
                env: self.env,
                view: &mut self.view,
                ctas: &mut self.ctas,
                at,
                warp: &mut warp,
                locations: &mut self.locations,
                rng: &mut self.rng,
                findings: &mut self.findings,
                woken: &mut woken,
                pending: &mut self.pending,
                pc: 0,
            };
            let turn = step.run(quantum as u32);
            let (over, again) = (warp.live == 0, warp.ready());
            self.ctas[at].warps[w as usize] = Some(warp);
            if turn == Turn::Fatal {
                completed = false;
                break;
            }
            if !again {
                ready.swap_remove(pick);
            }
            ready.extend(woken);
            if over && self.ctas[at].running == 0 {
                self.settle(linear, &mut ready);
                let cta = self.ctas.remove(at);
                self.done.push((cta.linear, cta.tally, cta.touched));
                self.refill(&mut ready);
            }
        }
        self.done.extend(self.ctas.drain(..).map(|c| (c.linear, c.tally, c.touched)));
        self.done.sort_by_key(|d| d.0);
        (self.view, Outcome { completed, findings: self.findings, ctas: self.done })
    }

    fn refill(&mut self, ready: &mut Vec<(u32, u32)>) {
        while self.ctas.len() < self.env.launch.resident.max(1) as usize {
            for linear in self.waiting.pop().unwrap_or_default() {
                self.ctas.push(Cta::new(self.env, linear));
                ready.extend((0..self.env.warps).map(|w| (linear, w)));
            }
            if self.waiting.is_empty() {
                return;
            }
        }
    }

    /// Nothing can run: says who waits on what.
    fn deadlock(&mut self) {
        for cta in &self.ctas {
            let waits = barrier::waits(cta);
            for warp in cta.warps.iter().flatten() {
                for s in &warp.splits {
                    let kind = match s.state {
                        State::Ready => continue,
                        State::Converge(_) => match self.env.code.instrs[s.pc as usize].op {
                            crate::ir::Op::Barrier { .. } => FindingKind::DivergentBarrier,
                            _ => FindingKind::MaskMismatch,
                        },
                        State::WarpBarrier(_) => FindingKind::MaskMismatch,
                        State::Barrier(_) | State::Async(_) => FindingKind::Deadlock,
                    };
                    // Groups at a barrier go on behind it; the others will execute their instruction again.
                    let pc = if matches!(s.state, State::Converge(_)) { s.pc } else { s.pc - 1 };
                    let thread = (cta.linear, warp.index * 32 + s.mask.trailing_zeros());
                    self.findings.add(kind, pc, || Defect {
                        kind,
                        pc,
                        thread,
                        access: None,
                        place: None,
                        other: None,
                        detail: waits.clone(),
                    });
                }
            }
        }
    }
}
