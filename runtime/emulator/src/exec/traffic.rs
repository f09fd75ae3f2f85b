//! Counting what one warp instruction moves: sectors of global memory, wavefronts of shared memory.

use crate::count::{SharedTraffic, Tally};

/// The global accesses of one instruction.
#[derive(Default)]
pub(crate) struct Request {
    /// Allocation and sector of each access, without repeats.
    sectors: Vec<(u32, u64)>,
    /// Allocation and bytes.
    bytes: Vec<(u32, u64)>,
}

impl Request {
    /// Notes an access that lies in one sector.
    #[inline]
    pub(crate) fn note(&mut self, allocation: u32, address: u64, len: usize) {
        let key = (allocation, address / 32);
        if self.sectors.last() != Some(&key) && !self.sectors.contains(&key) {
            self.sectors.push(key);
        }
        match self.bytes.iter_mut().find(|b| b.0 == allocation) {
            Some(b) => b.1 += len as u64,
            None => self.bytes.push((allocation, len as u64)),
        }
    }

    /// Adds the instruction to a tally.
    pub(crate) fn count(&self, tally: &mut Tally, write: bool) {
        for &(allocation, bytes) in &self.bytes {
            let t = tally.traffic(allocation as usize);
            let t = if write { &mut t.written } else { &mut t.read };
            t.requests += 1;
            t.bytes += bytes;
            t.sectors += self.sectors.iter().filter(|s| s.0 == allocation).count() as u64;
        }
    }
}

/// Wavefronts of an access of `len` bytes per lane, and how many of them are bank conflicts. `None` is a lane that takes no part.
pub(crate) fn wavefronts(offsets: &[Option<usize>; 32], len: usize) -> (u64, u64) {
    let lanes = if len <= 4 { 32 } else { (128 / len).max(1) };
    let (mut all, mut conflicts) = (0, 0);
    for group in offsets.chunks(lanes) {
        let mut first = [usize::MAX; 32];
        let mut count = [0u64; 32];
        let mut more: Vec<usize> = Vec::new();
        for offset in group.iter().flatten() {
            for word in offset / 4..(offset + len).div_ceil(4) {
                let bank = word % 32;
                if count[bank] == 0 {
                    first[bank] = word;
                    count[bank] = 1;
                } else if first[bank] != word && !more.contains(&word) {
                    more.push(word);
                    count[bank] += 1;
                }
            }
        }
        let n = count.into_iter().max().unwrap_or(0);
        all += n;
        conflicts += n.saturating_sub(1);
    }
    (all, conflicts)
}

/// Adds one shared-memory instruction.
pub(crate) fn count_shared(t: &mut SharedTraffic, offsets: &[Option<usize>; 32], len: usize, write: bool) {
    let (all, conflicts) = wavefronts(offsets, len);
    let bytes = offsets.iter().flatten().count() as u64 * len as u64;
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

    fn lanes(f: impl Fn(usize) -> usize) -> [Option<usize>; 32] {
        std::array::from_fn(|l| Some(f(l)))
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
        some[8..].fill(None);
        assert_eq!(wavefronts(&some, 4), (1, 0));
    }
}
