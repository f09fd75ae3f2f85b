//! Barriers, fences, and everything that lanes of a warp do together.

use super::{Decoder, Mods, Result};
use crate::count::Class;
use crate::hb::Scope;
use crate::ir::{BarKind, Op, ReduxOp, ShuffleMode, VoteMode};
use crate::lanes::Ty;
use crate::parse::ast::{Instruction, Operand};

impl<'a> Decoder<'a> {
    pub(super) fn sync(&mut self, i: &'a Instruction, m: &mut Mods) -> Result<()> {
        let head = i.op[0].as_str();
        match head {
            "bar" | "barrier" => self.barrier(i, m),
            "membar" => {
                let scope = match m.one_of(&["cta", "gl", "sys"]) {
                    Some("cta") => Scope::Cta,
                    Some(_) => Scope::Gpu,
                    None => return Err(self.error("`membar` without a level")),
                };
                self.push(Op::Fence { scope }, Class::Sync);
                Ok(())
            }
            "fence" => {
                if self.proxy_fence(i, m)? {
                    return Ok(());
                }
                if m.one_of(&["acq_rel", "sc", "acquire", "release"]).is_none() {
                    return Err(
                        self.error(format!("the emulator does not know the instruction `{}`", i.name()))
                    );
                }
                let scope = Self::scope(m).ok_or_else(|| self.error("`fence` without a scope"))?;
                self.push(Op::Fence { scope }, Class::Sync);
                Ok(())
            }
            "activemask" => {
                m.take("b32");
                let [d] = self.operands(i)?;
                let d = self.dst_of(d, 32)?;
                self.push(Op::ActiveMask { d }, Class::Collective);
                Ok(())
            }
            _ => {
                if !m.take("sync") {
                    return Err(self.error(format!("`{}` without `.sync`", i.name())));
                }
                self.collective(head, i, m)
            }
        }
    }

    fn barrier(&mut self, i: &'a Instruction, m: &mut Mods) -> Result<()> {
        let u32s = Ty::U(32);
        if m.take("warp") {
            m.take("sync");
            let [mask] = self.operands(i)?;
            let mask = self.src(mask, u32s)?;
            self.push(Op::WarpBarrier { mask }, Class::Sync);
            return Ok(());
        }
        m.take("cta");
        if self.cluster_barrier(i, m)? {
            return Ok(());
        }
        let aligned = m.take("aligned") || i.op[0] == "bar";
        if m.take("red") {
            let ty = self.ty(m)?;
            let kind = match (m.one_of(&["popc", "and", "or"]), ty) {
                (Some("popc"), Ty::U(32)) => BarKind::Popc,
                (Some("and"), Ty::Pred) => BarKind::And,
                (Some("or"), Ty::Pred) => BarKind::Or,
                _ => {
                    return Err(
                        self.error(format!("the emulator does not know the instruction `{}`", i.name()))
                    );
                }
            };
            let (d, id, count, input) = match &i.operands[..] {
                [d, id, input] => (d, id, None, input),
                [d, id, count, input] => (d, id, Some(self.src(count, u32s)?), input),
                _ => return Err(self.error("`bar.red` with a wrong number of operands")),
            };
            let (id, input) = (self.src(id, u32s)?, Some(self.pred(input)?));
            let (d, p) = if kind == BarKind::Popc {
                (Some(self.dst_of(d, 32)?), None)
            } else {
                (None, Some(self.dst_pred(d)?))
            };
            self.push(Op::Barrier { kind, aligned, id, count, input, d, p }, Class::Sync);
            return Ok(());
        }
        let kind = match m.one_of(&["sync", "arrive"]) {
            Some("sync") => BarKind::Sync,
            Some(_) => BarKind::Arrive,
            None => {
                return Err(self.error(format!("the emulator does not know the instruction `{}`", i.name())));
            }
        };
        let (id, count) = match &i.operands[..] {
            [id] if kind == BarKind::Sync => (self.src(id, u32s)?, None),
            [id, count] => (self.src(id, u32s)?, Some(self.src(count, u32s)?)),
            _ => return Err(self.error("a barrier with a wrong number of operands")),
        };
        self.push(Op::Barrier { kind, aligned, id, count, input: None, d: None, p: None }, Class::Sync);
        Ok(())
    }

