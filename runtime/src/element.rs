//! The elements of q, k, v and o as bytes: rounding to the device's type and widening back.

use half::{bf16, f16};

use crate::plan::DType;

/// Rounds to the nearest value of `dtype` (ties to even) and lays the values out as the device has them.
///
/// ```
/// use moac_runtime::element::{from_bytes, to_bytes};
/// use moac_runtime::plan::DType;
///
/// let bytes = to_bytes(DType::Bf16, [1.0, 3.141_592_7]);
/// assert_eq!(from_bytes(DType::Bf16, &bytes), [1.0, 3.140_625]);
/// ```
pub fn to_bytes(dtype: DType, values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    let values = values.into_iter();
    match dtype {
        DType::Bf16 => values.flat_map(|value| bf16::from_f32(value).to_le_bytes()).collect(),
        DType::F16 => values.flat_map(|value| f16::from_f32(value).to_le_bytes()).collect(),
    }
}

/// Widens what [`to_bytes`] or a kernel wrote. An odd byte at the end is left out.
pub fn from_bytes(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    let (pairs, _) = bytes.as_chunks::<2>();
    match dtype {
        DType::Bf16 => pairs.iter().map(|&pair| bf16::from_le_bytes(pair).to_f32()).collect(),
        DType::F16 => pairs.iter().map(|&pair| f16::from_le_bytes(pair).to_f32()).collect(),
    }
}

/// Widens f32 values as the device has them.
pub fn f32_from_bytes(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|&word| f32::from_le_bytes(word)).collect()
}
