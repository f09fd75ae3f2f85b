//! Moves, selections, comparisons, logic, bit fields.

use super::scope::Binding;
use super::{Decoder, Mods, Result};
use crate::count::Class;
use crate::ir::{Clock, Logic, MemSpace, Op, Pred};
use crate::lanes::format::{BF16, F16, F32};
use crate::lanes::{Test, Ty, float, int, low, map1, map2, map4, test};
use crate::memory::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, WINDOW};
use crate::parse::ast::{Instruction, Operand};

impl<'a> Decoder<'a> {
    pub(super) fn moves(&mut self, i: &'a Instruction, m: &mut Mods) -> Result<()> {
        match i.op[0].as_str() {
            "mov" => self.mov(i, m),
            "cvta" => self.cvta(i, m),
            "isspacep" => self.isspacep(i, m),
            "selp" => {
                let ty = self.ty(m)?;
                let [d, a, b, p] = self.operands(i)?;
                let (d, a, b, p) =
                    (self.dst_of(d, ty.bits())?, self.src(a, ty)?, self.src(b, ty)?, self.pred(p)?);
                self.push(Op::Select { d, a, b, p }, Class::Integer);
                Ok(())
            }
            "slct" => {
                let (by, ty) = (self.ty(m)?, self.ty(m)?);
                let ftz = m.take("ftz");
                let [d, a, b, c] = self.operands(i)?;
                let (d, a, b, c) =
                    (self.dst_of(d, ty.bits())?, self.src(a, ty)?, self.src(b, ty)?, self.src(c, by)?);
                let f = match by {
                    Ty::S(32) => int::ternary("slct", ty),
                    Ty::F32 => {
                        Some(crate::lanes::map3(move |a, b, c| if float::get(c, ftz) >= 0.0 { a } else { b }))
                    }
                    _ => None,
                };
                let f = f.ok_or_else(|| self.error("`slct` selects by .s32 or .f32"))?;
                self.map(f, d, &[a, b, c], Class::Integer);
                Ok(())
            }
            "setp" => self.setp(i, m),
            "set" => self.set(i, m),
            op => self.logic(op, i, m),
        }
    }

    fn mov(&mut self, i: &'a Instruction, m: &mut Mods) -> Result<()> {
        let ty = self.ty(m)?;
        let [d, s] = self.operands(i)?;
        if ty == Ty::Pred {
            let (p, a) = (self.dst_pred(d)?, self.pred_or_literal(s)?);
            self.push(Op::Logic { op: Logic::And, p, a, b: a }, Class::Predicate);
            return Ok(());
        }
        let w = ty.bits();
        if let Operand::Name(n) = s
            && let Some(what) = clock(n)
        {
            let d = self.dst_of(d, w)?;
            self.push(Op::Clock { d, what }, Class::Other);
            return Ok(());
        }
        match (d, s) {
            (Operand::Vector(parts), _) | (_, Operand::Vector(parts)) if !matches!(parts.len(), 2 | 4) => {
                Err(self.error(format!("`mov` packs 2 or 4 registers, found {}", parts.len())))
            }
            (Operand::Vector(parts), s) => {
                let part = w / parts.len() as u32;
                let s = self.src(s, ty)?;
                for (k, o) in parts.iter().enumerate() {
                    if *o == Operand::Name("_".to_owned()) {
                        continue;
                    }
                    let d = self.dst_of(o, part)?;
                    let shift = k as u32 * part;
                    self.map(map1(move |v| low(v >> shift, part)), d, &[s], Class::Integer);
                }
                Ok(())
            }
            (d, Operand::Vector(parts)) => {
                let n = parts.len();
                let part = w / n as u32;
                let d = self.dst_of(d, w)?;
                let s = parts.iter().map(|o| self.src(o, Ty::B(part))).collect::<Result<Vec<_>>>()?;
                let f = match n {
                    2 => map2(move |a, b| low(a, part) | low(b, part) << part),
                    4 => map4(move |a, b, c, d| {
                        low(a, part)
                            | low(b, part) << part
                            | low(c, part) << (2 * part)
                            | low(d, part) << (3 * part)
                    }),
                    _ => return Err(self.error(format!("`mov` packs 2 or 4 registers, found {n}"))),
                };
                self.map(f, d, &s, Class::Integer);
                Ok(())
            }
            (d, s) => {
                let d = self.dst_of(d, w)?;
                let s = self.src(s, ty)?;
                let f = map1(move |v| low(v, w));
                self.map(f, d, &[s], Class::Integer);
                Ok(())
            }
        }
    }

