//! `wgmma`: products of a warpgroup that run beside it until they are waited for.
//!
//! Each of the four warps computes its 16 rows when it issues the product; the operands in shared memory are read then, and stamped as
//! reads of the warpgroup's agent that go on until the wait, so that a thread that changes them earlier races. The accumulators
//! live in the warp's state until a wait writes them to the registers: a register that is touched before holds nothing yet, and is reported.

use crate::exec::step::{Flow, Step};
use crate::hb::LaneClock;
use crate::hopper::fragment;
use crate::hopper::product::{ROWS, from_f16, multiply, to_f16};
use crate::ir::hopper::{OperandA, Wgmma};
use crate::ir::{Accumulator, Reg};
use crate::report::FindingKind;
use crate::state::agents::products;
use crate::state::products::{Chain, Operands, WgmmaWarp};
use crate::state::warp::{State, Wait};

impl Step<'_, '_> {
    /// An ordinary instruction touches registers that products use.
    pub(crate) fn touch(&mut self, watch: u32) {
        let Some(w) = &mut self.warp.hopper.wgmma else { return };
        let mut early = None;
        for &r in &self.env.code.watched[watch as usize - 1] {
            w.touched[r as usize] = w.fences;
            if w.busy[r as usize] != 0 {
                early = Some(w.busy[r as usize] - 1);
            }
        }
        if let Some(group) = early {
            let committed = w.committed;
            self.report(FindingKind::WgmmaInFlight, 0, None, || {
                format!("a register of a product of group {group} ({committed} are committed) that has not been waited for")
            });
        }
    }

    pub(crate) fn wgmma_fence(&mut self, active: u32, mask: u32) -> Flow {
        if let Err(f) = self.whole_warp(active, mask) {
            return f;
        }
        let regs = self.env.code.regs as usize;
        let w = self.warp.hopper.wgmma.get_or_insert_with(|| {
            Box::new(WgmmaWarp {
                committed: 0,
                fences: 0,
                touched: vec![0; regs],
                busy: vec![0; regs],
                fragment: vec![false; regs],
                fragments: Vec::new(),
                chains: Vec::new(),
            })
        });
        w.fences += 1;
        Flow::Next
    }

    pub(crate) fn wgmma_commit(&mut self, active: u32, mask: u32) -> Flow {
        if let Err(f) = self.whole_warp(active, mask) {
            return f;
        }
        if let Some(w) = &mut self.warp.hopper.wgmma {
            w.committed += 1;
            let index = self.warp.index as usize;
            let cta = &mut self.ctas[self.at];
            cta.hopper.groups[index / 4].committed[index % 4] += 1;
            cta.wake(Wait::Warpgroup, self.woken);
        }
        Flow::Next
    }

    pub(crate) fn wgmma_wait(&mut self, left: u32, active: u32, mask: u32) -> Flow {
        if let Err(f) = self.whole_warp(active, mask) {
            return f;
        }
        let Some(w) = &mut self.warp.hopper.wgmma else { return Flow::Next };
        let end = w.committed.saturating_sub(left);
        let group = self.warp.index / 4;
        let cta = &self.ctas[self.at];
        if cta.hopper.groups[group as usize].committed.iter().any(|&c| c < end) {
            // A product is the whole warpgroup's: it does not end before all have begun it.
            return Flow::Block(State::Async(Wait::Warpgroup));
        }
        let linear = cta.linear;
        let WgmmaWarp { chains, fragments, busy, .. } = &mut **w;
        fragments.retain(|&r| {
            let under_way = busy[r as usize] > end;
            if !under_way {
                busy[r as usize] = 0;
            }
            under_way
        });
        let mut done = Vec::new();
        chains.retain_mut(|c| {
            if c.group >= end {
                return true;
            }
            for &r in &c.regs {
                busy[r as usize] = 0;
            }
            done.push((std::mem::take(&mut c.regs), c.acc, std::mem::take(&mut c.sum), c.n));
            false
        });
        for (regs, acc, sum, n) in done {
            self.write_accumulators(&regs, acc, &sum, n);
        }
        if end > 0 {
            self.warp.learn(
                self.warp.present,
                LaneClock { warp: products(linear, group), clock: end, mask: u32::MAX },
            );
        }
        Flow::Next
    }

    fn write_accumulators(&mut self, regs: &[Reg], acc: Accumulator, sum: &[f32], n: usize) {
        for (r, &reg) in regs.iter().enumerate() {
            let out = &mut self.warp.regs[reg as usize];
            for (lane, slot) in out.iter_mut().enumerate() {
                let value = |i: usize| {
                    let (row, column) = fragment::accumulator(i, lane);
                    sum[row * n + column]
                };
                *slot = match acc {
                    Accumulator::F16 => {
                        u64::from(to_f16(value(2 * r))) | u64::from(to_f16(value(2 * r + 1))) << 16
                    }
                    _ => value(r).to_bits().into(),
                };
            }
        }
    }

    fn read_accumulators(&self, regs: &[Reg], acc: Accumulator, n: usize) -> Vec<f32> {
        let mut sum = vec![0.0; ROWS * n];
        for (r, &reg) in regs.iter().enumerate() {
            for (lane, &v) in self.reg(reg).iter().enumerate() {
                let mut put = |i: usize, v: f32| {
                    let (row, column) = fragment::accumulator(i, lane);
                    sum[row * n + column] = v;
                };
                if acc == Accumulator::F16 {
                    put(2 * r, from_f16(v as u16));
                    put(2 * r + 1, from_f16((v >> 16) as u16));
                } else {
                    put(r, f32::from_bits(v as u32));
                }
            }
        }
        sum
    }

