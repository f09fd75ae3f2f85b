//! The element types that a tensor can be read as.

use half::slice::HalfFloatSliceExt as _;
use half::{bf16, f16};

use super::encoding::Encoding;

/// An element type that weights are read as: `f32`, `f16` or `bf16`.
pub trait Element: Sealed + Copy + Default + Send + Sync + 'static {}

impl<T: Sealed + Copy + Default + Send + Sync + 'static> Element for T {}

/// The operations that reading needs; sealed.
pub trait Sealed: Sized {
    /// Its own layout in files.
    #[doc(hidden)]
    #[allow(private_interfaces)]
    const ENCODING: Encoding;

    /// Takes elements as they lie in files.
    #[doc(hidden)]
    fn copy(bytes: &[u8], out: &mut [Self]);

    /// Rounds to the nearest.
    #[doc(hidden)]
    fn round(from: &[f32], out: &mut [Self]);

    /// Whether every element is finite.
    #[doc(hidden)]
    fn finite(of: &[Self]) -> bool;
}

impl Sealed for f32 {
    #[allow(private_interfaces)]
    const ENCODING: Encoding = Encoding::F32;

    fn copy(bytes: &[u8], out: &mut [Self]) {
        Encoding::F32.decode(bytes, out);
    }

    fn round(from: &[f32], out: &mut [Self]) {
        out.copy_from_slice(from);
    }

    fn finite(of: &[Self]) -> bool {
        // Looked at to the end, so that it vectorises.
        of.iter().fold(true, |finite, x| finite & x.is_finite())
    }
}

macro_rules! half {
    ($type:ident, $encoding:ident, $exponent:literal) => {
        impl Sealed for $type {
            #[allow(private_interfaces)]
            const ENCODING: Encoding = Encoding::$encoding;

            fn copy(bytes: &[u8], out: &mut [Self]) {
                for (out, x) in out.iter_mut().zip(bytes.as_chunks().0) {
                    *out = Self::from_le_bytes(*x);
                }
            }

            fn round(from: &[f32], out: &mut [Self]) {
                out.convert_from_f32_slice(from);
            }

            fn finite(of: &[Self]) -> bool {
                of.iter().fold(true, |finite, x| finite & (x.to_bits() & $exponent != $exponent))
            }
        }
    };
}

half!(f16, F16, 0x7c00);
half!(bf16, BF16, 0x7f80);
