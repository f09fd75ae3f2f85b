//! The tensors of a call: where they lie, and what must hold of them before a kernel sees them.

use super::CallError;
use crate::launch::VECTOR_BYTES;

/// Bytes of an element of q, k, v and o, and of lse.
const ELEMENT_BYTES: u64 = 2;
const LSE_BYTES: u64 = 4;
/// Where a tensor `[rows, heads, head_dim]` lies in device memory; the last dimension is contiguous. The log-sum-exp is
/// one with a `head_dim` of 1. A view of a fused QKV product is one too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Device address of the first element; a multiple of 16 (log-sum-exp: of 4).
    pub address: u64,
    /// Rows, one per token.
    pub rows: u64,
    /// Heads.
    pub heads: u32,
    /// Elements from one row to the next; a multiple of 8 (log-sum-exp: any).
    pub token_stride: u64,
    /// Elements from one head to the next; a multiple of 8 (log-sum-exp: any).
    pub head_stride: u64,
}

impl View {
    /// A tensor without gaps.
    pub fn packed(address: u64, rows: u64, heads: u32, head_dim: u32) -> Self {
        let head_stride = u64::from(head_dim);
        Self { address, rows, heads, token_stride: u64::from(heads) * head_stride, head_stride }
    }

    /// Elements from the first to behind the last one, or `None` where that is no 63-bit number.
    pub fn extent(&self, head_dim: u32) -> Option<u64> {
        if self.rows == 0 || self.heads == 0 {
            return Some(0);
        }
        let rows = (self.rows - 1).checked_mul(self.token_stride)?;
        let heads = u64::from(self.heads - 1).checked_mul(self.head_stride)?;
        let elements = rows.checked_add(heads)?.checked_add(u64::from(head_dim))?;
        (elements <= i64::MAX as u64 / LSE_BYTES).then_some(elements)
    }

    /// Whether two (row, head) pairs share an element.
    fn overlaps(&self, head_dim: u32) -> bool {
        let mut dims = [(self.rows, self.token_stride), (u64::from(self.heads), self.head_stride)];
        dims.sort_by_key(|&(_, stride)| stride);
        let mut extent = u64::from(head_dim);
        for (count, stride) in dims.into_iter().filter(|&(count, _)| count > 1) {
            if stride < extent {
                return true;
            }
            extent = (count - 1).saturating_mul(stride).saturating_add(extent);
        }
        false
    }
}

/// The tensors of one call; all have the same rows.
#[derive(Clone, Copy, Debug)]
pub struct Tensors {
    /// Queries after `RoPE`, `[rows, heads, head_dim]`.
    pub q: View,
    /// Keys after `RoPE`, `[rows, kv heads, head_dim]`.
    pub k: View,
    /// Values, `[rows, kv heads, head_dim]`.
    pub v: View,
    /// Written: `[rows, heads, head_dim]`.
    pub o: View,
    /// Written, if wanted: the natural log-sum-exp in f32, `[rows, heads]`.
    pub lse: Option<View>,
}

impl Tensors {
    /// Checks all tensors of a call of `shape` with `rows` rows.
    ///
    /// # Errors
    /// The first thing wrong with a tensor.
    pub fn check(&self, shape: HeadShape, rows: u64) -> Result<(), CallError> {
        let Self { q, k, v, o, lse } = self;
        let HeadShape { heads, kv_heads, head_dim } = shape;
        for (tensor, view, heads) in
            [("q", q, heads), ("k", k, kv_heads), ("v", v, kv_heads), ("o", o, heads)]
        {
            check(tensor, view, heads, rows, head_dim)?;
        }
        if o.overlaps(head_dim) {
            return Err(CallError::Overlap { tensor: "o" });
        }
        if let Some(lse) = lse {
            check_shape("lse", lse, heads, rows, 1)?;
            if !lse.address.is_multiple_of(LSE_BYTES) || lse.address == 0 {
                return Err(CallError::Address { tensor: "lse", found: lse.address, unit: LSE_BYTES });
            }
            if lse.overlaps(1) {
                return Err(CallError::Overlap { tensor: "lse" });
            }
        }
        Ok(())
    }
}

/// The heads of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadShape {
    /// Query heads.
    pub heads: u32,
    /// KV heads.
    pub kv_heads: u32,
    /// Elements of a head.
    pub head_dim: u32,
}

impl HeadShape {
    /// Query heads per KV head.
    pub const fn group_size(self) -> u32 {
        self.heads / self.kv_heads
    }
}

fn check(tensor: &'static str, view: &View, heads: u32, rows: u64, head_dim: u32) -> Result<(), CallError> {
    check_shape(tensor, view, heads, rows, head_dim)?;
    if !view.address.is_multiple_of(VECTOR_BYTES) || view.address == 0 {
        return Err(CallError::Address { tensor, found: view.address, unit: VECTOR_BYTES });
    }
    for (stride, found) in [("token", view.token_stride), ("head", view.head_stride)] {
        let unit = VECTOR_BYTES / ELEMENT_BYTES;
        if !found.is_multiple_of(unit) {
            return Err(CallError::Stride { tensor, stride, found, unit });
        }
    }
    Ok(())
}

fn check_shape(
    tensor: &'static str,
    view: &View,
    heads: u32,
    rows: u64,
    head_dim: u32,
) -> Result<(), CallError> {
    if view.heads != heads {
        return Err(CallError::Heads { tensor, found: view.heads, expected: heads });
    }
    if view.rows != rows {
        return Err(CallError::Rows { tensor, found: view.rows, expected: rows });
    }
    // Strides of dimensions of one are never used, but they reach the kernel's 64-bit arithmetic.
    let strides_fit = view.token_stride.max(view.head_stride) <= i64::MAX as u64 / LSE_BYTES;
    if view.extent(head_dim).is_none() || !strides_fit {
        return Err(CallError::TooLarge { tensor });
    }
    Ok(())
}