    /// A 64-bit operand that must be the same in all lanes.
    fn uniform(&mut self, r: Reg, what: &str) -> u64 {
        let v = *self.reg(r);
        if v.iter().any(|&x| x != v[0]) {
            self.report(FindingKind::Misuse, 0, None, || {
                format!("the lanes of the warp do not agree on {what}")
            });
        }
        v[0]
    }

    pub(crate) fn wgmma(&mut self, op: &Wgmma, active: u32, mask: u32) -> Flow {
        if let Err(f) = self.whole_warp(active, mask) {
            return f;
        }
        let (index, group) = (self.warp.index as usize % 4, self.warp.index as usize / 4);
        if self.env.warps as usize <= 4 * group + 3 {
            self.report(FindingKind::Misuse, 0, None, || {
                "the warp is in no whole warpgroup of four".to_owned()
            });
            return Flow::Fatal;
        }
        let a = match &op.a {
            OperandA::Shared(r) => self.uniform(*r, "the descriptor of A"),
            OperandA::Registers(_) => 0,
        };
        let b = self.uniform(op.b, "the descriptor of B");
        let add = match op.scale_d {
            Err(literal) => literal,
            Ok(p) => {
                let p = self.pred(p);
                if p != 0 && p != u32::MAX {
                    self.report(FindingKind::Misuse, 0, None, || {
                        "the lanes of the warp do not agree on whether to add".to_owned()
                    });
                }
                p != 0
            }
        };
        if !self.registers_free(op) {
            return Flow::Fatal;
        }
        let operands = Operands { pc: self.pc, a, b, add };
        let Some(widened) = self.operand_b(op, operands, group, index) else { return Flow::Next };
        let Some(fragment) = self.operand_a(op, a, index) else { return Flow::Next };
        self.accumulate(op, add, &fragment, &widened);
        self.hand_back(group, widened);
        self.ctas[self.at].tally.matrix_flops += 2 * (ROWS * op.n * op.k()) as u64;
        Flow::Next
    }

    /// Checks the rules for the registers that a product uses. Without any fence yet there is no state to go on with.
    fn registers_free(&mut self, op: &Wgmma) -> bool {
        let Some(w) = &self.warp.hopper.wgmma else {
            self.report(FindingKind::Misuse, 0, None, || {
                "the warp's first product is issued before any `wgmma.fence`".to_owned()
            });
            return false;
        };
        let a: &[Reg] = if let OperandA::Registers(a) = &op.a { a } else { &[] };
        let unfenced = op.d.iter().chain(a).filter(|&&r| w.touched[r as usize] == w.fences).count();
        let own = w.chains.iter().any(|c| c.regs == op.d && c.acc == op.acc);
        let taken = |r: &Reg, role| w.busy[*r as usize] != 0 && w.fragment[*r as usize] == role;
        let clash = op.d.iter().any(|r| taken(r, true) || (!own && taken(r, false)))
            || a.iter().any(|r| taken(r, false));
        if unfenced > 0 {
            self.report(FindingKind::Misuse, 0, None, || {
                format!("{unfenced} registers of the product were accessed since the last `wgmma.fence`")
            });
        }
        if clash {
            self.report(FindingKind::WgmmaInFlight, 0, None, || {
                "registers of a product of another shape that has not been waited for".to_owned()
            });
        }
        true
    }

    fn accumulate(&mut self, op: &Wgmma, add: bool, a: &[f32], b: &[f32]) {
        let Some(mut w) = self.warp.hopper.wgmma.take() else { return };
        let group = w.committed;
        let at = w.chains.iter().position(|c| c.regs == op.d && c.acc == op.acc).unwrap_or_else(|| {
            let sum = if add { self.read_accumulators(&op.d, op.acc, op.n) } else { Vec::new() };
            w.chains.push(Chain { regs: op.d.clone(), acc: op.acc, n: op.n, sum, group });
            w.chains.len() - 1
        });
        let chain = &mut w.chains[at];
        chain.group = group;
        if !add {
            chain.sum.clear();
            chain.sum.resize(ROWS * op.n, 0.0);
        }
        multiply(&mut chain.sum, a, b, op.n);
        if op.acc == Accumulator::F16 {
            for v in &mut chain.sum {
                *v = from_f16(to_f16(*v));
            }
        }
        for &r in &op.d {
            w.busy[r as usize] = group + 1;
            w.fragment[r as usize] = false;
        }
        if let OperandA::Registers(a) = &op.a {
            for &r in a {
                if w.busy[r as usize] == 0 {
                    w.fragments.push(r);
                }
                w.busy[r as usize] = group + 1;
                w.fragment[r as usize] = true;
            }
        }
        self.warp.hopper.wgmma = Some(w);
    }

    /// Lanes exit; the products of the last must have been waited for.
    pub(crate) fn exit_products(&mut self, gone: u32) {
        let under_way = self.warp.hopper.wgmma.as_ref().is_some_and(|w| !w.chains.is_empty());
        if under_way && self.warp.live & !gone == 0 {
            self.report(FindingKind::WgmmaInFlight, gone.trailing_zeros(), None, || {
                "the warp exits without having waited for its products".to_owned()
            });
        }
    }
}