    fn collective(&mut self, head: &str, i: &'a Instruction, m: &mut Mods) -> Result<()> {
        let u32s = Ty::B(32);
        let unknown =
            |d: &Self| d.error(format!("the emulator does not know the instruction `{}`", i.name()));
        let op = match head {
            "shfl" => {
                m.take("b32");
                let mode = match m.one_of(&["up", "down", "bfly", "idx"]) {
                    Some("up") => ShuffleMode::Up,
                    Some("down") => ShuffleMode::Down,
                    Some("bfly") => ShuffleMode::Bfly,
                    Some(_) => ShuffleMode::Idx,
                    None => return Err(unknown(self)),
                };
                let [d, a, b, c, mask] = self.operands(i)?;
                let (d, p) = match d {
                    Operand::Pair(d, p) => (self.dst_of(d, 32)?, Some(self.dst_pred(p)?)),
                    d => (self.dst_of(d, 32)?, None),
                };
                let [a, b, c, mask] =
                    [self.src(a, u32s)?, self.src(b, u32s)?, self.src(c, u32s)?, self.src(mask, u32s)?];
                Op::Shuffle { mode, d, p, a, b, c, mask }
            }
            "vote" => {
                let ty = self.ty(m)?;
                let mode = match (m.one_of(&["all", "any", "uni", "ballot"]), ty) {
                    (Some("all"), Ty::Pred) => VoteMode::All,
                    (Some("any"), Ty::Pred) => VoteMode::Any,
                    (Some("uni"), Ty::Pred) => VoteMode::Uni,
                    (Some("ballot"), Ty::B(32)) => VoteMode::Ballot,
                    _ => return Err(unknown(self)),
                };
                let [d, a, mask] = self.operands(i)?;
                let (a, mask) = (self.pred(a)?, self.src(mask, u32s)?);
                let (d, p) = if mode == VoteMode::Ballot {
                    (Some(self.dst_of(d, 32)?), None)
                } else {
                    (None, Some(self.dst_pred(d)?))
                };
                Op::Vote { mode, d, p, a, mask }
            }
            "match" => {
                let ty = self.ty(m)?;
                let all = m.one_of(&["any", "all"]).ok_or_else(|| unknown(self))? == "all";
                let [d, a, mask] = self.operands(i)?;
                let (d, p) = match d {
                    Operand::Pair(d, p) if all => (self.dst_of(d, 32)?, Some(self.dst_pred(p)?)),
                    d => (self.dst_of(d, 32)?, None),
                };
                let (a, mask) = (self.src(a, ty)?, self.src(mask, u32s)?);
                Op::Match { all, d, p, a, mask }
            }
            "redux" => {
                let ty = self.ty(m)?;
                let op = match m.one_of(&["add", "min", "max", "and", "or", "xor"]) {
                    Some("add") => ReduxOp::Add,
                    Some("min") => ReduxOp::Min,
                    Some("max") => ReduxOp::Max,
                    Some("and") => ReduxOp::And,
                    Some("or") => ReduxOp::Or,
                    Some(_) => ReduxOp::Xor,
                    None => return Err(unknown(self)),
                };
                if !ty.is_int() || ty.bits() != 32 {
                    return Err(unknown(self));
                }
                let [d, a, mask] = self.operands(i)?;
                Op::Redux {
                    op,
                    signed: ty.signed(),
                    d: self.dst_of(d, 32)?,
                    a: self.src(a, ty)?,
                    mask: self.src(mask, u32s)?,
                }
            }
            "elect" => {
                let [Operand::Pair(d, p), mask] = self.operands(i)? else {
                    return Err(self.error("`elect.sync` makes a register and a predicate"));
                };
                let d = if **d == Operand::Name("_".to_owned()) { None } else { Some(self.dst_of(d, 32)?) };
                Op::Elect { d, p: self.dst_pred(p)?, mask: self.src(mask, u32s)? }
            }
            _ => return Err(unknown(self)),
        };
        self.push(op, Class::Collective);
        Ok(())
    }
}