    fn cvta(&mut self, i: &'a Instruction, m: &mut Mods) -> Result<()> {
        let ty = self.ty(m)?;
        let to = m.take("to");
        let space = m.one_of(&["global", "shared::cta", "shared", "local", "param", "const"]);
        m.take("entry");
        let base = match space {
            Some("global" | "const") => 0,
            Some("shared" | "shared::cta") => SHARED_WINDOW,
            Some("local") => LOCAL_WINDOW,
            Some("param" | "param::entry") => PARAM_WINDOW,
            _ if m.take("param::entry") => PARAM_WINDOW,
            _ => return Err(self.error("`cvta` of a space that the emulator does not know")),
        };
        let [d, s] = self.operands(i)?;
        let (d, s) = (self.dst_of(d, ty.bits())?, self.src(s, ty)?);
        let f = if to { map1(move |v| v.wrapping_sub(base)) } else { map1(move |v| v.wrapping_add(base)) };
        self.map(f, d, &[s], Class::Integer);
        Ok(())
    }

    fn isspacep(&mut self, i: &'a Instruction, m: &mut Mods) -> Result<()> {
        let inside = |base: u64| test(move |a, _| a.wrapping_sub(base) < WINDOW);
        let f = match m.one_of(&["shared::cta", "shared", "local", "param", "global"]) {
            Some("shared" | "shared::cta") => inside(SHARED_WINDOW),
            Some("local") => inside(LOCAL_WINDOW),
            Some("param") => inside(PARAM_WINDOW),
            Some("global") => test(|a, _| !(SHARED_WINDOW..PARAM_WINDOW + WINDOW).contains(&a)),
            _ => return Err(self.error("`isspacep` of a space that the emulator does not know")),
        };
        let [p, a] = self.operands(i)?;
        let (p, a) = (self.dst_pred(p)?, self.src(a, Ty::B(64))?);
        self.push(Op::Test { f, p: Some(p), q: None, a, b: a, with: None }, Class::Predicate);
        Ok(())
    }

    /// A predicate source that may be the literal 0 or 1.
    fn pred_or_literal(&mut self, o: &Operand) -> Result<(Pred, bool)> {
        let Operand::Int(v) = o else { return self.pred(o) };
        let p = self.scratch_pred();
        let (guard, zero) = (self.guard.take(), self.bits(0));
        let set = *v != 0;
        self.push(
            Op::Test { f: test(move |_, _| set), p: Some(p), q: None, a: zero, b: zero, with: None },
            Class::Predicate,
        );
        self.guard = guard;
        Ok((p, false))
    }

    fn comparison(&self, op: &str, ty: Ty, ftz: bool) -> Result<Test> {
        let t = match ty {
            Ty::F32 => float::compare(op, move |v| float::get(v, ftz).into()),
            Ty::F64 => float::compare(op, f64::from_bits),
            Ty::F16 => float::compare(op, |v| F16.decode(v)),
            Ty::Bf16 => float::compare(op, |v| BF16.decode(v)),
            ty if ty.is_int() => int::compare(op, ty),
            _ => None,
        };
        t.ok_or_else(|| self.error(format!("the emulator does not know the comparison `{op}` of this type")))
    }

    /// The comparison and the combination at the front of the modifiers.
    fn compare_op(&mut self, m: &mut Mods) -> Result<(String, Option<Logic>)> {
        const OPS: [&str; 20] = [
            "eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs", "equ", "neu", "ltu", "leu", "gtu",
            "geu", "num", "nan", "", "",
        ];
        let op = m.one_of(&OPS).ok_or_else(|| self.error("the comparison is missing"))?.to_owned();
        let with = m.one_of(&["and", "or", "xor"]).map(logic_of);
        Ok((op, with))
    }

    fn setp(&mut self, i: &'a Instruction, m: &mut Mods) -> Result<()> {
        let ty = self.ty(m)?;
        let ftz = m.take("ftz");
        let (op, with) = self.compare_op(m)?;
        let f = self.comparison(&op, ty, ftz)?;
        let (d, a, b, c) = match (with, &i.operands[..]) {
            (None, [d, a, b]) => (d, a, b, None),
            (Some(w), [d, a, b, c]) => (d, a, b, Some((w, self.pred(c)?))),
            _ => return Err(self.error("`setp` with a wrong number of operands")),
        };
        let (p, q) = match d {
            Operand::Pair(p, q) => (self.dst_pred(p)?, Some(self.dst_pred(q)?)),
            d => (self.dst_pred(d)?, None),
        };
        let (a, b) = (self.src(a, ty)?, self.src(b, ty)?);
        let with = c.map(|(w, (p, n))| (w, p, n));
        self.push(Op::Test { f, p: Some(p), q, a, b, with }, Class::Predicate);
        Ok(())
    }

