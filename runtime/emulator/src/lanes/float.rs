//! f32 and f64 arithmetic with PTX's rounding modes, flushing, saturation and NaNs.
//!
//! An f32 result that is NaN is always 0x7fffffff, as the hardware makes it. The approximations are computed in f64 and rounded once,
//! which is inside the error bounds that the ISA gives, and makes them the same on every host.

#![allow(clippy::inline_always)]

use std::f64::consts::LN_2;

use crate::lanes::format::{F32, Round, add_odd, odd};
use crate::lanes::{Map, Test, map1, map2, map3, test};

/// Modifiers of an f32 instruction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mode {
    pub(crate) round: Round,
    pub(crate) ftz: bool,
    pub(crate) sat: bool,
    pub(crate) relu: bool,
}

#[inline]
fn flush(x: f32, ftz: bool) -> f32 {
    if ftz && x.abs() < f32::MIN_POSITIVE { 0f32.copysign(x) } else { x }
}

#[inline]
pub(crate) fn get(bits: u64, ftz: bool) -> f32 {
    flush(f32::from_bits(bits as u32), ftz)
}

/// The bits of a result.
#[inline]
pub(crate) fn put(x: f32, ftz: bool) -> u64 {
    if x.is_nan() { 0x7fff_ffff } else { flush(x, ftz).to_bits().into() }
}

#[inline]
fn finish(x: f32, m: Mode) -> u64 {
    if m.sat {
        return if x.is_nan() { 0 } else { put(x.clamp(0.0, 1.0) + 0.0, m.ftz) };
    }
    if m.relu && x < 0.0 {
        return 0;
    }
    put(x, m.ftz)
}

fn f1(m: Mode, f: impl Fn(f32) -> f32 + Send + Sync + 'static) -> Map {
    // The usual modes have loops of their own, without branches.
    match m {
        Mode { sat: false, relu: false, ftz: false, .. } => map1(move |a| put(f(get(a, false)), false)),
        Mode { sat: false, relu: false, ftz: true, .. } => map1(move |a| put(f(get(a, true)), true)),
        _ => map1(move |a| finish(f(get(a, m.ftz)), m)),
    }
}

fn f2(m: Mode, f: impl Fn(f32, f32) -> f32 + Send + Sync + 'static) -> Map {
    match m {
        Mode { sat: false, relu: false, ftz: false, .. } => {
            map2(move |a, b| put(f(get(a, false), get(b, false)), false))
        }
        Mode { sat: false, relu: false, ftz: true, .. } => {
            map2(move |a, b| put(f(get(a, true), get(b, true)), true))
        }
        _ => map2(move |a, b| finish(f(get(a, m.ftz), get(b, m.ftz)), m)),
    }
}

/// Rounds a value that is exact, or rounded to odd, to f32.
fn to_f32(x: f64, round: Round) -> f32 {
    f32::from_bits(F32.encode(x, round, false) as u32)
}

/// The sum of zeros of opposite sign is -0 when rounding down.
fn zero_sign(x: f64, round: Round, all_zero_negative: bool) -> f64 {
    if x == 0.0 && round == Round::Rm && all_zero_negative { -0.0 } else { x }
}

fn add(a: f32, b: f32, round: Round) -> f32 {
    if round == Round::Rn || !a.is_finite() || !b.is_finite() {
        return a + b;
    }
    let s = add_odd(a.into(), b.into());
    to_f32(
        zero_sign(s, round, a != 0.0 || a.is_sign_negative() != b.is_sign_negative() || a.is_sign_negative()),
        round,
    )
}

fn mul(a: f32, b: f32, round: Round) -> f32 {
    if round == Round::Rn || !a.is_finite() || !b.is_finite() {
        a * b
    } else {
        to_f32(f64::from(a) * f64::from(b), round)
    }
}

fn fma(a: f32, b: f32, c: f32, round: Round) -> f32 {
    if round == Round::Rn || !a.is_finite() || !b.is_finite() || !c.is_finite() {
        return a.mul_add(b, c);
    }
    let p = f64::from(a) * f64::from(b);
    let s = add_odd(p, c.into());
    to_f32(
        zero_sign(s, round, p != 0.0 || p.is_sign_negative() != c.is_sign_negative() || p.is_sign_negative()),
        round,
    )
}

fn div(a: f32, b: f32, round: Round) -> f32 {
    let q = a / b;
    if round == Round::Rn || !a.is_finite() || !b.is_finite() || b == 0.0 || a == 0.0 {
        return q;
    }
    let (a, b) = (f64::from(a), f64::from(b));
    let q = a / b;
    // The remainder of the rounded quotient is exact in one fused step.
    to_f32(odd(q, (-q).mul_add(b, a) / b), round)
}

