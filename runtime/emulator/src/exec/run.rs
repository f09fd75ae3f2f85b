//! One warp's turn: picking the group of threads to run, handing each instruction to what executes it, and those that need no memory.

use super::step::{Flow, Step};
use crate::ir::{Clock, Logic, Op, Reg};
use crate::lanes::{Lanes, bits, low};
use crate::report::FindingKind;
use crate::state::warp::{Split, State};

/// Instructions after which a group that runs beside ready ones lets them have a turn: it may be spinning on what they will do.
const BURST: u32 = 2048;

/// How a warp's turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It could go on, or is blocked; look at it.
    Over,
    /// The launch cannot go on.
    Fatal,
}

impl Step<'_, '_> {
    /// Runs up to `quantum` instructions.
    pub(crate) fn run(&mut self, quantum: u32) -> Turn {
        let env = self.env;
        let code = &env.code.instrs[..];
        let rank = &env.code.rank[..];
        let mut left = quantum;
        while left > 0 {
            let Some(at) = self.warp.pick(rank) else { break };
            let split = self.warp.splits[at];
            let Split { mut pc, mask, turns, .. } = split;
            // Ready neighbours further on: where this group meets or passes one, it has to look again.
            let alone = self.warp.splits.len() == 1;
            let others = self
                .warp
                .splits
                .iter()
                .enumerate()
                .filter(|(i, s)| *i != at && s.state == State::Ready && s.turns == turns);
            let meet = others.map(|(_, s)| rank[s.pc as usize]).min().unwrap_or(u32::MAX);
            // Whether this group's entry among the splits is up to date.
            let mut settled = false;
            let mut burst = if alone { 0 } else { split.ran };
            while left > 0 && rank[pc as usize] < meet {
                left -= 1;
                burst += 1;
                let instr = &code[pc as usize];
                let active = match instr.guard {
                    None => mask,
                    Some((p, negated)) => {
                        mask & if negated {
                            !self.warp.preds[p as usize]
                        } else {
                            self.warp.preds[p as usize]
                        }
                    }
                };
                if active == 0 {
                    pc += 1;
                    continue;
                }
                self.pc = pc;
                let tally = &mut self.ctas[self.at].tally;
                tally.classes[instr.class as usize] += 1;
                tally.thread_instructions += u64::from(active.count_ones());
                self.warp.executed += 1;
                if self.warp.executed > env.launch.max_instructions {
                    self.report(FindingKind::Hang, active.trailing_zeros(), None, || {
                        format!("the warp executed more than {} instructions", env.launch.max_instructions)
                    });
                    return Turn::Fatal;
                }
                if instr.watch != 0 {
                    self.touch(instr.watch);
                }
                match self.execute(&instr.op, active, mask) {
                    Flow::Next => pc += 1,
                    Flow::Jump(taken, target) if taken == mask => pc = target,
                    Flow::Jump(taken, target) => {
                        self.warp.splits[at] = Split { pc: pc + 1, mask: mask & !taken, ran: burst, ..split };
                        self.warp.splits.push(Split { pc: target, mask: taken, ran: burst, ..split });
                        settled = true;
                        break;
                    }
                    Flow::Scattered => {
                        settled = true;
                        break;
                    }
                    Flow::Exit(gone) => {
                        self.exit(gone);
                        if gone == mask {
                            self.warp.splits.swap_remove(at);
                        } else {
                            self.warp.splits[at] =
                                Split { pc: pc + 1, mask: mask & !gone, ran: burst, ..split };
                        }
                        settled = true;
                        break;
                    }
                    Flow::Block(state) => {
                        // It did not execute yet.
                        self.ctas[self.at].tally.classes[instr.class as usize] -= 1;
                        self.ctas[self.at].tally.thread_instructions -= u64::from(active.count_ones());
                        self.warp.splits[at] = Split { pc, state, ran: 0, ..split };
                        self.gather(pc, state);
                        settled = true;
                        break;
                    }
                    Flow::BlockAfter(state) => {
                        self.warp.splits[at] = Split { pc: pc + 1, state, ran: 0, ..split };
                        settled = true;
                        break;
                    }
                    Flow::Fatal => return Turn::Fatal,
                }
                if !alone && burst >= BURST {
                    break;
                }
            }
            if !settled {
                let tired = !alone && burst >= BURST;
                let (turns, ran) = if tired { (turns + 1, 0) } else { (turns, burst) };
                self.warp.splits[at] = Split { pc, turns, ran, ..split };
            }
            if self.warp.live == 0 {
                break;
            }
        }
        Turn::Over
    }

