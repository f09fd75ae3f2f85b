//! Matrix descriptors of `wgmma`: where the 16-byte pieces of an operand in shared memory lie.

use super::swizzle::Swizzle;

/// An operand in shared memory, as the 64-bit descriptor says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) start: u32,
    /// Leading dimension byte offset.
    pub(crate) leading: u32,
    /// Stride dimension byte offset.
    pub(crate) stride: u32,
    /// Rows of 128 bytes between a multiple of the swizzle's period and the pattern's start.
    pub(crate) base: u32,
    pub(crate) swizzle: Swizzle,
}

/// The dimension that is contiguous in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Major {
    /// K: a piece holds consecutive k of one row (of A) or column (of B).
    K,
    /// M or N: a piece holds eight consecutive rows or columns at one k. 16-bit elements only.
    Mn,
}

impl Descriptor {
    /// Takes a descriptor apart; `Err` names bits that must be zero.
    pub(crate) fn decode(bits: u64) -> Result<Self, String> {
        const RESERVED: u64 = 0b11 << 14 | 0b11 << 30 | 0b111 << 46 | 0x3ff << 52;
        if bits & RESERVED != 0 {
            return Err(format!("descriptor {bits:#018x} has reserved bits set: {:#x}", bits & RESERVED));
        }
        let field = |at: u32| ((bits >> at) as u32 & 0x3fff) << 4;
        let swizzle = match bits >> 62 {
            0 => Swizzle::None,
            1 => Swizzle::B128,
            2 => Swizzle::B64,
            _ => Swizzle::B32,
        };
        let base = (bits >> 49) as u32 & 7;
        if swizzle == Swizzle::None && base != 0 {
            return Err(format!("descriptor {bits:#018x} has base offset {base} without a swizzle"));
        }
        Ok(Self { start: field(0), leading: field(16), stride: field(32), base, swizzle })
    }

    /// Address of a 16-byte piece.
    ///
    /// K-major: piece `k` (0 or 1) of row or column `mn`. MN-major: the piece that holds eight rows or columns from `8 * mn`, at `k`.
    #[inline]
    pub(crate) fn piece(&self, major: Major, mn: u32, k: u32) -> u32 {
        let row = self.swizzle.row();
        let plain = match (major, self.swizzle) {
            // Groups of eight rows of one piece each; the second piece is a leading dimension away.
            (Major::K, Swizzle::None) => mn / 8 * self.stride + mn % 8 * 16 + k * self.leading,
            // Groups of eight rows of the swizzle's width; both pieces are in the row, the leading dimension is not used.
            (Major::K, _) => mn / 8 * self.stride + mn % 8 * row + k * 16,
            // Groups of eight k, one piece each.
            (Major::Mn, Swizzle::None) => mn * self.stride + k % 8 * 16 + k / 8 * self.leading,
            // Groups of eight k, rows of the swizzle's width; what the row does not hold is a leading dimension away.
            (Major::Mn, _) => {
                let wide = row / 16;
                mn % wide * 16 + mn / wide * self.leading + k % 8 * row + k / 8 * self.stride
            }
        };
        self.swizzle.apply_from(self.start.wrapping_add(plain), self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_apart() {
        let d = Descriptor::decode(0x4000 >> 4 | 1 << 16 | 64 << 32 | 2 << 49 | 1 << 62).unwrap();
        assert_eq!(
            d,
            Descriptor { start: 0x4000, leading: 16, stride: 1024, base: 2, swizzle: Swizzle::B128 }
        );
        assert_eq!(Descriptor::decode(2 << 62).unwrap().swizzle, Swizzle::B64);
        assert_eq!(Descriptor::decode(3 << 62).unwrap().swizzle, Swizzle::B32);
        assert!(Descriptor::decode(1 << 15).unwrap_err().contains("reserved"));
        assert!(Descriptor::decode(1 << 49).unwrap_err().contains("without a swizzle"));
    }

    /// Every layout puts the pieces of a tile at distinct places, and K-major 128-byte rows where a swizzled copy puts them.
    #[test]
    fn pieces_do_not_overlap() {
        for (mode, row) in [(0u64, 16u64), (1, 128), (2, 64), (3, 32)] {
            for major in [Major::K, Major::Mn] {
                // 64 rows or columns; offsets as for a tile that is stored densely.
                let (lead, stride) = match (major, mode) {
                    (_, 0) => (1024, 128),
                    (Major::K, _) => (16, 8 * row),
                    (Major::Mn, _) => (16 * row, 8 * row),
                };
                let d = Descriptor::decode(1024 >> 4 | (lead >> 4) << 16 | (stride >> 4) << 32 | mode << 62)
                    .unwrap();
                let (mns, ks) = if major == Major::K { (64, 2) } else { (8, 16) };
                let mut seen: Vec<u32> =
                    (0..mns).flat_map(|m| (0..ks).map(move |k| d.piece(major, m, k))).collect();
                seen.sort_unstable();
                seen.dedup();
                assert_eq!(seen.len(), 128, "{mode} {major:?}");
            }
        }
        let d = Descriptor::decode(1024 >> 4 | 1 << 16 | 64 << 32 | 1 << 62).unwrap();
        assert_eq!(d.piece(Major::K, 3, 1), 1024 + 3 * 128 + ((1 ^ 3) * 16));
        assert_eq!(d.piece(Major::K, 8, 0), 2048);
    }
}
