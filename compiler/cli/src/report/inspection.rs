//! The data of `moac inspect`: printed by `--json`, and the source of its tables and pages.

use moac_runtime::geometry::{BucketGeometry, LayerGeometry, raw_span};
use moac_runtime::glue::EngineShape;
use moac_runtime::plan::ModelShape;
use serde::Serialize;

use super::view::View;

/// A plan or an artifact, in numbers.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// The model's shape, whole.
    pub model: ModelShape,
    /// Sink tokens.
    pub sink: u32,
    /// The smallest span, in tokens.
    pub min_span: u32,
    /// Element type of the cache.
    pub dtype: &'static str,
    /// KV heads that are compiled: first, and one past the last.
    pub kv_heads: [u32; 2],
    /// The architectures.
    pub archs: Vec<&'static str>,
    /// The digest of an artifact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// How the plan was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provenance: Option<serde_json::Value>,
    /// Ascending by length.
    pub buckets: Vec<BucketReport>,
    /// In order.
    pub layers: Vec<LayerReport>,
    /// Every kernel.
    pub kernels: Vec<KernelReport>,
    /// The shape that the engine's kernels are compiled for, where there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineShape>,
}

/// One context length.
#[derive(Clone, Debug, Serialize)]
pub struct BucketReport {
    /// Tokens.
    pub length: u32,
    /// Bytes of a request's slab: its K and V of all layers.
    pub kv_bytes_per_request: u64,
    /// The same over the length.
    pub kv_bytes_per_token: f64,
    /// Bytes of K and V of every token, which is what a dense cache of exactly `length` tokens takes.
    pub dense_kv_bytes_per_request: u64,
    /// The slab over that.
    pub slab_over_dense: f64,
    /// The slab over the dense bytes of one token more than the bucket before holds: the worst case of this bucket.
    pub slab_over_dense_just_above_previous: Option<f64>,
    /// Span over length, mean over query heads: the share of keys that a decoded token sees at the end.
    pub density: f64,
    /// The share of causal query-key pairs that a prefill of `length` tokens computes, mean over query heads.
    pub prefill_density: f64,
    /// Query heads, over all layers, whose rule gives less than `min_span`.
    pub raised_heads: u32,
}

/// One layer.
#[derive(Clone, Debug, Serialize)]
pub struct LayerReport {
    /// Its index.
    pub layer: u32,
    /// Heads that share a rule, in order of first appearance.
    pub groups: Vec<GroupReport>,
    /// KV span in tokens, `[bucket][KV head]`.
    pub kv_spans: Vec<Vec<u32>>,
    /// Span over length, mean over query heads, by bucket.
    pub density: Vec<f64>,
    /// KV span over length, mean over KV heads, by bucket: the share of a dense cache.
    pub kv_density: Vec<f64>,
    /// Byte offset of the layer's rings in a slab, by bucket.
    pub slab_offsets: Vec<u64>,
}

/// The heads of a layer that share a rule.
#[derive(Clone, Debug, Serialize)]
pub struct GroupReport {
    /// Tokens.
    pub alpha: f64,
    /// Tokens per token of context.
    pub beta: f64,
    /// Query heads in the model's numbering.
    pub heads: Vec<u32>,
    /// Span in tokens, by bucket.
    pub spans: Vec<u32>,
}

/// One kernel.
#[derive(Clone, Debug, Serialize)]
pub struct KernelReport {
    /// The function.
    pub symbol: String,
    /// The phase of attention, or the operation of the engine, that it computes.
    pub role: &'static str,
    /// The architecture that it is compiled for.
    pub arch: &'static str,
    /// The layers that use it.
    pub layers: Vec<u32>,
    /// Threads of a CTA.
    pub threads: u32,
    /// Bytes of shared memory of a CTA, static and dynamic.
    pub shared_bytes: u32,
    /// Registers of a thread; for artifacts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registers: Option<u32>,
    /// Bytes of spilled registers that a thread stores; for artifacts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spill_bytes: Option<u32>,
    /// Bytes of machine code; for artifacts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cubin_bytes: Option<u64>,
}

impl Inspection {
    /// Summarises a view.
    pub fn new(view: &View) -> Self {
        let View { plan, target, geometry, kernels, engine, digest } = view;
        let buckets = (0..geometry.lengths.len()).map(|bucket| bucket_report(view, bucket)).collect();
        let layers = (0u32..)
            .zip(geometry.layers.iter().zip(&geometry.layer_base))
            .map(|(layer, (of, base))| layer_report(view, layer, of, base))
            .collect();
        let kernels = kernels
            .iter()
            .map(|kernel| KernelReport {
                symbol: kernel.symbol.clone(),
                role: kernel.role.name(),
                arch: kernel.arch.name(),
                layers: kernel.layers.clone(),
                threads: kernel.launch.threads,
                shared_bytes: kernel.launch.shared_bytes
                    + kernel.resources.map_or(0, |resources| resources.static_shared_bytes),
                registers: kernel.resources.map(|resources| resources.registers),
                spill_bytes: kernel.resources.map(|resources| resources.spill_store_bytes),
                cubin_bytes: kernel.cubin_bytes,
            })
            .collect();
        Self {
            model: plan.model.clone(),
            sink: plan.sink,
            min_span: plan.min_span,
            dtype: target.dtype.name(),
            kv_heads: [target.kv_heads.start, target.kv_heads.end],
            archs: target.archs.iter().map(|arch| arch.name()).collect(),
            digest: digest.clone(),
            provenance: plan.provenance.clone(),
            buckets,
            layers,
            kernels,
            engine: engine.clone(),
        }
    }
}

