//! The forward pass: tokens to hidden states, layer by layer, and from there to logits and losses.
//!
//! Everything here is written in rows: the new tokens of all requests of a batch, packed. Memory is linear in them, so
//! long inputs go in as chunks of [`CHUNK`] rows, which the caches make the same as one (SPEC.md section 1, law 6).

// As in `simd`: code that is not inlined into the function with the wide vectors is compiled without them.
#![allow(clippy::inline_always)]

use std::ops::Range;

use candle_core::{Device, IndexOp, Tensor};
use moac_runtime::simd::{exp, vectorized};
use rayon::prelude::*;

use super::cache::{Attention, Batch, Cache};
use super::ops::{Rotation, add_row, add_to, linear, norm_heads, rms_norm, swiglu};
use crate::{Config, ModelError, Weights};

/// Rows of a chunk: enough to fill the matrix units, and few enough that activations stay in cache.
pub const CHUNK: usize = 512;
/// Logits are made for this many tokens of the vocabulary at a time where only their sum is wanted.
pub(super) const VOCAB_TILE: usize = 4096;

/// A decoder: what turns tokens into hidden states and logits.
#[derive(Clone, Debug)]
pub struct Decoder {
    config: Config,
    weights: Weights,
    frequencies: Vec<f64>,
}

impl Decoder {
    /// A decoder of given weights, whose shapes are those that `config` asks for.
    pub fn new(config: Config, weights: Weights) -> Self {
        Self { frequencies: config.rope.frequencies(config.head_dim), config, weights }
    }

    /// The model's configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The weights.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The hidden states of new tokens behind the last norm, `[rows, hidden]`. The tokens are appended to the caches.
    pub fn forward(&self, tokens: &[u32], caches: &mut dyn Attention) -> Result<Tensor, ModelError> {
        let x = self.layers(0..self.weights.layers.len(), self.embed(tokens)?, caches)?;
        self.norm(&x)
    }

    /// Some layers of a forward pass: from the input of the first, `[rows, hidden]`, to the output of the last.
    pub(super) fn layers(
        &self,
        layers: Range<usize>,
        mut x: Tensor,
        caches: &mut dyn Attention,
    ) -> Result<Tensor, ModelError> {
        let rotation = self.rotation(&caches.positions()?);
        for layer in layers {
            let (q, k, v) = self.qkv(layer, &x, &rotation)?;
            let o = caches.attend(layer, &q, &k, &v)?;
            x = self.finish_layer(layer, &x, &o)?;
        }
        Ok(x)
    }

    /// The last norm: from the output of the last layer to hidden states.
    pub(super) fn norm(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        Ok(rms_norm(x, &self.weights.norm, self.config.norm_eps)?)
    }

    /// The embeddings of tokens, `[rows, hidden]`.
    pub fn embed(&self, tokens: &[u32]) -> Result<Tensor, ModelError> {
        self.check_tokens(tokens)?;
        Ok(self.weights.embedding.index_select(&Tensor::new(tokens, &Device::Cpu)?, 0)?)
    }

    fn check_tokens(&self, tokens: &[u32]) -> Result<(), ModelError> {
        let vocab = self.config.vocab_size;
        match tokens.iter().find(|&&token| token as usize >= vocab) {
            None => Ok(()),
            Some(token) => Err(ModelError::Argument {
                what: "a token",
                found: token.to_string(),
                expected: format!("below the vocabulary's {vocab}"),
            }),
        }
    }

    /// The rotary embedding of rows at `positions`.
    pub fn rotation(&self, positions: &[u32]) -> Rotation {
        Rotation::new(&self.frequencies, positions)
    }

    /// The rotated queries and keys and the values of a layer, `[rows, heads or kv heads, head_dim]`, from its input
    /// `x`, `[rows, hidden]`. The three are views of one tensor.
    pub fn qkv(
        &self,
        layer: usize,
        x: &Tensor,
        rotation: &Rotation,
    ) -> Result<(Tensor, Tensor, Tensor), ModelError> {
        let Config { num_heads: h, num_kv_heads: g, norm_eps, .. } = self.config;
        let qkv = self.project(layer, x)?;
        if let Some([q_norm, k_norm]) = &self.weights.layers[layer].qk_norm {
            norm_heads(&qkv, q_norm, 0..h, norm_eps)?;
            norm_heads(&qkv, k_norm, h..h + g, norm_eps)?;
        }
        rotation.rotate(&qkv, h + g)?;
        Ok((qkv.narrow(1, 0, h)?, qkv.narrow(1, h, g)?, qkv.narrow(1, h + g, g)?))
    }

    /// The heads of q, k and v as they are projected, before their norms and the rotation: `[rows, heads + 2 kv heads,
    /// head_dim]`.
    pub(super) fn project(&self, layer: usize, x: &Tensor) -> Result<Tensor, ModelError> {
        let Config { num_heads: h, num_kv_heads: g, head_dim, norm_eps, .. } = self.config;
        let weights = &self.weights.layers[layer];
        let qkv = linear(&rms_norm(x, &weights.attention_norm, norm_eps)?, &weights.qkv)?;
        if let Some(bias) = &weights.qkv_bias {
            add_row(&qkv, bias)?;
        }
        Ok(qkv.reshape((x.dim(0)?, h + 2 * g, head_dim))?)
    }

