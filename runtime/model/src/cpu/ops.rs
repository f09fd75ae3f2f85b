//! The operations between the matrix products, on the CPU: RMS norm, rotary embedding and `SwiGLU`, fused and in parallel
//! over rows. Each takes and gives float32 tensors that are contiguous.

// As in `simd`: code that is not inlined into the function with the wide vectors is compiled without them.
#![allow(clippy::inline_always)]

use std::ops::Range;

use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, Error, InplaceOp1, InplaceOp2, Layout, Result, Shape, Tensor,
};
use moac_runtime::matvec::{FEW, dots};
use moac_runtime::simd::{exp, vectorized};
use rayon::prelude::*;

/// Elements of a tensor that are worth a thread of their own.
pub(super) const GRAIN: usize = 1 << 14;

/// `x / rms(x) * weight` over the last dimension.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    x.apply_op2_no_bwd(weight, &RmsNorm { eps })
}

/// `x`, `[rows, in]`, through a layer of weights `[out, in]`: `[rows, out]`.
pub fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    if x.dim(0)? <= FEW { x.apply_op2_no_bwd(weight, &Linear) } else { x.matmul(&weight.t()?) }
}

/// `silu(gate) * up` of `[rows, 2 n]` whose rows hold gate, then up: `[rows, n]`.
pub fn swiglu(gate_up: &Tensor) -> Result<Tensor> {
    gate_up.apply_op1_no_bwd(&SwiGlu)
}

/// Adds `x` to `y` in place; they have one shape.
pub fn add_to(y: &Tensor, x: &Tensor) -> Result<()> {
    y.inplace_op2(x, &AddTo)
}

/// Adds one row, `[n]`, to every row of `y`, `[rows, n]`, in place.
pub fn add_row(y: &Tensor, row: &Tensor) -> Result<()> {
    y.inplace_op2(row, &AddRow)
}

/// The RMS norm of some heads of `x`, `[rows, any heads, head_dim]`, each by itself and in place.
pub fn norm_heads(x: &Tensor, weight: &Tensor, heads: Range<usize>, eps: f32) -> Result<()> {
    x.inplace_op2(weight, &NormHeads { heads, eps })
}

/// The rotation of each row's position, computed once for all layers.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// `[rows, head_dim / 2]`
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
}

impl Rotation {
    /// The rotation at `positions`, turning pair i by `position * frequencies[i]`.
    pub fn new(frequencies: &[f64], positions: &[u32]) -> Self {
        // In f64, since an angle in f32 is off by up to 1e-3 at the positions of a long context.
        let angles = positions.iter().flat_map(|&p| frequencies.iter().map(move |f| f64::from(p) * f));
        let (sin, cos) = angles.map(f64::sin_cos).map(|(sin, cos)| (sin as f32, cos as f32)).unzip();
        Self { cos, sin, half: frequencies.len() }
    }

    /// The rotation back.
    #[must_use]
    pub fn inverse(&self) -> Self {
        Self { sin: self.sin.iter().map(|sin| -sin).collect(), ..self.clone() }
    }

    /// Rotates the first `heads` heads of `x`, `[rows, any heads, head_dim]`, in place.
    pub fn rotate(&self, x: &Tensor, heads: usize) -> Result<()> {
        x.inplace_op1(&Rotate { rotation: self, heads })
    }
}

pub(super) fn f32s<'a>(op: &'static str, storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let (start, end) = layout.contiguous_offsets().ok_or(Error::RequiresContiguous { op })?;
    Ok(&storage.as_slice::<f32>()?[start..end])
}

struct RmsNorm {
    eps: f32,
}

/// `x / rms(x) * weight`.
#[inline(always)]
fn norm_in_place(x: &mut [f32], weight: &[f32], eps: f32) {
    // Sixteen sums side by side, so that they vectorise; their order is fixed.
    let mut sums = [0.0f32; 16];
    let mut chunks = x.chunks_exact(16);
    for chunk in &mut chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += x * x;
        }
    }
    let square = sums.iter().sum::<f32>() + chunks.remainder().iter().map(|x| x * x).sum::<f32>();
    let scale = 1.0 / (square / x.len() as f32 + eps).sqrt();
    for (x, w) in x.iter_mut().zip(weight) {
        *x = *x * scale * w;
    }
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        w: &CpuStorage,
        lw: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, w) = (f32s(self.name(), x, lx)?, f32s(self.name(), w, lw)?);
        let mut out = vec![0.0; x.len()];
        let row = |(x, out): (&[f32], &mut [f32])| {
            out.copy_from_slice(x);
            vectorized(|| norm_in_place(out, w, self.eps));
        };
        let rows = GRAIN.div_ceil(w.len());
        x.par_chunks(w.len()).zip(out.par_chunks_mut(w.len())).with_min_len(rows).for_each(row);
        Ok((CpuStorage::F32(out), lx.shape().clone()))
    }
}

/// The layer for a few rows, which takes as long as its weights take to read.
struct Linear;

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        w: &CpuStorage,
        lw: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, w) = (f32s(self.name(), x, lx)?, f32s(self.name(), w, lw)?);
        let ((rows, depth), (width, _)) = (lx.shape().dims2()?, lw.shape().dims2()?);
        let mut padded = vec![0.0; FEW * depth];
        padded[..x.len()].copy_from_slice(x);
        let mut products = vec![[0.0; FEW]; width];
        let part = (4 * GRAIN).div_ceil(depth);
        let parts = w.par_chunks(part * depth).zip(products.par_chunks_mut(part));
        parts.for_each(|(w, products)| dots(w, &padded, products));
        let out = (0..rows).flat_map(|row| products.iter().map(move |of| of[row])).collect();
        Ok((CpuStorage::F32(out), Shape::from((rows, width))))
    }
}

