//! The reverse of the operations between the matrix products, on the CPU: RMS norm and `SwiGLU`, fused and in parallel
//! over rows, as [`ops`](crate::ops) has them forward.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};
use moac_runtime::simd::{exp, vectorized};
use rayon::prelude::*;

use crate::cpu::ops::{GRAIN, f32s};

/// The gradient of `x` through [`rms_norm`](crate::cpu::ops::rms_norm), from that of its result.
pub(super) fn rms_norm(x: &Tensor, weight: &Tensor, gradient: &Tensor, eps: f32) -> Result<Tensor> {
    x.apply_op3_no_bwd(weight, gradient, &RmsNorm { eps })
}

/// The gradient of `gate_up`, `[rows, 2 n]`, through [`swiglu`](crate::cpu::ops::swiglu), from that of its result,
/// `[rows, n]`.
pub(super) fn swiglu(gate_up: &Tensor, gradient: &Tensor) -> Result<Tensor> {
    gate_up.apply_op2_no_bwd(gradient, &SwiGlu)
}

struct RmsNorm {
    eps: f32,
}

impl CustomOp3 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm-backward"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        w: &CpuStorage,
        lw: &Layout,
        dy: &CpuStorage,
        ldy: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let name = self.name();
        let (x, w, dy) = (f32s(name, x, lx)?, f32s(name, w, lw)?, f32s(name, dy, ldy)?);
        let n = w.len();
        let mut out = vec![0.0; x.len()];
        let row = |((x, dy), out): ((&[f32], &[f32]), &mut [f32])| {
            vectorized(|| {
                // y = x * w / r with r = rms(x), so dx = (w * dy - x * mean(x * w * dy) / r^2) / r.
                let (mut square, mut dot) = (0.0f64, 0.0f64);
                for ((x, dy), w) in x.chunks(64).zip(dy.chunks(64)).zip(w.chunks(64)) {
                    let (mut squares, mut dots) = ([0.0f32; 64], [0.0f32; 64]);
                    for (i, ((x, dy), w)) in x.iter().zip(dy).zip(w).enumerate() {
                        squares[i] = x * x;
                        dots[i] = x * dy * w;
                    }
                    square += f64::from(squares.iter().sum::<f32>());
                    dot += f64::from(dots.iter().sum::<f32>());
                }
                let mean_square = square / n as f64 + f64::from(self.eps);
                let scale = 1.0 / mean_square.sqrt();
                let pull = (scale * dot / (n as f64 * mean_square)) as f32;
                let scale = scale as f32;
                for (((out, x), dy), w) in out.iter_mut().zip(x).zip(dy).zip(w) {
                    *out = scale * w * dy - pull * x;
                }
            });
        };
        x.par_chunks(n)
            .zip(dy.par_chunks(n))
            .zip(out.par_chunks_mut(n))
            .with_min_len(GRAIN.div_ceil(n))
            .for_each(row);
        Ok((CpuStorage::F32(out), lx.shape().clone()))
    }
}

struct SwiGlu;

impl CustomOp2 for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu-backward"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        dy: &CpuStorage,
        ldy: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, dy) = (f32s(self.name(), x, lx)?, f32s(self.name(), dy, ldy)?);
        let (_, both) = lx.shape().dims2()?;
        let n = both / 2;
        let mut out = vec![0.0; x.len()];
        let row = |((x, dy), out): ((&[f32], &[f32]), &mut [f32])| {
            vectorized(|| {
                let ((gate, up), (dgate, dup)) = (x.split_at(n), out.split_at_mut(n));
                for ((((gate, up), dy), dgate), dup) in gate.iter().zip(up).zip(dy).zip(dgate).zip(dup) {
                    let sigmoid = 1.0 / (1.0 + exp(-gate));
                    let silu = gate * sigmoid;
                    *dup = silu * dy;
                    *dgate = (sigmoid + silu * (1.0 - sigmoid)) * up * dy;
                }
            });
        };
        x.par_chunks(both)
            .zip(dy.par_chunks(n))
            .zip(out.par_chunks_mut(both))
            .with_min_len(GRAIN.div_ceil(both))
            .for_each(row);
        Ok((CpuStorage::F32(out), lx.shape().clone()))
    }
}
