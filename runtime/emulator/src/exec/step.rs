//! The state that a warp can access during its turn, and the operations that all instructions share: registers, reports, waiting for other lanes.

use crate::ir::{Pred, Reg};
use crate::lanes::Lanes;
use crate::memory::shadow::Entry;
use crate::memory::shared::SHARED_BASE;
use crate::memory::view::View;
use crate::report::{FindingKind, Space};
use crate::schedule::Rng;
use crate::state::cta::Cta;
use crate::state::env::Env;
use crate::state::events::Pending;
use crate::state::findings::{Defect, Findings};
use crate::state::locations::Locations;
use crate::state::warp::{State, Warp};

/// Everything that a warp can reach during its turn.
pub(crate) struct Step<'s, 'm> {
    pub(crate) env: &'s Env<'s>,
    pub(crate) view: &'s mut View<'m>,
    pub(crate) ctas: &'s mut Vec<Cta>,
    /// The warp's CTA.
    pub(crate) at: usize,
    pub(crate) warp: &'s mut Warp,
    /// The releases at global addresses.
    pub(crate) locations: &'s mut Locations,
    pub(crate) rng: &'s mut Rng,
    pub(crate) findings: &'s mut Findings,
    /// Warps that this turn unblocked: linear CTA index and warp.
    pub(crate) woken: &'s mut Vec<(u32, u32)>,
    /// Asynchronous operations under way.
    pub(crate) pending: &'s mut Pending,
    /// The instruction being executed.
    pub(crate) pc: u32,
}

/// The effect of an instruction on the group of threads that executes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    Next,
    /// The lanes of the mask go to the target, the others on.
    Jump(u32, u32),
    /// The lanes of the mask are gone.
    Exit(u32),
    /// The group stays at this instruction.
    Block(State),
    /// The group stays, and starts behind this instruction once it is unblocked.
    BlockAfter(State),
    /// The lanes go different ways; the groups are already made.
    Scattered,
    Fatal,
}

impl Step<'_, '_> {
    pub(crate) fn cta(&mut self) -> &mut Cta {
        &mut self.ctas[self.at]
    }

    /// The value of a predicate for every lane.
    #[inline]
    pub(crate) fn pred(&self, (p, negated): (Pred, bool)) -> u32 {
        if negated { !self.warp.preds[p as usize] } else { self.warp.preds[p as usize] }
    }

    #[inline]
    pub(crate) fn set_pred(&mut self, p: Pred, value: u32, active: u32) {
        let slot = &mut self.warp.preds[p as usize];
        *slot = *slot & !active | value & active;
    }

    #[inline]
    pub(crate) fn reg(&self, r: Reg) -> &Lanes {
        &self.warp.regs[r as usize]
    }

    #[inline]
    pub(crate) fn set(&mut self, r: Reg, value: &Lanes, active: u32) {
        let slot = &mut self.warp.regs[r as usize];
        if active == u32::MAX {
            *slot = *value;
        } else {
            for (l, s) in slot.iter_mut().enumerate() {
                if active >> l & 1 != 0 {
                    *s = value[l];
                }
            }
        }
    }

    /// Reports a defect of a lane at the current instruction.
    #[cold]
    pub(crate) fn report(
        &mut self,
        kind: FindingKind,
        lane: u32,
        access: Option<(Space, u64)>,
        detail: impl FnOnce() -> String,
    ) {
        self.report_with(kind, lane, access, None, detail);
    }

    /// The same, with the other party of a race.
    pub(crate) fn report_with(
        &mut self,
        kind: FindingKind,
        lane: u32,
        access: Option<(Space, u64)>,
        other: Option<(Entry, bool)>,
        detail: impl FnOnce() -> String,
    ) {
        let (pc, thread) = (self.pc, (self.ctas[self.at].linear, self.warp.index * 32 + lane));
        let place = |view: &View, shared: usize| match access? {
            (Space::Global | Space::Const, a) => view.base.nearest(a),
            (Space::Shared, a) => Some((format!("shared[{shared}]"), a as i64 - i64::from(SHARED_BASE))),
            (Space::Param, a) => Some(("parameters".to_owned(), a as i64)),
            (Space::Local, a) => Some(("local".to_owned(), a as i64)),
        };
        let shared = self.ctas[self.at].shared.len();
        let view = &*self.view;
        self.findings.add(kind, pc, || Defect {
            kind,
            pc,
            thread,
            access,
            place: place(view, shared),
            other,
            detail: detail(),
        });
    }

    /// Lanes that must be at this instruction before it runs: blocks until they are, or says that they are here.
    pub(crate) fn converged(&mut self, need: u32, mask: u32) -> Result<(), Flow> {
        if need & self.warp.live & !mask == 0 {
            Ok(())
        } else {
            Err(Flow::Block(State::Converge(need & self.warp.live)))
        }
    }

    /// Warp-wide instructions need every lane of the warp.
    pub(crate) fn whole_warp(&mut self, active: u32, mask: u32) -> Result<(), Flow> {
        self.converged(u32::MAX, mask)?;
        if active != u32::MAX {
            self.report(FindingKind::MaskMismatch, active.trailing_zeros(), None, || {
                format!("only lanes {active:#010x} execute an instruction that needs the whole warp")
            });
        }
        Ok(())
    }
}
