//! The swizzles of shared memory: 16-byte pieces exchanged within rows of 32, 64 or 128 bytes.

/// How the 16-byte pieces of a row are exchanged. The pattern is a function of the shared address alone: bits 4 to 6 (as many as the
/// row has pieces for) are combined with bits 7 to 9 by exclusive or, so it repeats every 256, 512 or 1024 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swizzle {
    /// Rows as they are.
    None,
    /// Rows of 32 bytes.
    B32,
    /// Rows of 64 bytes.
    B64,
    /// Rows of 128 bytes.
    B128,
}

impl Swizzle {
    /// Bytes of a row; 16 without a swizzle, where every piece stands for itself.
    pub(crate) fn row(self) -> u32 {
        match self {
            Self::None => 16,
            Self::B32 => 32,
            Self::B64 => 64,
            Self::B128 => 128,
        }
    }

    /// Where the byte that an unswizzled layout has at `address` lies, if the pattern starts `base` rows of 128 bytes behind a
    /// multiple of its period.
    #[inline]
    pub(crate) fn apply_from(self, address: u32, base: u32) -> u32 {
        address ^ ((((address >> 7).wrapping_sub(base)) & (self.row() / 16 - 1)) << 4)
    }

    /// Where the byte that an unswizzled layout has at `address` lies.
    #[inline]
    pub(crate) fn apply(self, address: u32) -> u32 {
        self.apply_from(address, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tables of the ISA document, "Swizzling modes": for each row of the pattern, the pieces in the order in which they lie.
    #[test]
    fn the_patterns_are_those_of_the_isa() {
        let b128 = [
            [0, 1, 2, 3, 4, 5, 6, 7],
            [1, 0, 3, 2, 5, 4, 7, 6],
            [2, 3, 0, 1, 6, 7, 4, 5],
            [3, 2, 1, 0, 7, 6, 5, 4],
        ];
        for (row, order) in b128.iter().enumerate() {
            for (at, &piece) in order.iter().enumerate() {
                assert_eq!(
                    Swizzle::B128.apply(row as u32 * 128 + piece * 16 + 5),
                    row as u32 * 128 + at as u32 * 16 + 5
                );
            }
        }
        assert_eq!(
            (0..8).map(|p| Swizzle::B128.apply(7 * 128 + p * 16) / 16 % 8).collect::<Vec<_>>(),
            [7, 6, 5, 4, 3, 2, 1, 0]
        );
        // 64 bytes: two rows share 128 bytes, and pairs of rows shift.
        let b64 = [
            [0, 1, 2, 3],
            [0, 1, 2, 3],
            [1, 0, 3, 2],
            [1, 0, 3, 2],
            [2, 3, 0, 1],
            [2, 3, 0, 1],
            [3, 2, 1, 0],
            [3, 2, 1, 0],
        ];
        for (row, order) in b64.iter().enumerate() {
            for (at, &piece) in order.iter().enumerate() {
                assert_eq!(
                    Swizzle::B64.apply(row as u32 * 64 + piece * 16),
                    row as u32 * 64 + at as u32 * 16
                );
            }
        }
        // 32 bytes: four rows share 128 bytes.
        for row in 0..8 {
            let swapped = row >= 4;
            assert_eq!(Swizzle::B32.apply(row * 32), row * 32 + if swapped { 16 } else { 0 });
        }
        assert_eq!(Swizzle::None.apply(0x3f7), 0x3f7);
    }

    #[test]
    fn a_swizzle_is_its_own_inverse() {
        for s in [Swizzle::None, Swizzle::B32, Swizzle::B64, Swizzle::B128] {
            for a in 0..4096 {
                assert_eq!(s.apply(s.apply(a)), a);
                assert_eq!(s.apply(a + 8 * 1024), s.apply(a) + 8 * 1024);
            }
        }
    }
}
