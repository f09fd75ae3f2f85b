//! From a plan to numbers: spans, KV spans, ring offsets and tile counts at every bucket (SPEC.md section 1).
//!
//! The one place that does this arithmetic. The compiler lowers from it; the artifact reader recomputes it and
//! compares. All functions are pure, and their inputs are validated plans: a multiple-of-64 sink, buckets that are
//! multiples of 64, at least `min_span` and at most [`MAX_LENGTH`](crate::plan::MAX_LENGTH).

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::plan::{DType, Plan, Rule, TILE};

/// `s(h, N)`: the span in tokens of a head with `rule` at context length `n`, sink included.
pub fn span(rule: Rule, n: u32, min_span: u32) -> u32 {
    let raw = raw_span(rule, n).max(f64::from(min_span));
    // A span never exceeds n, so clamping first keeps the conversion exact for any rule.
    (raw.min(f64::from(n)) as u32).next_multiple_of(TILE).min(n)
}

/// `floor(alpha + beta * n)`, before the minimum and the rounding.
pub fn raw_span(rule: Rule, n: u32) -> f64 {
    rule.beta.mul_add(f64::from(n), rule.alpha).floor()
}

/// Whether the query at position `i` sees the key at position `j` under a window of `window` tokens.
pub fn visible(i: u32, j: u32, sink: u32, window: u32) -> bool {
    j <= i && (j < sink || i - j < window)
}

/// The ring slot of position `p` in a ring of `kv_span` tokens.
pub fn slot(p: u32, sink: u32, kv_span: u32) -> u32 {
    if p < sink { p } else { sink + (p - sink) % (kv_span - sink) }
}

/// The position whose key slot `slot` holds once positions `0..len` have been written, if any has been.
pub fn position(slot: u32, sink: u32, kv_span: u32, len: u32) -> Option<u32> {
    if slot >= len {
        return None;
    }
    if slot < sink {
        return Some(slot);
    }
    let window = kv_span - sink;
    Some(slot + (len - 1 - slot) / window * window)
}

/// One bucket of one layer. Indexes are relative to the artifact's range of KV heads.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BucketGeometry {
    /// The context length in tokens.
    pub length: u32,
    /// Span in tokens of each head group, sink included.
    pub span: Vec<u32>,
    /// KV span in tokens of each KV head: the largest span of its query heads.
    pub kv_span: Vec<u32>,
    /// Where the K ring of each KV head starts, in rows of `head_dim` elements from the layer's base. Its V ring
    /// follows, `kv_span` rows later. Always `2 * TILE * tile_prefix[g]`.
    pub ring: Vec<u64>,
    /// Tiles of the KV heads before each one, and in all: `kv_heads + 1` entries.
    pub tile_prefix: Vec<u32>,
}

/// One layer: which heads share a rule, and its spans at every bucket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerGeometry {
    /// The rules in order of first appearance; a head group is the heads that share one.
    pub rules: Vec<Rule>,
    /// The head group of each query head.
    pub group_of_head: Vec<u32>,
    /// One entry per bucket, ascending.
    pub buckets: Vec<BucketGeometry>,
}

impl LayerGeometry {
    /// The geometry of `layer` for the query heads of `kv_heads`, at each of `lengths`.
    pub fn new(plan: &Plan, layer: u32, kv_heads: Range<u32>, lengths: &[u32]) -> Self {
        let r = plan.model.group_size();
        let mut rules: Vec<Rule> = Vec::new();
        let group_of_head: Vec<u32> = (kv_heads.start * r..kv_heads.end * r)
            .map(|head| {
                let rule = plan.rule(layer, head);
                rules.iter().position(|&known| known == rule).unwrap_or_else(|| {
                    rules.push(rule);
                    rules.len() - 1
                }) as u32
            })
            .collect();
        let buckets = lengths
            .iter()
            .map(|&length| {
                let span: Vec<u32> = rules.iter().map(|&rule| span(rule, length, plan.min_span)).collect();
                let kv_span: Vec<u32> = group_of_head
                    .chunks(r as usize)
                    .map(|heads| heads.iter().map(|&group| span[group as usize]).max().unwrap_or(0))
                    .collect();
                let mut tile_prefix = vec![0];
                for tokens in &kv_span {
                    tile_prefix.push(tile_prefix[tile_prefix.len() - 1] + tokens / TILE);
                }
                let ring = tile_prefix[..kv_span.len()]
                    .iter()
                    .map(|&tiles| 2 * u64::from(TILE) * u64::from(tiles))
                    .collect();
                BucketGeometry { length, span, kv_span, ring, tile_prefix }
            })
            .collect();
        Self { rules, group_of_head, buckets }
    }

    /// The tiles of keys that a query sees of all KV heads, at most, when the context has `length` tokens.
    pub fn tiles(&self, bucket: usize, length: u32) -> u32 {
        self.buckets[bucket].kv_span.iter().map(|&kv_span| length.min(kv_span).div_ceil(TILE)).sum()
    }

    /// Rows of `head_dim` elements that the layer's rings take in bucket `bucket`.
    pub fn rows(&self, bucket: usize) -> u64 {
        let prefix = &self.buckets[bucket].tile_prefix;
        2 * u64::from(TILE) * u64::from(prefix[prefix.len() - 1])
    }
}

/// The whole model: every layer, and where its rings lie in a slab.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Geometry {
    /// The buckets, ascending, in tokens.
    pub lengths: Vec<u32>,
    /// The layers.
    pub layers: Vec<LayerGeometry>,
    /// `[layer][bucket]`: byte offset of the layer's rings in a slab of that bucket.
    pub layer_base: Vec<Vec<u64>>,
    /// Bytes of a slab of each bucket.
    pub slab_bytes: Vec<u64>,
}

impl Geometry {
    /// The geometry of a plan for a range of KV heads at `lengths`.
    pub fn new(plan: &Plan, kv_heads: Range<u32>, lengths: &[u32], dtype: DType) -> Self {
        let row = u64::from(plan.model.head_dim) * u64::from(dtype.bytes());
        let mut slab_bytes = vec![0; lengths.len()];
        let mut layer_base = Vec::new();
        let layers: Vec<LayerGeometry> = (0..plan.model.num_layers)
            .map(|layer| LayerGeometry::new(plan, layer, kv_heads.clone(), lengths))
            .collect();
        for layer in &layers {
            layer_base.push(slab_bytes.clone());
            for (bucket, bytes) in slab_bytes.iter_mut().enumerate() {
                *bytes += layer.rows(bucket) * row;
            }
        }
        Self { lengths: lengths.to_vec(), layers, layer_base, slab_bytes }
    }

    /// Tokens of the shortest ring of a bucket, by index: up to so many, a slab has overwritten none.
    pub fn shortest_ring(&self, bucket: usize) -> u32 {
        let rings = self.layers.iter().flat_map(|layer| &layer.buckets[bucket].kv_span);
        rings.copied().min().unwrap_or(0)
    }

    /// The smallest bucket that holds `max_len` tokens, by index.
    pub fn bucket_for(&self, max_len: u32) -> Option<usize> {
        self.lengths.iter().position(|&length| length >= max_len)
    }
}
