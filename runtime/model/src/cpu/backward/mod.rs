//! The reverse pass: the gradient of a loss on some tokens with respect to every layer's input, and what masking
//! attention would do to that loss. Activations only; weights have no gradients.
//!
//! A [`Tape`] is a forward pass over one item, dense or under a plan, that keeps, of each layer, its input and its
//! attention's output and log-sum-exp; all else is made anew. [`Reverse`] goes back through it a layer at a time. Memory is linear in the
//! tokens: 2 hidden states of each layer, and some of one.

mod attention;
pub mod influence;
mod loss;
mod mask;
mod ops;
pub mod windows;

use candle_core::{Device, Tensor};
use moac_runtime::backend::Qkv;
use moac_runtime::plan::{Plan, TILE};
use moac_runtime::reference::{LayerCache, Spans};
use ndarray::Array2;

use self::attention::{Attended, Reversed};
use self::influence::HeadSums;
use self::mask::Mask;
use self::windows::WindowSums;
use super::CHUNK;
use super::cache::{by_head, spans, view};
use super::ops::{Rotation, rms_norm};
use crate::{Config, Decoder, ModelError};

/// The saved state of a forward pass over one item.
#[derive(Debug)]
pub struct Tape {
    rotation: Rotation,
    layers: Vec<Kept>,
    /// Behind the last layer and before the last norm, `[rows, hidden]`.
    hidden: Tensor,
}

#[derive(Debug)]
struct Kept {
    /// The layer's input, `[rows, hidden]`.
    x: Tensor,
    /// The attention's output, `[rows, heads * head_dim]`.
    o: Tensor,
    /// `[rows, heads]`
    lse: Array2<f32>,
    /// The visible keys of each query head.
    masks: Vec<Mask>,
}

impl Tape {
    /// Runs the model over tokens from the start of a context of at most `length`, under the spans that a plan has there.
    /// `layer_done` is called with how many layers are done.
    pub fn record(
        decoder: &Decoder,
        tokens: &[u32],
        (plan, length): (&Plan, u32),
        layer_done: &mut dyn FnMut(usize),
    ) -> Result<Self, ModelError> {
        let spans = spans(plan, length)?;
        if tokens.is_empty() || tokens.len() > length as usize {
            let expected = format!("1 to {length}");
            return Err(ModelError::Argument {
                what: "the number of tokens",
                found: tokens.len().to_string(),
                expected,
            });
        }
        let positions: Vec<u32> = (0..tokens.len() as u32).collect();
        let rotation = decoder.rotation(&positions);
        let mut x = decoder.embed(tokens)?;
        let mut layers = Vec::new();
        for (layer, spans) in spans.iter().enumerate() {
            let (o, lse) = attend(decoder, (layer, spans), &x, &rotation)?;
            let next = in_chunks(x.dim(0)?, |start, rows| {
                decoder.finish_layer(layer, &x.narrow(0, start, rows)?, &o.narrow(0, start, rows)?)
            })?;
            layers.push(Kept { x, o, lse, masks: masks(spans) });
            x = next;
            layer_done(layer + 1);
        }
        Ok(Self { rotation, layers, hidden: x })
    }

    /// Tokens drawn from what the model predicts at `count` rows from `first` on: targets for the squares of
    /// [`influence`]. The same seed gives the same tokens.
    pub fn draw(
        &self,
        decoder: &Decoder,
        first: usize,
        count: usize,
        seed: u64,
    ) -> Result<Vec<u32>, ModelError> {
        let predicting = self.hidden.narrow(0, first, count)?;
        let norm = &decoder.weights().norm;
        loss::draw(decoder, &rms_norm(&predicting, norm, decoder.config().norm_eps)?, seed)
    }
}

/// The visible keys of each query head, with every window requested.
fn masks(spans: &Spans) -> Vec<Mask> {
    let blocks = |tokens: u32| (tokens / TILE) as usize;
    let mask =
        |&span: &u32| Mask { sink: blocks(spans.sink), window: blocks(span - spans.sink), reach: usize::MAX };
    spans.span.iter().map(mask).collect()
}

