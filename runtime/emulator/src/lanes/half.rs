//! f16, bf16 and their packed pairs. Everything is computed exactly enough in f64 and rounded once.

use crate::lanes::float::exp2;
use crate::lanes::format::{BF16, F16, Format, Round, add_odd};
use crate::lanes::{Map, Ty, map1, map2, map3};

/// Modifiers of a half-precision instruction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HalfMode {
    pub(crate) ftz: bool,
    pub(crate) sat: bool,
    pub(crate) relu: bool,
}

/// The element format and whether two are packed.
pub(crate) fn layout(ty: Ty) -> Option<(Format, bool)> {
    Some(match ty {
        Ty::F16 => (F16, false),
        Ty::Bf16 => (BF16, false),
        Ty::F16x2 => (F16, true),
        Ty::Bf16x2 => (BF16, true),
        _ => return None,
    })
}

fn flush(x: f64, f: Format, ftz: bool) -> f64 {
    let smallest = if f == F16 { 2f64.powi(-14) } else { 2f64.powi(-126) };
    if ftz && x.abs() < smallest { 0f64.copysign(x) } else { x }
}

fn finish(x: f64, f: Format, m: HalfMode) -> u64 {
    if x.is_nan() {
        return if m.sat { 0 } else { f.nan() };
    }
    let x = if m.sat { x.clamp(0.0, 1.0) + 0.0 } else { x };
    if m.relu && x <= 0.0 {
        return 0;
    }
    let bits = f.encode(x, Round::Rn, false);
    if m.ftz { f.encode(flush(f.decode(bits), f, true), Round::Rn, false) } else { bits }
}

fn extreme(a: f64, b: f64, largest: bool, nan: bool) -> f64 {
    if a.is_nan() || b.is_nan() {
        return if nan || (a.is_nan() && b.is_nan()) {
            f64::NAN
        } else if a.is_nan() {
            b
        } else {
            a
        };
    }
    if a == b {
        return if a.is_sign_negative() == largest { b } else { a };
    }
    if (a < b) == largest { b } else { a }
}

/// A map for `op` on `ty`, with one to three operands.
pub(crate) fn map(op: &str, ty: Ty, m: HalfMode) -> Option<Map> {
    let (f, pair) = layout(ty)?;
    let get = move |v: u64| flush(f.decode(v & 0xffff), f, m.ftz);
    let one = move |g: fn(f64) -> f64| {
        map1(move |a| {
            let part = |s: u32| finish(g(get(a >> s)), f, m) << s;
            if pair { part(0) | part(16) } else { part(0) }
        })
    };
    let two = move |g: fn(f64, f64) -> f64| {
        map2(move |a, b| {
            let part = |s: u32| finish(g(get(a >> s), get(b >> s)), f, m) << s;
            if pair { part(0) | part(16) } else { part(0) }
        })
    };
    let sign = if pair { 0x8000_8000 } else { 0x8000 };
    Some(match op {
        "add" => two(add_odd),
        "sub" => two(|a, b| add_odd(a, -b)),
        "mul" => two(|a, b| a * b),
        "min" => two(|a, b| extreme(a, b, false, false)),
        "max" => two(|a, b| extreme(a, b, true, false)),
        "min.nan" => two(|a, b| extreme(a, b, false, true)),
        "max.nan" => two(|a, b| extreme(a, b, true, true)),
        "neg" if !m.ftz => map1(move |a| a ^ sign),
        "abs" if !m.ftz => map1(move |a| a & !sign),
        "neg" => one(|a| -a),
        "abs" => one(f64::abs),
        "ex2.approx" => one(exp2),
        "tanh.approx" => one(f64::tanh),
        "fma" => map3(move |a, b, c| {
            let part = |s: u32| finish(add_odd(get(a >> s) * get(b >> s), get(c >> s)), f, m) << s;
            if pair { part(0) | part(16) } else { part(0) }
        }),
        _ => return None,
    })
}
