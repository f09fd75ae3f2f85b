//! Asynchronous operations under way: they land in any order and at any time, as the schedule's seed decides.

use crate::hopper::swizzle::Swizzle;
use crate::hopper::tensor_map::Row;
use crate::ir::hopper::{ReduceOp, ReduceTy};
use crate::lanes::format::{BF16, F16, Format, Round};
use crate::memory::pages;
use crate::memory::shadow::{ASYNC_PROXY, Entry, IN_FLIGHT};
use crate::memory::shared::SHARED_BASE;
use crate::report::{FindingKind, Space};
use crate::state::cta::Cta;
use crate::state::events::{Event, Target, What};
use crate::state::findings::Defect;
use crate::state::residents::Residents;
use crate::state::warp::{State, Wait};

impl Residents<'_> {
    /// Between two turns: lets operations land, all the more if nothing else can run.
    pub(crate) fn land_some(&mut self, ready: &mut Vec<(u32, u32)>) {
        while !self.pending.events.is_empty()
            && (ready.is_empty() || self.pending.rng.below(self.pending.laziness) == 0)
        {
            let pick = self.pending.rng.below(self.pending.events.len());
            self.land(pick, ready);
        }
        if ready.is_empty() && self.pending.expired_at != Some(self.pending.progress) {
            // `try_wait` may give up; if that leads nowhere, it is a deadlock.
            self.pending.expired_at = Some(self.pending.progress);
            for cta in &mut self.ctas {
                for warp in cta.warps.iter_mut().flatten() {
                    warp.hopper.expired = warp.splits.iter().any(|s| s.state == State::Async(Wait::Phase));
                }
                cta.wake(Wait::Phase, ready);
            }
        }
    }

    /// A CTA has ended: what still uses its shared memory must not.
    pub(crate) fn settle(&mut self, linear: u32, ready: &mut Vec<(u32, u32)>) {
        while let Some(at) = self.pending.events.iter().position(|e| e.uses(linear)) {
            let Event { pc, issuer, .. } = self.pending.events[at];
            self.defect(
                FindingKind::AsyncInFlight,
                pc,
                issuer,
                None,
                "the CTA ended before this copy to or from its shared memory did".to_owned(),
            );
            self.land(at, ready);
        }
    }

    fn defect(
        &mut self,
        kind: FindingKind,
        pc: u32,
        issuer: (u32, u32, u32),
        access: Option<(Space, u64)>,
        detail: String,
    ) {
        let thread = (issuer.0, issuer.1 * 32 + issuer.2);
        let place = access
            .and_then(|(space, a)| if space == Space::Global { self.view.base.nearest(a) } else { None });
        self.findings.add(kind, pc, || Defect { kind, pc, thread, access, place, other: None, detail });
    }

    fn resident(&mut self, linear: u32) -> Option<&mut Cta> {
        self.ctas.iter_mut().find(|c| c.linear == linear)
    }

    fn land(&mut self, at: usize, ready: &mut Vec<(u32, u32)>) {
        let mut event = self.pending.events.swap_remove(at);
        self.pending.progress += 1;
        let (pc, issuer) = (event.pc, event.issuer);
        match &mut event.what {
            What::Load { rows, bytes, swizzle, targets } => {
                let data = self.gather(rows, *bytes, pc, issuer);
                for t in targets {
                    self.deliver(&data, *swizzle, t, pc, issuer, ready);
                }
            }
            What::Send { from, bytes, target } => {
                let data = self.take(issuer, *from, *bytes, pc);
                self.deliver(&data, Swizzle::None, target, pc, issuer, ready);
            }
            What::Value { data, target } => self.deliver(data, Swizzle::None, target, pc, issuer, ready),
            What::CopyArrive { copies, barrier } => self.arrive_behind(*copies, *barrier, pc, issuer, ready),
            What::Store { rows, bytes, swizzle, offset, group, reduce, data } => {
                let (group, wrote) = (*group, data.is_some());
                if let Some(data) = data {
                    self.scatter(rows, data, *reduce);
                } else {
                    let raw = self.take(issuer, *offset, *bytes, pc);
                    *data = Some(unswizzle(&raw, *offset, *swizzle));
                }
                if let Some(cta) = self.resident(issuer.0) {
                    if let Some(g) = cta.warps[issuer.1 as usize]
                        .as_mut()
                        .and_then(|w| w.hopper.bulk.get_mut(issuer.2 as usize))
                    {
                        g.landed(group, wrote);
                    }
                    cta.wake(Wait::Bulk, ready);
                }
                if !wrote {
                    self.pending.events.push(event);
                }
            }
        }
    }

    /// Reads a box out of global memory; what is outside the tensor is zero.
    fn gather(&mut self, rows: &[Row], bytes: usize, pc: u32, issuer: (u32, u32, u32)) -> Vec<u8> {
        let mut data = vec![0; bytes];
        for r in rows {
            let mut to = (r.offset + r.skip) as usize;
            for (a, n) in pages(r.address, r.len as usize) {
                // What does not exist was reported when the copy was issued.
                if let Some(spot) = self.view.spot(a, n)
                    && !self.view.read(spot, &mut data[to..to + n])
                {
                    let detail = format!("some of the {n} bytes of a copy were never written");
                    self.defect(FindingKind::Uninitialised, pc, issuer, Some((Space::Global, a)), detail);
                }
                to += n;
            }
        }
        data
    }

    /// Reads the issuing CTA's shared memory.
    fn take(&mut self, issuer: (u32, u32, u32), offset: usize, bytes: usize, pc: u32) -> Vec<u8> {
        let mut data = vec![0; bytes];
        let Some(cta) = self.resident(issuer.0) else { return data };
        cta.tally.shared.bytes_read += bytes as u64;
        cta.tally.shared.read_wavefronts += bytes.div_ceil(128) as u64;
        if !cta.shared.read(offset, &mut data) {
            let access = (Space::Shared, offset as u64 + u64::from(SHARED_BASE));
            let detail = format!("some of the {bytes} bytes of a copy were never written");
            self.defect(FindingKind::Uninitialised, pc, issuer, Some(access), detail);
        }
        data
    }

    fn deliver(
        &mut self,
        data: &[u8],
        swizzle: Swizzle,
        t: &Target,
        pc: u32,
        issuer: (u32, u32, u32),
        ready: &mut Vec<(u32, u32)>,
    ) {
        if let Some(cta) = self.resident(t.cta) {
            cta.shared.write(t.offset, &unswizzle(data, t.offset, swizzle));
            cta.tally.shared.bytes_written += data.len() as u64;
            cta.tally.shared.write_wavefronts += data.len().div_ceil(128) as u64;
        }
        let Some(signal) = self.resident(t.signal) else { return };
        let state = &mut signal.hopper;
        let Some(b) = state.barriers.get_mut(&t.barrier) else {
            let access = (Space::Shared, u64::from(t.barrier + SHARED_BASE));
            let detail = "a copy completes on an mbarrier object that was invalidated".to_owned();
            self.defect(FindingKind::Misuse, pc, issuer, Some(access), detail);
            return;
        };
        let agent = b.agent();
        let result = b.complete(data.len() as u32, &state.nothing);
        if matches!(result, Ok(true)) {
            signal.wake(Wait::Phase, ready);
        }
        // Completing on another phase than the one that it was issued in, the copy counts as one of that phase.
        if agent != t.agent
            && let Some(cta) = self.resident(t.cta)
        {
            let entry = |at| Entry { at, pc: pc | ASYNC_PROXY };
            cta.shared.complete_range(t.offset, data.len(), entry(t.agent), entry(agent));
        }
        if let Err(what) = result {
            self.defect(
                FindingKind::Misuse,
                pc,
                issuer,
                Some((Space::Shared, u64::from(t.barrier + SHARED_BASE))),
                what,
            );
        }
    }

    /// Lands a lane's `cp.async` copies, and arrives for them.
    fn arrive_behind(
        &mut self,
        copies: usize,
        barrier: u32,
        pc: u32,
        issuer: (u32, u32, u32),
        ready: &mut Vec<(u32, u32)>,
    ) {
        let Some(cta) = self.resident(issuer.0) else { return };
        let state = &mut cta.hopper;
        let Some(b) = state.barriers.get_mut(&barrier) else { return };
        let agent = b.agent();
        if let Some(warp) = &mut cta.warps[issuer.1 as usize] {
            while let Some((offset, len, data, stamp)) = warp.copies.take(issuer.2, copies) {
                if let Some(data) = data {
                    cta.shared.write(offset, &data[..len]);
                }
                cta.shared.complete(offset, len, stamp, Entry { at: agent, pc: stamp.pc & !IN_FLIGHT });
            }
        }
        match b.arrive(1, None, false, &state.nothing) {
            Ok(true) => cta.wake(Wait::Phase, ready),
            Ok(false) => {}
            Err(what) => {
                self.defect(
                    FindingKind::Misuse,
                    pc,
                    issuer,
                    Some((Space::Shared, u64::from(barrier + SHARED_BASE))),
                    what,
                );
            }
        }
    }

    /// Writes a box to global memory.
    fn scatter(&mut self, rows: &[Row], data: &[u8], reduce: Option<(ReduceOp, ReduceTy)>) {
        for r in rows {
            let mut from = (r.offset + r.skip) as usize;
            for (a, n) in pages(r.address, r.len as usize) {
                if let Some(spot) = self.view.spot(a, n)
                    && !self.view.base.allocations[spot.allocation as usize].read_only
                {
                    match reduce {
                        None => self.view.write(spot, &data[from..from + n]),
                        Some((op, ty)) => {
                            let mut old = vec![0; n];
                            self.view.read(spot, &mut old);
                            reduce_bytes(op, ty, &mut old, &data[from..from + n]);
                            self.view.write(spot, &old);
                        }
                    }
                }
                from += n;
            }
        }
    }
}

