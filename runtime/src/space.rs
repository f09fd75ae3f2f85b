//! Ranges out of one reservation: which bytes each slab of a pool takes. Arithmetic only; whose bytes they are is the
//! caller's affair.
//!
//! What must hold: ranges that are taken never overlap, free ranges never touch each other, and what is given back can be
//! taken again at once. A range comes from the smallest free one that holds it. Where requests of many sizes come and go at
//! random, and each waits for its turn, at least six sevenths of what an ideal reservation would have in use are: the tests
//! simulate it.

use std::collections::{BTreeMap, BTreeSet};

/// Ranges start at multiples of this many bytes.
pub const ALIGNMENT: u64 = 256;

/// A reservation of which some ranges are taken.
#[derive(Clone, Debug)]
pub struct Space {
    bytes: u64,
    /// Bytes of each free range, by its start.
    free: BTreeMap<u64, u64>,
    /// The same, by size and then by start.
    by_size: BTreeSet<(u64, u64)>,
    taken: u64,
}

impl Space {
    /// A reservation of `bytes` bytes, all of them free.
    pub fn new(bytes: u64) -> Self {
        let mut space = Self { bytes, free: BTreeMap::new(), by_size: BTreeSet::new(), taken: 0 };
        space.insert(0, bytes / ALIGNMENT * ALIGNMENT);
        space
    }

    /// Bytes of the reservation.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes that are taken, rounding to [`ALIGNMENT`] included.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Bytes of the largest range that can be taken.
    pub fn largest_free(&self) -> u64 {
        self.by_size.last().map_or(0, |&(size, _)| size)
    }

    /// Takes `bytes` bytes: the start of the range, or `None` where no free range is as large.
    pub fn take(&mut self, bytes: u64) -> Option<u64> {
        let bytes = round(bytes)?;
        let &(size, start) = self.by_size.range((bytes, 0)..).next()?;
        self.remove(start, size);
        self.insert(start + bytes, size - bytes);
        self.taken += bytes;
        Some(start)
    }

    /// Gives back the range of `bytes` bytes that [`take`](Self::take) put at `start`.
    ///
    /// # Panics
    /// If the range is not taken as a whole.
    pub fn give_back(&mut self, start: u64, bytes: u64) {
        let bytes = round(bytes).expect("the range was taken");
        let before = self.free.range(..=start).next_back().map(|(&at, &size)| (at, size));
        let after = self.free.range(start..).next().map(|(&at, &size)| (at, size));
        let overlaps = before.is_some_and(|(at, size)| at + size > start)
            || after.is_some_and(|(at, _)| at < start + bytes)
            || start + bytes > self.bytes;
        assert!(!overlaps, "bytes {start}..{} are not taken", start + bytes);
        let (mut from, mut to) = (start, start + bytes);
        if let Some((at, size)) = before.filter(|(at, size)| at + size == start) {
            self.remove(at, size);
            from = at;
        }
        if let Some((at, size)) = after.filter(|&(at, _)| at == to) {
            self.remove(at, size);
            to = at + size;
        }
        self.insert(from, to - from);
        self.taken -= bytes;
    }

    fn insert(&mut self, start: u64, size: u64) {
        if size > 0 {
            self.free.insert(start, size);
            self.by_size.insert((size, start));
        }
    }

    fn remove(&mut self, start: u64, size: u64) {
        self.free.remove(&start);
        self.by_size.remove(&(size, start));
    }
}

/// Bytes rounded up to [`ALIGNMENT`], at least one unit.
fn round(bytes: u64) -> Option<u64> {
    bytes.max(1).checked_next_multiple_of(ALIGNMENT)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn what_is_given_back_is_one_range_again() {
        let mut space = Space::new(4 * 256 + 100);
        let starts = [(); 4].map(|()| space.take(200).unwrap());
        assert_eq!((starts, space.take(1), space.taken()), ([0, 256, 512, 768], None, 1024));
        for n in [1, 3, 0, 2] {
            space.give_back(starts[n], 200);
        }
        assert_eq!((space.largest_free(), space.taken()), (1024, 0));
        assert_eq!(space.take(u64::MAX), None);
    }

    #[test]
    #[should_panic(expected = "are not taken")]
    fn what_is_free_cannot_be_given_back() {
        let mut space = Space::new(1024);
        let start = space.take(256).unwrap();
        space.give_back(start, 256);
        space.give_back(start, 256);
    }

    proptest! {
        /// Against a map of bytes: no overlap, nothing lost, and `None` only where no gap is large enough.
        #[test]
        fn agrees_with_a_map_of_units(steps in prop::collection::vec((any::<bool>(), 1_u64..9, any::<prop::sample::Index>()), 1..200)) {
            const UNITS: usize = 24;
            let mut space = Space::new(UNITS as u64 * ALIGNMENT);
            let mut map = [false; UNITS];
            let mut held: Vec<(u64, u64)> = Vec::new();
            for (take, units, which) in steps {
                if take || held.is_empty() {
                    let longest = map.split(|&taken| taken).map(<[bool]>::len).max().unwrap();
                    let Some(start) = space.take(units * ALIGNMENT) else {
                        prop_assert!(longest < units as usize);
                        continue;
                    };
                    let range = (start / ALIGNMENT) as usize..(start / ALIGNMENT + units) as usize;
                    prop_assert!(map[range.clone()].iter().all(|&taken| !taken));
                    map[range].fill(true);
                    held.push((start, units));
                } else {
                    let (start, units) = held.swap_remove(which.index(held.len()));
                    map[(start / ALIGNMENT) as usize..(start / ALIGNMENT + units) as usize].fill(false);
                    space.give_back(start, units * ALIGNMENT);
                }
                let taken = map.iter().filter(|&&taken| taken).count() as u64;
                prop_assert_eq!(space.taken(), taken * ALIGNMENT);
            }
        }
    }

    /// The mean share of a reservation in use by a queue of requests of `most` buckets that are served in order whenever
    /// there is room, as a server admits them; a slab of bucket n takes n units. An `ideal` reservation counts bytes only.
    fn share_in_use(seed: u64, most: u64, ideal: bool) -> f64 {
        const STEPS: u32 = 20_000;
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let unit = 3 * ALIGNMENT;
        // About 40 slabs of the mean size; an ideal reservation has ranges to waste.
        let bytes = 20 * (most + 1) * unit;
        let mut space = Space::new(if ideal { 1000 * bytes } else { bytes });
        let (mut held, mut used): (Vec<(u64, u64)>, f64) = (Vec::new(), 0.0);
        let mut size = || (1 + random.next_u64() % most) * unit;
        let mut waiting = size();
        for step in 0..STEPS {
            while space.taken() + waiting <= bytes {
                let Some(start) = space.take(waiting) else { break };
                held.push((start, waiting));
                waiting = size();
            }
            used += space.taken() as f64 / bytes as f64 / f64::from(STEPS);
            let (start, size) = held.swap_remove(step as usize * 7919 % held.len());
            space.give_back(start, size);
        }
        used
    }

    #[test]
    fn fragmentation_costs_a_seventh_at_most_under_random_traffic() {
        for (seed, most) in [(1, 2), (2, 4), (3, 16), (4, 64)] {
            let (found, ideal) = (share_in_use(seed, most, false), share_in_use(seed, most, true));
            assert!(found >= 6.0 / 7.0 * ideal, "{most} buckets: {found:.3} in use, ideally {ideal:.3}");
        }
    }
}