    /// Joins groups that wait for each other at one instruction.
    fn gather(&mut self, pc: u32, state: State) {
        let State::Converge(_) = state else { return };
        let here = |s: &Split| s.pc == pc && matches!(s.state, State::Converge(_));
        if self.warp.splits.iter().filter(|s| here(s)).count() > 1 {
            for s in self.warp.splits.iter_mut().filter(|s| here(s)) {
                s.state = State::Ready; // `pick` joins them, and they look again
            }
        }
    }

    fn exit(&mut self, gone: u32) {
        self.exit_async(gone);
        self.recheck_cluster(gone);
        self.warp.live &= !gone;
        self.warp.recheck();
        self.land_all(gone);
        self.recheck_warp_barriers();
        if self.warp.live == 0 {
            self.cta().running -= 1;
            self.recheck_barriers();
        }
    }

    fn execute(&mut self, op: &Op, active: u32, mask: u32) -> Flow {
        match op {
            Op::Map { f, d, s, .. } => {
                let r = &self.warp.regs;
                let out = f([&r[s[0] as usize], &r[s[1] as usize], &r[s[2] as usize], &r[s[3] as usize]]);
                self.set(*d, &out, active);
            }
            Op::Test { f, p, q, a, b, with } => {
                let v = f(self.reg(*a), self.reg(*b));
                let (mut yes, mut no) = (v, !v);
                if let Some((op, c, negated)) = with {
                    let c = self.pred((*c, *negated));
                    yes = combine(*op, yes, c);
                    no = combine(*op, no, c);
                }
                if let Some(p) = p {
                    self.set_pred(*p, yes, active);
                }
                if let Some(q) = q {
                    self.set_pred(*q, no, active);
                }
            }
            Op::Logic { op, p, a, b } => {
                let v = combine(*op, self.pred(*a), self.pred(*b));
                self.set_pred(*p, v, active);
            }
            Op::Select { d, a, b, p } => {
                let (p, a, b) = (self.pred(*p), self.reg(*a), self.reg(*b));
                let out: Lanes = std::array::from_fn(|l| if p >> l & 1 != 0 { a[l] } else { b[l] });
                self.set(*d, &out, active);
            }
            Op::Carry { d, a, b, bits, subtract, takes, gives } => {
                self.carry(*d, *a, *b, *bits, *subtract, *takes, *gives, active);
            }
            Op::Branch { target } => return Flow::Jump(active, *target),
            Op::Switch { index, targets } => return self.switch(*index, targets, active, mask),
            Op::Exit => return Flow::Exit(active),
            Op::Trap => {
                self.report(FindingKind::Trap, active.trailing_zeros(), None, String::new);
                return Flow::Fatal;
            }
            Op::Nop => {}
            Op::Clock { d, what } => {
                let v = if *what == Clock::Count { self.warp.executed } else { 0 };
                self.set(*d, &[v; 32], active);
            }
            Op::Ld { place, d, extend } => self.load(place, d, *extend, active),
            Op::St { place, s } => self.store(place, s, active),
            Op::Atom { place, op, ty, d, b, c } => self.atomic(place, *op, *ty, *d, *b, *c, active),
            Op::CpAsync { to, from, bytes, size, ignore, .. } => {
                self.copy_async(*to, *from, usize::from(*bytes), *size, *ignore, active);
            }
            Op::CpCommit => self.warp.copies.commit(active),
            Op::CpWait { left } => self.copy_wait(*left, active),
            Op::Ldmatrix { space, address, d, trans } => {
                return self.ldmatrix(*space, *address, d, *trans, active, mask);
            }
            Op::Stmatrix { space, address, s, trans } => {
                return self.stmatrix(*space, *address, s, *trans, active, mask);
            }
            Op::Movmatrix { d, a } => return self.movmatrix(*d, *a, active, mask),
            Op::Mma { .. } => return self.mma(op, active, mask),
            Op::Shuffle { mode, d, p, a, b, c, mask: m } => {
                return self.shuffle(*mode, *d, *p, [*a, *b, *c, *m], active, mask);
            }
            Op::Vote { mode, d, p, a, mask: m } => return self.vote(*mode, *d, *p, *a, *m, active, mask),
            Op::Match { all, d, p, a, mask: m } => return self.matching(*all, *d, *p, *a, *m, active, mask),
            Op::Redux { op, signed, d, a, mask: m } => {
                return self.redux(*op, *signed, *d, *a, *m, active, mask);
            }
            Op::Elect { d, p, mask: m } => return self.elect(*d, *p, *m, active, mask),
            Op::ActiveMask { d } => self.set(*d, &[active.into(); 32], active),
            Op::WarpBarrier { mask: m } => return self.warp_barrier(*m, active),
            Op::Barrier { kind, aligned, id, count, input, d, p } => {
                return self.barrier(*kind, *aligned, *id, *count, *input, *d, *p, active, mask);
            }
            Op::Hopper(op) => return self.hopper(op, active, mask),
            Op::Fence { scope } => {
                let linear = self.ctas[self.at].linear;
                self.warp.fence(active, *scope, linear, self.env.cluster(linear));
            }
        }
        Flow::Next
    }

