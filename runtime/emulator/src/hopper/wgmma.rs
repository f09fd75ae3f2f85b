//! `wgmma`: products of a warpgroup that run beside it until they are waited for.
//!
//! Each of the four warps computes its 16 rows when it issues the product; the operands in shared memory are read then, and stamped as
//! reads of the warpgroup's agent that go on until the wait, so that whoever changes them earlier races. The accumulators live here
//! until a wait writes them to the registers: a register that is touched before holds nothing yet, and is reported.

use std::collections::VecDeque;

use super::descriptor::{Descriptor, Major};
use super::fragment;
use super::ops::{self, OperandA, Wgmma};
use super::product::{ROWS, from_f16, multiply, to_f16, widen};
use super::state::{Wait, products, wake};
use crate::exec::step::{Flow, Step};
use crate::exec::warp::State;
use crate::hb::{Fenced, Know, LaneClock};
use crate::ir::{Accumulator, Element, Instr, Op, Reg};
use crate::memory::shadow::{ASYNC_PROXY, Access, Entry};
use crate::memory::shared::SHARED_BASE;
use crate::report::{FindingKind, Space};

/// What the warps of a warpgroup must agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Operands {
    pc: u32,
    a: u64,
    b: u64,
    add: bool,
}

/// A product that some of the four warps have issued.
#[derive(Debug)]
struct Product {
    operands: Operands,
    /// Operand B, k x n.
    b: Vec<f32>,
    /// What the first warp knew, which sufficed to read B.
    know: Know,
    warps: u32,
}

/// A warpgroup.
#[derive(Debug, Default)]
pub(crate) struct Warpgroup {
    /// Products issued, and groups committed, by warp.
    issued: [u64; 4],
    pub(crate) committed: [u32; 4],
    /// Products from number `first` on.
    first: u64,
    products: VecDeque<Product>,
    /// Counts of the `setmaxnreg` instructions executed, by the warps that are ahead.
    pub(crate) registers: Vec<(u32, bool)>,
    pub(crate) register_steps: [usize; 4],
}

/// Accumulators under way.
#[derive(Debug)]
struct Chain {
    regs: Box<[Reg]>,
    acc: Accumulator,
    n: usize,
    /// 16 x n.
    sum: Vec<f32>,
    /// The last group that adds to it.
    group: u32,
}

/// The asynchronous products of a warp.
#[derive(Debug)]
pub(crate) struct WgmmaWarp {
    committed: u32,
    /// Goes up at every `wgmma.fence`; a register touched at this count has not been fenced since.
    fences: u32,
    touched: Vec<u32>,
    /// One more than the group until whose end a register may not be touched; 0 is none.
    busy: Vec<u32>,
    /// Whether a register that is under way holds a fragment of A; otherwise an accumulator.
    fragment: Vec<bool>,
    /// Registers of fragments under way.
    fragments: Vec<Reg>,
    chains: Vec<Chain>,
}

/// Finds the instructions that touch registers of some `wgmma`, and marks them; the registers by mark, less one.
pub(crate) fn watch(instrs: &mut [Instr], regs: u32) -> Vec<Box<[Reg]>> {
    let mut used = vec![false; regs as usize];
    for i in instrs.iter() {
        let Op::Hopper(op) = &i.op else { continue };
        let ops::Op::Wgmma(w) = &**op else { continue };
        let a: &[Reg] = if let OperandA::Registers(a) = &w.a { a } else { &[] };
        for &r in w.d.iter().chain(a) {
            used[r as usize] = true;
        }
    }
    let mut out = Vec::new();
    for i in instrs.iter_mut() {
        if matches!(&i.op, Op::Hopper(op) if matches!(**op, ops::Op::Wgmma(_))) {
            continue;
        }
        let mut touches = Vec::new();
        i.op.visit(&mut |_, r| {
            if used.get(*r as usize).is_some_and(|&u| u) {
                touches.push(*r);
            }
        });
        if !touches.is_empty() {
            out.push(touches.into());
            i.watch = out.len() as u32;
        }
    }
    out
}

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
            wake(cta, Wait::Warpgroup, self.woken);
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

    /// Operand B for this warp: read by the warp of the group that comes first, which must agree with the others on what it is.
    fn operand_b(&mut self, op: &Wgmma, operands: Operands, group: usize, index: usize) -> Option<Vec<f32>> {
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
        let ok = self.read_operand(operands.b, major, 0..mns, ks, &know, op.b_type, sign, |mn, k, i, v| {
            let (k, column) = if major == Major::K {
                (k as usize * per + i, mn as usize)
            } else {
                (k as usize, mn as usize * 8 + i)
            };
            widened[k * n + column] = v;
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
    fn hand_back(&mut self, group: usize, b: Vec<f32>) {
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
    fn operand_a(&mut self, op: &Wgmma, descriptor: u64, index: usize) -> Option<Vec<f32>> {
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
                    |mn, piece, i, v| {
                        let (row, at) = if major == Major::K {
                            ((mn - first) as usize, piece as usize * 4 * per + i)
                        } else {
                            ((mn - first) as usize * 8 + i, piece as usize)
                        };
                        out[row * k + at] = v;
                    },
                );
                if !ok {
                    return None;
                }
            }
        }
        Some(out)
    }

    /// Reads, checks and widens pieces of an operand in shared memory; `put` gets each element with its piece and its place in that.
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
        mut put: impl FnMut(u32, u32, usize, f32),
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
                if let Some(c) = shared.check(offset, 16, &access)
                    && clash.is_none()
                {
                    clash = Some(c);
                }
                let mut piece = [0; 16];
                if !shared.read(offset, &mut piece) && blank.is_none() {
                    blank = Some(address);
                }
                widen(element, sign, &piece, |i, v| put(mn, k, i, v));
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
