//! The KV caches that a forward pass reads and fills: on the CPU, one ring per KV head of every layer.

use candle_core::{CpuStorage, Device, Storage, Tensor};
use moac_runtime::backend::{LayerError, Qkv};
use moac_runtime::geometry::LayerGeometry;
use moac_runtime::plan::{MAX_LENGTH, Plan, TILE};
use moac_runtime::reference::{Attended, LayerCache, Spans};
use ndarray::{Array3, ArrayView3, Axis, ShapeBuilder, concatenate};
use rayon::prelude::*;

use crate::ModelError;

/// The caches of a batch of requests, all layers: what a forward pass hands its q, k and v to.
///
/// The rows of a batch are packed: first the new tokens of request 0, then those of request 1, and so on.
pub trait Attention {
    /// The position of every row. Fails if a request has no room for its new tokens.
    fn positions(&self) -> Result<Vec<u32>, ModelError>;

    /// Attends the new tokens of one layer and appends them. Layers are called in order, each once.
    ///
    /// `q` is `[rows, heads, head_dim]`, `k` and `v` are `[rows, kv heads, head_dim]`, rotated, with contiguous heads and
    /// any other strides; the result is `[rows, heads * head_dim]`.
    fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor, ModelError>;
}

/// The KV cache of one request on the CPU, in float32. A clone shares nothing, so it is a cheap way to ask several
/// questions of one context.
#[derive(Clone, Debug)]
pub struct Cache {
    layers: Vec<LayerCache<f32>>,
}

/// The spans of every layer in a context of at most `length` tokens.
pub(super) fn spans(plan: &Plan, length: u32) -> Result<Vec<Spans>, ModelError> {
    if !length.is_multiple_of(TILE) || !(plan.min_span..=MAX_LENGTH).contains(&length) {
        return Err(ModelError::Argument {
            what: "the context length of a cache",
            found: length.to_string(),
            expected: format!("a multiple of {TILE} from {} to {MAX_LENGTH}", plan.min_span),
        });
    }
    let layer = |l| {
        let geometry = LayerGeometry::new(plan, l, 0..plan.model.num_kv_heads, &[length]);
        Spans::new(plan, &geometry, 0)
    };
    Ok((0..plan.model.num_layers).map(layer).collect())
}

impl Cache {
    /// An empty cache for a context of at most `length` tokens, whose spans are those of the plan at `length`: a
    /// multiple of 64, at least the plan's `min_span`.
    pub fn new(plan: &Plan, length: u32) -> Result<Self, ModelError> {
        Ok(Self { layers: spans(plan, length)?.iter().map(LayerCache::new).collect() })
    }

    /// Tokens appended so far, evicted ones included: the position of the next.
    pub fn len(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.len() as usize)
    }

    /// Whether no token was appended yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The most tokens that it takes.
    pub fn length(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.spans().length as usize)
    }

    /// Forgets all but the first `tokens` tokens.
    ///
    /// # Errors
    /// [`ModelError::Argument`] if there are fewer, or a ring has overwritten one.
    pub fn rewind(&mut self, tokens: usize) -> Result<(), ModelError> {
        let (len, shortest) = (self.len(), self.shortest_ring());
        if tokens > len || tokens < len && len > shortest {
            return Err(ModelError::Argument {
                what: "the number of tokens that a cache is wound back to",
                found: format!("{tokens} of {len}"),
                expected: format!("at most as many, of a cache of at most {shortest}"),
            });
        }
        let done = self.layers.iter_mut().all(|layer| layer.rewind(tokens as u32));
        debug_assert!(done, "every layer has at most the tokens of its shortest ring");
        Ok(())
    }

    /// Tokens of the shortest ring.
    fn shortest_ring(&self) -> usize {
        let rings = self.layers.iter().flat_map(|layer| &layer.spans().kv_span);
        rings.copied().min().unwrap_or(0) as usize
    }

    /// Bytes that its rings would take in a two-byte element type.
    pub fn kv_bytes(&self) -> u64 {
        let rows = |layer: &LayerCache<f32>| layer.spans().kv_span.iter().map(|&s| u64::from(s)).sum::<u64>();
        self.layers.iter().map(|layer| 2 * 2 * rows(layer) * layer.spans().head_dim as u64).sum()
    }

    /// The positions of the next `tokens` tokens, if there is room for them.
    fn next_positions(&self, tokens: usize) -> Result<std::ops::Range<u32>, ModelError> {
        let (cached, length) = (self.len() as u32, self.length() as u32);
        LayerError::check_room(cached, tokens, length)?;
        Ok(cached..cached + tokens as u32)
    }

    /// The caches of the layers.
    pub fn layers(&self) -> &[LayerCache<f32>] {
        &self.layers
    }
}

/// Requests that take part in a forward pass, each with its number of new tokens.
#[derive(Debug)]
pub struct Batch<'a> {
    requests: Vec<(&'a mut Cache, usize)>,
}

