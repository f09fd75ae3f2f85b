//! The operands of `wgmma`: read, checked and widened to f32.
//!
//! B is the same for the four warps of a warpgroup. The first to issue a product reads it; the others take it over, if they know at least
//! what the first knew, and so may read what it read.

use crate::exec::step::Step;
use crate::hb::{Fenced, Know, LaneClock};
use crate::hopper::descriptor::{Descriptor, Major};
use crate::hopper::fragment;
use crate::hopper::product::{ROWS, widen};
use crate::ir::Element;
use crate::ir::hopper::{OperandA, Wgmma};
use crate::memory::shadow::{ASYNC_PROXY, Access, Entry};
use crate::memory::shared::SHARED_BASE;
use crate::report::{FindingKind, Space};
use crate::state::agents::products;
use crate::state::products::{Operands, Product};

impl Step<'_, '_> {
    /// Operand B for this warp: read by the warp of the group that comes first, which must agree with the others on what it is.
    pub(super) fn operand_b(
        &mut self,
        op: &Wgmma,
        operands: Operands,
        group: usize,
        index: usize,
    ) -> Option<Vec<f32>> {
        let know = self.warp.together();
        let g = &mut self.ctas[self.at].hopper.groups[group];
        let at = (g.issued[index] - g.first) as usize;
        let known = g.products.get_mut(at).map(|p| (p.operands, p.know.clone(), std::mem::take(&mut p.b)));
        if let Some((other, first, widened)) = known {
            if other != operands {
                self.report(FindingKind::Misuse, 0, None, || {
                    "the warps of the warpgroup do not execute the same product".to_owned()
                });
            } else if know.includes(&first) && !widened.is_empty() {
                return Some(widened);
            }
        }
        let mut widened = vec![0.0; op.k() * op.n];
        let n = op.n;
        let sign = if op.negate[1] { -1.0 } else { 1.0 };
        let per = 16 / op.b_type.bytes();
        let major = if op.transpose[1] { Major::Mn } else { Major::K };
        let (mns, ks) = if op.transpose[1] { (n as u32 / 8, 16) } else { (n as u32, 2) };
        let ok = self.read_operand(operands.b, major, 0..mns, ks, &know, op.b_type, sign, |mn, k, piece| {
            let (mn, k) = (mn as usize, k as usize);
            if major == Major::K {
                let column = widened[k * per * n + mn..].iter_mut().step_by(n);
                column.zip(piece).for_each(|(to, &v)| *to = v);
            } else {
                widened[k * n + mn * 8..][..piece.len()].copy_from_slice(piece);
            }
        });
        if !ok {
            return None;
        }
        let g = &mut self.ctas[self.at].hopper.groups[group];
        if g.products.len() <= at {
            g.products.push_back(Product { operands, b: Vec::new(), know, warps: 0 });
        }
        Some(widened)
    }

    /// Puts B back for the other warps, or drops it after the last.
    pub(super) fn hand_back(&mut self, group: usize, b: Vec<f32>) {
        let index = self.warp.index as usize % 4;
        let g = &mut self.ctas[self.at].hopper.groups[group];
        let at = (g.issued[index] - g.first) as usize;
        g.issued[index] += 1;
        if let Some(p) = g.products.get_mut(at) {
            p.warps += 1;
            p.b = b;
        }
        while g.products.front().is_some_and(|p| p.warps == 4) {
            g.products.pop_front();
            g.first += 1;
        }
    }