/// Attention of a layer from its input: the output and its log-sum-exp.
fn attend(
    decoder: &Decoder,
    (layer, spans): (usize, &Spans),
    x: &Tensor,
    rotation: &Rotation,
) -> Result<(Tensor, Array2<f32>), ModelError> {
    let &Config { num_heads, head_dim, .. } = decoder.config();
    let (q, k, v) = decoder.qkv(layer, x, rotation)?;
    let (q, k, v) = (q.storage_and_layout(), k.storage_and_layout(), v.storage_and_layout());
    let (k, v) = (by_head(&view(&k.0, k.1)?), by_head(&view(&v.0, v.1)?));
    let qkv = Qkv {
        q: view(&q.0, q.1)?,
        k: k.view().permuted_axes([1, 0, 2]),
        v: v.view().permuted_axes([1, 0, 2]),
    };
    let attended = LayerCache::<f32>::new(spans).prefill(qkv)?;
    let rows = attended.o.dim().0;
    let o = attended.o.into_raw_vec_and_offset().0;
    Ok((Tensor::from_vec(o, (rows, num_heads * head_dim), &Device::Cpu)?, attended.lse))
}

/// Rows of a matrix made some at a time, so that intermediate values stay in cache.
fn in_chunks(
    rows: usize,
    mut chunk: impl FnMut(usize, usize) -> Result<Tensor, ModelError>,
) -> Result<Tensor, ModelError> {
    let parts: Result<Vec<Tensor>, ModelError> =
        (0..rows).step_by(CHUNK).map(|start| chunk(start, CHUNK.min(rows - start))).collect();
    Ok(Tensor::cat(&parts?, 0)?)
}

/// The way back through a [`Tape`], a layer at a time, the last one first.
#[derive(Debug)]
pub struct Reverse<'a> {
    decoder: &'a Decoder,
    rotation: Rotation,
    layers: Vec<Kept>,
    loss: f64,
    gradient: Tensor,
}

impl<'a> Reverse<'a> {
    /// Starts from the mean loss in nats of `targets`, the first of which is predicted by row `first` of the tape, and the
    /// others by the rows behind it.
    pub fn new(decoder: &'a Decoder, tape: Tape, first: usize, targets: &[u32]) -> Result<Self, ModelError> {
        let Tape { rotation, layers, hidden } = tape;
        let (rows, width) = hidden.dims2()?;
        let bad = |what, found: String, expected: String| ModelError::Argument { what, found, expected };
        if targets.is_empty() || first.saturating_add(targets.len()) > rows {
            let expected = format!("1 to {}", rows.saturating_sub(first));
            return Err(bad("the number of target tokens", targets.len().to_string(), expected));
        }
        let vocab = decoder.config().vocab_size;
        if let Some(token) = targets.iter().find(|&&token| token as usize >= vocab) {
            return Err(bad("a token", token.to_string(), format!("below the vocabulary's {vocab}")));
        }
        let eps = decoder.config().norm_eps;
        let norm = &decoder.weights().norm;
        let predicting = hidden.narrow(0, first, targets.len())?;
        let (loss, gradient) = loss::cross_entropy(decoder, &rms_norm(&predicting, norm, eps)?, targets)?;
        let gradient = ops::rms_norm(&predicting, norm, &gradient, eps)?;
        let zeros = |rows| Tensor::zeros((rows, width), hidden.dtype(), hidden.device());
        let after = rows - first - targets.len();
        let gradient = Tensor::cat(&[&zeros(first)?, &gradient, &zeros(after)?], 0)?;
        Ok(Self { decoder, rotation: rotation.inverse(), layers, loss, gradient })
    }

    /// Looks only at spans of at most so many times what each head saw, and at least at the next one, which takes less work:
    /// wider ones have the effect of the widest that is looked at.
    #[must_use]
    pub fn within(mut self, times: f64) -> Self {
        for mask in self.layers.iter_mut().flat_map(|layer| &mut layer.masks) {
            let span = (mask.sink + mask.window) as f64;
            mask.reach = ((span * times).ceil() as usize).saturating_sub(mask.sink).max(mask.window + 1);
        }
        self
    }

    /// The mean loss of the targets in nats.
    pub fn loss(&self) -> f64 {
        self.loss
    }

    /// The gradient of the loss with respect to the input of the layer that was last gone through, or with respect to
    /// the last layer's output before the first step: `[rows, hidden]`.
    pub fn gradient(&self) -> &Tensor {
        &self.gradient
    }

