//! `ldmatrix`, `stmatrix` and `movmatrix`.

#![allow(clippy::inline_always)] // what is constant where an access is made leaves little of these functions

use crate::exec::mem::At;
use crate::exec::step::{Flow, Step};
use crate::ir::{Address, MemSpace, Reg};
use crate::lanes::Lanes;
use crate::report::FindingKind;
use crate::state::traffic::{Offsets, count_shared};

impl Step<'_, '_> {
    /// The rows of `n` 8x8 matrices: lane 8i + r holds the address of row r of matrix i.
    fn rows(&mut self, space: MemSpace, address: Address, n: usize, write: bool) -> Offsets {
        match space {
            MemSpace::Shared => self.rows_in(MemSpace::Shared, address, n, write),
            other => self.rows_in(other, address, n, write),
        }
    }

    #[inline(always)] // once for the space that matters
    fn rows_in(&mut self, space: MemSpace, address: Address, n: usize, write: bool) -> Offsets {
        let mut offsets = Offsets::default();
        for lane in 0..8 * n as u32 {
            let a = self.address(address, lane);
            match self.locate(space, a, 16, lane) {
                Some(at @ At::Shared(offset)) => {
                    if let Some(c) = self.race(at, 16, lane, 0, write) {
                        self.clash(c, at, lane, write);
                    }
                    offsets.set(lane, offset);
                }
                Some(_) => self.report(FindingKind::Misuse, lane, None, || {
                    "the address is not in shared memory".to_owned()
                }),
                None => {}
            }
        }
        let tally = &mut self.ctas[self.at].tally;
        count_shared(&mut tally.shared, &offsets, 16, write);
        offsets
    }

    #[inline(never)]
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
                if let Some(offset) = rows.get(lane)
                    && !self.fetch(At::Shared(offset), lane, data)
                {
                    self.unwritten(At::Shared(offset), lane, 16);
                }
            }
            let mut out: Lanes = [0; 32];
            for (g, row) in m.iter().enumerate() {
                if trans {
                    // Row g is the low or the high half of what the lanes with t = g / 2 get.
                    for (column, v) in row.chunks_exact(2).enumerate() {
                        let v = u64::from(u16::from_le_bytes([v[0], v[1]]));
                        out[4 * column + g / 2] |= v << (16 * (g % 2));
                    }
                } else {
                    for (t, v) in row.chunks_exact(4).enumerate() {
                        out[4 * g + t] = u32::from_le_bytes([v[0], v[1], v[2], v[3]]).into();
                    }
                }
            }
            self.set(r, &out, active);
        }
        Flow::Next
    }

    #[inline(never)]
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
                let Some(offset) = rows.get((8 * i + row) as u32) else { continue };
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
}
