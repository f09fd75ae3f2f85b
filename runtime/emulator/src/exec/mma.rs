//! `mma.sync`.
//!
//! A product adds its terms to the accumulator in order of k, each product exact and each sum rounded to f32; an f16 accumulator is
//! rounded once, at the end. The hardware's order and truncation are not documented, and differ by rounding only.

#![allow(clippy::inline_always)] // see `simd`

use crate::exec::step::{Flow, Step};
use crate::ir::{Accumulator, Element, Op, Reg};
use crate::lanes::Lanes;
use crate::lanes::float::put;
use crate::lanes::format::{E4M3, E5M2, F16, Round};
use crate::simd::{NullaryFnOnce, vectorized};

/// f16 bits to f32.
#[inline(always)]
fn f16(h: u64) -> f32 {
    let h = h as u32;
    let magnitude = (h & 0x7fff) << 13;
    let v = if h & 0x7c00 == 0x7c00 {
        f32::from_bits(magnitude | 0x7f80_0000)
    } else {
        f32::from_bits(magnitude) * 2f32.powi(112)
    };
    f32::from_bits(v.to_bits() | (h & 0x8000) << 16)
}

/// Element `i` of a register, as f32.
pub(crate) fn element(e: Element, word: u64, i: usize) -> f32 {
    match e {
        Element::Bf16 => f32::from_bits(((word >> (16 * i)) as u32) << 16),
        Element::F16 => f16(word >> (16 * i) & 0xffff),
        Element::E4m3 => E4M3.decode(word >> (8 * i) & 0xff) as f32,
        Element::E5m2 => E5M2.decode(word >> (8 * i) & 0xff) as f32,
        Element::S8 => f32::from((word >> (8 * i)) as i8),
        Element::U8 => f32::from((word >> (8 * i)) as u8),
    }
}

/// The elements of a register, as f32: two or four of them.
#[inline]
fn unpack(e: Element, word: u64) -> [f32; 4] {
    match e {
        Element::Bf16 => {
            [f32::from_bits((word as u32) << 16), f32::from_bits(word as u32 & 0xffff_0000), 0.0, 0.0]
        }
        Element::F16 => [f16(word & 0xffff), f16(word >> 16 & 0xffff), 0.0, 0.0],
        _ => std::array::from_fn(|i| element(e, word, i)),
    }
}

/// `sums + x * y`.
#[inline(always)]
fn add_product(mut sums: [f32; 8], x: f32, y: &[f32; 8]) -> [f32; 8] {
    for j in 0..8 {
        sums[j] += x * y[j];
    }
    sums
}

/// The two elements of a register.
#[inline(always)]
fn pair<const BF16: bool>(word: u64) -> [f32; 2] {
    if BF16 {
        [f32::from_bits((word as u32) << 16), f32::from_bits(word as u32 & 0xffff_0000)]
    } else {
        [f16(word & 0xffff), f16(word >> 16 & 0xffff)]
    }
}

/// The product of bf16 or f16 elements with f32 accumulators, which nearly all are: the general one, laid out for speed.
struct WideProduct<'a, const BF16: bool> {
    regs: &'a [Lanes],
    ra: &'a [Reg],
    rb: &'a [Reg],
    rc: &'a [Reg],
}

impl<const BF16: bool> NullaryFnOnce for WideProduct<'_, BF16> {
    type Output = [Lanes; 4];

    /// A register of A is an 8 x 8 block in row order. Columns of B and C are kept in the order 0, 2, 4, 6, 1, 3, 5, 7, in which a
    /// row of C is four lanes of one register and four of the next.
    #[inline(always)]
    fn call(self) -> [Lanes; 4] {
        let Self { regs, ra, rb, rc } = self;
        let mut a = [[0f32; 16]; 16];
        for (r, &reg) in ra.iter().enumerate() {
            for (g, words) in regs[reg as usize].chunks_exact(4).enumerate() {
                for (t, &w) in words.iter().enumerate() {
                    let [x, y] = pair::<BF16>(w);
                    let row = &mut a[g + 8 * (r % 2)];
                    row[8 * (r / 2) + 2 * t] = x;
                    row[8 * (r / 2) + 2 * t + 1] = y;
                }
            }
        }
        let mut b = [[0f32; 8]; 16];
        for (r, &reg) in rb.iter().enumerate() {
            for (g, words) in regs[reg as usize].chunks_exact(4).enumerate() {
                let column = g / 2 + 4 * (g % 2);
                for (t, &w) in words.iter().enumerate() {
                    let [x, y] = pair::<BF16>(w);
                    b[8 * r + 2 * t][column] = x;
                    b[8 * r + 2 * t + 1][column] = y;
                }
            }
        }
        let mut out = [[0; 32]; 4];
        for half in 0..2 {
            let (left, right) = (&regs[rc[2 * half] as usize], &regs[rc[2 * half + 1] as usize]);
            // Four rows at a time: their sums stay in the processor's registers over all of k.
            for g in [0, 4] {
                let mut c = [[0f32; 8]; 4];
                for (i, sums) in c.iter_mut().enumerate() {
                    for j in 0..4 {
                        sums[j] = f32::from_bits(left[4 * (g + i) + j] as u32);
                        sums[4 + j] = f32::from_bits(right[4 * (g + i) + j] as u32);
                    }
                }
                let rows: [&[f32; 16]; 4] = std::array::from_fn(|i| &a[g + i + 8 * half]);
                for (k, terms) in b[..8 * rb.len()].iter().enumerate() {
                    c = std::array::from_fn(|i| add_product(c[i], rows[i][k], terms));
                }
                for (i, sums) in c.iter().enumerate() {
                    for j in 0..4 {
                        out[2 * half][4 * (g + i) + j] = put(sums[j], false);
                        out[2 * half + 1][4 * (g + i) + j] = put(sums[4 + j], false);
                    }
                }
            }
        }
        out
    }
}

