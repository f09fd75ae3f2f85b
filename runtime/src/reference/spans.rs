//! The visible keys of every head of one layer in one bucket: the numbers that determine the semantics of attention.

use std::ops::Range;

use crate::geometry::{self, LayerGeometry};
use crate::plan::Plan;

/// One layer at one bucket, ready to compute with. Lengths are in tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Spans {
    /// Elements of a head.
    pub head_dim: usize,
    /// The factor on q.k.
    pub scale: f64,
    /// The first tokens, which every later one sees.
    pub sink: u32,
    /// The bucket's context length: positions are below it.
    pub length: u32,
    /// The span of each query head, sink included: more than `sink`.
    pub span: Vec<u32>,
    /// The span of each KV head, the largest of its query heads; their count divides the query heads'.
    pub kv_span: Vec<u32>,
}

impl Spans {
    /// The spans of `layer` in its bucket number `bucket`.
    ///
    /// # Panics
    /// If `layer` lacks the bucket.
    pub fn new(plan: &Plan, layer: &LayerGeometry, bucket: usize) -> Self {
        let at = &layer.buckets[bucket];
        Self {
            head_dim: plan.model.head_dim as usize,
            scale: plan.model.scale(),
            sink: plan.sink,
            length: at.length,
            span: layer.group_of_head.iter().map(|&group| at.span[group as usize]).collect(),
            kv_span: at.kv_span.clone(),
        }
    }

    /// Query heads.
    pub fn heads(&self) -> usize {
        self.span.len()
    }

    /// KV heads.
    pub fn kv_heads(&self) -> usize {
        self.kv_span.len()
    }

    /// `[query heads, KV heads, head_dim]`
    pub fn shape(&self) -> [usize; 3] {
        [self.heads(), self.kv_heads(), self.head_dim]
    }

    /// Query heads per KV head.
    pub fn group_size(&self) -> usize {
        self.heads() / self.kv_heads()
    }

    /// The KV head that query head `head` reads.
    pub fn kv_head(&self, head: usize) -> usize {
        head / self.group_size()
    }

    /// The window of query head `head`: its span less the sink.
    pub fn window(&self, head: usize) -> u32 {
        self.span[head] - self.sink
    }

    /// Whether the query of `head` at position `i` sees the key at position `j`.
    pub fn visible(&self, head: usize, i: u32, j: u32) -> bool {
        geometry::visible(i, j, self.sink, self.window(head))
    }

    /// The two ranges of positions that hold every key that some query in `queries` sees through a window of
    /// `window` tokens: of the sink, and behind it.
    pub fn key_ranges(&self, queries: Range<u32>, window: u32) -> [Range<u32>; 2] {
        let oldest = (queries.start + 1).saturating_sub(window).max(self.sink);
        [0..self.sink.min(queries.end), oldest..queries.end.max(oldest)]
    }
}
