//! CTA barriers, with ids, counts and reductions, and barriers of a warp.

use crate::exec::step::{Flow, Step};
use crate::hb::Know;
use crate::ir::{BarKind, Pred, Reg};
use crate::lanes::bits;
use crate::report::FindingKind;
use crate::state::barrier::{Barrier, Waiter};
use crate::state::warp::State;

impl Step<'_, '_> {
    #[allow(clippy::too_many_arguments)] // the fields of one instruction
    pub(crate) fn barrier(
        &mut self,
        kind: BarKind,
        aligned: bool,
        id: Reg,
        count: Option<Reg>,
        input: Option<(Pred, bool)>,
        d: Option<Reg>,
        p: Option<Pred>,
        active: u32,
        mask: u32,
    ) -> Flow {
        if aligned && let Err(f) = self.converged(u32::MAX, mask) {
            return f;
        }
        let lane = active.trailing_zeros();
        let all_exited = self.cta().warps.iter().flatten().any(|w| w.live != w.present);
        if aligned && (active != self.warp.present || (count.is_none() && all_exited)) {
            let (present, live) = (self.warp.present, self.warp.live);
            self.report(FindingKind::DivergentBarrier, lane, None, || {
                if active == live && live != present {
                    format!("lanes {:#010x} of the warp have exited", present & !live)
                } else if active != present {
                    format!("only lanes {active:#010x} of {present:#010x} execute it")
                } else {
                    "threads of the CTA have exited before it".to_owned()
                }
            });
        }
        let ids = *self.reg(id);
        let number = ids[lane as usize] as u32;
        let counts = count.map(|c| *self.reg(c));
        let uniform = bits(active).all(|l| ids[l as usize] as u32 == number);
        let same = counts.is_none_or(|c| bits(active).all(|l| c[l as usize] == c[lane as usize]));
        let count = counts.map(|c| c[lane as usize] as u32);
        if !uniform || !same || number > 15 || count.is_some_and(|c| c == 0 || c % 32 != 0) {
            self.report(FindingKind::BarrierMisuse, lane, None, || {
                format!("barrier {number} with count {count:?}: ids are 0 to 15, counts multiples of 32, both the same in a warp")
            });
            return Flow::Fatal;
        }
        let (warp, number) = (self.warp.index, number as usize);
        let everyone = self.env.warps * 32;
        let expected = count.unwrap_or(everyone);
        let before = self.cta().barriers[number].expected;
        if let Some(b) = before
            && b != expected
        {
            self.report(FindingKind::BarrierMisuse, lane, None, || {
                format!("barrier {number} is awaited by {expected} threads here and by {b} elsewhere")
            });
        }
        if expected > everyone {
            self.report(FindingKind::BarrierMisuse, lane, None, || {
                format!("barrier {number} waits for {expected} of {everyone} threads")
            });
        }
        let know = if aligned { self.warp.sync(self.warp.live) } else { self.warp.release(active) };
        let trues = input.map_or(0, |i| (self.pred(i) & active).count_ones());
        let b = &mut self.cta().barriers[number];
        b.expected = Some(expected);
        b.everyone = count.is_none();
        b.arrived += if aligned { 32 } else { active.count_ones() };
        b.know.join(&know);
        b.trues += trues;
        b.voters += active.count_ones();
        let waits = kind != BarKind::Arrive;
        if waits {
            b.waiting.push(Waiter { warp, mask: active, kind, d, p });
        } else {
            b.arrivals.push(warp);
        }
        let done = self.complete(number);
        if waits && !done { Flow::BlockAfter(State::Barrier(number as u32)) } else { Flow::Next }
    }

