//! Integer and logic instructions.

use crate::lanes::{Map, Test, Ty, low, map1, map2, map3, sext, test};

fn widen(ty: Ty, v: u64) -> i128 {
    if ty.signed() { sext(v, ty.bits()).into() } else { low(v, ty.bits()).into() }
}

/// The product, exactly: its low 128 bits with the sign of the type.
fn product(ty: Ty, a: u64, b: u64) -> u128 {
    widen(ty, a).wrapping_mul(widen(ty, b)) as u128
}

/// The upper half of the product.
fn high(ty: Ty, a: u64, b: u64) -> u64 {
    (product(ty, a, b) >> ty.bits()) as u64
}

/// Two operands, one result of the same width; `None` for an operation this file does not know.
pub(crate) fn binary(op: &str, ty: Ty) -> Option<Map> {
    let w = ty.bits();
    Some(match op {
        "add" => map2(move |a, b| low(a.wrapping_add(b), w)),
        "sub" => map2(move |a, b| low(a.wrapping_sub(b), w)),
        "add.sat" => {
            map2(move |a, b| low((sext(a, w) + sext(b, w)).clamp(i32::MIN.into(), i32::MAX.into()) as u64, w))
        }
        "sub.sat" => {
            map2(move |a, b| low((sext(a, w) - sext(b, w)).clamp(i32::MIN.into(), i32::MAX.into()) as u64, w))
        }
        "mul.lo" => map2(move |a, b| low(a.wrapping_mul(b), w)),
        "mul.hi" => map2(move |a, b| low(high(ty, a, b), w)),
        "mul.wide" if w == 32 && ty.signed() => {
            map2(|a, b| i64::from(a as i32).wrapping_mul(i64::from(b as i32)) as u64)
        }
        "mul.wide" if w == 32 => map2(|a, b| u64::from(a as u32).wrapping_mul(u64::from(b as u32))),
        "mul.wide" => map2(move |a, b| low(product(ty, a, b) as u64, 2 * w)),
        // Division by zero gives all ones, and the remainder its dividend, as the hardware does.
        "div" => map2(move |a, b| match (widen(ty, a), widen(ty, b)) {
            (_, 0) => low(u64::MAX, w),
            (a, b) => low((a / b) as u64, w),
        }),
        "rem" => map2(move |a, b| match (widen(ty, a), widen(ty, b)) {
            (a, 0) => low(a as u64, w),
            (a, b) => low((a % b) as u64, w),
        }),
        "min" if ty.signed() => map2(move |a, b| if sext(a, w) <= sext(b, w) { a } else { b }),
        "max" if ty.signed() => map2(move |a, b| if sext(a, w) >= sext(b, w) { a } else { b }),
        "min" => map2(u64::min),
        "max" => map2(u64::max),
        "and" => map2(|a, b| a & b),
        "or" => map2(|a, b| a | b),
        "xor" => map2(|a, b| a ^ b),
        "shl" => map2(move |a, b| if b as u32 >= w { 0 } else { low(a << b as u32, w) }),
        "shr" if ty.signed() => map2(move |a, b| low((sext(a, w) >> (b as u32).min(w - 1)) as u64, w)),
        "shr" => map2(move |a, b| if b as u32 >= w { 0 } else { a >> b as u32 }),
        "bmsk.clamp" => map2(|a, b| {
            let (from, len) = (a as u32, b as u32);
            if from >= 32 || len == 0 { 0 } else { low(low(u64::MAX, len.min(32)) << from, 32) }
        }),
        "bmsk.wrap" => map2(|a, b| low(low(u64::MAX, b as u32 & 31) << (a as u32 & 31), 32)),
        "szext.clamp" | "szext.wrap" => {
            let wrap = op.ends_with("wrap");
            map2(move |a, b| {
                let n = if wrap { b as u32 & 31 } else { (b as u32).min(32) };
                match n {
                    0 => 0,
                    n if ty.signed() => low(sext(a, n) as u64, 32),
                    n => low(a, n),
                }
            })
        }
        _ => return None,
    })
}

/// One operand.
pub(crate) fn unary(op: &str, ty: Ty) -> Option<Map> {
    let w = ty.bits();
    Some(match op {
        "mov" => map1(move |a| low(a, w)),
        "not" => map1(move |a| low(!a, w)),
        "cnot" => map1(|a| u64::from(a == 0)),
        "neg" => map1(move |a| low(a.wrapping_neg(), w)),
        "abs" => map1(move |a| low(sext(a, w).wrapping_abs() as u64, w)),
        "popc" => map1(|a| a.count_ones().into()),
        "clz" => map1(move |a| u64::from(a.leading_zeros() - (64 - w))),
        "brev" => map1(move |a| a.reverse_bits() >> (64 - w)),
        "bfind" | "bfind.shiftamt" => {
            let shift = op.ends_with("shiftamt");
            map1(move |a| {
                let v = if ty.signed() && sext(a, w) < 0 { low(!a, w) } else { a };
                match 63 - v.leading_zeros() as i32 {
                    -1 => 0xffff_ffff,
                    m if shift => u64::from(w - 1 - m as u32),
                    m => m as u64,
                }
            })
        }
        _ => return None,
    })
}

