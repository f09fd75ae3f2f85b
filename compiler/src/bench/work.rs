//! The two numbers: what a phase needs, by the visibility rule alone.
//!
//! A query at position `i` of a head with a span of `s` tokens, its sink included, sees `min(i + 1, s)` keys. From that
//! follow the operations (a product with a key and one with a value for every visible pair) and the bytes (every key
//! and value that some query sees, once). Masked halves of tiles, padding and reading twice are not useful.

use std::iter::Sum;
use std::ops::{Add, Mul, Range};

use moac_runtime::geometry::LayerGeometry;
use moac_runtime::launch::Phase;
use serde::Serialize;

/// Useful bytes and operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Useful {
    /// Bytes of K and V.
    pub kv_bytes: u64,
    /// Floating-point operations.
    pub flops: u64,
}

impl Add for Useful {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { kv_bytes: self.kv_bytes + other.kv_bytes, flops: self.flops + other.flops }
    }
}

impl Sum for Useful {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), Add::add)
    }
}

impl Mul<u64> for Useful {
    type Output = Self;

    fn mul(self, times: u64) -> Self {
        Self { kv_bytes: self.kv_bytes * times, flops: self.flops * times }
    }
}

/// Pairs of a query at a position in `queries` and a key that it sees.
pub fn pairs(queries: &Range<u32>, span: u32) -> u64 {
    // Positions below the span see everything up to themselves; the others a whole span.
    let growing = |to: u32| {
        let to = u64::from(to.min(span));
        to * (to + 1) / 2
    };
    let full = |to: u32| u64::from(to.saturating_sub(span)) * u64::from(span);
    if queries.is_empty() {
        return 0;
    }
    growing(queries.end) + full(queries.end) - growing(queries.start) - full(queries.start)
}

/// Keys that some query at a position in `queries` sees.
pub fn keys(queries: &Range<u32>, span: u32) -> u64 {
    if queries.is_empty() {
        return 0;
    }
    // Between the sink and the first query's window lie the keys that no query sees any more.
    u64::from(queries.end - (queries.start + 1).saturating_sub(span))
}

/// The work of the queries of one head: `row_bytes` of a key, and `head_dim` elements of it.
pub fn head(queries: &Range<u32>, span: u32, head_dim: u32, row_bytes: u64) -> Useful {
    Useful {
        kv_bytes: 2 * row_bytes * keys(queries, span),
        flops: 4 * u64::from(head_dim) * pairs(queries, span),
    }
}

/// The work of a phase of one layer of one request at `context` tokens: keys and values once per KV head.
pub fn request(
    layer: &LayerGeometry,
    bucket: usize,
    phase: Phase,
    context: u32,
    (head_dim, row_bytes): (u32, u64),
) -> Useful {
    let queries = match phase {
        Phase::Prefill => 0..context,
        Phase::Decode => context.saturating_sub(1)..context,
    };
    let bucket = &layer.buckets[bucket];
    let of_span = |&span: &u32| head(&queries, span, head_dim, row_bytes);
    let flops = layer.group_of_head.iter().map(|&group| of_span(&bucket.span[group as usize]).flops).sum();
    let kv_bytes = bucket.kv_span.iter().map(|span| of_span(span).kv_bytes).sum();
    Useful { kv_bytes, flops }
}

#[cfg(test)]
mod tests {
    use moac_runtime::geometry::visible;
    use moac_runtime::plan::Plan;

    use super::*;

    #[test]
    fn pairs_and_keys_are_those_of_the_visibility_rule() {
        for (sink, window) in [(64, 64), (64, 128), (128, 192), (64, 448)] {
            for queries in
                [0..0, 0..1, 0..63, 0..512, 60..70, 127..128, 100..400, 191..193, 300..301, 511..512]
            {
                let sees = |i: u32, j: u32| visible(i, j, sink, window);
                let brute_pairs =
                    queries.clone().map(|i| (0..=i).filter(|&j| sees(i, j)).count() as u64).sum();
                let brute_keys = (0..512).filter(|&j| queries.clone().any(|i| sees(i, j))).count() as u64;
                let found = (pairs(&queries, sink + window), keys(&queries, sink + window));
                assert_eq!(found, (brute_pairs, brute_keys), "{queries:?} {sink} {window}");
            }
        }
    }

    /// Two heads that share a KV head and two that do not see equally far: bytes go with the farther one.
    #[test]
    fn a_layer_is_the_sum_of_its_heads_and_reads_once_per_kv_head() {
        let plan: Plan = serde_json::from_str(
            r#"{"format": "moac.plan/1", "alphas": [[128, 64, 0, 192]], "betas": [[0, 0.5, 0.25, 0]],
                "model": {"name": "tiny", "num_layers": 1, "num_heads": 4, "num_kv_heads": 2, "head_dim": 64}}"#,
        )
        .unwrap();
        let layer = LayerGeometry::new(&plan, 0, 0..2, &[256, 512]);
        let sees = |h: u32, i: u32, j: u32| {
            let span = layer.buckets[1].span[layer.group_of_head[h as usize] as usize];
            visible(i, j, 64, span - 64)
        };
        for (phase, context) in
            [(Phase::Prefill, 500), (Phase::Decode, 500), (Phase::Decode, 1), (Phase::Prefill, 90)]
        {
            let queries = if phase == Phase::Prefill { 0..context } else { context - 1..context };
            let mut brute = Useful::default();
            for h in 0..4 {
                for i in queries.clone() {
                    brute.flops += 4 * 64 * (0..=i).filter(|&j| sees(h, i, j)).count() as u64;
                }
            }
            for g in 0..2 {
                let any = |j: &u32| {
                    queries.clone().any(|i| *j <= i && (sees(2 * g, i, *j) || sees(2 * g + 1, i, *j)))
                };
                brute.kv_bytes += 2 * 128 * (0..context).filter(any).count() as u64;
            }
            assert_eq!(request(&layer, 1, phase, context, (64, 128)), brute, "{phase:?} {context}");
        }
    }
}