/// Exchanges the 16-byte pieces of bytes that begin at `offset` of shared memory, in either direction.
fn unswizzle(data: &[u8], offset: usize, swizzle: Swizzle) -> Vec<u8> {
    let mut out = data.to_vec();
    if swizzle != Swizzle::None {
        for (k, piece) in data.chunks_exact(16).enumerate() {
            let at = (offset + 16 * k) as u32 + SHARED_BASE;
            let to = (swizzle.apply(at) - SHARED_BASE) as usize - offset;
            out[to..to + 16].copy_from_slice(piece);
        }
    }
    out
}

/// `old = old op new`, element by element.
fn reduce_bytes(op: ReduceOp, ty: ReduceTy, old: &mut [u8], new: &[u8]) {
    let small = |format: Format, a: u64, b: u64| {
        let (x, y) = (format.decode(a), format.decode(b));
        // Sums of two 16-bit floats are exact in f64 but for extreme exponents, far below half a unit of the result.
        let v = match op {
            ReduceOp::Add => x + y,
            ReduceOp::Min => x.min(y),
            ReduceOp::Max => x.max(y),
        };
        format.encode(v, Round::Rn, false)
    };
    let width = match ty {
        ReduceTy::F16 | ReduceTy::Bf16 => 2,
        ReduceTy::U32 | ReduceTy::S32 | ReduceTy::F32 => 4,
        ReduceTy::U64 | ReduceTy::S64 | ReduceTy::F64 => 8,
    };
    let pick = |less: bool, a: u64, b: u64| if less == (op == ReduceOp::Min) { a } else { b };
    for (a, b) in old.chunks_exact_mut(width).zip(new.chunks_exact(width)) {
        let word = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |v, &b| v << 8 | u64::from(b));
        let (x, y) = (word(a), word(b));
        let v = match (ty, op) {
            (ReduceTy::F16, _) => small(F16, x, y),
            (ReduceTy::Bf16, _) => small(BF16, x, y),
            (ReduceTy::F32, _) => (f32::from_bits(x as u32) + f32::from_bits(y as u32)).to_bits().into(),
            (ReduceTy::F64, _) => (f64::from_bits(x) + f64::from_bits(y)).to_bits(),
            (_, ReduceOp::Add) => x.wrapping_add(y),
            (ReduceTy::S32, _) => pick((x as i32) < (y as i32), x, y),
            (ReduceTy::S64, _) => pick((x as i64) < (y as i64), x, y),
            (_, _) => pick(x < y, x, y),
        };
        a.copy_from_slice(&v.to_le_bytes()[..width]);
    }
}