fn sqrt(a: f32, round: Round) -> f32 {
    if round == Round::Rn || a.is_nan() || a.is_infinite() || a <= 0.0 {
        return a.sqrt();
    }
    let a = f64::from(a);
    let s = a.sqrt();
    to_f32(odd(s, (-s).mul_add(s, a)), round)
}

/// The smaller or larger; a NaN loses unless `nan`, and -0 is smaller than +0.
#[inline(always)]
fn extreme(a: f32, b: f32, largest: bool, nan: bool) -> f32 {
    // The sign decides between equal numbers. All is computed before anything is chosen, so that loops over this vectorise.
    let second = if a == b { a.is_sign_negative() == largest } else { (a < b) == largest };
    let best = if second { b } else { a };
    let best = if b.is_nan() { a } else { best };
    let best = if a.is_nan() { b } else { best };
    if nan & (a.is_nan() | b.is_nan()) { f32::NAN } else { best }
}

/// f32 with two operands: `add`, `sub`, `mul`, `div`, `min`, `max`, `min.nan`, ...
pub(crate) fn binary(op: &str, m: Mode) -> Option<Map> {
    let r = m.round;
    let nearest = r == Round::Rn;
    Some(match op {
        "add" if nearest => f2(m, |a, b| a + b),
        "sub" if nearest => f2(m, |a, b| a - b),
        "mul" if nearest => f2(m, |a, b| a * b),
        "add" => f2(m, move |a, b| add(a, b, r)),
        "sub" => f2(m, move |a, b| add(a, -b, r)),
        "mul" => f2(m, move |a, b| mul(a, b, r)),
        "div" => f2(m, move |a, b| div(a, b, r)),
        "div.full" => f2(m, |a, b| (f64::from(a) / f64::from(b)) as f32),
        "div.approx" => f2(m, |a, b| {
            // Above 2^126 the hardware's reciprocal flushes to zero.
            if b.is_finite() && b.abs() > 2f32.powi(126) {
                if a.is_infinite() || a.is_nan() { f32::NAN } else { 0f32.copysign(a * b.signum()) }
            } else {
                (f64::from(a) / f64::from(b)) as f32
            }
        }),
        "min" => f2(m, |a, b| extreme(a, b, false, false)),
        "max" => f2(m, |a, b| extreme(a, b, true, false)),
        "min.nan" => f2(m, |a, b| extreme(a, b, false, true)),
        "max.nan" => f2(m, |a, b| extreme(a, b, true, true)),
        // copysign d, a, b: the sign of a on the magnitude of b, bit for bit.
        "copysign" => map2(|a, b| (b & 0x7fff_ffff) | (a & 0x8000_0000)),
        _ => return None,
    })
}

/// f32 with three operands.
pub(crate) fn ternary(op: &str, m: Mode) -> Option<Map> {
    let r = m.round;
    let f3 = |f: fn(f32, f32, f32, Round) -> f32| {
        map3(move |a, b, c| finish(f(get(a, m.ftz), get(b, m.ftz), get(c, m.ftz), r), m))
    };
    Some(match op {
        "fma" if r == Round::Rn && !(m.ftz || m.sat || m.relu) => {
            map3(|a, b, c| put(get(a, false).mul_add(get(b, false), get(c, false)), false))
        }
        "fma" => f3(fma),
        "min3" => f3(|a, b, c, _| extreme(extreme(a, b, false, false), c, false, false)),
        "max3" => f3(|a, b, c, _| extreme(extreme(a, b, true, false), c, true, false)),
        "min3.nan" => f3(|a, b, c, _| extreme(extreme(a, b, false, true), c, false, true)),
        "max3.nan" => f3(|a, b, c, _| extreme(extreme(a, b, true, true), c, true, true)),
        _ => return None,
    })
}

/// f32 with one operand.
pub(crate) fn unary(op: &str, m: Mode) -> Option<Map> {
    let r = m.round;
    let approx = |f: fn(f64) -> f64| f1(m, move |a| f(a.into()) as f32);
    Some(match op {
        // Sign operations keep NaN payloads' bits out of the way like any other.
        "neg" => f1(m, |a| -a),
        "abs" => f1(m, f32::abs),
        "rcp" => f1(m, move |a| div(1.0, a, r)),
        "sqrt" => f1(m, move |a| sqrt(a, r)),
        "rcp.approx" => approx(|a| 1.0 / a),
        "sqrt.approx" => approx(f64::sqrt),
        "rsqrt.approx" => approx(|a| 1.0 / a.sqrt()),
        "ex2.approx" => f1(m, |a| exp2(a.into()) as f32),
        "lg2.approx" => approx(f64::log2),
        "sin.approx" => approx(f64::sin),
        "cos.approx" => approx(f64::cos),
        "tanh.approx" => approx(f64::tanh),
        _ => return None,
    })
}