    fn set(&mut self, i: &'a Instruction, m: &mut Mods) -> Result<()> {
        let (ty, to) = (self.ty(m)?, self.ty(m)?);
        let ftz = m.take("ftz");
        let (op, with) = self.compare_op(m)?;
        let f = self.comparison(&op, ty, ftz)?;
        let (d, a, b, c) = match (with, &i.operands[..]) {
            (None, [d, a, b]) => (d, a, b, None),
            (Some(w), [d, a, b, c]) => (d, a, b, Some((w, self.pred(c)?))),
            _ => return Err(self.error("`set` with a wrong number of operands")),
        };
        let yes = match to {
            Ty::F32 => F32.encode(1.0, crate::lanes::format::Round::Rn, false),
            Ty::B(32) | Ty::U(32) | Ty::S(32) => 0xffff_ffff,
            _ => return Err(self.error("`set` makes .u32, .s32 or .f32")),
        };
        let (d, a, b) = (self.dst_of(d, 32)?, self.src(a, ty)?, self.src(b, ty)?);
        let p = self.scratch_pred();
        let with = c.map(|(w, (p, n))| (w, p, n));
        let (yes, no) = (self.bits(yes), self.bits(0));
        self.push(Op::Test { f, p: Some(p), q: None, a, b, with }, Class::Predicate);
        self.push(Op::Select { d, a: yes, b: no, p: (p, false) }, Class::Integer);
        Ok(())
    }

    fn logic(&mut self, op: &str, i: &'a Instruction, m: &mut Mods) -> Result<()> {
        let ty = self.ty(m)?;
        if ty == Ty::Pred {
            if op == "not" {
                let [d, a] = self.operands(i)?;
                let (p, a) = (self.dst_pred(d)?, self.pred(a)?);
                let a = (a.0, !a.1);
                self.push(Op::Logic { op: Logic::And, p, a, b: a }, Class::Predicate);
            } else {
                let [d, a, b] = self.operands(i)?;
                let (p, a, b) = (self.dst_pred(d)?, self.pred_or_literal(a)?, self.pred_or_literal(b)?);
                self.push(Op::Logic { op: logic_of(op), p, a, b }, Class::Predicate);
            }
            return Ok(());
        }
        if op == "not" {
            return self.plain(op, ty, i, Class::Integer);
        }
        self.plain(op, ty, i, Class::Integer)
    }

    /// An integer instruction whose operands all have its type.
    pub(super) fn plain(&mut self, op: &str, ty: Ty, i: &'a Instruction, class: Class) -> Result<()> {
        let (d, s) = i.operands.split_first().ok_or_else(|| self.error("operands are missing"))?;
        let f = match s.len() {
            1 => int::unary(op, ty),
            2 => int::binary(op, ty),
            3 => int::ternary(op, ty),
            _ => None,
        };
        let f = f.ok_or_else(|| {
            self.error(format!("the emulator does not know `{}` with {} operands", i.name(), s.len()))
        })?;
        let d = self.dst_of(d, ty.bits())?;
        let s = s.iter().map(|o| self.src(o, ty)).collect::<Result<Vec<_>>>()?;
        self.map(f, d, &s, class);
        Ok(())
    }

