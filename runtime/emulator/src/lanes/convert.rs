//! `cvt` between all types that have a register of their own.

use crate::lanes::float::{get, put};
use crate::lanes::format::{BF16, E4M3, E5M2, F16, F32, Format, Round, odd};
use crate::lanes::{Map, Ty, low, map1, map2, sext};

/// Modifiers of a `cvt`.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::struct_excessive_bools)] // PTX's modifiers are that many
pub(crate) struct Conversion {
    pub(crate) round: Option<Round>,
    /// Whether the rounding is to an integral value (`rni`, ...).
    pub(crate) integral: bool,
    pub(crate) ftz: bool,
    pub(crate) sat: bool,
    pub(crate) satfinite: bool,
    pub(crate) relu: bool,
}

/// Format of a scalar float type of at most 32 bits.
fn format(ty: Ty) -> Option<Format> {
    Some(match ty {
        Ty::F16 => F16,
        Ty::Bf16 => BF16,
        Ty::F32 => F32,
        _ => return None,
    })
}

/// Two packed 8-bit formats.
pub(crate) fn packed8(name: &str) -> Option<Format> {
    match name {
        "e4m3x2" => Some(E4M3),
        "e5m2x2" => Some(E5M2),
        _ => None,
    }
}

fn decode(ty: Ty, bits: u64, ftz: bool) -> f64 {
    match ty {
        Ty::F64 => f64::from_bits(bits),
        Ty::F32 => get(bits, ftz).into(),
        Ty::F16 => F16.decode(bits & 0xffff),
        _ => BF16.decode(bits & 0xffff),
    }
}

/// A float into a format, with the modifiers that apply to float results.
fn encode(x: f64, f: Format, c: Conversion) -> u64 {
    if c.sat {
        return if x.is_nan() {
            0
        } else {
            f.encode(x.clamp(0.0, 1.0) + 0.0, c.round.unwrap_or(Round::Rn), false)
        };
    }
    if c.relu && x <= 0.0 {
        return 0;
    }
    let bits = f.encode(x, c.round.unwrap_or(Round::Rn), c.satfinite);
    if f == F32 { put(f32::from_bits(bits as u32), c.ftz) } else { bits }
}

/// A scalar conversion; `dst_bits` is the width of the destination register. `None` if it does not exist.
pub(crate) fn scalar(dst: Ty, src: Ty, c: Conversion, dst_bits: u32) -> Option<Map> {
    let w = src.bits();
    Some(match (dst.is_int(), src.is_int()) {
        (true, true) => {
            if c.sat {
                let (lo, hi) = limits(dst);
                map1(move |a| {
                    let v: i128 = if src.signed() { sext(a, w).into() } else { low(a, w).into() };
                    extend(v.clamp(lo, hi) as u64, dst, dst_bits)
                })
            } else if src.signed() {
                map1(move |a| extend(sext(a, w) as u64, dst, dst_bits))
            } else {
                map1(move |a| extend(low(a, w), dst, dst_bits))
            }
        }
        (true, false) => {
            let round = c.round?;
            let (lo, hi) = limits(dst);
            let nan = if src == Ty::F64 || dst.bits() == 64 { 1u64 << (dst.bits() - 1) } else { 0 };
            let nan = if src != Ty::F64 && dst.bits() != 64 { 0 } else { nan };
            map1(move |a| {
                let x = decode(src, a, c.ftz);
                if x.is_nan() {
                    return extend(nan, dst, dst_bits);
                }
                extend((round.integer(x) as i128).clamp(lo, hi) as u64, dst, dst_bits)
            })
        }
        (false, true) => {
            let value = move |a: u64| if src.signed() { i128::from(sext(a, w)) } else { low(a, w).into() };
            match dst {
                Ty::F64 if c.round == Some(Round::Rn) || w <= 32 => {
                    map1(move |a| (value(a) as f64).to_bits())
                }
                Ty::F32 if c.round == Some(Round::Rn) && !c.sat => {
                    map1(move |a| u64::from((value(a) as f32).to_bits()))
                }
                _ => {
                    let f = format(dst)?;
                    c.round?;
                    map1(move |a| {
                        let v = value(a);
                        let near = v as f64;
                        encode(odd(near, (v - near as i128) as f64), f, c)
                    })
                }
            }
        }
        (false, false) => {
            let integral = move |x: f64| if c.integral { c.round.unwrap_or(Round::Rn).integer(x) } else { x };
            if dst == Ty::F64 {
                map1(move |a| {
                    let x = integral(decode(src, a, c.ftz));
                    let x = if c.sat { if x.is_nan() { 0.0 } else { x.clamp(0.0, 1.0) + 0.0 } } else { x };
                    x.to_bits()
                })
            } else {
                let f = format(dst)?;
                map1(move |a| encode(integral(decode(src, a, c.ftz)), f, c))
            }
        }
    })
}

fn limits(ty: Ty) -> (i128, i128) {
    let w = ty.bits();
    if ty.signed() { (-(1 << (w - 1)), (1 << (w - 1)) - 1) } else { (0, (1 << w) - 1) }
}

/// An integer result in a register that may be wider.
fn extend(v: u64, ty: Ty, dst_bits: u32) -> u64 {
    if ty.signed() { low(sext(v, ty.bits()) as u64, dst_bits) } else { low(v, ty.bits()) }
}

/// Two f32 into a packed pair, the first operand in the upper half.
pub(crate) fn pack_f32(f: Format, c: Conversion) -> Map {
    let bits = f.bits;
    if f == BF16 && c.round == Some(Round::Rn) && !c.relu && !c.satfinite {
        return map2(|hi, lo| bf16(hi) << 16 | bf16(lo));
    }
    map2(move |hi, lo| {
        let part = |v: u64| encode(get(v, c.ftz).into(), f, c);
        part(hi) << bits | part(lo)
    })
}

/// f32 bits to bf16, to nearest even: the carry of the rounding runs into the exponent as it should.
fn bf16(v: u64) -> u64 {
    if v & 0x7fff_ffff > 0x7f80_0000 { 0x7fff } else { (v + 0x7fff + (v >> 16 & 1)) >> 16 & 0xffff }
}

/// A packed pair into another packed pair.
pub(crate) fn repack(from: Format, to: Format, c: Conversion) -> Map {
    let mask = (1 << from.bits) - 1;
    map1(move |v| {
        let part = |v: u64| encode(from.decode(v & mask), to, c);
        part(v >> from.bits) << to.bits | part(v)
    })
}