    #[allow(clippy::too_many_arguments)] // the fields of one instruction
    fn carry(
        &mut self,
        d: Reg,
        a: Reg,
        b: Reg,
        bits: u32,
        subtract: bool,
        takes: bool,
        gives: bool,
        active: u32,
    ) {
        let (a, b) = (*self.reg(a), *self.reg(b));
        let (mut out, mut carry) = ([0; 32], 0u32);
        for l in 0..32 {
            let c = u128::from(takes && self.warp.carry >> l & 1 != 0);
            let (x, y) = (u128::from(low(a[l], bits)), u128::from(low(b[l], bits)));
            let sum = if subtract { x.wrapping_sub(y).wrapping_sub(c) } else { x + y + c };
            out[l] = low(sum as u64, bits);
            carry |= u32::from(sum >> bits & 1 != 0) << l;
        }
        self.set(d, &out, active);
        if gives {
            self.warp.carry = self.warp.carry & !active | carry & active;
        }
    }

    fn switch(&mut self, index: Reg, targets: &[u32], active: u32, mask: u32) -> Flow {
        let index = *self.reg(index);
        let mut ways: Vec<(u32, u32)> = Vec::new();
        if active != mask {
            ways.push((self.pc + 1, mask & !active));
        }
        for lane in bits(active) {
            let Some(&t) = targets.get(index[lane as usize] as usize) else {
                self.report(FindingKind::Misuse, lane, None, || {
                    format!("branch index {} of {} targets", index[lane as usize], targets.len())
                });
                return Flow::Fatal;
            };
            match ways.iter_mut().find(|w| w.0 == t) {
                Some(w) => w.1 |= 1 << lane,
                None => ways.push((t, 1 << lane)),
            }
        }
        if let [(t, m)] = ways[..] {
            return Flow::Jump(m, t);
        }
        let Some(at) = self.warp.splits.iter().position(|s| s.mask & mask != 0) else { return Flow::Next };
        let split = self.warp.splits.swap_remove(at);
        self.warp.splits.extend(ways.into_iter().map(|(pc, mask)| Split { pc, mask, ..split }));
        Flow::Scattered
    }
}

fn combine(op: Logic, a: u32, b: u32) -> u32 {
    match op {
        Logic::And => a & b,
        Logic::Or => a | b,
        Logic::Xor => a ^ b,
    }
}