impl<'a> Batch<'a> {
    /// A batch of several requests.
    pub fn new(requests: Vec<(&'a mut Cache, usize)>) -> Self {
        Self { requests }
    }

    /// A batch of one.
    pub fn one(cache: &'a mut Cache, tokens: usize) -> Self {
        Self::new(vec![(cache, tokens)])
    }
}

impl Attention for Batch<'_> {
    fn positions(&self) -> Result<Vec<u32>, ModelError> {
        let positions = self.requests.iter().map(|(cache, tokens)| cache.next_positions(*tokens));
        Ok(positions.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor, ModelError> {
        let tokens: Vec<usize> = self.requests.iter().map(|&(_, tokens)| tokens).collect();
        attend_packed(q, k, v, &tokens, |parts| {
            let requests = self.requests.par_iter_mut().zip(parts);
            let attend = |((cache, tokens), qkv): (&mut (&mut Cache, usize), _)| {
                let cache = &mut cache.layers[layer];
                // A single token is a decode step: it reads nothing but the ring.
                if *tokens == 1 { cache.decode(qkv) } else { cache.prefill(qkv) }
            };
            requests.map(attend).collect()
        })
    }
}

/// Several continuations of one context, attended together and none of them appended: many questions for the price of
/// one context, without a copy of it. Each continuation starts at the context's next position and sees itself and the
/// context only.
#[derive(Debug)]
pub struct Branches<'a> {
    context: &'a Cache,
    tokens: Vec<usize>,
    /// The missing tokens of each continuation; empty if none is missing any.
    narrowed: Vec<Narrowed>,
}

/// A KV head whose query heads see no more than the sink and `window` tokens, in one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Narrowed {
    /// The layer.
    pub(super) layer: usize,
    /// The KV head.
    pub(super) kv_head: usize,
    /// The tokens of the window, at least one.
    pub(super) window: u32,
}

impl Narrowed {
    fn spans(self, spans: &Spans) -> Spans {
        let mut spans = spans.clone();
        let heads = self.kv_head * spans.group_size()..(self.kv_head + 1) * spans.group_size();
        let narrow = spans.sink + self.window.max(1);
        for span in &mut spans.span[heads] {
            *span = narrow.min(*span);
        }
        spans
    }
}

impl<'a> Branches<'a> {
    /// Continuations of `tokens` tokens each, whose rows are packed in this order.
    pub fn new(context: &'a Cache, tokens: Vec<usize>) -> Self {
        Self { context, tokens, narrowed: Vec::new() }
    }

    /// Continuations of `tokens` tokens each, one for each KV head to be narrowed: what would be lost with it.
    pub(super) fn narrowed(context: &'a Cache, tokens: usize, narrowed: Vec<Narrowed>) -> Self {
        Self { context, tokens: vec![tokens; narrowed.len()], narrowed }
    }
}

impl Attention for Branches<'_> {
    fn positions(&self) -> Result<Vec<u32>, ModelError> {
        let positions = self.tokens.iter().map(|&tokens| self.context.next_positions(tokens));
        Ok(positions.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor, ModelError> {
        let context = &self.context.layers[layer];
        attend_packed(q, k, v, &self.tokens, |parts| {
            let peek =
                |(branch, qkv)| match self.narrowed.get(branch).filter(|of: &&Narrowed| of.layer == layer) {
                    Some(narrowed) => context.peek_within(&narrowed.spans(context.spans()), qkv),
                    None => context.peek(qkv),
                };
            parts.into_par_iter().enumerate().map(peek).collect()
        })
    }
}

/// Attends packed rows in parts: `attend` gets the rows of each, `tokens[part]` of them.
fn attend_packed(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    tokens: &[usize],
    attend: impl FnOnce(Vec<Qkv<'_, f32>>) -> Result<Vec<Attended<f32>>, LayerError>,
) -> Result<Tensor, ModelError> {
    let (rows, heads, dim) = q.dims3()?;
    let (q, k, v) = (q.storage_and_layout(), k.storage_and_layout(), v.storage_and_layout());
    // Keys and values head by head, so that the rows of a head lie together however often they are read.
    let (k, v) = (by_head(&view(&k.0, k.1)?), by_head(&view(&v.0, v.1)?));
    let qkv = Qkv {
        q: view(&q.0, q.1)?,
        k: k.view().permuted_axes([1, 0, 2]),
        v: v.view().permuted_axes([1, 0, 2]),
    };
    let mut end = 0;
    let part = |&tokens: &usize| {
        end += tokens;
        qkv.tokens(end - tokens..end)
    };
    let mut attended = attend(tokens.iter().map(part).collect())?;
    let o = if attended.len() == 1 {
        attended.swap_remove(0).o
    } else {
        let parts: Vec<_> = attended.iter().map(|part| part.o.view()).collect();
        concatenate(Axis(0), &parts).map_err(candle_core::Error::wrap)?
    };
    let (out, _) = o.into_flat().into_raw_vec_and_offset();
    Ok(Tensor::from_vec(out, (rows, heads * dim), &Device::Cpu)?)
}

/// `[rows, heads, head_dim]` laid out as `[heads, rows, head_dim]`.
pub(super) fn by_head(x: &ArrayView3<'_, f32>) -> Array3<f32> {
    x.view().permuted_axes([1, 0, 2]).as_standard_layout().into_owned()
}

/// A float32 tensor `[rows, heads, head_dim]` on the CPU, where it lies.
pub(super) fn view<'a>(
    storage: &'a Storage,
    layout: &candle_core::Layout,
) -> Result<ArrayView3<'a, f32>, candle_core::Error> {
    let Storage::Cpu(CpuStorage::F32(data)) = storage else {
        candle_core::bail!("attention on the CPU takes float32 tensors on the CPU");
    };
    let (rows, heads, dim) = layout.shape().dims3()?;
    let &[a, b, c] = layout.stride() else { candle_core::bail!("expected three strides") };
    ArrayView3::from_shape((rows, heads, dim).strides((a, b, c)), &data[layout.start_offset()..])
        .map_err(candle_core::Error::wrap)
}
