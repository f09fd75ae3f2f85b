//! The element types of the CPU path, and which online softmax suits each.

use ndarray::NdFloat;

use super::plain::Plain;
use super::softmax::Softmax;

/// The element types that the CPU path computes in.
pub trait Real: NdFloat {
    /// The online softmax that suits the type.
    #[doc(hidden)]
    type Softmax: Softmax<Self>;

    /// The nearest value.
    fn from_f64(value: f64) -> Self;
}

impl Real for f32 {
    #[cfg(feature = "simd")]
    type Softmax = super::online::Online;
    #[cfg(not(feature = "simd"))]
    type Softmax = Plain<Self>;

    fn from_f64(value: f64) -> Self {
        value as Self
    }
}

impl Real for f64 {
    type Softmax = Plain<Self>;

    fn from_f64(value: f64) -> Self {
        value
    }
}
