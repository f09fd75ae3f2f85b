//! Found against expected: errors, bounds, and what a failure says.

use std::fmt;

use moac_runtime::plan::DType;
use serde::Serialize;

/// The largest relative Frobenius error over the rows of a case (SPEC.md section 5).
pub fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::Bf16 => 5e-3,
        DType::F16 => 1e-3,
    }
}

/// The bound on a single row's error, as a multiple of [`tolerance`]: one wrong row counts even if a thousand others are right.
pub const ROW: f64 = 2.0;

/// The largest difference of a log-sum-exp over `visible` keys, absolute: a float32 sum of so many terms. It is sharp:
/// of 16384 keys, most single ones show if they are missing or too many.
pub fn lse_tolerance(visible: u32) -> f64 {
    2e-6 + 1.6e-7 * f64::from(visible).sqrt()
}

/// Whether a difference is at most `bound`; a NaN is not.
pub fn within(difference: f64, bound: f64) -> bool {
    difference <= bound
}

/// In what way a kernel is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An output is too far from the oracle's.
    Output,
    /// A log-sum-exp is.
    Lse,
    /// An element was not written, or is not finite.
    Unwritten,
    /// Something was written where nothing may be.
    Stray,
    /// A slab does not hold what it must.
    Slab,
    /// The workspace was not left as it was found.
    Scratch,
    /// The device reports a defect.
    Finding,
    /// It reads, writes or computes more or less than it should.
    Count,
    /// It could not be parsed or loaded.
    Load,
    /// It could not be started, or the device failed while it ran.
    Launch,
}

/// One way in which a case failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The kind.
    pub kind: Kind,
    /// Where, what was found, what was expected.
    pub what: String,
}

impl Failure {
    /// A failure.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// Whether every element is a finite number.
pub fn is_finite(dtype: DType, bytes: &[u8]) -> bool {
    let exponent: u16 = match dtype {
        DType::Bf16 => 0x7f80,
        DType::F16 => 0x7c00,
    };
    // Without an early exit, so that it is done 16 bytes at a time.
    let infinite = bytes
        .chunks_exact(2)
        .filter(|pair| u16::from_le_bytes([pair[0], pair[1]]) & exponent == exponent)
        .count();
    infinite == 0
}

/// Squared norms of a difference and of the values that it is relative to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Norms {
    difference: f64,
    reference: f64,
}

impl Norms {
    /// The norms of one row.
    pub fn of(found: &[f32], expected: &[f32]) -> Self {
        let mut norms = Self::default();
        for (&found, &expected) in found.iter().zip(expected) {
            norms.difference += (f64::from(found) - f64::from(expected)).powi(2);
            norms.reference += f64::from(expected).powi(2);
        }
        norms
    }

    /// Takes in another row.
    pub fn add(&mut self, other: Self) {
        self.difference += other.difference;
        self.reference += other.reference;
    }

    /// The relative Frobenius error; not a number if anything is not.
    pub fn error(&self) -> f64 {
        if self.difference == 0.0 { 0.0 } else { (self.difference / self.reference).sqrt() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn infinities_and_the_poison_are_not_finite() {
        for dtype in [DType::Bf16, DType::F16] {
            let one = super::super::inputs::narrow(dtype, -1.5).to_le_bytes();
            let infinite = super::super::inputs::narrow(dtype, f32::INFINITY).to_le_bytes();
            assert!(is_finite(dtype, &[one, one].concat()));
            assert!(!is_finite(dtype, &[one, infinite].concat()));
            assert!(!is_finite(dtype, &[[0xff, 0xff], one].concat()));
        }
    }

    #[test]
    fn the_error_is_relative_and_nan_never_passes() {
        let norms = Norms::of(&[3.0, 4.5], &[3.0, 4.0]);
        assert!((norms.error() - 0.1).abs() < 1e-12);
        let nan = Norms::of(&[f32::NAN], &[1.0]);
        assert!(within(norms.error(), 0.11) && !within(norms.error(), 0.09) && !within(nan.error(), 1.0));
    }
}