    /// This warp's rows of A, 16 x k.
    pub(super) fn operand_a(&mut self, op: &Wgmma, descriptor: u64, index: usize) -> Option<Vec<f32>> {
        let k = op.k();
        let mut out = vec![0.0; ROWS * k];
        let sign = if op.negate[0] { -1.0 } else { 1.0 };
        let per = 4 / op.a_type.bytes();
        match &op.a {
            OperandA::Registers(regs) => {
                for (r, &reg) in regs.iter().enumerate() {
                    for (lane, &v) in self.reg(reg).iter().enumerate() {
                        let (row, from) = fragment::a(r, lane, per);
                        widen(op.a_type, sign, &(v as u32).to_le_bytes(), |i, v| out[row * k + from + i] = v);
                    }
                }
            }
            OperandA::Shared(_) => {
                let know = self.warp.together();
                let major = if op.transpose[0] { Major::Mn } else { Major::K };
                let (mns, ks) = if op.transpose[0] { (2, 16) } else { (16, 2) };
                let first = mns * index as u32;
                let ok = self.read_operand(
                    descriptor,
                    major,
                    first..first + mns,
                    ks,
                    &know,
                    op.a_type,
                    sign,
                    |mn, at, piece| {
                        let (mn, at) = ((mn - first) as usize, at as usize);
                        if major == Major::K {
                            out[mn * k + at * 4 * per..][..piece.len()].copy_from_slice(piece);
                        } else {
                            let column = out[mn * 8 * k + at..].iter_mut().step_by(k);
                            column.zip(piece).for_each(|(to, &v)| *to = v);
                        }
                    },
                );
                if !ok {
                    return None;
                }
            }
        }
        Some(out)
    }

    /// Reads, checks and widens pieces of an operand in shared memory; `put` gets the elements of each.
    #[allow(clippy::too_many_arguments)] // one operand: what it is, and where it goes
    fn read_operand(
        &mut self,
        descriptor: u64,
        major: Major,
        mns: std::ops::Range<u32>,
        ks: u32,
        know: &Know,
        element: Element,
        sign: f32,
        mut put: impl FnMut(u32, u32, &[f32]),
    ) -> bool {
        let d = match Descriptor::decode(descriptor) {
            Ok(d) => d,
            Err(what) => {
                self.report(FindingKind::Misuse, 0, None, || what);
                return false;
            }
        };
        let group = self.warp.hopper.wgmma.as_ref().map_or(0, |w| w.committed);
        let linear = self.ctas[self.at].linear;
        let agent =
            LaneClock { warp: products(linear, self.warp.index / 4), clock: group + 1, mask: u32::MAX };
        let me = LaneClock { mask: u32::MAX, ..self.warp.stamp(0, 0).at };
        let access = Access {
            by: Entry { at: agent, pc: self.pc | ASYNC_PROXY },
            write: false,
            know,
            issuer: Some((me, Fenced::Shared)),
        };
        let mut clash = None;
        let mut blank = None;
        for mn in mns {
            for k in 0..ks {
                let address = d.piece(major, mn, k);
                let shared = &mut self.ctas[self.at].shared;
                let Some(offset) = shared.offset(address, 16) else {
                    let all = shared.len();
                    self.report(FindingKind::OutOfBounds, 0, Some((Space::Shared, address.into())), || {
                        format!(
                            "a piece of an operand; shared memory is {all} bytes from address {SHARED_BASE}"
                        )
                    });
                    return false;
                };
                if !shared.plain(offset, 16, &access)
                    && let Some(c) = shared.check(offset, 16, &access)
                    && clash.is_none()
                {
                    clash = Some(c);
                }
                let mut piece = [0; 16];
                if !shared.read(offset, &mut piece) && blank.is_none() {
                    blank = Some(address);
                }
                let mut values = [0.0; 16];
                widen(element, sign, &piece, |i, v| values[i] = v);
                put(mn, k, &values[..16 / element.bytes()]);
            }
        }
        if let Some(address) = blank {
            let access = Some((Space::Shared, address.into()));
            self.report(FindingKind::Uninitialised, 0, access, || {
                "some bytes of an operand were never written".to_owned()
            });
        }
        if let Some(c) = clash {
            let ordered = access.ordered(&c.with);
            self.async_clash(c, ordered, 0, (Space::Shared, c.offset as u64 + u64::from(SHARED_BASE)), false);
        }
        true
    }
}
