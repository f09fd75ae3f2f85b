//! Tensors in device memory, with their shape and element type: what calls read and write.
//!
//! A tensor is made of a buffer, whose extent is checked, or of a raw address. A view of some of its heads stays inside.

use std::marker::PhantomData;
use std::ops::Range;

use super::{Buffer, GpuError};
use crate::attention::View;
use crate::plan::DType;

/// The extents of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Rows, one per token.
    pub rows: u64,
    /// Heads.
    pub heads: u32,
    /// Elements of a head.
    pub head_dim: u32,
}

impl Shape {
    /// The shape `[rows, heads, head_dim]`.
    pub const fn new(rows: u64, heads: u32, head_dim: u32) -> Self {
        Self { rows, heads, head_dim }
    }

    /// Bytes of a tensor of that shape without gaps, of elements of `dtype`.
    pub const fn bytes(&self, dtype: DType) -> u64 {
        self.rows * self.heads as u64 * self.head_dim as u64 * dtype.bytes() as u64
    }
}

/// The outer of the two dimensions of a tensor without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// `[rows, heads, head_dim]`
    Rows,
    /// `[heads, rows, head_dim]`
    Heads,
}

/// Where elements lie; their owner is kept elsewhere.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed {
    pub(super) view: View,
    pub(super) head_dim: u32,
    pub(super) dtype: DType,
}

impl Placed {
    fn in_buffer(buffer: &Buffer, dtype: DType, shape: Shape, order: Order) -> Result<Self, GpuError> {
        let Shape { rows, heads, head_dim } = shape;
        let dim = u64::from(head_dim);
        let (token_stride, head_stride) = match order {
            Order::Rows => (u64::from(heads) * dim, dim),
            Order::Heads => (dim, rows.saturating_mul(dim)),
        };
        let view = View { address: 0, rows, heads, token_stride, head_stride };
        let bytes = view.extent(head_dim).and_then(|elements| elements.checked_mul(u64::from(dtype.bytes())));
        let address = buffer.range(0, bytes.unwrap_or(u64::MAX))?;
        Ok(Self { view: View { address, ..view }, head_dim, dtype })
    }

    fn heads(self, heads: Range<u32>) -> Result<Self, GpuError> {
        let all = self.view.heads;
        if heads.start > heads.end || heads.end > all {
            return Err(GpuError::Heads { start: heads.start, end: heads.end, heads: all });
        }
        let address = self.view.address + u64::from(heads.start) * self.view.head_stride * self.element();
        Ok(Self { view: View { address, heads: heads.end - heads.start, ..self.view }, ..self })
    }

    fn element(&self) -> u64 {
        u64::from(self.dtype.bytes())
    }
}

/// A tensor that a call reads: `[rows, heads, head_dim]`.
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'a> {
    pub(super) placed: Placed,
    memory: PhantomData<&'a Buffer>,
}

impl Tensor<'_> {
    /// A tensor at any device address, such as one of another library's. `view` counts elements of `dtype`.
    ///
    /// # Safety
    /// All of `view` must be device memory that lives, and that nothing writes, until the calls that read it are done;
    /// for a captured call, until its last replay is.
    pub unsafe fn from_raw(view: View, head_dim: u32, dtype: DType) -> Self {
        Self { placed: Placed { view, head_dim, dtype }, memory: PhantomData }
    }

    /// Some of its heads: of a fused product of q, k and v, say.
    ///
    /// # Errors
    /// [`GpuError::Heads`].
    pub fn heads(self, heads: Range<u32>) -> Result<Self, GpuError> {
        Ok(Self { placed: self.placed.heads(heads)?, ..self })
    }
}

/// A tensor that a call writes: `[rows, heads, head_dim]`.
#[derive(Debug)]
pub struct TensorMut<'a> {
    pub(super) placed: Placed,
    memory: PhantomData<&'a mut Buffer>,
}

impl TensorMut<'_> {
    /// A tensor at any device address, such as one of another library's. `view` counts elements of `dtype`.
    ///
    /// # Safety
    /// All of `view` must be device memory that lives, and that nothing else reads or writes, until the calls that write
    /// it are done; for a captured call, until its last replay is.
    pub unsafe fn from_raw(view: View, head_dim: u32, dtype: DType) -> Self {
        Self { placed: Placed { view, head_dim, dtype }, memory: PhantomData }
    }
}

/// The natural log-sum-exp of the scaled visible scores that a call writes: f32, `[rows, heads]`.
#[derive(Debug)]
pub struct LseMut<'a> {
    pub(super) view: View,
    memory: PhantomData<&'a mut Buffer>,
}

impl LseMut<'_> {
    /// One at any device address, such as another library's. `view` counts f32.
    ///
    /// # Safety
    /// As for [`TensorMut::from_raw`].
    pub unsafe fn from_raw(view: View) -> Self {
        Self { view, memory: PhantomData }
    }
}

impl Buffer {
    /// The tensor without gaps at the beginning of this buffer, to read.
    ///
    /// # Errors
    /// [`GpuError::Range`] if the buffer is smaller.
    pub fn tensor(&self, dtype: DType, shape: Shape) -> Result<Tensor<'_>, GpuError> {
        let placed = Placed::in_buffer(self, dtype, shape, Order::Rows)?;
        Ok(Tensor { placed, memory: PhantomData })
    }

    /// The tensor without gaps at the beginning of this buffer, to write, in either order of rows and heads.
    ///
    /// # Errors
    /// [`GpuError::Range`] if the buffer is smaller.
    pub fn tensor_mut(
        &mut self,
        dtype: DType,
        shape: Shape,
        order: Order,
    ) -> Result<TensorMut<'_>, GpuError> {
        let placed = Placed::in_buffer(self, dtype, shape, order)?;
        Ok(TensorMut { placed, memory: PhantomData })
    }

    /// The log-sum-exp `[rows, heads]` at the beginning of this buffer, to write.
    ///
    /// # Errors
    /// [`GpuError::Range`] if the buffer is smaller.
    pub fn lse_mut(&mut self, rows: u64, heads: u32) -> Result<LseMut<'_>, GpuError> {
        let bytes = rows.saturating_mul(u64::from(heads)).saturating_mul(4);
        let address = self.range(0, bytes)?;
        Ok(LseMut { view: View::packed(address, rows, heads, 1), memory: PhantomData })
    }
}