    /// Releases the barrier if everybody is there; whether it did.
    fn complete(&mut self, number: usize) -> bool {
        let running = self.cta().running;
        let first = &mut self.cta().barriers[number];
        let Some(mut expected) = first.expected else { return false };
        if first.everyone {
            // Warps that have exited are not waited for.
            expected = expected.min(running * 32);
        }
        // The current warp is out of its slot, and counts as running until its last thread is gone.
        if first.arrived < expected || first.arrived == 0 {
            return false;
        }
        let fresh = Barrier::new(first.first, first.warps);
        let b = std::mem::replace(first, fresh);
        let linear = self.ctas[self.at].linear;
        for w in b.waiting {
            let value = match w.kind {
                BarKind::Popc => b.trues,
                BarKind::And => u32::from(b.trues == b.voters),
                BarKind::Or => u32::from(b.trues > 0),
                _ => 0,
            };
            if w.warp == self.warp.index {
                self.finish(w, value, &b.know);
                continue;
            }
            // The other warp takes this one's place for a moment.
            if let Some(mut other) = self.ctas[self.at].warps[w.warp as usize].take() {
                std::mem::swap(&mut *other, self.warp);
                self.finish(w, value, &b.know);
                let was_blocked = self.warp.splits.iter().all(|s| s.state != State::Ready);
                for s in self
                    .warp
                    .splits
                    .iter_mut()
                    .filter(|s| s.state == State::Barrier(number as u32) && s.mask & w.mask != 0)
                {
                    s.state = State::Ready;
                }
                std::mem::swap(&mut *other, self.warp);
                self.ctas[self.at].warps[w.warp as usize] = Some(other);
                if was_blocked {
                    self.woken.push((linear, w.warp));
                }
            }
        }
        // Groups of this very warp that waited (threads of a warp may arrive one after the other).
        for s in self.warp.splits.iter_mut().filter(|s| s.state == State::Barrier(number as u32)) {
            s.state = State::Ready;
        }
        true
    }

    fn finish(&mut self, w: Waiter, value: u32, know: &Know) {
        let mask = if w.mask == self.warp.live { self.warp.present } else { w.mask };
        self.warp.acquire(mask, know);
        if let Some(d) = w.d {
            self.set(d, &[value.into(); 32], w.mask);
        }
        if let Some(p) = w.p {
            self.set_pred(p, if value != 0 { u32::MAX } else { 0 }, w.mask);
        }
    }

    /// A warp has exited: barriers of the whole CTA do not wait for it any longer.
    pub(crate) fn recheck_barriers(&mut self) {
        for number in 0..16 {
            let b = &self.cta().barriers[number];
            if b.everyone && b.expected.is_some() {
                self.complete(number);
            }
        }
    }

    /// `bar.warp.sync`: the lanes may be at different instructions, if they name the same lanes.
    pub(crate) fn warp_barrier(&mut self, mask: Reg, active: u32) -> Flow {
        let masks = *self.reg(mask);
        let lane = active.trailing_zeros();
        let named = masks[lane as usize] as u32;
        if bits(active).any(|l| masks[l as usize] as u32 != named || named >> l & 1 == 0) {
            self.report(FindingKind::MaskMismatch, lane, None, || {
                format!("member mask {named:#010x} does not name lanes {active:#010x} that execute it")
            });
            return Flow::Next;
        }
        let gone = named & self.warp.present & !self.warp.live;
        if gone != 0 {
            self.report(FindingKind::MaskMismatch, lane, None, || {
                format!("member mask {named:#010x} names lanes {gone:#010x} that have exited")
            });
        }
        let waiting =
            self.warp.splits.iter().filter(|s| s.state == State::WarpBarrier(named) && s.mask & active == 0);
        let here = waiting.fold(active, |m, s| m | s.mask);
        if named & self.warp.live & !here != 0 {
            return Flow::BlockAfter(State::WarpBarrier(named));
        }
        self.release_warp_barrier(named, here);
        Flow::Next
    }

    fn release_warp_barrier(&mut self, named: u32, here: u32) {
        let mask = if here & self.warp.live == self.warp.live { self.warp.present } else { here };
        self.warp.sync(mask);
        for s in self.warp.splits.iter_mut().filter(|s| s.state == State::WarpBarrier(named)) {
            s.state = State::Ready;
        }
    }

    /// Lanes have exited: barriers that wait for them may be complete.
    pub(crate) fn recheck_warp_barriers(&mut self) {
        let masks: Vec<u32> = self
            .warp
            .splits
            .iter()
            .filter_map(|s| if let State::WarpBarrier(m) = s.state { Some(m) } else { None })
            .collect();
        for named in masks {
            let here = self
                .warp
                .splits
                .iter()
                .filter(|s| s.state == State::WarpBarrier(named))
                .fold(0, |m, s| m | s.mask);
            if here != 0 && named & self.warp.live & !here == 0 {
                self.release_warp_barrier(named, here);
            }
        }
    }
}
