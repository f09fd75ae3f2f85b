//! Random numbers that are the same on every machine.

use moac_runtime::plan::DType;

use crate::verify::inputs;

/// A stream of numbers.
#[derive(Clone, Debug)]
pub(super) struct Noise(u64);

impl Noise {
    /// The stream of a seed.
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Sixty-four random bits: `SplitMix64`.
    pub(super) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A whole number below `end`.
    pub(super) fn below(&mut self, end: u32) -> u32 {
        ((u64::from((self.bits() >> 32) as u32) * u64::from(end)) >> 32) as u32
    }

    /// A number in (0, 1).
    fn unit(&mut self) -> f64 {
        ((self.bits() >> 12) as f64 + 0.5) / (1u64 << 52) as f64
    }

    /// A normally distributed number.
    pub(super) fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Normally distributed elements around `mean`, rounded to their type.
    pub(super) fn elements(&mut self, dtype: DType, count: usize, mean: f64, spread: f64) -> Vec<f32> {
        (0..count).map(|_| inputs::round(dtype, (mean + spread * self.normal()) as f32)).collect()
    }
}
