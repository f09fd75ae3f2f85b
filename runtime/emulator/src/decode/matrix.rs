//! Matrix instructions of a warp: `ldmatrix`, `stmatrix`, `movmatrix`, `mma.sync`.

use super::{Decoder, Mods, Result};
use crate::count::Class;
use crate::ir::{Accumulator, Element, MemSpace, Op};
use crate::lanes::Ty;
use crate::parse::ast::Instruction;

fn element(name: &str) -> Option<Element> {
    Some(match name {
        "f16" => Element::F16,
        "bf16" => Element::Bf16,
        "e4m3" => Element::E4m3,
        "e5m2" => Element::E5m2,
        "s8" => Element::S8,
        "u8" => Element::U8,
        _ => return None,
    })
}

impl<'a> Decoder<'a> {
    pub(super) fn matrix(&mut self, i: &'a Instruction, m: &mut Mods) -> Result<()> {
        let head = i.op[0].as_str();
        let unknown =
            |d: &Self| d.error(format!("the emulator does not know the instruction `{}`", i.name()));
        if !m.take("sync") || !m.take("aligned") {
            return Err(unknown(self));
        }
        match head {
            "mma" => self.mma(i, m),
            "movmatrix" => {
                if !(m.take("m8n8") && m.take("trans") && m.take("b16")) {
                    return Err(unknown(self));
                }
                let [d, a] = self.operands(i)?;
                let op = Op::Movmatrix { d: self.dst_of(d, 32)?, a: self.src(a, Ty::B(32))? };
                self.push(op, Class::Collective);
                Ok(())
            }
            _ => {
                if !(m.take("m8n8") && m.take("b16")) {
                    return Err(unknown(self));
                }
                let n = match m.one_of(&["x1", "x2", "x4"]) {
                    Some("x1") => 1,
                    Some("x2") => 2,
                    Some(_) => 4,
                    None => return Err(unknown(self)),
                };
                let trans = m.take("trans");
                let space = if m.take("shared") || m.take("shared::cta") {
                    MemSpace::Shared
                } else {
                    MemSpace::Generic
                };
                if head == "ldmatrix" {
                    let [d, a] = self.operands(i)?;
                    let (d, address) = (self.destinations(d, 32, n)?, self.address(a)?);
                    self.push(Op::Ldmatrix { space, address, d, trans }, Class::SharedLoad);
                } else {
                    let [a, s] = self.operands(i)?;
                    let (s, address) = (self.sources(s, Ty::B(32), n)?, self.address(a)?);
                    self.push(Op::Stmatrix { space, address, s, trans }, Class::SharedStore);
                }
                Ok(())
            }
        }
    }

    fn mma(&mut self, i: &'a Instruction, m: &mut Mods) -> Result<()> {
        let unknown =
            |d: &Self| d.error(format!("the emulator does not know the instruction `{}`", i.name()));
        let k = match m.one_of(&["m16n8k8", "m16n8k16", "m16n8k32"]) {
            Some("m16n8k8") => 8u8,
            Some("m16n8k16") => 16,
            Some(_) => 32,
            None => return Err(unknown(self)),
        };
        if !(m.take("row") && m.take("col")) {
            return Err(unknown(self));
        }
        let saturate = m.take("satfinite");
        let (Some(c), Some(b), Some(a), Some(d)) = (m.left.pop(), m.left.pop(), m.left.pop(), m.left.pop())
        else {
            return Err(unknown(self));
        };
        let acc = match (d, c) {
            ("f32", "f32") => Accumulator::F32,
            ("f16", "f16") => Accumulator::F16,
            ("s32", "s32") => Accumulator::S32,
            _ => return Err(unknown(self)),
        };
        let (Some(ea), Some(eb)) = (element(a), element(b)) else { return Err(unknown(self)) };
        let int = |e| matches!(e, Element::S8 | Element::U8);
        let fine = match (ea, eb) {
            (Element::F16, Element::F16) => k <= 16 && acc != Accumulator::S32,
            (Element::Bf16, Element::Bf16) => k <= 16 && acc == Accumulator::F32,
            (a, b) if int(a) && int(b) => k >= 16 && acc == Accumulator::S32,
            (a, b) => {
                a.bytes() == 1 && b.bytes() == 1 && !int(a) && !int(b) && k >= 16 && acc != Accumulator::S32
            }
        };
        if !fine || (saturate && acc != Accumulator::S32) {
            return Err(unknown(self));
        }
        let [d, ra, rb, rc] = self.operands(i)?;
        let t = Ty::B(32);
        // 16 x k and k x 8 elements over 32 lanes, four bytes to a register.
        let na = 16 * usize::from(k) * ea.bytes() / 128;
        let nc = if acc == Accumulator::F16 { 2 } else { 4 };
        let op = Op::Mma {
            k,
            a: ea,
            b: eb,
            acc,
            saturate,
            d: self.destinations(d, 32, nc)?,
            ra: self.sources(ra, t, na)?,
            rb: self.sources(rb, t, na / 2)?,
            rc: self.sources(rc, t, nc)?,
        };
        self.push(op, Class::Matrix);
        Ok(())
    }
}
