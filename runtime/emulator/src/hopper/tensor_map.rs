//! Tensor maps: what a tensor copy knows of the tensor in global memory and of the box that it moves.
//!
//! The driver's encoding of a `CUtensorMap` is opaque, so the emulator has its own, of the same 128 bytes (little-endian):
//!
//! | bytes | content |
//! |---|---|
//! | 0..8 | `MOACTMAP` |
//! | 8, 9, 10, 11 | version 1, element type, rank, swizzle |
//! | 16..24 | global address |
//! | 24..44 | five extents, less one, 32 bits each, innermost first |
//! | 44..76 | four strides in bytes, 64 bits each; the innermost extent has none |
//! | 76..81 | five box extents, less one |
//! | 81..86 | five element strides |
//! | 120..128 | FNV-1a hash of bytes 0..120 |
//!
//! Everything else is zero.

use super::swizzle::Swizzle;

const MAGIC: &[u8; 8] = b"MOACTMAP";
const VERSION: u8 = 1;
/// Dimensions of a tensor.
pub(crate) const MAX_RANK: usize = 5;

/// Element type of a tensor map. FP8 tensors are maps of [`TensorType::U8`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorType {
    /// Unsigned 8 bits.
    U8,
    /// Unsigned 16 bits.
    U16,
    /// Unsigned 32 bits.
    U32,
    /// Signed 32 bits.
    S32,
    /// Unsigned 64 bits.
    U64,
    /// Signed 64 bits.
    S64,
    /// IEEE half precision.
    F16,
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
    /// Brain float.
    Bf16,
}

impl TensorType {
    const ALL: [Self; 10] = [
        Self::U8,
        Self::U16,
        Self::U32,
        Self::S32,
        Self::U64,
        Self::S64,
        Self::F16,
        Self::F32,
        Self::F64,
        Self::Bf16,
    ];

    /// Bytes of an element.
    pub fn bytes(self) -> u64 {
        match self {
            Self::U8 => 1,
            Self::U16 | Self::F16 | Self::Bf16 => 2,
            Self::U32 | Self::S32 | Self::F32 => 4,
            Self::U64 | Self::S64 | Self::F64 => 8,
        }
    }
}

/// The value that a load fills in where the box lies outside the tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OobFill {
    /// Zeros.
    Zeros,
    /// The driver's NaN whose products count as zero. Not modelled: [`TensorMap::tiled`] refuses it.
    NanZeroFma,
}

/// A tensor map that cannot be: each variant is one of the driver's rules, or something that is not modelled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorMapError {
    /// The rank, or the number of extents, strides, box extents or element strides that has to go with it.
    #[error("a tensor of rank {rank} (1 to 5) takes {rank} {what}, found {found}")]
    Rank {
        /// Rank of the tensor: the number of its extents.
        rank: usize,
        /// The mismatch.
        what: &'static str,
        /// How many there are.
        found: usize,
    },
    /// The global address is not a multiple of 16.
    #[error("global address {0:#x} is not a multiple of 16 bytes")]
    Address(u64),
    /// An extent outside 1 to 2^32.
    #[error("extent {1} of dimension {0} is not in 1..=2^32")]
    Extent(usize, u64),
    /// A stride that is not a multiple of 16 or not below 2^40.
    #[error("stride {1} of dimension {0} is not a multiple of 16 below 2^40 bytes")]
    Stride(usize, u64),
    /// A box extent outside 1 to 256.
    #[error("box extent {1} of dimension {0} is not in 1..=256")]
    Box(usize, u32),
    /// The innermost box extent is not a multiple of 16 bytes.
    #[error("the innermost box extent is {0} bytes, which is not a multiple of 16")]
    InnerBytes(u64),
    /// The innermost box extent does not fill a row of the swizzle. The driver allows shorter rows; how they lie is not modelled.
    #[error(
        "the innermost box extent is {found} bytes, the swizzle's row {row}; other rows than full ones are not modelled"
    )]
    SwizzleRow {
        /// Bytes of a row of the box.
        found: u64,
        /// Bytes of a row of the swizzle.
        row: u32,
    },
    /// An element stride outside 1 to 8.
    #[error("element stride {1} of dimension {0} is not in 1..=8")]
    ElementStride(usize, u32),
    /// The fill is not modelled.
    #[error("the fill NanZeroFma is not modelled; use OobFill::Zeros")]
    Fill,
}