/// 2^x, to about 1e-10 relative: a Taylor polynomial on half an octave either side of an integer.
#[inline(always)] // branchless, so that loops over it vectorise
pub(crate) fn exp2(x: f64) -> f64 {
    // Adding this rounds to an integer, to even if it is halfway, which then stands in the low bits of the sum.
    const ROUND: f64 = 6_755_399_441_055_744.0; // 1.5 * 2^52
    let sum = x + ROUND;
    let n = sum - ROUND;
    let t = (x - n) * LN_2;
    let mut p = 1.0 / 362_880.0;
    for c in [1.0 / 40_320.0, 1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = p * t + c;
    }
    let result = p * f64::from_bits((sum.to_bits().wrapping_add(1023)) << 52);
    let result = if x >= 1024.0 { f64::INFINITY } else { result };
    let result = if x < -1000.0 { 0.0 } else { result };
    if x.is_nan() { x } else { result }
}

/// f64 with one to three operands; only the rounding to nearest.
pub(crate) fn double(op: &str) -> Option<Map> {
    let g = f64::from_bits;
    let least = |a: f64, b: f64, largest: bool| {
        if a.is_nan() || b.is_nan() {
            return if a.is_nan() { b } else { a };
        }
        if a == b {
            return if a.is_sign_negative() == largest { b } else { a };
        }
        if (a < b) == largest { b } else { a }
    };
    Some(match op {
        "add" => map2(move |a, b| (g(a) + g(b)).to_bits()),
        "sub" => map2(move |a, b| (g(a) - g(b)).to_bits()),
        "mul" => map2(move |a, b| (g(a) * g(b)).to_bits()),
        "div" => map2(move |a, b| (g(a) / g(b)).to_bits()),
        "min" => map2(move |a, b| least(g(a), g(b), false).to_bits()),
        "max" => map2(move |a, b| least(g(a), g(b), true).to_bits()),
        "fma" => map3(move |a, b, c| g(a).mul_add(g(b), g(c)).to_bits()),
        "neg" => map1(|a| a ^ 1 << 63),
        "abs" => map1(|a| a & !(1 << 63)),
        "rcp" => map1(move |a| (1.0 / g(a)).to_bits()),
        "sqrt" => map1(move |a| g(a).sqrt().to_bits()),
        "copysign" => map2(|a, b| (b & !(1 << 63)) | (a & 1 << 63)),
        _ => return None,
    })
}

/// A floating-point comparison on values that `decode` turns into f64 exactly.
pub(crate) fn compare(op: &str, decode: impl Fn(u64) -> f64 + Send + Sync + 'static) -> Option<Test> {
    let (base, unordered) = match op {
        "ltu" | "leu" | "gtu" | "geu" | "equ" | "neu" => (&op[..2], true),
        "num" | "nan" => {
            let want = op == "nan";
            return Some(test(move |a, b| (decode(a).is_nan() || decode(b).is_nan()) == want));
        }
        _ => (op, false),
    };
    Some(match base {
        "eq" => ordered(decode, unordered, |a, b| a == b),
        "ne" => ordered(decode, unordered, |a, b| a != b && !a.is_nan() && !b.is_nan()),
        "lt" => ordered(decode, unordered, |a, b| a < b),
        "le" => ordered(decode, unordered, |a, b| a <= b),
        "gt" => ordered(decode, unordered, |a, b| a > b),
        "ge" => ordered(decode, unordered, |a, b| a >= b),
        _ => return None,
    })
}

/// `f` is false where an operand is NaN; `unordered` makes that true.
fn ordered(
    decode: impl Fn(u64) -> f64 + Send + Sync + 'static,
    unordered: bool,
    f: impl Fn(f64, f64) -> bool + Send + Sync + 'static,
) -> Test {
    test(move |a, b| {
        let (a, b) = (decode(a), decode(b));
        f(a, b) | (unordered & (a.is_nan() | b.is_nan()))
    })
}

/// `testp`.
pub(crate) fn class_test(op: &str) -> Option<Test> {
    let f: fn(f32) -> bool = match op {
        "finite" => f32::is_finite,
        "infinite" => f32::is_infinite,
        "number" => |a| !a.is_nan(),
        "notanumber" => f32::is_nan,
        "normal" => f32::is_normal,
        "subnormal" => |a| a.is_subnormal() || a == 0.0,
        _ => return None,
    };
    Some(test(move |a, _| f(f32::from_bits(a as u32))))
}
