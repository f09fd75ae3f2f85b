//! The operations between the matrix products, on the CPU: RMS norm, rotary embedding and `SwiGLU`, fused and in parallel
//! over rows. Each takes and gives float32 tensors that are contiguous.

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
            vectorized(|| {
                // Sixteen sums side by side, so that they vectorise; their order is fixed.
                let mut sums = [0.0f32; 16];
                let mut chunks = x.chunks_exact(16);
                for chunk in &mut chunks {
                    for (sum, x) in sums.iter_mut().zip(chunk) {
                        *sum += x * x;
                    }
                }
                let square = sums.iter().sum::<f32>() + chunks.remainder().iter().map(|x| x * x).sum::<f32>();
                let scale = 1.0 / (square / x.len() as f32 + self.eps).sqrt();
                for ((out, x), w) in out.iter_mut().zip(x).zip(w) {
                    *out = x * scale * w;
                }
            });
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
        let (start, end) = ly.contiguous_offsets().ok_or(Error::RequiresContiguous { op: self.name() })?;
        let CpuStorage::F32(y) = y else {
            candle_core::bail!("add-to takes float32, found {:?}", y.dtype());
        };
        if ly.shape() != lx.shape() {
            candle_core::bail!("{:?} cannot be added to {:?}", lx.shape(), ly.shape());
        }
        y[start..end].par_chunks_mut(GRAIN).zip(x.par_chunks(GRAIN)).for_each(|(y, x)| {
            vectorized(|| y.iter_mut().zip(x).for_each(|(y, x)| *y += x));
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
        let (start, end) =
            layout.contiguous_offsets().ok_or(Error::RequiresContiguous { op: self.name() })?;
        let CpuStorage::F32(x) = storage else {
            candle_core::bail!("rotate takes float32, found {:?}", storage.dtype());
        };
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
        x[start..end]
            .par_chunks_mut(heads * dim)
            .zip(cos.par_chunks(*half))
            .zip(sin.par_chunks(*half))
            .with_min_len(GRAIN.div_ceil(heads * dim))
            .for_each(row);
        Ok(())
    }
}
