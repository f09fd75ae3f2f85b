//! Arithmetic: the instructions that exist for integers and floats alike, and those of floats alone.

use super::{Decoder, Mods, Result};
use crate::count::Class;
use crate::ir::Op;
use crate::lanes::float::Mode;
use crate::lanes::format::Round;
use crate::lanes::half::HalfMode;
use crate::lanes::{Map, Ty, float, half, int};
use crate::parse::ast::Instruction;

impl<'a> Decoder<'a> {
    pub(super) fn arithmetic(&mut self, i: &'a Instruction, m: &mut Mods) -> Result<()> {
        let head = i.op[0].as_str();
        if head == "testp" {
            let ty = self.ty(m)?;
            let name = m.left.pop().unwrap_or("");
            let f = float::class_test(name).filter(|_| ty == Ty::F32);
            let f = f.ok_or_else(|| self.error(format!("the emulator does not know `{}`", i.name())))?;
            let [p, a] = self.operands(i)?;
            let (p, a) = (self.dst_pred(p)?, self.src(a, ty)?);
            self.push(Op::Test { f, p: Some(p), q: None, a, b: a, with: None }, Class::Predicate);
            return Ok(());
        }
        let ty = self.ty(m)?;
        if ty.is_int() {
            return self.integer_arithmetic(head, ty, i, m);
        }
        let class = match head {
            "div" | "rcp" | "sqrt" | "rsqrt" | "ex2" | "lg2" | "sin" | "cos" | "tanh" => Class::Special,
            _ => Class::Float,
        };
        let n = i.operands.len().saturating_sub(1);
        let f = if ty == Ty::F64 { self.double(head, m)? } else { self.single_or_half(head, ty, n, m)? };
        let f = f.ok_or_else(|| {
            self.error(format!("the emulator does not know the instruction `{}`", i.name()))
        })?;
        let expected = match head {
            "fma" | "mad" => 3,
            "add" | "sub" | "mul" | "div" | "copysign" => 2,
            "min" | "max" => n.clamp(2, 3),
            _ => 1,
        };
        if n != expected {
            return Err(self.error(format!("`{}` takes {expected} sources, found {n}", i.name())));
        }
        let d = self.dst_of(&i.operands[0], ty.bits())?;
        let s = i.operands[1..].iter().map(|o| self.src(o, ty)).collect::<Result<Vec<_>>>()?;
        self.map(f, d, &s, class);
        Ok(())
    }

    fn double(&mut self, head: &str, m: &mut Mods) -> Result<Option<Map>> {
        if let Some(r @ ("rz" | "rm" | "rp")) = m.one_of(&["rn", "rz", "rm", "rp"]) {
            return Err(self.error(format!("`.{r}` of .f64 is not supported")));
        }
        let approx = m.take("approx");
        m.take("ftz");
        let head = if head == "mad" { "fma" } else { head };
        Ok(float::double(head).filter(|_| !approx))
    }

    fn single_or_half(&mut self, head: &str, ty: Ty, n: usize, m: &mut Mods) -> Result<Option<Map>> {
        let round = m.one_of(&["rn", "rz", "rm", "rp"]).and_then(Round::parse);
        let (ftz, sat, relu) = (m.take("ftz"), m.take("sat"), m.take("relu"));
        let how = m.one_of(&["approx", "full"]);
        let nan = m.take("NaN");
        if m.take("xorsign") || m.take("abs") {
            return Err(self.error("`.xorsign.abs` is not supported"));
        }
        let head = if head == "mad" { "fma" } else { head };
        let mut op = head.to_owned();
        if n == 3 && matches!(head, "min" | "max") {
            op.push('3');
        }
        if nan {
            op.push_str(".nan");
        }
        if let Some(how) = how {
            op.push('.');
            op.push_str(how);
        }
        if ty != Ty::F32 {
            if round.is_some_and(|r| r != Round::Rn) {
                return Err(self.error("half precision rounds to nearest only"));
            }
            return Ok(half::map(&op, ty, HalfMode { ftz, sat, relu }));
        }
        // Roots, quotients and reciprocals say how they round; nothing is assumed for them.
        if matches!(op.as_str(), "div" | "rcp" | "sqrt") && round.is_none() {
            return Err(self.error(format!("`{op}.f32` without a rounding mode or `.approx`")));
        }
        let mode = Mode { round: round.unwrap_or(Round::Rn), ftz, sat, relu };
        Ok(match n {
            1 => float::unary(&op, mode),
            2 => float::binary(&op, mode),
            _ => float::ternary(&op, mode),
        })
    }

    fn integer_arithmetic(&mut self, head: &str, ty: Ty, i: &'a Instruction, m: &mut Mods) -> Result<()> {
        let w = ty.bits();
        if matches!(head, "addc" | "subc") || m.left.contains(&"cc") {
            let gives = m.take("cc");
            if !matches!(head, "add" | "sub" | "addc" | "subc") {
                return Err(self.error(format!("the emulator does not know the instruction `{}`", i.name())));
            }
            let [d, a, b] = self.operands(i)?;
            let (d, a, b) = (self.dst_of(d, w)?, self.src(a, ty)?, self.src(b, ty)?);
            let op = Op::Carry {
                d,
                a,
                b,
                bits: w,
                subtract: head.starts_with("sub"),
                takes: head.ends_with('c'),
                gives,
            };
            self.push(op, Class::Integer);
            return Ok(());
        }
        if m.take("sat") {
            if ty != Ty::S(32) || !matches!(head, "add" | "sub") {
                return Err(self.error("`.sat` is for add.s32 and sub.s32"));
            }
            return self.plain(&format!("{head}.sat"), ty, i, Class::Integer);
        }
        let part = m.one_of(&["lo", "hi", "wide"]);
        match (head, part) {
            ("mul" | "mad", Some(part)) => {
                let out = if part == "wide" { 2 * w } else { w };
                let n = i.operands.len();
                let op = format!("{head}.{part}");
                let f = if head == "mul" { int::binary(&op, ty) } else { int::ternary(&op, ty) };
                let f = f.filter(|_| n == if head == "mul" { 3 } else { 4 } && (part != "wide" || w < 64));
                let f = f.ok_or_else(|| {
                    self.error(format!("the emulator does not know `{}` with {n} operands", i.name()))
                })?;
                let d = self.dst_of(&i.operands[0], out)?;
                let mut s = vec![self.src(&i.operands[1], ty)?, self.src(&i.operands[2], ty)?];
                if n == 4 {
                    s.push(self.src(&i.operands[3], Ty::B(out))?);
                }
                self.map(f, d, &s, Class::Integer);
                Ok(())
            }
            ("min" | "max", None) if i.operands.len() == 4 => {
                self.plain(&format!("{head}3"), ty, i, Class::Integer)
            }
            (_, None) => {
                if m.take("relu") {
                    return Err(self.error("`.relu` of integers is not supported"));
                }
                self.plain(head, ty, i, Class::Integer)
            }
            _ => Err(self.error(format!("the emulator does not know the instruction `{}`", i.name()))),
        }
    }
}
