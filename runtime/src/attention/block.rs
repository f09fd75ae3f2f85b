//! The parameter block of a launch: one layout for each kernel family and phase, handed to a kernel as bytes.
//!
//! The layouts are those of `moac/params.cuh`, `moac/sm90/params.cuh` and `moac/sm90/decode_params.cuh`, whose sizes
//! every rendered kernel asserts. A tensor map's bytes are the device's own, so the launcher encodes it.

use crate::abi::{ABI_VERSION, Abi, PARAMS_BYTES, Params};
use crate::launch::{Family, Phase};

/// Bytes of an encoded tensor map, and what it is aligned to.
const MAP_BYTES: usize = 128;
const MAP_ALIGNMENT: usize = 64;
/// Bytes of the block of Hopper's prefill: maps of q, k and v before [`Params`].
const HOPPER_PREFILL_BYTES: usize = (3 * MAP_BYTES + PARAMS_BYTES).next_multiple_of(MAP_ALIGNMENT);
/// Bytes of the block of Hopper's decode: a pointer behind [`Params`].
const HOPPER_DECODE_BYTES: usize = PARAMS_BYTES + 8;

/// A tensor `[rows, heads, head_dim]` of 16-bit elements as a tensor copy sees it, and the box that a copy moves:
/// `box_rows` rows of one head, in panels of 64 elements, with the 128-byte swizzle and zeros outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorMap {
    /// Device address of the first element.
    pub address: u64,
    /// Extents, innermost first: 64 elements, rows, panels, heads.
    pub extents: [u64; 4],
    /// Bytes from one row, panel and head to the next.
    pub strides: [u64; 3],
    /// Rows of a box.
    pub box_rows: u32,
}

impl TensorMap {
    /// Extents of the box, innermost first.
    pub const fn box_extents(&self) -> [u32; 4] {
        [64, self.box_rows, self.extents[2] as u32, 1]
    }
}

/// The parameters of a launch.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::large_enum_variant, reason = "a launch has one, for a moment, on the way to the driver")]
pub enum Block {
    /// The portable kernels': [`Params`].
    Portable(Params),
    /// Hopper's prefill.
    HopperPrefill {
        /// q, k and v.
        maps: [TensorMap; 3],
        /// The parameters of every attention kernel.
        call: Params,
    },
    /// Hopper's decode.
    HopperDecode {
        /// The parameters of every attention kernel.
        call: Params,
        /// Device address of the layer's [`first_tiles`](super::Batch::first_tiles).
        first_tiles: u64,
    },
}

impl Block {
    /// The parameter block of kernels of a family and phase.
    pub const fn abi(family: Family, phase: Phase) -> Abi {
        let params_bytes = match (family, phase) {
            (Family::Sm80, _) => PARAMS_BYTES,
            (Family::Sm90, Phase::Prefill) => HOPPER_PREFILL_BYTES,
            (Family::Sm90, Phase::Decode) => HOPPER_DECODE_BYTES,
        };
        Abi { version: ABI_VERSION, params_bytes }
    }

    /// The parameters of every attention kernel.
    pub const fn call(&self) -> &Params {
        match self {
            Self::Portable(call) | Self::HopperPrefill { call, .. } | Self::HopperDecode { call, .. } => call,
        }
    }

    /// The block as a kernel takes it, each tensor map as `encode` has it.
    ///
    /// # Errors
    /// The errors of `encode`.
    pub fn bytes<E>(&self, encode: impl Fn(&TensorMap) -> Result<[u8; MAP_BYTES], E>) -> Result<Vec<u8>, E> {
        let mut bytes = Vec::with_capacity(HOPPER_PREFILL_BYTES);
        match self {
            Self::Portable(call) => bytes.extend(call.to_bytes()),
            Self::HopperPrefill { maps, call } => {
                for map in maps {
                    bytes.extend(encode(map)?);
                }
                bytes.extend(call.to_bytes());
                bytes.resize(HOPPER_PREFILL_BYTES, 0);
            }
            Self::HopperDecode { call, first_tiles } => {
                bytes.extend(call.to_bytes());
                bytes.extend(first_tiles.to_le_bytes());
            }
        }
        Ok(bytes)
    }
}
