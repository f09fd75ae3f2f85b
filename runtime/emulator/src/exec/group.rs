//! Groups of CTAs that share a view of memory, their warps picked by a seeded scheduler.

use super::run::Turn;
use super::step::Step;
use crate::count::Tally;
use crate::ir::Op;
use crate::memory::touched::Touched;
use crate::memory::view::View;
use crate::report::FindingKind;
use crate::schedule::Rng;
use crate::state::cta::Cta;
use crate::state::env::Env;
use crate::state::events::Pending;
use crate::state::findings::{Defect, Findings};
use crate::state::locations::Locations;
use crate::state::residents::Residents;
use crate::state::waits::waits;
use crate::state::warp::State;

/// The result of running a group.
pub(crate) struct Outcome {
    pub(crate) completed: bool,
    pub(crate) findings: Findings,
    pub(crate) ctas: Vec<(u32, Tally, Touched)>,
}

/// CTAs that share a view of global memory.
pub(crate) struct Group<'a, 'm> {
    env: &'a Env<'a>,
    /// Clusters of CTAs still to start, the next one last.
    waiting: Vec<Vec<u32>>,
    residents: Residents<'m>,
    rng: Rng,
    done: Vec<(u32, Tally, Touched)>,
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
        let residents = Residents {
            view,
            ctas: Vec::new(),
            locations: Locations::default(),
            findings: Findings::new(env.launch.max_findings),
            pending: Pending::new(env.launch.schedule, u64::from(stream)),
        };
        Self { env, waiting, residents, rng, done: Vec::new() }
    }

    /// Runs all CTAs to their end, or to the first fatal defect.
    pub(crate) fn run(mut self) -> (View<'m>, Outcome) {
        let mut completed = true;
        let mut ready: Vec<(u32, u32)> = Vec::new();
        self.refill(&mut ready);
        while !self.residents.ctas.is_empty() {
            self.residents.land_some(&mut ready);
            if ready.is_empty() {
                self.deadlock();
                completed = false;
                break;
            }
            let pick = self.rng.below(ready.len());
            let (linear, w) = ready[pick];
            let Some(at) = self.residents.ctas.iter().position(|c| c.linear == linear) else {
                ready.swap_remove(pick);
                continue;
            };
            let Some(mut warp) = self.residents.ctas[at].warps[w as usize].take() else {
                ready.swap_remove(pick);
                continue;
            };
            // Short turns now and then find what long ones miss, and the other way round.
            let scale = self.rng.below(7);
            let quantum = 1 + self.rng.below(4 << scale);
            let mut woken = Vec::new();
            let mut step = Step {
                env: self.env,
                view: &mut self.residents.view,
                ctas: &mut self.residents.ctas,
                at,
                warp: &mut warp,
                locations: &mut self.residents.locations,
                rng: &mut self.rng,
                findings: &mut self.residents.findings,
                woken: &mut woken,
                pending: &mut self.residents.pending,
                pc: 0,
            };
            let turn = step.run(quantum as u32);
            let (over, again) = (warp.live == 0, warp.ready());
            self.residents.ctas[at].warps[w as usize] = Some(warp);
            if turn == Turn::Fatal {
                completed = false;
                break;
            }
            if !again {
                ready.swap_remove(pick);
            }
            ready.extend(woken);
            if over && self.residents.ctas[at].running == 0 {
                self.residents.settle(linear, &mut ready);
                let cta = self.residents.ctas.remove(at);
                self.done.push((cta.linear, cta.tally, cta.touched));
                self.refill(&mut ready);
            }
        }
        self.done.extend(self.residents.ctas.drain(..).map(|c| (c.linear, c.tally, c.touched)));
        self.done.sort_by_key(|d| d.0);
        (self.residents.view, Outcome { completed, findings: self.residents.findings, ctas: self.done })
    }

    fn refill(&mut self, ready: &mut Vec<(u32, u32)>) {
        while self.residents.ctas.len() < self.env.launch.resident.max(1) as usize {
            for linear in self.waiting.pop().unwrap_or_default() {
                self.residents.ctas.push(Cta::new(self.env, linear));
                ready.extend((0..self.env.warps).map(|w| (linear, w)));
            }
            if self.waiting.is_empty() {
                return;
            }
        }
    }

    /// Nothing can run: says who waits on what.
    fn deadlock(&mut self) {
        for cta in &self.residents.ctas {
            let waits = waits(cta);
            for warp in cta.warps.iter().flatten() {
                for s in &warp.splits {
                    let kind = match s.state {
                        State::Ready => continue,
                        State::Converge(_) => match self.env.code.instrs[s.pc as usize].op {
                            Op::Barrier { .. } => FindingKind::DivergentBarrier,
                            _ => FindingKind::MaskMismatch,
                        },
                        State::WarpBarrier(_) => FindingKind::MaskMismatch,
                        State::Barrier(_) | State::Async(_) => FindingKind::Deadlock,
                    };
                    // Groups at a barrier go on behind it; the others will execute their instruction again.
                    let pc = if matches!(s.state, State::Converge(_)) { s.pc } else { s.pc - 1 };
                    let thread = (cta.linear, warp.index * 32 + s.mask.trailing_zeros());
                    self.residents.findings.add(kind, pc, || Defect {
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