    pub(super) fn bitwise(&mut self, i: &'a Instruction, m: &mut Mods) -> Result<()> {
        let head = i.op[0].as_str();
        if head == "dp4a" {
            let (b, a) = (self.ty(m)?, self.ty(m)?);
            let [d, ra, rb, rc] = self.operands(i)?;
            let t = Ty::B(32);
            let (d, s) = (self.dst_of(d, 32)?, [self.src(ra, t)?, self.src(rb, t)?, self.src(rc, t)?]);
            self.map(int::dp4a(a.signed(), b.signed()), d, &s, Class::Integer);
            return Ok(());
        }
        // `prmt` alone has its mode behind the type.
        let mode = m.one_of(&["f4e", "b4e", "rc8", "ecl", "ecr", "rc16"]).filter(|_| head == "prmt");
        let ty = self.ty(m)?;
        let w = ty.bits();
        let u32s = Ty::B(32);
        match head {
            "cnot" | "sad" | "brev" => self.plain(head, ty, i, Class::Integer),
            "popc" | "clz" | "bfind" => {
                let op = if m.take("shiftamt") { "bfind.shiftamt" } else { head };
                let [d, a] = self.operands(i)?;
                let (d, a) = (self.dst_of(d, 32)?, self.src(a, ty)?);
                self.known(int::unary(op, ty), i, d, &[a])
            }
            "shl" | "shr" => {
                let [d, a, b] = self.operands(i)?;
                let (d, a, b) = (self.dst_of(d, w)?, self.src(a, ty)?, self.src(b, u32s)?);
                self.known(int::binary(head, ty), i, d, &[a, b])
            }
            "bmsk" | "szext" => {
                let mode = m
                    .one_of(&["clamp", "wrap"])
                    .ok_or_else(|| self.error("`.clamp` or `.wrap` is missing"))?;
                let [d, a, b] = self.operands(i)?;
                let (d, a, b) = (self.dst_of(d, 32)?, self.src(a, ty)?, self.src(b, u32s)?);
                self.known(int::binary(&format!("{head}.{mode}"), ty), i, d, &[a, b])
            }
            "bfe" => {
                let [d, a, b, c] = self.operands(i)?;
                let (d, s) = (self.dst_of(d, w)?, [self.src(a, ty)?, self.src(b, u32s)?, self.src(c, u32s)?]);
                self.known(int::ternary("bfe", ty), i, d, &s)
            }
            "bfi" => {
                let [d, a, b, c, e] = self.operands(i)?;
                let d = self.dst_of(d, w)?;
                let s = [self.src(a, ty)?, self.src(b, ty)?, self.src(c, u32s)?, self.src(e, u32s)?];
                self.map(map4(move |a, b, p, l| int::bfi(a, b, p, l, w)), d, &s, Class::Integer);
                Ok(())
            }
            "shf" => {
                let side = m.one_of(&["l", "r"]).ok_or_else(|| self.error("`.l` or `.r` is missing"))?;
                let mode = m
                    .one_of(&["clamp", "wrap"])
                    .ok_or_else(|| self.error("`.clamp` or `.wrap` is missing"))?;
                self.plain(&format!("shf.{side}.{mode}"), ty, i, Class::Integer)
            }
            "prmt" => self.plain(
                &mode.map_or_else(|| "prmt".to_owned(), |x| format!("prmt.{x}")),
                ty,
                i,
                Class::Integer,
            ),
            "lop3" => {
                let [d, a, b, c, Operand::Int(table)] = self.operands(i)? else {
                    return Err(self.error("`lop3` takes a literal table; `lop3.BoolOp` is not supported"));
                };
                let (d, s) = (self.dst_of(d, 32)?, [self.src(a, ty)?, self.src(b, ty)?, self.src(c, ty)?]);
                self.map(int::lop3(*table as u8), d, &s, Class::Integer);
                Ok(())
            }
            _ => Err(self.error(format!("the emulator does not know the instruction `{}`", i.name()))),
        }
    }

    fn known(&mut self, f: Option<crate::lanes::Map>, i: &Instruction, d: u32, s: &[u32]) -> Result<()> {
        let f = f.ok_or_else(|| {
            self.error(format!("the emulator does not know the instruction `{}`", i.name()))
        })?;
        self.map(f, d, s, Class::Integer);
        Ok(())
    }

    /// The space that a symbol's address belongs to, to tell calls' parameters from the kernel's.
    pub(super) fn param_space(&self, base: &Operand) -> MemSpace {
        match base {
            Operand::Name(n) if matches!(self.lookup(n), Some(Binding::CallParam(_))) => MemSpace::Local,
            _ => MemSpace::Param,
        }
    }
}

fn logic_of(op: &str) -> Logic {
    match op {
        "and" => Logic::And,
        "or" => Logic::Or,
        _ => Logic::Xor,
    }
}

fn clock(name: &str) -> Option<Clock> {
    match name {
        "%clock" | "%clock64" | "%globaltimer" | "%globaltimer_lo" => Some(Clock::Count),
        "%clock_hi" | "%globaltimer_hi" => Some(Clock::High),
        _ => None,
    }
}
