//! The differences between two plans or artifacts.

use std::collections::BTreeMap;
use std::fmt::Display;

use moac_runtime::geometry::LayerGeometry;
use moac_runtime::glue::EngineShape;
use moac_runtime::plan::Rule;
use serde::Serialize;

use super::view::{KernelView, View};

/// Everything that differs. Empty lists where nothing does.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Diff {
    /// Shape, sink, buckets and the like.
    pub fields: Vec<FieldChange>,
    /// Buckets that both have, where a span differs.
    pub buckets: Vec<BucketChange>,
    /// Heads whose rule or span differs. Only between equal shapes.
    pub spans: Vec<SpanChange>,
    /// Kernels that only one has, or that differ under one symbol.
    pub kernels: Vec<KernelChange>,
}

/// A field with two values.
#[derive(Clone, Debug, Serialize)]
pub struct FieldChange {
    /// Its name.
    pub field: String,
    /// In A.
    pub a: String,
    /// In B.
    pub b: String,
}

/// A bucket with two sets of spans. Arrays are `[in A, in B]`.
#[derive(Clone, Debug, Serialize)]
pub struct BucketChange {
    /// Tokens.
    pub length: u32,
    /// Query heads, over all layers, whose span differs.
    pub heads: u32,
    /// Mean span of all query heads, in tokens.
    pub mean_span: [f64; 2],
    /// Bytes of a slab.
    pub kv_bytes_per_request: [u64; 2],
}

/// Heads of a layer that went from one rule to another. Arrays are `[in A, in B]`.
#[derive(Clone, Debug, Serialize)]
pub struct SpanChange {
    /// The layer.
    pub layer: u32,
    /// Query heads in the model's numbering.
    pub heads: Vec<u32>,
    /// Their rule.
    pub rules: [Rule; 2],
    /// Buckets that both have, in tokens.
    pub lengths: Vec<u32>,
    /// Their span at each of those, in tokens.
    pub spans: [Vec<u32>; 2],
}

/// A kernel that is not the same in both.
#[derive(Clone, Debug, Serialize)]
pub struct KernelChange {
    /// The function.
    pub symbol: String,
    /// The architecture that it is compiled for.
    pub arch: &'static str,
    /// The kind of difference.
    pub difference: String,
}

impl Diff {
    /// Compares two views.
    pub fn new(a: &View, b: &View) -> Self {
        let shared: Vec<(usize, usize)> = shared_buckets(a, b);
        let comparable = a.plan.model.num_layers == b.plan.model.num_layers
            && a.plan.model.num_heads == b.plan.model.num_heads
            && a.plan.model.num_kv_heads == b.plan.model.num_kv_heads
            && a.target.kv_heads == b.target.kv_heads;
        let (buckets, spans) = if comparable {
            let buckets = shared.iter().filter_map(|&at| bucket_change(a, b, at)).collect();
            (buckets, span_changes(a, b, &shared))
        } else {
            (Vec::new(), Vec::new())
        };
        Self { fields: field_changes(a, b), buckets, spans, kernels: kernel_changes(a, b) }
    }

    /// Whether nothing differs.
    pub fn same(&self) -> bool {
        let Self { fields, buckets, spans, kernels } = self;
        fields.is_empty() && buckets.is_empty() && spans.is_empty() && kernels.is_empty()
    }
}

/// Buckets of equal length, as indexes into both.
fn shared_buckets(a: &View, b: &View) -> Vec<(usize, usize)> {
    let lengths = a.geometry.lengths.iter().enumerate();
    lengths
        .filter_map(|(in_a, length)| Some((in_a, b.geometry.lengths.binary_search(length).ok()?)))
        .collect()
}

