//! Random queries, keys and values that need no storage: every row is a function of the seed and of where it stands.
//!
//! So any part of a context of any length can be made alone, on any thread, and a request whose slab is synthesised
//! in the middle of its life has the keys that a prefill from its first token would have left. What must hold: rows
//! that differ in tensor, sequence, position or head are independent, so a kernel that mixes any two up is found.

use half::{bf16, f16};
use moac_runtime::plan::DType;

/// The tensor that a row belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tensor {
    /// Queries: rows of query heads.
    Q,
    /// Keys: rows of KV heads.
    K,
    /// Values: rows of KV heads.
    V,
}

/// Where a row stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At {
    /// The tensor.
    pub tensor: Tensor,
    /// The sequence: requests of different sequences share no row.
    pub sequence: u32,
    /// The position in the context.
    pub position: u32,
    /// The query head, or the KV head.
    pub head: u32,
}

/// The source of all rows of one element type: normally distributed values, rounded to it.
#[derive(Clone, Debug)]
pub struct Inputs {
    dtype: DType,
    head_dim: usize,
    seed: u64,
    /// The value of every draw, as bits of the element type and widened.
    bits: Vec<u16>,
    wide: Vec<f32>,
}

impl Inputs {
    /// Rows of `head_dim` elements.
    pub fn new(dtype: DType, head_dim: u32, seed: u64) -> Self {
        let wide: Vec<f32> = (0..DRAWS).map(|draw| round(dtype, normal(draw))).collect();
        let bits = wide.iter().map(|&value| narrow(dtype, value)).collect();
        Self { dtype, head_dim: head_dim as usize, seed, bits, wide }
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Elements of a row.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Writes a row's bytes as they lie in memory.
    pub fn bytes(&self, at: At, to: &mut [u8]) {
        let mut elements = to.as_chunks_mut().0.iter_mut();
        self.draws(at, |draw| {
            if let Some(element) = elements.next() {
                *element = self.bits[draw].to_le_bytes();
            }
        });
    }

    /// Appends a row's values.
    pub fn values(&self, at: At, out: &mut Vec<f32>) {
        self.draws(at, |draw| out.push(self.wide[draw]));
    }

    fn draws(&self, at: At, mut put: impl FnMut(usize)) {
        let place = u64::from(at.position) | u64::from(at.head) << 32 | (at.tensor as u64) << 48;
        let mut state = mix(mix(self.seed ^ u64::from(at.sequence)) ^ place);
        for _ in 0..self.head_dim / 4 {
            state = state.wrapping_add(GOLDEN);
            let word = mix(state);
            for shift in [0, 16, 32, 48] {
                put((word >> shift) as usize % DRAWS);
            }
        }
    }
}

/// The nearest value of the element type.
pub fn round(dtype: DType, value: f32) -> f32 {
    widen(dtype, narrow(dtype, value))
}

/// A value as the bits of the element type.
pub fn narrow(dtype: DType, value: f32) -> u16 {
    match dtype {
        DType::Bf16 => bf16::from_f32(value).to_bits(),
        DType::F16 => f16::from_f32(value).to_bits(),
    }
}

/// The value of an element's bits.
pub fn widen(dtype: DType, bits: u16) -> f32 {
    match dtype {
        DType::Bf16 => bf16::from_bits(bits).to_f32(),
        DType::F16 => f16::from_bits(bits).to_f32(),
    }
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// `SplitMix64`'s finaliser: every bit of the result depends on every bit of `x`.
fn mix(x: u64) -> u64 {
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// Different values: few enough for their tables to stay in the first cache.
const DRAWS: usize = 1 << 12;

/// Box and Muller's transform of a draw: 6 bits of radius, 6 of angle. The values are a normal distribution cut off at
/// 3.1.
fn normal(draw: usize) -> f32 {
    let unit = |bits: usize| (bits as f64 + 0.5) / 64.0;
    let radius = (-2.0 * unit(draw >> 6).ln()).sqrt();
    (radius * (std::f64::consts::TAU * unit(draw % 64)).cos()) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(inputs: &Inputs, tensor: Tensor, sequence: u32, position: u32, head: u32) -> Vec<f32> {
        let mut out = Vec::new();
        inputs.values(At { tensor, sequence, position, head }, &mut out);
        out
    }

    #[test]
    fn values_are_normal_and_of_the_element_type() {
        for dtype in [DType::Bf16, DType::F16] {
            let inputs = Inputs::new(dtype, 128, 7);
            let values: Vec<f64> =
                (0..500).flat_map(|p| row(&inputs, Tensor::K, 1, p, 2)).map(f64::from).collect();
            let n = values.len() as f64;
            let moment = |power| values.iter().map(|v| v.powi(power)).sum::<f64>() / n;
            assert!(moment(1).abs() < 0.01 && (moment(2) - 1.0).abs() < 0.02, "{dtype}");
            assert!((moment(4) - 3.0).abs() < 0.2, "{dtype}: {}", moment(4));
            assert!(
                values
                    .iter()
                    .all(|&v| v.abs() < 4.0 && round(dtype, v as f32).to_bits() == (v as f32).to_bits())
            );
        }
    }

    #[test]
    fn rows_differ_wherever_they_stand_and_bytes_say_what_values_say() {
        let inputs = Inputs::new(DType::F16, 64, 7);
        let mut rows = std::collections::BTreeSet::new();
        for tensor in [Tensor::Q, Tensor::K, Tensor::V] {
            for (sequence, position, head) in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1 << 19, 0)] {
                let at = At { tensor, sequence, position, head };
                let mut bytes = vec![0; 128];
                inputs.bytes(at, &mut bytes);
                let values = row(&inputs, tensor, sequence, position, head);
                let widened =
                    bytes.chunks_exact(2).map(|b| widen(DType::F16, u16::from_le_bytes([b[0], b[1]])));
                assert!(values.iter().copied().eq(widened) && values.len() == 64);
                assert!(rows.insert(bytes));
            }
        }
        let other = Inputs::new(DType::F16, 64, 8);
        assert_ne!(row(&inputs, Tensor::Q, 0, 0, 0), row(&other, Tensor::Q, 0, 0, 0));
    }
}
