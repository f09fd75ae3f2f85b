//! How the elements of a stored tensor are laid out, and how a row of them becomes float32.
//!
//! Quantised types hold blocks of 32 or 256 elements with scales of their own, as llama.cpp defines them; every block
//! is decoded by itself, so any whole number of blocks can be.

use half::slice::HalfFloatSliceExt as _;
use half::{bf16, f16};

/// The element types that are read.
pub(super) const READ: &str = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K";

/// An element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(non_camel_case_types)] // the formats' own names
pub(crate) enum Encoding {
    F64,
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
}

use Encoding::{BF16, F16, F32, F64, Q2_K, Q3_K, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0};

impl Encoding {
    /// The type that GGUF files give this number.
    pub(crate) fn of_gguf(number: u32) -> Option<Self> {
        Some(match number {
            0 => F32,
            1 => F16,
            2 => Q4_0,
            3 => Q4_1,
            6 => Q5_0,
            7 => Q5_1,
            8 => Q8_0,
            10 => Q2_K,
            11 => Q3_K,
            12 => Q4_K,
            13 => Q5_K,
            14 => Q6_K,
            28 => F64,
            30 => BF16,
            _ => return None,
        })
    }

    /// Elements of a block.
    pub(crate) fn block(self) -> usize {
        match self {
            F64 | F32 | F16 | BF16 => 1,
            Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0 => 32,
            Q2_K | Q3_K | Q4_K | Q5_K | Q6_K => 256,
        }
    }

    /// Bytes of a block.
    pub(crate) fn bytes(self) -> usize {
        match self {
            F64 => 8,
            F32 => 4,
            F16 | BF16 => 2,
            Q4_0 => 2 + 16,
            Q4_1 => 2 + 2 + 16,
            Q5_0 => 2 + 4 + 16,
            Q5_1 => 2 + 2 + 4 + 16,
            Q8_0 => 2 + 32,
            Q2_K => 16 + 64 + 2 + 2,
            Q3_K => 32 + 64 + 12 + 2,
            Q4_K => 2 + 2 + 12 + 128,
            Q5_K => 2 + 2 + 12 + 32 + 128,
            Q6_K => 128 + 64 + 16 + 2,
        }
    }

    /// Bytes of a row of `elements`, a whole number of blocks.
    pub(crate) fn row_bytes(self, elements: usize) -> usize {
        elements / self.block() * self.bytes()
    }

    /// Decodes whole blocks; `bytes` has those of `out`'s elements.
    pub(crate) fn decode(self, bytes: &[u8], out: &mut [f32]) {
        debug_assert_eq!(bytes.len(), self.row_bytes(out.len()));
        match self {
            F64 => {
                for (out, x) in out.iter_mut().zip(bytes.as_chunks().0) {
                    *out = f64::from_le_bytes(*x) as f32;
                }
            }
            F32 => {
                for (out, x) in out.iter_mut().zip(bytes.as_chunks().0) {
                    *out = f32::from_le_bytes(*x);
                }
            }
            F16 => {
                // Through a buffer, since whole slices are converted by vector instructions.
                let mut halves = [f16::ZERO; 256];
                for (out, bytes) in out.chunks_mut(256).zip(bytes.chunks(512)) {
                    let halves = &mut halves[..out.len()];
                    for (half, x) in halves.iter_mut().zip(bytes.as_chunks().0) {
                        *half = f16::from_le_bytes(*x);
                    }
                    halves.convert_to_f32_slice(out);
                }
            }
            BF16 => {
                for (out, x) in out.iter_mut().zip(bytes.as_chunks().0) {
                    *out = bf16::from_le_bytes(*x).to_f32();
                }
            }
            Q4_0 => blocks(bytes, out, q4_0),
            Q4_1 => blocks(bytes, out, q4_1),
            Q5_0 => blocks(bytes, out, q5_0),
            Q5_1 => blocks(bytes, out, q5_1),
            Q8_0 => blocks(bytes, out, q8_0),
            Q2_K => blocks(bytes, out, q2_k),
            Q3_K => blocks(bytes, out, q3_k),
            Q4_K => blocks(bytes, out, q4_k),
            Q5_K => blocks(bytes, out, q5_k),
            Q6_K => blocks(bytes, out, q6_k),
        }
    }
}

/// Decodes blocks of `B` bytes to `N` elements each.
fn blocks<const B: usize, const N: usize>(
    bytes: &[u8],
    out: &mut [f32],
    decode: impl Fn(&[u8; B], &mut [f32; N]),
) {
    for (block, out) in bytes.as_chunks::<B>().0.iter().zip(out.as_chunks_mut::<N>().0) {
        decode(block, out);
    }
}

/// The float16 at a place of a block.
fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for (i, q) in block[2..].iter().enumerate() {
        out[i] = (f32::from(q & 15) - 8.0) * d;
        out[i + 16] = (f32::from(q >> 4) - 8.0) * d;
    }
}

fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    for (i, q) in block[4..].iter().enumerate() {
        out[i] = f32::from(q & 15) * d + m;
        out[i + 16] = f32::from(q >> 4) * d + m;
    }
}

/// The 32 numbers of five bits: their upper bits in four bytes, then the others by halves.
fn five_bits(bytes: &[u8]) -> [u8; 32] {
    let high = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let mut out = [0; 32];
    for (i, q) in bytes[4..20].iter().enumerate() {
        out[i] = q & 15 | ((high >> i & 1) << 4) as u8;
        out[i + 16] = q >> 4 | ((high >> (i + 16) & 1) << 4) as u8;
    }
    out
}

fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for (out, q) in out.iter_mut().zip(five_bits(&block[2..])) {
        *out = (f32::from(q) - 16.0) * d;
    }
}

fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    for (out, q) in out.iter_mut().zip(five_bits(&block[4..])) {
        *out = f32::from(q) * d + m;
    }
}

fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for (out, q) in out.iter_mut().zip(&block[2..]) {
        *out = f32::from(q.cast_signed()) * d;
    }
}

fn q2_k(block: &[u8; 84], out: &mut [f32; 256]) {
    let (scales, quants) = (&block[..16], &block[16..80]);
    let (d, m) = (half_at(block, 80), half_at(block, 82));
    for (group, out) in out.chunks_exact_mut(16).enumerate() {
        // 32 bytes hold 128 elements, two bits of each byte for every 32 of them.
        let (quants, shift) = (&quants[group / 8 * 32 + group % 2 * 16..], group / 2 % 4 * 2);
        let (scale, offset) = (d * f32::from(scales[group] & 15), m * f32::from(scales[group] >> 4));
        for (out, q) in out.iter_mut().zip(quants) {
            *out = scale * f32::from(q >> shift & 3) - offset;
        }
    }
}

fn q3_k(block: &[u8; 110], out: &mut [f32; 256]) {
    let (high, quants, packed) = (&block[..32], &block[32..96], &block[96..108]);
    let d = half_at(block, 108);
    for (group, out) in out.chunks_exact_mut(16).enumerate() {
        // Sixteen scales of six bits: the lower four in eight bytes by halves, the upper two in four bytes by quarters.
        let lower = packed[group % 8] >> (group / 8 * 4) & 15;
        let upper = packed[8 + group % 4] >> (group / 4 * 2) & 3;
        let scale = d * (f32::from(lower | upper << 4) - 32.0);
        let (at, shift) = (group % 2 * 16, group / 2 % 4 * 2);
        let quants = &quants[group / 8 * 32 + at..];
        for ((out, q), high) in out.iter_mut().zip(quants).zip(&high[at..]) {
            // The third bit counts when it is not set.
            let q = f32::from(q >> shift & 3) - if high >> (group / 2) & 1 == 1 { 0.0 } else { 4.0 };
            *out = scale * q;
        }
    }
}

/// The scale and the offset, six bits each, of a group of 32 elements.
fn scale_and_offset(packed: &[u8], group: usize) -> (f32, f32) {
    let (scale, offset) = if group < 4 {
        (packed[group] & 63, packed[group + 4] & 63)
    } else {
        let (scale, offset) = (packed[group - 4] >> 6, packed[group] >> 6);
        (packed[group + 4] & 15 | scale << 4, packed[group + 4] >> 4 | offset << 4)
    };
    (f32::from(scale), f32::from(offset))
}

fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    let (packed, quants) = (&block[4..16], &block[16..]);
    for (group, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, offset) = scale_and_offset(packed, group);
        let (scale, offset) = (d * scale, m * offset);
        let shift = group % 2 * 4;
        for (out, q) in out.iter_mut().zip(&quants[group / 2 * 32..]) {
            *out = scale * f32::from(q >> shift & 15) - offset;
        }
    }
}

fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    let (packed, high, quants) = (&block[4..16], &block[16..48], &block[48..]);
    for (group, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, offset) = scale_and_offset(packed, group);
        let (scale, offset) = (d * scale, m * offset);
        let shift = group % 2 * 4;
        for ((out, q), high) in out.iter_mut().zip(&quants[group / 2 * 32..]).zip(high) {
            *out = scale * f32::from(q >> shift & 15 | (high >> group & 1) << 4) - offset;
        }
    }
}

fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = half_at(block, 208);
    for (group, out) in out.chunks_exact_mut(32).enumerate() {
        // 64 bytes of lower and 32 of upper bits hold 128 elements, in four groups of 32.
        let (part, quarter) = (group / 4, group % 4);
        let low = &low[part * 64 + quarter % 2 * 32..];
        let high = &high[part * 32..];
        for (i, ((out, low), high)) in out.iter_mut().zip(low).zip(high).enumerate() {
            let q = low >> (quarter / 2 * 4) & 15 | (high >> (quarter * 2) & 3) << 4;
            let scale = d * f32::from(scales[group * 2 + i / 16].cast_signed());
            *out = scale * (f32::from(q) - 32.0);
        }
    }
}
