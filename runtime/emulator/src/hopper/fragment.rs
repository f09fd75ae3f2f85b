//! The element of a matrix that a register of a lane holds. A warp of a warpgroup owns 16 of the 64 rows of `wgmma`, and rows here
//! count from its first.

/// Row and column of accumulator element `i` of a lane (with 16-bit accumulators: half `i % 2` of register `i / 2`).
#[inline]
pub(crate) fn accumulator(i: usize, lane: usize) -> (usize, usize) {
    (lane / 4 + 8 * (i / 2 % 2), 8 * (i / 4) + 2 * (lane % 4) + i % 2)
}

/// Row and k of the first element in register `r` (of four) of an A fragment whose registers hold `per` elements each, consecutive in k:
/// 2 of 16 bits, or 4 of 8 bits.
#[inline]
pub(crate) fn a(r: usize, lane: usize, per: usize) -> (usize, usize) {
    (lane / 4 + 8 * (r % 2), per * (lane % 4) + 4 * per * (r / 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_element_has_one_owner() {
        let acc: BTreeSet<_> = (0..32).flat_map(|l| (0..12).map(move |i| accumulator(i, l))).collect();
        assert_eq!((acc.len(), acc.last()), (16 * 24, Some(&(15, 23))));
        for per in [2, 4] {
            let all: BTreeSet<_> = (0..32)
                .flat_map(|l| {
                    (0..4).flat_map(move |r| (0..per).map(move |e| (a(r, l, per).0, a(r, l, per).1 + e)))
                })
                .collect();
            assert_eq!((all.len(), all.last()), (16 * 8 * per, Some(&(15, 8 * per - 1))));
        }
    }

    /// Entries of the ISA document's figures.
    #[test]
    fn entries_are_those_of_the_isa() {
        assert_eq!(accumulator(0, 5), (1, 2));
        assert_eq!(accumulator(3, 0), (8, 1));
        assert_eq!(accumulator(4, 31), (7, 14));
        assert_eq!(a(1, 4, 2), (9, 0));
        assert_eq!(a(2, 1, 2), (0, 10));
        assert_eq!(a(3, 3, 4), (8, 28));
    }
}
