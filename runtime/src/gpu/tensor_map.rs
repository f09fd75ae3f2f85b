//! Tensor maps, as the driver encodes them.

use cudarc::driver::sys;

use super::GpuError;
use super::error::Doing;
use crate::attention::TensorMap;

/// The bytes of a tensor map that a kernel takes.
pub(super) fn encode(map: &TensorMap) -> Result<[u8; 128], GpuError> {
    let TensorMap { address, extents, strides, .. } = *map;
    let (box_extents, element_strides) = (map.box_extents(), [1_u32; 4]);
    let mut encoded = sys::CUtensorMap_st { opaque: [0; 16] };
    // SAFETY: every pointer is to an array of the rank's length (strides: one less) that outlives the call, and the
    // driver checks the values. The address is only recorded.
    let result = unsafe {
        sys::cuTensorMapEncodeTiled(
            &raw mut encoded,
            // The copy moves bits; the type only says that an element has 16 of them.
            sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
            extents.len() as u32,
            address as *mut std::ffi::c_void,
            extents.as_ptr(),
            strides.as_ptr(),
            box_extents.as_ptr(),
            element_strides.as_ptr(),
            sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
            sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
            sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    };
    result.result().doing("encode a tensor map")?;
    let mut bytes = [0; 128];
    for (to, word) in bytes.chunks_exact_mut(8).zip(encoded.opaque) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    Ok(bytes)
}