/// A field's name and how it is shown.
type Field = (&'static str, fn(&View) -> String);

fn field_changes(a: &View, b: &View) -> Vec<FieldChange> {
    let fields: [Field; 15] = [
        ("model", |view| view.plan.model.name.clone()),
        ("layers", |view| view.plan.model.num_layers.to_string()),
        ("heads", |view| view.plan.model.num_heads.to_string()),
        ("KV heads", |view| view.plan.model.num_kv_heads.to_string()),
        ("head_dim", |view| view.plan.model.head_dim.to_string()),
        ("rope_theta", |view| optional(view.plan.model.rope_theta)),
        ("context", |view| optional(view.plan.model.context)),
        ("softmax scale", |view| view.plan.model.scale().to_string()),
        ("sink", |view| view.plan.sink.to_string()),
        ("min_span", |view| view.plan.min_span.to_string()),
        ("dtype", |view| view.target.dtype.to_string()),
        ("KV heads compiled", |view| format!("{:?}", view.target.kv_heads)),
        ("architectures", |view| list(&view.target.archs)),
        ("buckets", |view| list(&view.target.lengths)),
        ("engine", |view| view.engine.as_ref().map_or_else(|| "-".to_owned(), engine)),
    ];
    let change = |(field, of): Field| {
        let (a, b) = (of(a), of(b));
        (a != b).then(|| FieldChange { field: field.to_owned(), a, b })
    };
    fields.into_iter().filter_map(change).collect()
}

/// The numbers that an engine's kernels are compiled for, in short; the frequencies by their slowest.
fn engine(shape: &EngineShape) -> String {
    let EngineShape { hidden, intermediate, vocab, norm_eps, frequencies, qkv_bias, qk_norm } = shape;
    let slowest = optional(frequencies.last());
    format!(
        "hidden {hidden}, intermediate {intermediate}, vocab {vocab}, epsilon {norm_eps}, slowest pair {slowest}, \
         bias {qkv_bias}, norms of q and k {qk_norm}"
    )
}

fn optional(value: Option<impl Display>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn list(values: &[impl Display]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn bucket_change(a: &View, b: &View, (in_a, in_b): (usize, usize)) -> Option<BucketChange> {
    let (spans_a, spans_b) = (spans(a, in_a), spans(b, in_b));
    let heads = spans_a.iter().zip(&spans_b).filter(|(a, b)| a != b).count() as u32;
    let mean = |spans: &[u32]| spans.iter().copied().map(f64::from).sum::<f64>() / spans.len().max(1) as f64;
    let slabs = [a.geometry.slab_bytes[in_a], b.geometry.slab_bytes[in_b]];
    (heads > 0 || slabs[0] != slabs[1]).then(|| BucketChange {
        length: a.geometry.lengths[in_a],
        heads,
        mean_span: [mean(&spans_a), mean(&spans_b)],
        kv_bytes_per_request: slabs,
    })
}

/// The span of every query head of every layer.
fn spans(view: &View, bucket: usize) -> Vec<u32> {
    let heads = |layer: &LayerGeometry| {
        layer
            .group_of_head
            .iter()
            .map(|&group| layer.buckets[bucket].span[group as usize])
            .collect::<Vec<_>>()
    };
    view.geometry.layers.iter().flat_map(heads).collect()
}

fn span_changes(a: &View, b: &View, shared: &[(usize, usize)]) -> Vec<SpanChange> {
    let lengths: Vec<u32> = shared.iter().map(|&(in_a, _)| a.geometry.lengths[in_a]).collect();
    let mut changes = Vec::new();
    for (layer, (in_a, in_b)) in (0u32..).zip(a.geometry.layers.iter().zip(&b.geometry.layers)) {
        // Heads that share their groups on both sides change alike.
        let mut pairs: BTreeMap<(u32, u32), Vec<u32>> = BTreeMap::new();
        for (head, pair) in (a.first_head()..).zip(in_a.group_of_head.iter().zip(&in_b.group_of_head)) {
            pairs.entry((*pair.0, *pair.1)).or_default().push(head);
        }
        for ((group_a, group_b), heads) in pairs {
            let rules = [in_a.rules[group_a as usize], in_b.rules[group_b as usize]];
            let spans = [
                shared.iter().map(|&(at, _)| in_a.buckets[at].span[group_a as usize]).collect::<Vec<_>>(),
                shared.iter().map(|&(_, at)| in_b.buckets[at].span[group_b as usize]).collect::<Vec<_>>(),
            ];
            if rules[0] != rules[1] || spans[0] != spans[1] {
                changes.push(SpanChange { layer, heads, rules, lengths: lengths.clone(), spans });
            }
        }
    }
    changes
}

fn kernel_changes(a: &View, b: &View) -> Vec<KernelChange> {
    let index = |view: &'_ View| -> BTreeMap<_, KernelView> {
        view.kernels.iter().map(|kernel| ((kernel.arch, kernel.symbol.clone()), kernel.clone())).collect()
    };
    let (of_a, of_b) = (index(a), index(b));
    let mut changes = Vec::new();
    for (key, kernel) in &of_a {
        let difference =
            of_b.get(key).map_or_else(|| "only in A".to_owned(), |other| kernel_difference(kernel, other));
        if !difference.is_empty() {
            changes.push((key, difference));
        }
    }
    changes
        .extend(of_b.keys().filter(|key| !of_a.contains_key(key)).map(|key| (key, "only in B".to_owned())));
    changes
        .into_iter()
        .map(|((arch, symbol), difference)| KernelChange {
            symbol: symbol.clone(),
            arch: arch.name(),
            difference,
        })
        .collect()
}

/// The differences between kernels of one symbol: usually none, except between versions of moac or NVRTC.
fn kernel_difference(a: &KernelView, b: &KernelView) -> String {
    let mut parts = Vec::new();
    if a.source != b.source {
        parts.push("source".to_owned());
    }
    let mut number = |what: &str, a: u64, b: u64| {
        if a != b {
            parts.push(format!("{what} {a} and {b}"));
        }
    };
    number("threads", a.launch.threads.into(), b.launch.threads.into());
    number("shared memory", a.launch.shared_bytes.into(), b.launch.shared_bytes.into());
    if let (Some(a), Some(b)) = (a.resources, b.resources) {
        number("registers", a.registers.into(), b.registers.into());
        number("spilled bytes", a.spill_store_bytes.into(), b.spill_store_bytes.into());
        number("static shared memory", a.static_shared_bytes.into(), b.static_shared_bytes.into());
    }
    if let (Some(a), Some(b)) = (a.cubin_bytes, b.cubin_bytes) {
        number("cubin bytes", a, b);
    }
    parts.join(", ")
}