fn bucket_report(view: &View, bucket: usize) -> BucketReport {
    let View { plan, target, geometry, .. } = view;
    let length = geometry.lengths[bucket];
    let slab = geometry.slab_bytes[bucket];
    let heads = u64::from(target.kv_heads.end - target.kv_heads.start);
    let token = 2 * u64::from(plan.model.num_layers * plan.model.head_dim * target.dtype.bytes()) * heads;
    let over = |tokens: u32| slab as f64 / (token * u64::from(tokens)) as f64;
    let spans = || geometry.layers.iter().flat_map(move |layer| head_spans(layer, &layer.buckets[bucket]));
    let raised = geometry
        .layers
        .iter()
        .flat_map(|layer| layer.group_of_head.iter().map(|&group| layer.rules[group as usize]));
    BucketReport {
        length,
        kv_bytes_per_request: slab,
        kv_bytes_per_token: slab as f64 / f64::from(length),
        dense_kv_bytes_per_request: token * u64::from(length),
        slab_over_dense: over(length),
        slab_over_dense_just_above_previous: bucket
            .checked_sub(1)
            .map(|previous| over(geometry.lengths[previous] + 1)),
        density: mean(spans().map(|span| share(span, length))),
        prefill_density: mean(
            spans().map(|span| visible_pairs(span, length) / visible_pairs(length, length)),
        ),
        raised_heads: raised.filter(|&rule| raw_span(rule, length) < f64::from(plan.min_span)).count() as u32,
    }
}

fn layer_report(view: &View, layer: u32, of: &LayerGeometry, base: &[u64]) -> LayerReport {
    let groups = (0u32..)
        .zip(&of.rules)
        .map(|(group, rule)| GroupReport {
            alpha: rule.alpha,
            beta: rule.beta,
            heads: (view.first_head()..)
                .zip(&of.group_of_head)
                .filter(|(_, of)| **of == group)
                .map(|(head, _)| head)
                .collect(),
            spans: of.buckets.iter().map(|bucket| bucket.span[group as usize]).collect(),
        })
        .collect();
    let by_bucket = |spans: fn(&LayerGeometry, &BucketGeometry) -> Vec<u32>| {
        let density = |bucket| mean(spans(of, bucket).into_iter().map(|span| share(span, bucket.length)));
        of.buckets.iter().map(density).collect()
    };
    LayerReport {
        layer,
        groups,
        kv_spans: of.buckets.iter().map(|bucket| bucket.kv_span.clone()).collect(),
        density: by_bucket(|of, bucket| head_spans(of, bucket).collect()),
        kv_density: by_bucket(|_, bucket| bucket.kv_span.clone()),
        slab_offsets: base.to_vec(),
    }
}

/// The span of each query head.
fn head_spans<'a>(layer: &'a LayerGeometry, bucket: &'a BucketGeometry) -> impl Iterator<Item = u32> + 'a {
    layer.group_of_head.iter().map(|&group| bucket.span[group as usize])
}

fn share(span: u32, length: u32) -> f64 {
    f64::from(span) / f64::from(length)
}

/// Query-key pairs that a head of `span` computes in a prefill of `length` tokens: the query at position `i` sees
/// `i + 1` keys until it sees `span` of them.
fn visible_pairs(span: u32, length: u32) -> f64 {
    let (span, length) = (f64::from(span), f64::from(length));
    span * (span + 1.0) / 2.0 + (length - span) * span
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0u32), |(sum, count), value| (sum + value, count + 1));
    sum / f64::from(count.max(1))
}

#[cfg(test)]
mod tests {
    use moac_runtime::geometry::visible;

    use super::visible_pairs;

    #[test]
    fn pairs_are_those_that_the_visibility_rule_counts() {
        for (span, length, sink) in [(128, 128, 64), (128, 320, 64), (192, 1024, 128), (1024, 1024, 64)] {
            let counted = (0..length)
                .flat_map(|i| (0..length).map(move |j| (i, j)))
                .filter(|&(i, j)| visible(i, j, sink, span - sink))
                .count();
            assert!((visible_pairs(span, length) - counted as f64).abs() < 0.5, "{span} {length}");
        }
    }
}