struct SwiGlu;

impl CustomOp1 for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = f32s(self.name(), x, layout)?;
        let (rows, both) = layout.shape().dims2()?;
        let n = both / 2;
        let mut out = vec![0.0; rows * n];
        let row = |(x, out): (&[f32], &mut [f32])| {
            vectorized(|| {
                let (gate, up) = x.split_at(n);
                for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
                    *out = gate / (1.0 + exp(-gate)) * up;
                }
            });
        };
        x.par_chunks(both).zip(out.par_chunks_mut(n)).with_min_len(GRAIN.div_ceil(both)).for_each(row);
        Ok((CpuStorage::F32(out), (rows, n).into()))
    }
}

struct AddTo;

impl InplaceOp2 for AddTo {
    fn name(&self) -> &'static str {
        "add-to"
    }

    fn cpu_fwd(&self, y: &mut CpuStorage, ly: &Layout, x: &CpuStorage, lx: &Layout) -> Result<()> {
        let x = f32s(self.name(), x, lx)?;
        if ly.shape() != lx.shape() {
            candle_core::bail!("{:?} cannot be added to {:?}", lx.shape(), ly.shape());
        }
        f32s_mut(self.name(), y, ly)?.par_chunks_mut(GRAIN).zip(x.par_chunks(GRAIN)).for_each(|(y, x)| {
            vectorized(|| y.iter_mut().zip(x).for_each(|(y, x)| *y += x));
        });
        Ok(())
    }
}

/// The elements of a contiguous float32 tensor, to be changed.
fn f32s_mut<'a>(op: &'static str, storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    let (start, end) = layout.contiguous_offsets().ok_or(Error::RequiresContiguous { op })?;
    let CpuStorage::F32(x) = storage else {
        candle_core::bail!("{op} takes float32, found {:?}", storage.dtype());
    };
    Ok(&mut x[start..end])
}

struct AddRow;

impl InplaceOp2 for AddRow {
    fn name(&self) -> &'static str {
        "add-row"
    }

    fn cpu_fwd(&self, y: &mut CpuStorage, ly: &Layout, x: &CpuStorage, lx: &Layout) -> Result<()> {
        let x = f32s(self.name(), x, lx)?;
        let (_, n) = ly.shape().dims2()?;
        if x.len() != n {
            candle_core::bail!("{:?} cannot be added to rows of {:?}", lx.shape(), ly.shape());
        }
        let y = f32s_mut(self.name(), y, ly)?;
        y.par_chunks_mut(n).with_min_len(GRAIN.div_ceil(n)).for_each(|y| {
            vectorized(|| y.iter_mut().zip(x).for_each(|(y, x)| *y += x));
        });
        Ok(())
    }
}

struct NormHeads {
    heads: Range<usize>,
    eps: f32,
}

impl InplaceOp2 for NormHeads {
    fn name(&self) -> &'static str {
        "norm-heads"
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, lx: &Layout, w: &CpuStorage, lw: &Layout) -> Result<()> {
        let w = f32s(self.name(), w, lw)?;
        let (_, heads, dim) = lx.shape().dims3()?;
        let Self { heads: Range { start, end }, eps } = *self;
        if w.len() != dim || start > end || end > heads {
            candle_core::bail!("a norm {:?} of heads {start}..{end} on {:?}", lw.shape(), lx.shape());
        }
        let row = heads * dim;
        f32s_mut(self.name(), x, lx)?.par_chunks_mut(row).with_min_len(GRAIN.div_ceil(row)).for_each(|row| {
            vectorized(|| {
                for head in row[start * dim..end * dim].chunks_exact_mut(dim) {
                    norm_in_place(head, w, eps);
                }
            });
        });
        Ok(())
    }
}

struct Rotate<'a> {
    rotation: &'a Rotation,
    heads: usize,
}

impl InplaceOp1 for Rotate<'_> {
    fn name(&self) -> &'static str {
        "rotate"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let Rotation { cos, sin, half } = self.rotation;
        let (rows, heads, dim) = layout.shape().dims3()?;
        if dim != 2 * half || rows * half != cos.len() || heads < self.heads {
            candle_core::bail!("a rotation of {} x {half} pairs on {:?}", cos.len() / half, layout.shape());
        }
        let row = |((x, cos), sin): ((&mut [f32], &[f32]), &[f32])| {
            vectorized(|| {
                for head in x.chunks_exact_mut(dim).take(self.heads) {
                    let (low, high) = head.split_at_mut(*half);
                    for (((a, b), c), s) in low.iter_mut().zip(high).zip(cos).zip(sin) {
                        (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
                    }
                }
            });
        };
        f32s_mut(self.name(), storage, layout)?
            .par_chunks_mut(heads * dim)
            .zip(cos.par_chunks(*half))
            .zip(sin.par_chunks(*half))
            .with_min_len(GRAIN.div_ceil(heads * dim))
            .for_each(row);
        Ok(())
    }
}