/// The description of a [`TensorMap`], extents innermost first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorMap {
    pub(crate) element: TensorType,
    pub(crate) address: u64,
    pub(crate) extents: Vec<u64>,
    /// Bytes between neighbours, by dimension; the first is the element's size.
    pub(crate) strides: Vec<u64>,
    pub(crate) box_extents: Vec<u32>,
    pub(crate) element_strides: Vec<u32>,
    pub(crate) swizzle: Swizzle,
}

impl TensorMap {
    /// A map for copies in tile mode, without interleaving: what `cuTensorMapEncodeTiled` makes. All lists have the innermost dimension
    /// first; `strides` are in bytes and leave the innermost dimension out. L2 promotion has no effect here, so there is no argument
    /// for it.
    #[expect(clippy::too_many_arguments, reason = "the driver's function has these arguments, in this order")]
    pub fn tiled(
        element: TensorType,
        address: u64,
        extents: &[u64],
        strides: &[u64],
        box_extents: &[u32],
        element_strides: &[u32],
        swizzle: Swizzle,
        fill: OobFill,
    ) -> Result<Self, TensorMapError> {
        let rank = extents.len();
        let count = |what, found, expected| {
            if found == expected { Ok(()) } else { Err(TensorMapError::Rank { rank, what, found }) }
        };
        if !(1..=MAX_RANK).contains(&rank) {
            return Err(TensorMapError::Rank { rank, what: "extents", found: rank });
        }
        count("strides, less one,", strides.len(), rank - 1)?;
        count("box extents", box_extents.len(), rank)?;
        count("element strides", element_strides.len(), rank)?;
        if !address.is_multiple_of(16) {
            return Err(TensorMapError::Address(address));
        }
        for (i, &n) in extents.iter().enumerate() {
            if n == 0 || n > 1 << 32 {
                return Err(TensorMapError::Extent(i, n));
            }
        }
        for (i, &s) in strides.iter().enumerate() {
            if s % 16 != 0 || s >= 1 << 40 {
                return Err(TensorMapError::Stride(i + 1, s));
            }
        }
        for (i, (&b, &e)) in box_extents.iter().zip(element_strides).enumerate() {
            if b == 0 || b > 256 {
                return Err(TensorMapError::Box(i, b));
            }
            if e == 0 || e > 8 {
                return Err(TensorMapError::ElementStride(i, e));
            }
        }
        let found = u64::from(box_extents[0]) * element.bytes();
        if !found.is_multiple_of(16) {
            return Err(TensorMapError::InnerBytes(found));
        }
        let row = swizzle.row();
        if swizzle != Swizzle::None && found != u64::from(row) {
            return Err(TensorMapError::SwizzleRow { found, row });
        }
        if fill != OobFill::Zeros {
            return Err(TensorMapError::Fill);
        }
        Ok(Self {
            element,
            address,
            extents: extents.to_vec(),
            strides: std::iter::once(element.bytes()).chain(strides.iter().copied()).collect(),
            box_extents: box_extents.to_vec(),
            element_strides: element_strides.to_vec(),
            swizzle,
        })
    }

    /// Elements that a copy moves per dimension. The innermost element stride has no effect, as without interleaving on the device.
    pub(crate) fn counts(&self) -> Vec<u32> {
        let step = |i: usize| if i == 0 { 1 } else { self.element_strides[i] };
        self.box_extents.iter().enumerate().map(|(i, b)| b.div_ceil(step(i))).collect()
    }

    /// Bytes that a copy puts into shared memory, whether the box is inside the tensor or not.
    pub fn box_bytes(&self) -> u64 {
        self.counts().iter().map(|&n| u64::from(n)).product::<u64>() * self.element.bytes()
    }

