//! Operands: names, literals and vectors become registers, predicates, labels and constants.

use super::scope::{self, Binding};
use super::{Decoder, Result};
use crate::ir::{Constant, Pred, Reg};
use crate::lanes::{Ty, low};
use crate::parse::ast::{Instruction, Operand};

impl<'a> Decoder<'a> {
    /// The meaning of a name that is neither a register nor a label: a constant with its address in its own space.
    pub(super) fn symbol(&mut self, name: &str, offset: i64) -> Result<Constant> {
        let plus = |v: u64| Constant::Bits(v.wrapping_add(offset as u64));
        if let Some(b) = self.lookup(name) {
            return match b {
                Binding::Param(at) | Binding::Shared(at) | Binding::Local(at) | Binding::CallParam(at) => {
                    Ok(plus(at))
                }
                _ => Err(self.error(format!("`{name}` is not an address"))),
            };
        }
        if let Some(&at) = self.shared_symbols.get(name) {
            return Ok(plus(at));
        }
        if let Some(&(at, index)) = self.unit.symbols.get(name) {
            let v = &self.unit.variables[at];
            if v.space != "shared" {
                return Ok(Constant::Variable(index, offset));
            }
            let Some(bytes) = v.bytes else {
                self.dynamic_align = self.dynamic_align.max(v.align);
                return Ok(Constant::DynamicShared(offset));
            };
            let at = self.allocate_shared(v.align, bytes);
            self.check_shared()?;
            self.shared_symbols.insert(name.to_owned(), at);
            return Ok(plus(at));
        }
        if let Some(special) = scope::special(name) {
            return Ok(Constant::Special(special));
        }
        Err(self.error(format!("`{name}` is not declared")))
    }

    /// A source operand of a type.
    pub(super) fn src(&mut self, o: &Operand, ty: Ty) -> Result<Reg> {
        let w = ty.bits();
        let v = match o {
            Operand::Name(n) => match self.lookup(n) {
                Some(Binding::Reg(r, bits)) => {
                    if bits < w {
                        return Err(
                            self.error(format!("register `{n}` has {bits} bits, the instruction reads {w}"))
                        );
                    }
                    return Ok(r);
                }
                Some(Binding::Pred(_)) => {
                    return Err(self.error(format!("`{n}` is a predicate, a register is expected")));
                }
                _ => {
                    let c = self.symbol(n, 0)?;
                    return Ok(self.constant(c));
                }
            },
            Operand::Offset(n, off) => {
                let c = self.symbol(n, *off)?;
                return Ok(self.constant(c));
            }
            Operand::Int(v) if ty.is_int() || matches!(ty, Ty::F16x2 | Ty::Bf16x2 | Ty::F16 | Ty::Bf16) => {
                low(*v as u64, w)
            }
            Operand::Int(v) if ty == Ty::F32 => (*v as f32).to_bits().into(),
            Operand::Int(v) => (*v as f64).to_bits(),
            Operand::Bits32(v) if w == 32 => (*v).into(),
            Operand::Bits64(v) if w == 64 => *v,
            Operand::Bits64(v) if ty == Ty::F32 => (f64::from_bits(*v) as f32).to_bits().into(),
            Operand::Bits32(v) if ty == Ty::F64 => f64::from(f32::from_bits(*v)).to_bits(),
            Operand::Decimal(v) if ty == Ty::F32 => (*v as f32).to_bits().into(),
            Operand::Decimal(v) if ty == Ty::F64 => v.to_bits(),
            o => return Err(self.error(format!("an operand that does not fit here: {o:?}"))),
        };
        Ok(self.bits(v))
    }

    /// A destination register and its width.
    pub(super) fn dst(&mut self, o: &Operand) -> Result<(Reg, u32)> {
        match o {
            Operand::Name(n) if n == "_" => Ok((self.scratch(), 64)),
            Operand::Name(n) => match self.lookup(n) {
                Some(Binding::Reg(r, bits)) => Ok((r, bits)),
                _ => Err(self.error(format!("`{n}` is not a register"))),
            },
            o => Err(self.error(format!("expected a register, found {o:?}"))),
        }
    }

    /// A destination of exactly the width of a type.
    pub(super) fn dst_of(&mut self, o: &Operand, bits: u32) -> Result<Reg> {
        let (r, w) = self.dst(o)?;
        if w != bits && *o != Operand::Name("_".to_owned()) {
            return Err(self.error(format!("the destination has {w} bits, the result {bits}")));
        }
        Ok(r)
    }

    pub(super) fn predicate(&self, name: &str) -> Result<Pred> {
        match self.lookup(name) {
            Some(Binding::Pred(p)) => Ok(p),
            _ => Err(self.error(format!("`{name}` is not a predicate"))),
        }
    }

    /// A predicate operand and whether it is negated.
    pub(super) fn pred(&self, o: &Operand) -> Result<(Pred, bool)> {
        match o {
            Operand::Name(n) => Ok((self.predicate(n)?, false)),
            Operand::Not(n) => Ok((self.predicate(n)?, true)),
            o => Err(self.error(format!("expected a predicate, found {o:?}"))),
        }
    }

    /// A destination predicate; `_` is nowhere.
    pub(super) fn dst_pred(&mut self, o: &Operand) -> Result<Pred> {
        match o {
            Operand::Name(n) if n == "_" => Ok(self.scratch_pred()),
            Operand::Name(n) => self.predicate(n),
            o => Err(self.error(format!("expected a predicate, found {o:?}"))),
        }
    }

    /// The operands of an instruction, exactly `N`.
    pub(super) fn operands<const N: usize>(&self, i: &'a Instruction) -> Result<[&'a Operand; N]> {
        let found = i.operands.len();
        let all: Vec<&Operand> = i.operands.iter().collect();
        all.try_into()
            .map_err(|_| self.error(format!("`{}` takes {N} operands here, found {found}", i.name())))
    }

    /// A vector of registers, or one register.
    pub(super) fn vector(o: &Operand) -> &[Operand] {
        match o {
            Operand::Vector(v) => v,
            o => std::slice::from_ref(o),
        }
    }

    pub(super) fn sources(&mut self, o: &Operand, ty: Ty, n: usize) -> Result<Box<[Reg]>> {
        let v = Self::vector(o);
        if v.len() != n {
            return Err(self.error(format!("expected {n} registers, found {}", v.len())));
        }
        v.iter().map(|o| self.src(o, ty)).collect()
    }

    pub(super) fn destinations(&mut self, o: &Operand, bits: u32, n: usize) -> Result<Box<[Reg]>> {
        let v = Self::vector(o);
        if v.len() != n {
            return Err(self.error(format!("expected {n} registers, found {}", v.len())));
        }
        v.iter().map(|o| self.dst_of(o, bits)).collect()
    }

    pub(super) fn label(&self, o: &Operand) -> Result<u32> {
        match o {
            Operand::Name(n) => match self.lookup(n) {
                Some(Binding::Label(id)) => Ok(id),
                _ => Err(self.error(format!("`{n}` is not a label in scope"))),
            },
            o => Err(self.error(format!("expected a label, found {o:?}"))),
        }
    }

    pub(super) fn new_label(&mut self) -> u32 {
        self.labels.push(u32::MAX);
        self.labels.len() as u32 - 1
    }
}
