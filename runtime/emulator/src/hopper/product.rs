//! The arithmetic of `wgmma`: operands widened to f32, and the product of one warp's 16 rows.
//!
//! Products of the element types are exact in f32. Their sums are rounded to nearest at every step, in order of k: the ISA leaves
//! both the order and the precision of the sums to the hardware.

#![allow(clippy::inline_always)] // see `simd`

use std::sync::LazyLock;

use crate::ir::Element;
use crate::lanes::format::{E4M3, E5M2, F16, Format, Round};
use crate::simd::{NullaryFnOnce, vectorized};

/// Rows of a warp.
pub(crate) const ROWS: usize = 16;

static F16_VALUES: LazyLock<Vec<f32>> = LazyLock::new(|| values(F16));
static E4M3_VALUES: LazyLock<Vec<f32>> = LazyLock::new(|| values(E4M3));
static E5M2_VALUES: LazyLock<Vec<f32>> = LazyLock::new(|| values(E5M2));

/// The value of every bit pattern.
fn values(format: Format) -> Vec<f32> {
    (0..1 << format.bits).map(|bits| format.decode(bits) as f32).collect()
}

/// The value of f16 bits.
pub(crate) fn from_f16(bits: u16) -> f32 {
    F16_VALUES[usize::from(bits)]
}

/// The f16 nearest to `v`.
pub(crate) fn to_f16(v: f32) -> u16 {
    F16.encode(v.into(), Round::Rn, false) as u16
}

/// The elements in `bytes`, times `sign`, handed to `put` with their index.
#[inline]
pub(crate) fn widen(element: Element, sign: f32, bytes: &[u8], mut put: impl FnMut(usize, f32)) {
    let pairs = bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).enumerate();
    let table = match element {
        Element::F16 => return pairs.for_each(|(i, b)| put(i, sign * from_f16(b))),
        Element::Bf16 => return pairs.for_each(|(i, b)| put(i, sign * f32::from_bits(u32::from(b) << 16))),
        Element::E4m3 => &E4M3_VALUES,
        Element::E5m2 => &E5M2_VALUES,
        // `decode` lets no other element type through.
        Element::S8 | Element::U8 => return,
    };
    for (i, &b) in bytes.iter().enumerate() {
        put(i, sign * table[usize::from(b)]);
    }
}

/// `acc += a * b`: `acc` is 16 x n, `a` 16 x k, `b` k x n, all dense with the last index fastest. n is a multiple of 8.
pub(crate) fn multiply(acc: &mut [f32], a: &[f32], b: &[f32], n: usize) {
    vectorized(Multiply { acc, a, b, n });
}

struct Multiply<'a> {
    acc: &'a mut [f32],
    a: &'a [f32],
    b: &'a [f32],
    n: usize,
}

impl NullaryFnOnce for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { acc, a, b, n } = self;
        let k = a.len() / ROWS;
        for (row, a) in acc.chunks_exact_mut(n).zip(a.chunks_exact(k)) {
            let mut at = 0;
            while at + 64 <= n {
                block::<64>(&mut row[at..at + 64], a, &b[at..], n);
                at += 64;
            }
            while at < n {
                block::<8>(&mut row[at..at + 8], a, &b[at..], n);
                at += 8;
            }
        }
    }
}

/// `W` neighbouring columns of one row, kept in registers over all of k.
#[inline(always)]
fn block<const W: usize>(row: &mut [f32], a: &[f32], b: &[f32], n: usize) {
    let mut sum = [0f32; W];
    sum.copy_from_slice(row);
    for (k, &x) in a.iter().enumerate() {
        for (s, &y) in sum.iter_mut().zip(&b[k * n..k * n + W]) {
            *s += x * y;
        }
    }
    row.copy_from_slice(&sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::float_cmp)] // small integers: every sum is exact
    fn the_product_is_the_plain_one() {
        for n in [8, 40, 128, 256] {
            for k in [16, 32] {
                let value = |i: usize, m: usize| ((i * 37 + m) % 17) as f32 - 8.0;
                let a: Vec<f32> = (0..16 * k).map(|i| value(i, 3)).collect();
                let b: Vec<f32> = (0..k * n).map(|i| value(i, 11)).collect();
                let start: Vec<f32> = (0..16 * n).map(|i| value(i, 5)).collect();
                let mut acc = start.clone();
                multiply(&mut acc, &a, &b, n);
                for r in 0..16 {
                    for c in 0..n {
                        let sum: f32 = (0..k).map(|i| a[r * k + i] * b[i * n + c]).sum();
                        assert_eq!(acc[r * n + c], start[r * n + c] + sum);
                    }
                }
            }
        }
    }

    #[test]
    fn elements_widen_exactly() {
        let mut got = Vec::new();
        widen(Element::Bf16, -1.0, &[0x80, 0x3f, 0x40, 0xc0], |i, v| got.push((i, v)));
        widen(Element::F16, 1.0, &[0x01, 0x00], |i, v| got.push((i, v)));
        widen(Element::E4m3, 1.0, &[0x38, 0x7e], |i, v| got.push((i, v)));
        widen(Element::E5m2, 1.0, &[0xbc], |i, v| got.push((i, v)));
        assert_eq!(got, [(0, -1.0), (1, 3.0), (0, 2f32.powi(-24)), (0, 1.0), (1, 448.0), (0, -1.0)]);
    }
}