    /// The 128 bytes to pass as a `__grid_constant__` parameter of an emulated launch.
    pub fn bytes(&self) -> [u8; 128] {
        let mut out = [0; 128];
        out[..8].copy_from_slice(MAGIC);
        out[8] = VERSION;
        out[9] = TensorType::ALL.iter().position(|&t| t == self.element).unwrap_or(0) as u8;
        out[10] = self.extents.len() as u8;
        out[11] = match self.swizzle {
            Swizzle::None => 0,
            Swizzle::B32 => 1,
            Swizzle::B64 => 2,
            Swizzle::B128 => 3,
        };
        out[16..24].copy_from_slice(&self.address.to_le_bytes());
        for (i, n) in self.extents.iter().enumerate() {
            out[24 + 4 * i..28 + 4 * i].copy_from_slice(&((n - 1) as u32).to_le_bytes());
            out[76 + i] = (self.box_extents[i] - 1) as u8;
            out[81 + i] = self.element_strides[i] as u8;
        }
        for (i, s) in self.strides.iter().skip(1).enumerate() {
            out[44 + 8 * i..52 + 8 * i].copy_from_slice(&s.to_le_bytes());
        }
        let hash = fnv(&out[..120]);
        out[120..].copy_from_slice(&hash.to_le_bytes());
        out
    }

    /// Reads a map back; `Err` says why the bytes are not a map.
    pub(crate) fn decode(bytes: &[u8; 128]) -> Result<Self, String> {
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if &bytes[..8] != MAGIC {
            return Err("the 128 bytes are not a tensor map of the emulator: the driver's encoding is opaque and is not interpreted, make \
                        the map with `TensorMap::tiled`"
                .to_owned());
        }
        if bytes[8] != VERSION || u64_at(120) != fnv(&bytes[..120]) {
            return Err("the tensor map's bytes were changed after it was made".to_owned());
        }
        let bad = || "the tensor map's bytes were not made by `TensorMap::tiled`".to_owned();
        let element = *TensorType::ALL.get(usize::from(bytes[9])).ok_or_else(bad)?;
        let rank = usize::from(bytes[10]);
        if !(1..=MAX_RANK).contains(&rank) {
            return Err(bad());
        }
        let swizzle = *[Swizzle::None, Swizzle::B32, Swizzle::B64, Swizzle::B128]
            .get(usize::from(bytes[11]))
            .ok_or_else(bad)?;
        let extents: Vec<u64> = (0..rank).map(|i| u64::from(u32_at(24 + 4 * i)) + 1).collect();
        let strides: Vec<u64> = (0..rank - 1).map(|i| u64_at(44 + 8 * i)).collect();
        let boxes: Vec<u32> = (0..rank).map(|i| u32::from(bytes[76 + i]) + 1).collect();
        let steps: Vec<u32> = (0..rank).map(|i| bytes[81 + i].into()).collect();
        Self::tiled(element, u64_at(16), &extents, &strides, &boxes, &steps, swizzle, OobFill::Zeros)
            .map_err(|e| e.to_string())
    }

    /// The runs of bytes that a copy of the box at `coords` moves, in order of shared memory: for each row of the box, its offset from
    /// the start of the box, and its pieces.
    pub(crate) fn rows(&self, coords: &[i32]) -> Vec<Row> {
        let counts = self.counts();
        let bytes = self.element.bytes();
        let width = u64::from(counts[0]) * bytes;
        let total: u64 = counts[1..].iter().map(|&n| u64::from(n)).product();
        // The inner dimension: elements before the tensor, inside, and behind.
        let from = i64::from(coords[0]);
        let low = (-from).clamp(0, i64::from(counts[0])) as u64;
        let high = (self.extents[0] as i64 - from).clamp(low as i64, i64::from(counts[0])) as u64;
        let mut index = vec![0u32; counts.len()];
        let mut out = Vec::with_capacity(total as usize);
        for r in 0..total {
            let mut inside = low < high;
            let mut address = self.address.wrapping_add(((from + low as i64) * bytes as i64) as u64);
            for d in 1..counts.len() {
                let c = i64::from(coords[d]) + i64::from(index[d]) * i64::from(self.element_strides[d]);
                inside &= c >= 0 && c < self.extents[d] as i64;
                address = address.wrapping_add((c as u64).wrapping_mul(self.strides[d]));
            }
            let (skip, len) = if inside { (low * bytes, (high - low) * bytes) } else { (0, 0) };
            out.push(Row {
                offset: (r * width) as u32,
                width: width as u32,
                skip: skip as u32,
                len: len as u32,
                address,
            });
            for d in 1..counts.len() {
                index[d] += 1;
                if index[d] < counts[d] {
                    break;
                }
                index[d] = 0;
            }
        }
        out
    }
}

/// A row of a box: `width` bytes at `offset` of the box, of which `len` bytes behind the first `skip` are inside the tensor, from
/// `address` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) offset: u32,
    pub(crate) width: u32,
    pub(crate) skip: u32,
    pub(crate) len: u32,
    pub(crate) address: u64,
}

fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(extents: &[u64], strides: &[u64], boxes: &[u32], steps: &[u32]) -> TensorMap {
        TensorMap::tiled(
            TensorType::Bf16,
            0x1000,
            extents,
            strides,
            boxes,
            steps,
            Swizzle::None,
            OobFill::Zeros,
        )
        .unwrap()
    }

    #[test]
    fn bytes_come_back_and_changes_are_seen() {
        let m = TensorMap::tiled(
            TensorType::Bf16,
            0x12_3450,
            &[64, 1 << 32, 2],
            &[256, 128],
            &[64, 256, 2],
            &[1, 2, 1],
            Swizzle::B128,
            OobFill::Zeros,
        )
        .unwrap();
        assert_eq!(TensorMap::decode(&m.bytes()).unwrap(), m);
        let mut b = m.bytes();
        b[25] ^= 1;
        assert!(TensorMap::decode(&b).unwrap_err().contains("changed"));
        assert!(TensorMap::decode(&[0; 128]).unwrap_err().contains("opaque"));
        assert_eq!(m.box_bytes(), 64 * 128 * 2 * 2);
    }

    #[test]
    fn the_drivers_rules_hold() {
        use Swizzle::{B128, None};
        use TensorMapError as E;
        let make = |a: u64, e: &[u64], s: &[u64], b: &[u32], st: &[u32], sw| {
            TensorMap::tiled(TensorType::F16, a, e, s, b, st, sw, OobFill::Zeros)
        };
        assert!(matches!(make(0, &[], &[], &[], &[], None), Err(E::Rank { .. })));
        assert!(matches!(make(0, &[8; 6], &[16; 5], &[8; 6], &[1; 6], None), Err(E::Rank { .. })));
        assert!(matches!(make(0, &[8, 8], &[], &[8, 8], &[1, 1], None), Err(E::Rank { .. })));
        assert!(matches!(make(0, &[8, 8], &[16], &[8], &[1, 1], None), Err(E::Rank { .. })));
        assert_eq!(make(8, &[8], &[], &[8], &[1], None), Err(E::Address(8)));
        assert_eq!(make(0, &[0], &[], &[8], &[1], None), Err(E::Extent(0, 0)));
        assert_eq!(make(0, &[8, 8], &[24], &[8, 8], &[1, 1], None), Err(E::Stride(1, 24)));
        assert_eq!(make(0, &[8, 8], &[16], &[8, 257], &[1, 1], None), Err(E::Box(1, 257)));
        assert_eq!(make(0, &[8], &[], &[4], &[1], None), Err(E::InnerBytes(8)));
        assert_eq!(make(0, &[8], &[], &[8], &[9], None), Err(E::ElementStride(0, 9)));
        assert_eq!(make(0, &[128], &[], &[128], &[1], B128), Err(E::SwizzleRow { found: 256, row: 128 }));
        let nan = TensorMap::tiled(TensorType::F16, 0, &[8], &[], &[8], &[1], None, OobFill::NanZeroFma);
        assert_eq!(nan, Err(E::Fill));
    }

    #[test]
    fn rows_know_what_is_outside() {
        // 10 x 4 elements, 32 bytes apart; the box is 8 x 3.
        let m = map(&[10, 4], &[32], &[8, 3], &[1, 1]);
        let rows = m.rows(&[4, 2]);
        assert_eq!(rows[0], Row { offset: 0, width: 16, skip: 0, len: 12, address: 0x1000 + 2 * 32 + 8 });
        assert_eq!((rows[1].offset, rows[1].len), (16, 12));
        assert_eq!(rows[2].len, 0);
        let rows = m.rows(&[-3, -1]);
        assert_eq!((rows[0].len, rows[1].skip, rows[1].len, rows[1].address), (0, 6, 10, 0x1000));
        assert!(m.rows(&[10, 0]).iter().chain(&m.rows(&[-8, 0])).all(|r| r.len == 0));
        // Every second row of the second dimension.
        let m = map(&[8, 8], &[16], &[8, 5], &[1, 2]);
        assert_eq!(m.rows(&[0, 1]).iter().map(|r| r.address - 0x1000).collect::<Vec<_>>(), [16, 48, 80]);
    }
}
