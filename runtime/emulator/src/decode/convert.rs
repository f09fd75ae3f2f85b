//! `cvt`.

use super::{Decoder, Mods, Result};
use crate::count::Class;
use crate::lanes::convert::{Conversion, pack_f32, packed8, repack, scalar};
use crate::lanes::format::{BF16, F16, Format, Round, TF32};
use crate::lanes::{Ty, map1};
use crate::parse::ast::Instruction;

fn packed16(name: &str) -> Option<Format> {
    match name {
        "f16x2" => Some(F16),
        "bf16x2" => Some(BF16),
        _ => None,
    }
}

impl<'a> Decoder<'a> {
    pub(super) fn convert(&mut self, i: &'a Instruction, m: &mut Mods) -> Result<()> {
        let unknown = |d: &Self| d.error(format!("the emulator does not know the conversion `{}`", i.name()));
        let (Some(src), Some(dst)) = (m.left.pop(), m.left.pop()) else { return Err(unknown(self)) };
        let rounding = m.one_of(&["rn", "rz", "rm", "rp", "rna", "rni", "rzi", "rmi", "rpi"]);
        let c = Conversion {
            round: rounding.and_then(Round::parse),
            integral: rounding.is_some_and(|r| r.len() == 3 && r.ends_with('i')),
            ftz: m.take("ftz"),
            satfinite: m.take("satfinite"),
            sat: m.take("sat"),
            relu: m.take("relu"),
        };
        if let Some(f) = packed16(dst).or(packed8(dst)) {
            if src == "f32" {
                let [d, a, b] = self.operands(i)?;
                let (d, a, b) = (self.dst_of(d, 2 * f.bits)?, self.src(a, Ty::F32)?, self.src(b, Ty::F32)?);
                self.map(pack_f32(f, c), d, &[a, b], Class::Convert);
                return Ok(());
            }
            let from =
                packed16(src).or(packed8(src)).filter(|s| s.bits != f.bits).ok_or_else(|| unknown(self))?;
            let [d, a] = self.operands(i)?;
            let (d, a) = (self.dst_of(d, 2 * f.bits)?, self.src(a, Ty::B(2 * from.bits))?);
            self.map(repack(from, f, c), d, &[a], Class::Convert);
            return Ok(());
        }
        let [d, a] = self.operands(i)?;
        if dst == "tf32" && src == "f32" {
            let (d, a) = (self.dst_of(d, 32)?, self.src(a, Ty::F32)?);
            let round = c.round.unwrap_or(Round::Rna);
            let f = map1(move |v| TF32.encode(f32::from_bits(v as u32).into(), round, c.satfinite) << 13);
            self.map(f, d, &[a], Class::Convert);
            return Ok(());
        }
        let (Some(dst), Some(src)) = (Ty::parse(dst), Ty::parse(src)) else { return Err(unknown(self)) };
        let (d, dst_bits) = self.dst(d)?;
        if dst_bits < dst.bits() {
            return Err(self.error(format!("the destination has {dst_bits} bits, the result {}", dst.bits())));
        }
        let a = self.src(a, src)?;
        let f = scalar(dst, src, c, dst_bits).ok_or_else(|| unknown(self))?;
        self.map(f, d, &[a], Class::Convert);
        Ok(())
    }
}