impl Step<'_, '_> {
    #[inline(never)]
    pub(crate) fn mma(&mut self, op: &Op, active: u32, mask: u32) -> Flow {
        if let Err(f) = self.whole_warp(active, mask) {
            return f;
        }
        let Op::Mma { k, a: ea, b: eb, acc, saturate, d, ra, rb, rc } = op else { return Flow::Next };
        if ea.bytes() == 2 && *acc == Accumulator::F32 {
            self.ctas[self.at].tally.matrix_flops += 2 * 16 * 8 * u64::from(*k);
            let out = {
                let regs = &self.warp.regs[..];
                if *ea == Element::Bf16 {
                    vectorized(WideProduct::<true> { regs, ra, rb, rc })
                } else {
                    vectorized(WideProduct::<false> { regs, ra, rb, rc })
                }
            };
            for (&reg, v) in d.iter().zip(&out) {
                self.set(reg, v, active);
            }
            return Flow::Next;
        }
        let k = usize::from(*k);
        // a[row][k] and b[k][column], from fragments of `e` elements per register.
        let (mut a, mut b) = ([[0f32; 32]; 16], [[0f32; 8]; 32]);
        let e = 4 / ea.bytes();
        for (r, &reg) in ra.iter().enumerate() {
            let words = self.reg(reg);
            for (lane, &w) in words.iter().enumerate() {
                let (row, from) = (lane / 4 + 8 * (r % 2), lane % 4 * e + r / 2 * 4 * e);
                for (x, y) in a[row][from..from + e].iter_mut().zip(unpack(*ea, w)) {
                    *x = y;
                }
            }
        }
        for (r, &reg) in rb.iter().enumerate() {
            let words = self.reg(reg);
            for (lane, &w) in words.iter().enumerate() {
                let from = lane % 4 * e + r * 4 * e;
                for (i, x) in unpack(*eb, w).into_iter().enumerate().take(e) {
                    b[from + i][lane / 4] = x;
                }
            }
        }
        self.ctas[self.at].tally.matrix_flops += 2 * 16 * 8 * k as u64;
        if *acc == Accumulator::S32 {
            self.integer_product(&a, &b, k, *saturate, d, rc, active);
            return Flow::Next;
        }
        let mut c = [[0f32; 8]; 16];
        let place = |lane: usize, i: usize| (lane / 4 + 8 * (i / 2), 2 * (lane % 4) + i % 2);
        for lane in 0..32 {
            for i in 0..4 {
                let (row, col) = place(lane, i);
                c[row][col] = match acc {
                    Accumulator::F16 => f16(self.reg(rc[i / 2])[lane] >> (16 * (i % 2)) & 0xffff),
                    _ => f32::from_bits(self.reg(rc[i])[lane] as u32),
                };
            }
        }
        for (row, sums) in a.iter().zip(&mut c) {
            for (x, terms) in row[..k].iter().zip(&b) {
                for (sum, y) in sums.iter_mut().zip(terms) {
                    *sum += x * y;
                }
            }
        }
        let n = d.len();
        for (r, &reg) in d.iter().enumerate() {
            let out: Lanes = std::array::from_fn(|lane| {
                let at = |i: usize| {
                    let (row, col) = place(lane, i);
                    c[row][col]
                };
                if n == 4 {
                    put(at(r), false)
                } else {
                    let half = |i: usize| F16.encode(at(i).into(), Round::Rn, false);
                    half(2 * r) | half(2 * r + 1) << 16
                }
            });
            self.set(reg, &out, active);
        }
        Flow::Next
    }

    #[allow(clippy::too_many_arguments)] // the fields of one instruction
    fn integer_product(
        &mut self,
        a: &[[f32; 32]; 16],
        b: &[[f32; 8]; 32],
        k: usize,
        saturate: bool,
        d: &[Reg],
        rc: &[Reg],
        active: u32,
    ) {
        let cs: Vec<Lanes> = rc.iter().map(|&r| *self.reg(r)).collect();
        for (i, &reg) in d.iter().enumerate() {
            let out: Lanes = std::array::from_fn(|lane| {
                let (row, col) = (lane / 4 + 8 * (i / 2), 2 * (lane % 4) + i % 2);
                let sum: i64 = (0..k).map(|kk| a[row][kk] as i64 * b[kk][col] as i64).sum::<i64>()
                    + i64::from(cs[i][lane] as i32);
                let v =
                    if saturate { sum.clamp(i32::MIN.into(), i32::MAX.into()) as i32 } else { sum as i32 };
                u64::from(v as u32)
            });
            self.set(reg, &out, active);
        }
    }
}
