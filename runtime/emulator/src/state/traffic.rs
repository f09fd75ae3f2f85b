//! Counting what one warp instruction moves: sectors of global memory, wavefronts of shared memory.

use crate::count::{SharedTraffic, Tally};
use crate::lanes::bits;

/// One allocation's part in an instruction.
#[derive(Clone, Copy, Default)]
struct Share {
    allocation: u32,
    bytes: u64,
    sectors: u64,
}

/// The global accesses of one instruction: at most one per lane, each inside one sector.
#[derive(Default)]
pub(crate) struct Request {
    /// Sectors without repeats. They belong to one allocation each.
    sectors: [u64; 32],
    count: usize,
    highest: u64,
    /// The first allocation, which is mostly the only one.
    first: Option<Share>,
    others: Vec<Share>,
}

impl Request {
    /// Notes an access that lies in one sector.
    #[inline]
    pub(crate) fn note(&mut self, allocation: u32, address: u64, len: usize) {
        let sector = address / 32;
        // Addresses mostly rise with the lanes.
        let new = sector > self.highest || !self.sectors[..self.count].contains(&sector);
        if new {
            self.sectors[self.count] = sector;
            self.count += 1;
            self.highest = self.highest.max(sector);
        }
        let share = match &mut self.first {
            Some(f) if f.allocation == allocation => f,
            none @ None => none.insert(Share { allocation, ..Share::default() }),
            Some(_) => self.other(allocation),
        };
        share.bytes += len as u64;
        share.sectors += u64::from(new);
    }

    #[cold]
    fn other(&mut self, allocation: u32) -> &mut Share {
        let at = self.others.iter().position(|s| s.allocation == allocation).unwrap_or_else(|| {
            self.others.push(Share { allocation, ..Share::default() });
            self.others.len() - 1
        });
        &mut self.others[at]
    }

    /// Adds the instruction to a tally.
    pub(crate) fn count(&self, tally: &mut Tally, write: bool) {
        for share in self.first.iter().chain(&self.others) {
            let t = tally.traffic(share.allocation as usize);
            let t = if write { &mut t.written } else { &mut t.read };
            t.requests += 1;
            t.bytes += share.bytes;
            t.sectors += share.sectors;
        }
    }
}

/// Where the lanes of one instruction access shared memory.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Offsets {
    /// Lanes that take part.
    pub(crate) lanes: u32,
    at: [u32; 32],
}

impl Offsets {
    #[inline]
    pub(crate) fn set(&mut self, lane: u32, offset: usize) {
        self.lanes |= 1 << lane;
        self.at[lane as usize] = offset as u32;
    }

    /// The offset of a lane, if it takes part.
    #[inline]
    pub(crate) fn get(&self, lane: u32) -> Option<usize> {
        (self.lanes >> lane & 1 != 0).then_some(self.at[lane as usize] as usize)
    }
}

/// Wavefronts of an access of `len` bytes per lane, and how many of them are bank conflicts. `len` is a power of two up to 32, and
/// the offsets are multiples of it: so what two lanes access is the same place, or clashes in all of its banks, or in none.
pub(crate) fn wavefronts(offsets: &Offsets, len: usize) -> (u64, u64) {
    let place = len.max(4);
    let (shift, slots) = (place.trailing_zeros(), 128 / place as u32);
    let step = if len <= 4 { 32 } else { slots };
    let (mut all, mut conflicts) = (0, 0);
    let (mut first, mut count) = ([0u32; 32], [0u32; 32]);
    let mut more = [0u32; 32];
    for from in (0..32).step_by(step as usize) {
        let group = offsets.lanes >> from & (u32::MAX >> (32 - step));
        if group == 0 {
            continue;
        }
        let (mut seen, mut most, mut mores) = (0u32, 1, 0);
        for lane in bits(group << from) {
            let at = offsets.at[lane as usize] >> shift;
            let slot = (at % slots) as usize;
            if seen >> slot & 1 == 0 {
                seen |= 1 << slot;
                first[slot] = at;
                count[slot] = 1;
            } else if first[slot] != at && !more[..mores].contains(&at) {
                more[mores] = at;
                mores += 1;
                count[slot] += 1;
                most = count[slot].max(most);
            }
        }
        all += u64::from(most);
        conflicts += u64::from(most - 1);
    }
    (all, conflicts)
}

/// Adds one shared-memory instruction.
pub(crate) fn count_shared(t: &mut SharedTraffic, offsets: &Offsets, len: usize, write: bool) {
    if offsets.lanes == 0 {
        return;
    }
    let (all, conflicts) = wavefronts(offsets, len);
    let bytes = u64::from(offsets.lanes.count_ones()) * len as u64;
    if write {
        t.bytes_written += bytes;
        t.write_wavefronts += all;
        t.write_conflicts += conflicts;
    } else {
        t.bytes_read += bytes;
        t.read_wavefronts += all;
        t.read_conflicts += conflicts;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lanes(f: impl Fn(usize) -> usize) -> Offsets {
        let mut offsets = Offsets::default();
        (0..32).for_each(|l| offsets.set(l, f(l as usize)));
        offsets
    }

    #[test]
    fn wavefronts_follow_the_banks() {
        assert_eq!(wavefronts(&lanes(|l| 4 * l), 4), (1, 0));
        assert_eq!(wavefronts(&lanes(|_| 64), 4), (1, 0)); // one word for all
        assert_eq!(wavefronts(&lanes(|l| 8 * l), 4), (2, 1)); // stride two
        assert_eq!(wavefronts(&lanes(|l| 128 * l), 4), (32, 31)); // one bank
        assert_eq!(wavefronts(&lanes(|l| 2 * l), 2), (1, 0)); // halves share words
        assert_eq!(wavefronts(&lanes(|l| 8 * l), 8), (2, 0));
        assert_eq!(wavefronts(&lanes(|l| 16 * l), 16), (4, 0));
        assert_eq!(wavefronts(&lanes(|l| 256 * l), 16), (32, 28)); // rows of 256 bytes, no swizzle
        let mut some = lanes(|l| 4 * l);
        some.lanes = 0xff;
        assert_eq!(wavefronts(&some, 4), (1, 0));
    }
}