/// Three operands.
pub(crate) fn ternary(op: &str, ty: Ty) -> Option<Map> {
    let w = ty.bits();
    Some(match op {
        "mad.lo" => map3(move |a, b, c| low(a.wrapping_mul(b).wrapping_add(c), w)),
        "mad.hi" => map3(move |a, b, c| low(high(ty, a, b).wrapping_add(c), w)),
        "mad.wide" => map3(move |a, b, c| low((product(ty, a, b) as u64).wrapping_add(c), 2 * w)),
        "sad" => {
            map3(move |a, b, c| low(((widen(ty, a) - widen(ty, b)).unsigned_abs() as u64).wrapping_add(c), w))
        }
        "bfe" => map3(move |a, b, c| bfe(a, b as u32 & 255, c as u32 & 255, ty)),
        "min3" => return fold(ty, "min"),
        "max3" => return fold(ty, "max"),
        "shf.l.clamp" => map3(|a, b, c| low(((b << 32 | a) << (c as u32).min(32)) >> 32, 32)),
        "shf.l.wrap" => map3(|a, b, c| low(((b << 32 | a) << (c as u32 & 31)) >> 32, 32)),
        "shf.r.clamp" => map3(|a, b, c| low((b << 32 | a) >> (c as u32).min(32), 32)),
        "shf.r.wrap" => map3(|a, b, c| low((b << 32 | a) >> (c as u32 & 31), 32)),
        "slct" => map3(move |a, b, c| if sext(c, 32) >= 0 { a } else { b }),
        "prmt" => map3(|a, b, c| {
            let bytes = b << 32 | a;
            (0..4).fold(0, |out, i| {
                let sel = c >> (4 * i) & 15;
                let byte = bytes >> (8 * (sel & 7)) & 255;
                let byte = if sel & 8 == 0 { byte } else { 255 * (byte >> 7) };
                out | byte << (8 * i)
            })
        }),
        _ => {
            let mode = op.strip_prefix("prmt.")?;
            let select: fn(u64) -> u64 = match mode {
                "f4e" => |c| [0x3210, 0x4321, 0x5432, 0x6543][c as usize & 3],
                "b4e" => |c| [0x5670, 0x6701, 0x7012, 0x0123][c as usize & 3],
                "rc8" => |c| (c & 3) * 0x1111,
                "ecl" => |c| [0x3210, 0x3211, 0x3222, 0x3333][c as usize & 3],
                "ecr" => |c| [0x0000, 0x1110, 0x2210, 0x3210][c as usize & 3],
                "rc16" => |c| [0x1010, 0x3232][c as usize & 1],
                _ => return None,
            };
            map3(move |a, b, c| {
                let (bytes, sel) = (b << 32 | a, select(c));
                (0..4).fold(0, |out, i| out | (bytes >> (8 * (sel >> (4 * i) & 7)) & 255) << (8 * i))
            })
        }
    })
}

fn fold(ty: Ty, op: &'static str) -> Option<Map> {
    let w = ty.bits();
    let least = op == "min";
    (ty.is_int()).then(|| {
        map3(move |a, b, c| {
            let v = [a, b, c].map(|v| widen(ty, v));
            low(if least { v.into_iter().min() } else { v.into_iter().max() }.unwrap_or(0) as u64, w)
        })
    })
}

fn bfe(a: u64, pos: u32, len: u32, ty: Ty) -> u64 {
    let w = ty.bits();
    let msb = w - 1;
    let sign = if !ty.signed() || len == 0 { 0 } else { a >> (pos + len - 1).min(msb) & 1 };
    let field = if pos >= 64 { 0 } else { low(a >> pos, len.min(64)) };
    // Bits past the field, or past the top of the operand, are copies of the sign.
    let kept = len.min(w.saturating_sub(pos)).min(w);
    if sign == 1 && kept < w { low(low(field, kept) | (u64::MAX << kept), w) } else { low(field, w) }
}

/// `bfi`: `a` into `b` at `pos`, `len` bits.
pub(crate) fn bfi(a: u64, b: u64, pos: u64, len: u64, bits: u32) -> u64 {
    let (pos, len) = (pos as u32 & 255, len as u32 & 255);
    if pos >= bits || len == 0 {
        return b;
    }
    let mask = low(low(u64::MAX, len.min(64)) << pos, bits);
    b & !mask | (a << pos) & mask
}

/// `lop3` with a literal table.
pub(crate) fn lop3(table: u8) -> Map {
    map3(move |a, b, c| {
        let mut out = 0;
        for i in 0..8 {
            if table >> i & 1 != 0 {
                let pick = |v: u64, bit: u32| if i >> bit & 1 != 0 { v } else { !v };
                out |= pick(a, 2) & pick(b, 1) & pick(c, 0);
            }
        }
        low(out, 32)
    })
}

/// `dp4a`: four products of bytes, added to `c`.
pub(crate) fn dp4a(a_signed: bool, b_signed: bool) -> Map {
    let byte = |v: u64, i: u32, signed: bool| {
        if signed { sext(v >> (8 * i), 8) } else { low(v >> (8 * i), 8) as i64 }
    };
    map3(move |a, b, c| {
        let sum: i64 = (0..4).map(|i| byte(a, i, a_signed) * byte(b, i, b_signed)).sum();
        low(c.wrapping_add(sum as u64), 32)
    })
}

/// An integer comparison.
pub(crate) fn compare(op: &str, ty: Ty) -> Option<Test> {
    let w = ty.bits();
    let s = ty.signed();
    Some(match op {
        "eq" => test(|a, b| a == b),
        "ne" => test(|a, b| a != b),
        "lt" if s => test(move |a, b| sext(a, w) < sext(b, w)),
        "le" if s => test(move |a, b| sext(a, w) <= sext(b, w)),
        "gt" if s => test(move |a, b| sext(a, w) > sext(b, w)),
        "ge" if s => test(move |a, b| sext(a, w) >= sext(b, w)),
        "lt" | "lo" => test(|a, b| a < b),
        "le" | "ls" => test(|a, b| a <= b),
        "gt" | "hi" => test(|a, b| a > b),
        "ge" | "hs" => test(|a, b| a >= b),
        _ => return None,
    })
}