    /// The output of a layer, `[rows, hidden]`, from its input `x` and its attention `o`, `[rows, heads * head_dim]`.
    pub fn finish_layer(&self, layer: usize, x: &Tensor, o: &Tensor) -> Result<Tensor, ModelError> {
        let weights = &self.weights.layers[layer];
        let attended = linear(o, &weights.output)?;
        add_to(&attended, x)?;
        let normed = rms_norm(&attended, &weights.mlp_norm, self.config.norm_eps)?;
        let out = linear(&swiglu(&linear(&normed, &weights.gate_up)?)?, &weights.down)?;
        add_to(&out, &attended)?;
        Ok(out)
    }

    /// The logits of hidden states, `[rows, vocab]`.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor, ModelError> {
        Ok(linear(hidden, &self.weights.head)?)
    }

    /// Appends tokens to a cache, in chunks, and returns the hidden state of the last, `[1, hidden]`.
    pub fn prefill(&self, tokens: &[u32], cache: &mut Cache) -> Result<Tensor, ModelError> {
        let mut last = None;
        for chunk in tokens.chunks(CHUNK) {
            let hidden = self.forward(chunk, &mut Batch::one(cache, chunk.len()))?;
            last = Some(hidden.i(chunk.len() - 1..)?);
        }
        last.ok_or(ModelError::Argument {
            what: "the number of tokens",
            found: "0".into(),
            expected: "at least one".into(),
        })
    }

    /// Appends tokens to a cache, in chunks, and returns the loss in nats of each but the first: how surprised the
    /// model is by it, given those before.
    pub fn losses(&self, tokens: &[u32], cache: &mut Cache) -> Result<Vec<f32>, ModelError> {
        let mut losses = Vec::with_capacity(tokens.len());
        let mut targets = tokens.iter().copied().skip(1);
        for chunk in tokens.chunks(CHUNK) {
            let hidden = self.forward(chunk, &mut Batch::one(cache, chunk.len()))?;
            let targets: Vec<u32> = targets.by_ref().take(chunk.len()).collect();
            if !targets.is_empty() {
                losses.extend(self.cross_entropy(&hidden.i(..targets.len())?, &targets)?);
            }
        }
        Ok(losses)
    }

    /// The loss in nats of a target token per row of hidden states, `[rows, hidden]`. Logits are made a part of the
    /// vocabulary at a time and never kept.
    pub fn cross_entropy(&self, hidden: &Tensor, targets: &[u32]) -> Result<Vec<f32>, ModelError> {
        /// A row's largest logit so far, the sum of exponentials below it, and the target's logit.
        #[derive(Clone, Copy)]
        struct Row {
            max: f32,
            sum: f64,
            target: f32,
        }
        let vocab = self.config.vocab_size;
        self.check_tokens(targets)?;
        let mut rows = vec![Row { max: f32::NEG_INFINITY, sum: 0.0, target: f32::NAN }; targets.len()];
        for start in (0..vocab).step_by(VOCAB_TILE) {
            let tile = self.weights.head.narrow(0, start, VOCAB_TILE.min(vocab - start))?;
            let logits = linear(hidden, &tile)?.flatten_all()?;
            let (storage, _) = logits.storage_and_layout();
            let candle_core::Storage::Cpu(storage) = &*storage else {
                return Err(candle_core::Error::Msg("losses are computed on the CPU".into()).into());
            };
            let width = tile.dim(0)?;
            let logits = storage.as_slice::<f32>()?.par_chunks(width);
            rows.par_iter_mut().zip(targets).zip(logits).for_each(|((row, &target), logits)| {
                let max = vectorized(|| maximum(logits)).max(row.max);
                let sum = vectorized(|| sum_of_exp(logits, max));
                row.sum = row.sum * f64::from(row.max - max).exp() + f64::from(sum);
                row.max = max;
                if let Some(&logit) = (target as usize).checked_sub(start).and_then(|at| logits.get(at)) {
                    row.target = logit;
                }
            });
        }
        Ok(rows.iter().map(|row| (f64::from(row.max - row.target) + row.sum.ln()) as f32).collect())
    }
}

/// The largest of some numbers.
#[inline(always)]
pub(super) fn maximum(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let chunks = x.chunks_exact(16);
    let rest = chunks.remainder().iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = lane.max(x);
        }
    }
    lanes.into_iter().fold(rest, f32::max)
}

/// The sum of e^(x - max), in a fixed order.
#[inline(always)]
pub(super) fn sum_of_exp(x: &[f32], max: f32) -> f32 {
    let mut lanes = [0.0; 16];
    let chunks = x.chunks_exact(16);
    let rest: f32 = chunks.remainder().iter().map(|x| exp(x - max)).sum();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += exp(x - max);
        }
    }
    lanes.iter().sum::<f32>() + rest
}
