//! Atomics, and the synchronisation that strong accesses make: releases, acquires, and fences around relaxed ones.

use crate::exec::mem::At;
use crate::exec::step::Step;
use crate::hb::{Published, Scope};
use crate::ir::{AtomOp, AtomTy, Order, Place, Reg};
use crate::lanes::float::put;
use crate::lanes::format::{BF16, F16, Format, Round, add_odd};
use crate::lanes::{bits, low, sext};
use crate::memory::shadow::STRONG;
use crate::state::traffic::{Offsets, Request, count_shared};
use crate::state::warp::Fences;

/// The new value; `old` and `b` are `width` bits.
fn compute(op: AtomOp, ty: AtomTy, width: u32, old: u64, b: u64, c: u64) -> u64 {
    let half = |f: Format, n: u32| {
        (0..n).fold(0, |out, i| {
            let at = 16 * i;
            let sum = add_odd(f.decode(old >> at & 0xffff), f.decode(b >> at & 0xffff));
            out | f.encode(sum, Round::Rn, false) << at
        })
    };
    match (op, ty) {
        (AtomOp::Exch, _) => b,
        (AtomOp::Cas, _) => {
            if old == b {
                c
            } else {
                old
            }
        }
        (AtomOp::And, _) => old & b,
        (AtomOp::Or, _) => old | b,
        (AtomOp::Xor, _) => old ^ b,
        (AtomOp::Add, AtomTy::F32) => put(f32::from_bits(old as u32) + f32::from_bits(b as u32), false),
        (AtomOp::Add, AtomTy::F64) => (f64::from_bits(old) + f64::from_bits(b)).to_bits(),
        (AtomOp::Add, AtomTy::F16) => half(F16, 1),
        (AtomOp::Add, AtomTy::F16x2) => half(F16, 2),
        (AtomOp::Add, AtomTy::Bf16) => half(BF16, 1),
        (AtomOp::Add, AtomTy::Bf16x2) => half(BF16, 2),
        (AtomOp::Add, _) => low(old.wrapping_add(b), width),
        (AtomOp::Min, AtomTy::Signed) => {
            if sext(old, width) <= sext(b, width) {
                old
            } else {
                b
            }
        }
        (AtomOp::Max, AtomTy::Signed) => {
            if sext(old, width) >= sext(b, width) {
                old
            } else {
                b
            }
        }
        (AtomOp::Min, _) => old.min(b),
        (AtomOp::Max, _) => old.max(b),
        (AtomOp::Inc, _) => {
            if old >= b {
                0
            } else {
                old + 1
            }
        }
        (AtomOp::Dec, _) => {
            if old == 0 || old > b {
                b
            } else {
                old - 1
            }
        }
    }
}

impl Step<'_, '_> {
    #[allow(clippy::too_many_arguments)] // the fields of one instruction
    pub(crate) fn atomic(
        &mut self,
        place: &Place,
        op: AtomOp,
        ty: AtomTy,
        d: Option<Reg>,
        b: Reg,
        c: Option<Reg>,
        active: u32,
    ) {
        let len = usize::from(place.bytes);
        let (b, c) = (*self.reg(b), c.map_or([0; 32], |c| *self.reg(c)));
        let mut out = [0; 32];
        let mut request = Request::default();
        let mut shared = Offsets::default();
        // Lanes take their turns in any order; the seed says which.
        let first = self.rng.below(32) as u32;
        for lane in bits(active.rotate_right(first)).map(|l| (l + first) % 32) {
            let address = self.address(place.address, lane);
            let Some(at) = self.locate(place.space, address, len, lane) else { continue };
            if matches!(at, At::Local(_) | At::Param(_)) || self.read_only(at, lane) {
                continue;
            }
            if let Some(c) = self.race(at, len, lane, STRONG, true) {
                self.clash(c, at, lane, true);
            }
            let mut word = [0; 8];
            if !self.fetch(at, lane, &mut word[..len]) {
                self.unwritten(at, lane, len);
            }
            let old = u64::from_le_bytes(word);
            out[lane as usize] = old;
            let new = compute(
                op,
                ty,
                8 * len as u32,
                old,
                low(b[lane as usize], 8 * len as u32),
                low(c[lane as usize], 8 * len as u32),
            );
            self.put(at, lane, &new.to_le_bytes()[..len]);
            match at {
                At::Global(spot, a) => {
                    request.note(spot.allocation, a, len);
                    self.ctas[self.at].touched.mark(spot.page, spot.allocation, spot.offset(), len, false);
                }
                At::Shared(offset) => shared.set(lane, offset),
                _ => {}
            }
            self.observe(at, place.order, place.scope, lane);
            self.publish(at, place.order, place.scope, lane, true);
        }
        if let Some(d) = d {
            self.set(d, &out, active);
        }
        let tally = &mut self.ctas[self.at].tally;
        request.count(tally, false);
        request.count(tally, true);
        count_shared(&mut tally.shared, &shared, len, false);
        count_shared(&mut tally.shared, &shared, len, true);
    }

    /// A strong load: an acquire learns what was released here, a relaxed one keeps it for a fence to come.
    pub(crate) fn observe(&mut self, at: At, order: Order, scope: Scope, lane: u32) {
        let linear = self.ctas[self.at].linear;
        let cluster = self.env.cluster(linear);
        let seen: Vec<Published> = match at {
            At::Global(_, a) => self.locations.at(a),
            At::Shared(o) => self.ctas[self.at].locations.at(o as u64),
            _ => return,
        }
        .iter()
        .filter(|p| p.reaches(scope, linear, cluster))
        .cloned()
        .collect();
        if seen.is_empty() {
            return;
        }
        if matches!(order, Order::Acquire | Order::AcqRel) {
            for p in seen {
                self.warp.acquire(1 << lane, &p.know);
            }
            return;
        }
        if self.warp.fences.is_empty() {
            self.warp.fences = vec![Fences::default(); 32];
        }
        let pending = &mut self.warp.fences[lane as usize].pending;
        for p in seen {
            match pending.iter_mut().find(|o| o.scope == p.scope && o.cta == p.cta) {
                Some(o) => o.know.join(&p.know),
                None => pending.push(p),
            }
        }
    }

    /// A strong store: a release publishes all that the lane knows, a relaxed one what its last fence covered.
    pub(crate) fn publish(&mut self, at: At, order: Order, scope: Scope, lane: u32, rmw: bool) {
        let linear = self.ctas[self.at].linear;
        let cluster = self.env.cluster(linear);
        let what = if matches!(order, Order::Release | Order::AcqRel) {
            let know = self.warp.release(1 << lane);
            Some(Published { scope, cta: linear, cluster, know })
        } else {
            let fence = self.warp.fences.get(lane as usize).and_then(|f| f.release.clone());
            fence.map(|f| Published { scope: f.scope.min(scope), ..f })
        };
        match at {
            At::Global(_, a) => self.locations.publish(a, what, rmw),
            At::Shared(o) => self.ctas[self.at].locations.publish(o as u64, what, rmw),
            _ => {}
        }
    }
}
