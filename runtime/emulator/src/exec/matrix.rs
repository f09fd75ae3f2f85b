//! `ldmatrix`, `stmatrix`, `movmatrix` and `mma.sync`.
//!
//! A product adds its terms to the accumulator in order of k, each product exact and each sum rounded to f32; an f16 accumulator is
//! rounded once, at the end. The hardware's order and truncation are not documented, and differ by rounding only.

use crate::exec::mem::At;
use crate::exec::step::{Flow, Step};
use crate::exec::traffic::count_shared;
use crate::ir::{Accumulator, Address, Element, MemSpace, Op, Reg};
use crate::lanes::Lanes;
use crate::lanes::float::put;
use crate::lanes::format::{E4M3, E5M2, F16, Round};
use crate::report::FindingKind;

/// f16 bits to f32.
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

impl Step<'_, '_> {
    /// Warp-wide instructions need every lane of the warp.
    pub(crate) fn whole_warp(&mut self, active: u32, mask: u32) -> Result<(), Flow> {
        self.converged(u32::MAX, mask)?;
        if active != u32::MAX {
            self.report(FindingKind::MaskMismatch, active.trailing_zeros(), None, || {
                format!("only lanes {active:#010x} execute an instruction that needs the whole warp")
            });
        }
        Ok(())
    }

    /// The rows of `n` 8x8 matrices: lane 8i + r holds the address of row r of matrix i.
    fn rows(&mut self, space: MemSpace, address: Address, n: usize, write: bool) -> [Option<usize>; 32] {
        let mut offsets = [None; 32];
        for (lane, slot) in offsets.iter_mut().enumerate().take(8 * n) {
            let a = self.address(address, lane as u32);
            match self.locate(space, a, 16, lane as u32) {
                Some(at @ At::Shared(offset)) => {
                    if let Some(c) = self.race(at, 16, lane as u32, 0, write) {
                        self.clash(c, at, lane as u32, write);
                    }
                    *slot = Some(offset);
                }
                Some(_) => self.report(FindingKind::Misuse, lane as u32, None, || {
                    "the address is not in shared memory".to_owned()
                }),
                None => {}
            }
        }
        let tally = &mut self.ctas[self.at].tally;
        count_shared(&mut tally.shared, &offsets, 16, write);
        offsets
    }

    pub(crate) fn ldmatrix(
        &mut self,
        space: MemSpace,
        address: Address,
        d: &[Reg],
        trans: bool,
        active: u32,
        mask: u32,
    ) -> Flow {
        if let Err(f) = self.whole_warp(active, mask) {
            return f;
        }
        let rows = self.rows(space, address, d.len(), false);
        for (i, &r) in d.iter().enumerate() {
            let mut m = [[0u8; 16]; 8];
            for (row, data) in m.iter_mut().enumerate() {
                let lane = (8 * i + row) as u32;
                if let Some(offset) = rows[lane as usize]
                    && !self.fetch(At::Shared(offset), lane, data)
                {
                    self.unwritten(At::Shared(offset), lane, 16);
                }
            }
            let half =
                |row: usize, col: usize| u64::from(m[row][2 * col]) | u64::from(m[row][2 * col + 1]) << 8;
            let out: Lanes = std::array::from_fn(|l| {
                let (g, t) = (l / 4, 2 * (l % 4));
                if trans { half(t, g) | half(t + 1, g) << 16 } else { half(g, t) | half(g, t + 1) << 16 }
            });
            self.set(r, &out, active);
        }
        Flow::Next
    }

    pub(crate) fn stmatrix(
        &mut self,
        space: MemSpace,
        address: Address,
        s: &[Reg],
        trans: bool,
        active: u32,
        mask: u32,
    ) -> Flow {
        if let Err(f) = self.whole_warp(active, mask) {
            return f;
        }
        let rows = self.rows(space, address, s.len(), true);
        for (i, &r) in s.iter().enumerate() {
            let values = *self.reg(r);
            let half = |row: usize, col: usize| {
                let (g, t) = if trans { (col, row) } else { (row, col) };
                (values[4 * g + t / 2] >> (16 * (t % 2))) as u16
            };
            for row in 0..8 {
                let Some(offset) = rows[8 * i + row] else { continue };
                let mut data = [0; 16];
                for col in 0..8 {
                    data[2 * col..2 * col + 2].copy_from_slice(&half(row, col).to_le_bytes());
                }
                self.put(At::Shared(offset), 0, &data);
            }
        }
        Flow::Next
    }

    pub(crate) fn movmatrix(&mut self, d: Reg, a: Reg, active: u32, mask: u32) -> Flow {
        if let Err(f) = self.whole_warp(active, mask) {
            return f;
        }
        let a = *self.reg(a);
        let half = |row: usize, col: usize| a[4 * row + col / 2] >> (16 * (col % 2)) & 0xffff;
        let out: Lanes =
            std::array::from_fn(|l| half(2 * (l % 4), l / 4) | half(2 * (l % 4) + 1, l / 4) << 16);
        self.set(d, &out, active);
        Flow::Next
    }

    pub(crate) fn mma(&mut self, op: &Op, active: u32, mask: u32) -> Flow {
        if let Err(f) = self.whole_warp(active, mask) {
            return f;
        }
        let Op::Mma { k, a: ea, b: eb, acc, saturate, d, ra, rb, rc } = op else { return Flow::Next };
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
