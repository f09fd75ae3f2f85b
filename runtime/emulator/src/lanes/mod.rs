//! The arithmetic of PTX, one warp at a time: a [`Map`] takes up to four registers of 32 lanes and makes one.
//!
//! Every register holds its value zero-extended to 64 bits, floats as their bits. `decode` picks a map for an instruction once, with
//! all its modifiers captured, so that running it is one tight loop.

#![allow(clippy::float_cmp)] // exact comparison is what the instructions do

pub(crate) mod convert;
pub(crate) mod float;
pub(crate) mod format;
pub(crate) mod half;
pub(crate) mod int;

use std::sync::Arc;

use crate::simd::{EachBit, EachLane, vectorized};

/// One register of a warp.
pub(crate) type Lanes = [u64; 32];

/// Makes a register of up to four.
pub(crate) type Map = Arc<dyn Fn([&Lanes; 4]) -> Lanes + Send + Sync>;

/// Compares two registers lane by lane; bit `l` of the answer is lane `l`'s.
pub(crate) type Test = Arc<dyn Fn(&Lanes, &Lanes) -> u32 + Send + Sync>;

pub(crate) fn map1(f: impl Fn(u64) -> u64 + Send + Sync + 'static) -> Map {
    Arc::new(move |[a, ..]| vectorized(EachLane(|l| f(a[l]))))
}

pub(crate) fn map2(f: impl Fn(u64, u64) -> u64 + Send + Sync + 'static) -> Map {
    Arc::new(move |[a, b, ..]| vectorized(EachLane(|l| f(a[l], b[l]))))
}

pub(crate) fn map3(f: impl Fn(u64, u64, u64) -> u64 + Send + Sync + 'static) -> Map {
    Arc::new(move |[a, b, c, _]| vectorized(EachLane(|l| f(a[l], b[l], c[l]))))
}

pub(crate) fn map4(f: impl Fn(u64, u64, u64, u64) -> u64 + Send + Sync + 'static) -> Map {
    Arc::new(move |[a, b, c, d]| vectorized(EachLane(|l| f(a[l], b[l], c[l], d[l]))))
}

pub(crate) fn test(f: impl Fn(u64, u64) -> bool + Send + Sync + 'static) -> Test {
    Arc::new(move |a, b| vectorized(EachBit(|l| f(a[l], b[l]))))
}

/// The lanes of a mask.
#[inline]
pub(crate) fn bits(mask: u32) -> impl Iterator<Item = u32> {
    let mut left = mask;
    std::iter::from_fn(move || {
        (left != 0).then(|| {
            let lane = left.trailing_zeros();
            left &= left - 1;
            lane
        })
    })
}

/// A type of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ty {
    B(u32),
    U(u32),
    S(u32),
    F16,
    Bf16,
    F32,
    F64,
    F16x2,
    Bf16x2,
    Pred,
}

impl Ty {
    pub(crate) fn parse(s: &str) -> Option<Self> {
        Some(match s {
            "f16" => Self::F16,
            "bf16" => Self::Bf16,
            "f32" => Self::F32,
            "f64" => Self::F64,
            "f16x2" => Self::F16x2,
            "bf16x2" => Self::Bf16x2,
            "pred" => Self::Pred,
            _ => {
                let bits = match s.get(1..)? {
                    "8" => 8,
                    "16" => 16,
                    "32" => 32,
                    "64" => 64,
                    _ => return None,
                };
                match s.get(..1)? {
                    "b" => Self::B(bits),
                    "u" => Self::U(bits),
                    "s" => Self::S(bits),
                    _ => return None,
                }
            }
        })
    }

    pub(crate) fn bits(self) -> u32 {
        match self {
            Self::B(n) | Self::U(n) | Self::S(n) => n,
            Self::F16 | Self::Bf16 => 16,
            Self::F32 | Self::F16x2 | Self::Bf16x2 => 32,
            Self::F64 => 64,
            Self::Pred => 1,
        }
    }

    pub(crate) fn is_int(self) -> bool {
        matches!(self, Self::B(_) | Self::U(_) | Self::S(_))
    }

    pub(crate) fn signed(self) -> bool {
        matches!(self, Self::S(_))
    }
}

/// The low `bits` bits.
#[inline]
pub(crate) fn low(v: u64, bits: u32) -> u64 {
    if bits >= 64 { v } else { v & ((1 << bits) - 1) }
}

/// The low `bits` bits as a signed number.
#[inline]
pub(crate) fn sext(v: u64, bits: u32) -> i64 {
    let s = 64 - bits.min(64);
    ((v << s) as i64) >> s
}