    /// Goes back through one layer: its number, and what masking its attention does to the loss, by query head. `None`
    /// behind the first layer.
    pub fn step(&mut self) -> Result<Option<(usize, Vec<HeadSums>)>, ModelError> {
        Ok(self.back()?.map(|(layer, reversed)| (layer, reversed.influence())))
    }

    /// The same, but what moving the windows of each KV head does.
    pub fn step_windows(&mut self) -> Result<Option<(usize, Vec<WindowSums>)>, ModelError> {
        Ok(self.back()?.map(|(layer, reversed)| (layer, reversed.windows())))
    }

    fn back(&mut self) -> Result<Option<(usize, Reversed)>, ModelError> {
        let Some(Kept { x, o, lse, masks }) = self.layers.pop() else { return Ok(None) };
        let layer = self.layers.len();
        let decoder = self.decoder;
        let weights = &decoder.weights().layers[layer];
        let &Config { num_heads, num_kv_heads, head_dim, norm_eps, .. } = decoder.config();
        let rows = x.dim(0)?;
        // Through the feed-forward network, to the gradient behind attention's residual.
        let after = in_chunks(rows, |start, count| {
            let part = |of: &Tensor| of.narrow(0, start, count);
            let (x, o, gradient) = (part(&x)?, part(&o)?, part(&self.gradient)?);
            let x = (x + o.matmul(&weights.output.t()?)?)?;
            let gate_up = rms_norm(&x, &weights.mlp_norm, norm_eps)?.matmul(&weights.gate_up.t()?)?;
            let inner = gradient.matmul(&weights.down)?;
            let inner = ops::swiglu(&gate_up, &inner)?.matmul(&weights.gate_up)?;
            Ok((ops::rms_norm(&x, &weights.mlp_norm, &inner, norm_eps)? + gradient)?)
        })?;
        let d_o = after.matmul(&weights.output)?;
        // Through attention and the rotation.
        let heads = (rows, num_heads, head_dim);
        let mut reversed = {
            let (q, k, v) = decoder.qkv(layer, &x, &self.rotation.inverse())?;
            let (q, k, v) = (q.storage_and_layout(), k.storage_and_layout(), v.storage_and_layout());
            let (o, d_o) = (o.reshape(heads)?, d_o.reshape(heads)?);
            let (o, d_o) = (o.storage_and_layout(), d_o.storage_and_layout());
            attention::reverse(&Attended {
                qkv: Qkv { q: view(&q.0, q.1)?, k: view(&k.0, k.1)?, v: view(&v.0, v.1)? },
                scale: decoder.config().shape().scale() as f32,
                o: view(&o.0, o.1)?,
                lse: lse.view(),
                d_o: view(&d_o.0, d_o.1)?,
                masks: &masks,
            })
        };
        let d_qkv = std::mem::take(&mut reversed.gradients);
        let d_qkv = Tensor::from_vec(d_qkv, (rows, num_heads + 2 * num_kv_heads, head_dim), &Device::Cpu)?;
        self.rotation.rotate(&d_qkv, num_heads + num_kv_heads)?;
        let d_qkv = match &weights.qk_norm {
            None => d_qkv,
            Some(norms) => through_head_norms(&decoder.project(layer, &x)?, norms, &d_qkv, decoder.config())?,
        };
        let inner = d_qkv.flatten_from(1)?.matmul(&weights.qkv)?;
        self.gradient = (ops::rms_norm(&x, &weights.attention_norm, &inner, norm_eps)? + after)?;
        Ok(Some((layer, reversed)))
    }
}

/// The gradient of the projected heads from that of the normed ones; values have no norm.
fn through_head_norms(
    projected: &Tensor,
    [q_norm, k_norm]: &[Tensor; 2],
    gradient: &Tensor,
    config: &Config,
) -> Result<Tensor, ModelError> {
    let &Config { num_heads: h, num_kv_heads: g, norm_eps, .. } = config;
    let normed = |norm: &Tensor, start: usize, count: usize| -> Result<Tensor, ModelError> {
        let part = |of: &Tensor| of.narrow(1, start, count)?.contiguous();
        Ok(ops::rms_norm(&part(projected)?, norm, &part(gradient)?, norm_eps)?)
    };
    let (q, k) = (normed(q_norm, 0, h)?, normed(k_norm, h, g)?);
    Ok(Tensor::cat(&[&q, &k, &gradient.narrow(1, h + g, g)?], 1)?)
}
