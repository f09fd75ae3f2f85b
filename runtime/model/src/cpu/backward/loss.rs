//! The loss of some tokens and its gradient with respect to the hidden states that predict them.

use candle_core::{CpuStorage, CustomOp1, InplaceOp1, Layout, Shape, Tensor};
use moac_runtime::simd::{exp, vectorized};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;

use crate::cpu::forward::{VOCAB_TILE, maximum, sum_of_exp};
use crate::cpu::ops::f32s;
use crate::{Decoder, ModelError};

/// Rows whose logits are kept at a time to draw from.
const DRAWN: usize = 64;

/// The mean loss in nats of a target token per row of hidden states, `[rows, hidden]` behind the last norm, and its
/// gradient with respect to them. Logits are made a part of the vocabulary at a time, twice, and never kept.
pub(super) fn cross_entropy(
    decoder: &Decoder,
    hidden: &Tensor,
    targets: &[u32],
) -> Result<(f64, Tensor), ModelError> {
    let head = &decoder.weights().head;
    let vocab = decoder.config().vocab_size;
    let tiles = || {
        (0..vocab).step_by(VOCAB_TILE).map(|start| {
            let tile = head.narrow(0, start, VOCAB_TILE.min(vocab - start))?;
            let logits = hidden.matmul(&tile.t()?)?;
            Ok::<_, ModelError>((start, tile, logits))
        })
    };
    // The largest logit of a row, the sum of exponentials below it, and the target's logit.
    let mut rows = vec![(f32::NEG_INFINITY, 0.0f64, f32::NAN); targets.len()];
    for tile in tiles() {
        let (start, _, logits) = tile?;
        let parts = logits.apply_op1_no_bwd(&Summary)?.to_vec2::<f32>()?;
        for (at, ((max, sum, target), part)) in rows.iter_mut().zip(parts).enumerate() {
            let new_max = max.max(part[0]);
            *sum = *sum * f64::from(*max - new_max).exp()
                + f64::from(part[1]) * f64::from(part[0] - new_max).exp();
            *max = new_max;
            let place = (targets[at] as usize).checked_sub(start).filter(|&place| place < logits.dims()[1]);
            if let Some(place) = place {
                *target = logits.get(at)?.get(place)?.to_scalar()?;
            }
        }
    }
    let lse: Vec<f64> = rows.iter().map(|&(max, sum, _)| f64::from(max) + sum.ln()).collect();
    let losses = rows.iter().zip(&lse).map(|(&(_, _, target), lse)| lse - f64::from(target));
    let share = 1.0 / targets.len() as f64;
    let loss = losses.sum::<f64>() * share;
    let mut gradient = hidden.zeros_like()?;
    for tile in tiles() {
        let (start, tile, logits) = tile?;
        logits.inplace_op1(&Probabilities { start, lse: &lse, targets, share: share as f32 })?;
        gradient = (gradient + logits.matmul(&tile)?)?;
    }
    Ok((loss, gradient))
}

/// A number in [0, 1).
fn uniform(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// A token per row of hidden states, `[rows, hidden]` behind the last norm, drawn from what the model predicts there.
pub(super) fn draw(decoder: &Decoder, hidden: &Tensor, seed: u64) -> Result<Vec<u32>, ModelError> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let rows = hidden.dim(0)?;
    let mut drawn = Vec::with_capacity(rows);
    for start in (0..rows).step_by(DRAWN) {
        let count = DRAWN.min(rows - start);
        let logits: Vec<Vec<f32>> = decoder.logits(&hidden.narrow(0, start, count)?)?.to_vec2()?;
        let points: Vec<f64> = (0..count).map(|_| uniform(&mut random)).collect();
        drawn.par_extend(logits.into_par_iter().zip(points).map(|(logits, point)| {
            let max = vectorized(|| maximum(&logits));
            let mut left = point * f64::from(vectorized(|| sum_of_exp(&logits, max)));
            let found = logits.iter().position(|logit| {
                left -= f64::from(exp(logit - max));
                left < 0.0
            });
            // Rounding may leave a little of a point near 1.
            found.unwrap_or(logits.len() - 1) as u32
        }));
    }
    Ok(drawn)
}

/// Of every row: the largest element, and the sum of exponentials below it.
struct Summary;

impl CustomOp1 for Summary {
    fn name(&self) -> &'static str {
        "max-and-sum-of-exp"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let x = f32s(self.name(), x, layout)?;
        let (rows, width) = layout.shape().dims2()?;
        let mut out = vec![0.0; 2 * rows];
        x.par_chunks(width).zip(out.par_chunks_mut(2)).for_each(|(x, out)| {
            out[0] = vectorized(|| maximum(x));
            out[1] = vectorized(|| sum_of_exp(x, out[0]));
        });
        Ok((CpuStorage::F32(out), (rows, 2).into()))
    }
}

/// Turns a tile of logits into the loss's gradient with respect to them: probability less one at the target, over rows.
struct Probabilities<'a> {
    /// The first token of the tile.
    start: usize,
    lse: &'a [f64],
    targets: &'a [u32],
    share: f32,
}

impl InplaceOp1 for Probabilities<'_> {
    fn name(&self) -> &'static str {
        "cross-entropy-backward"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let Self { start, lse, targets, share } = *self;
        let (_, width) = layout.shape().dims2()?;
        let (from, to) =
            layout.contiguous_offsets().ok_or(candle_core::Error::RequiresContiguous { op: self.name() })?;
        let CpuStorage::F32(x) = storage else { candle_core::bail!("losses are computed in float32") };
        x[from..to].par_chunks_mut(width).zip(lse).zip(targets).for_each(|((x, &lse), &target)| {
            let lse = lse as f32;
            vectorized(|| x.iter_mut().for_each(|x| *x = share * exp(*x - lse)));
            if let Some(x) = (target as usize).checked_sub(start).and_then(|at| x.get_mut(at)) {
                *x -= share;
            }
        });
        Ok(())
    }
}
