//! The methods compared: dense attention, plans, and for each plan uniform spans of the same KV bytes.

use moac_model::dense_plan;
use moac_runtime::digest::Digest;
use moac_runtime::geometry::{LayerGeometry, span};
use moac_runtime::plan::{DEFAULT_MIN_SPAN, DEFAULT_SINK, ModelShape, Plan, TILE};

/// A plan and what tables call it.
#[derive(Clone, Debug)]
pub struct NamedPlan {
    /// Its name in tables.
    pub name: String,
    /// The plan.
    pub plan: Plan,
}

/// The source of the spans. Plans are given by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// Every head sees everything.
    Dense,
    /// A plan.
    Plan(usize),
    /// One span for every head, of the KV bytes of a plan.
    Uniform(usize),
}

impl Method {
    /// Dense, then each plan followed by its partner.
    pub fn of_plans(plans: &[usize]) -> Vec<Self> {
        let pairs = plans.iter().flat_map(|&plan| [Self::Plan(plan), Self::Uniform(plan)]);
        std::iter::once(Self::Dense).chain(pairs).collect()
    }

    /// Its name in tables.
    pub fn name(self, plans: &[NamedPlan]) -> String {
        match self {
            Self::Dense => "dense".to_owned(),
            Self::Plan(at) => plans[at].name.clone(),
            Self::Uniform(at) => format!("uniform as {}", plans[at].name),
        }
    }

    /// The plan that it is at `length`.
    pub fn plan(self, model: &ModelShape, plans: &[NamedPlan], length: u32) -> Plan {
        match self {
            Self::Dense => dense_plan(model),
            Self::Plan(at) => plans[at].plan.clone(),
            Self::Uniform(at) => uniform(&plans[at].plan, length),
        }
    }
}

/// The plan with the same span on every head whose KV bytes at `length` are those of `plan`: the mean KV span, rounded
/// up to whole tiles, behind the default sink.
pub fn uniform(plan: &Plan, length: u32) -> Plan {
    let kv = Spans::new(plan, length).kv;
    let heads = kv.iter().map(Vec::len).sum::<usize>() as u64;
    let tokens: u64 = kv.iter().flatten().map(|&span| u64::from(span)).sum();
    let tiles = tokens.div_ceil(heads * u64::from(TILE)) as u32;
    let span = (tiles * TILE).max(DEFAULT_MIN_SPAN);
    let row = |value: f64| vec![vec![value; plan.model.num_heads as usize]; plan.model.num_layers as usize];
    Plan {
        sink: DEFAULT_SINK,
        min_span: DEFAULT_MIN_SPAN,
        alphas: row(f64::from(span)),
        betas: row(0.0),
        provenance: None,
        ..plan.clone()
    }
}

/// The spans of a plan at one length, in tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spans {
    /// The context length.
    pub length: u32,
    /// Sink tokens.
    pub sink: u32,
    /// Of each query head, `[layers][heads]`.
    pub heads: Vec<Vec<u32>>,
    /// Of each KV head, `[layers][kv heads]`.
    pub kv: Vec<Vec<u32>>,
}

impl Spans {
    /// The spans of `plan` in the bucket `length`.
    pub fn new(plan: &Plan, length: u32) -> Self {
        let layers = 0..plan.model.num_layers;
        let heads = |layer| {
            (0..plan.model.num_heads)
                .map(|head| span(plan.rule(layer, head), length, plan.min_span))
                .collect()
        };
        let kv = |layer| {
            let geometry = LayerGeometry::new(plan, layer, 0..plan.model.num_kv_heads, &[length]);
            geometry.buckets.into_iter().flat_map(|bucket| bucket.kv_span).collect()
        };
        Self {
            length,
            sink: plan.sink,
            heads: layers.clone().map(heads).collect(),
            kv: layers.map(kv).collect(),
        }
    }

    /// Tokens that each KV head of a layer holds.
    pub fn kv_spans(&self, layer: usize) -> &[u32] {
        &self.kv[layer]
    }

    /// Tokens that a KV head holds, on average.
    pub fn mean_kv(&self) -> f64 {
        let spans: Vec<f64> = self.kv.iter().flatten().copied().map(f64::from).collect();
        spans.iter().sum::<f64>() / spans.len() as f64
    }

    /// KV bytes over those of a dense cache.
    pub fn density(&self) -> f64 {
        self.mean_kv() / f64::from(self.length)
    }

    /// Pairs of a query and a key that are multiplied in a prefill of the whole length, over all query heads.
    pub fn pairs(&self) -> f64 {
        let n = f64::from(self.length);
        let of = |&span: &u32| {
            let s = f64::from(span);
            s * (s + 1.0) / 2.0 + (n - s) * s
        };
        self.heads.iter().flatten().map(of).sum()
    }

    /// A digest of the visibility alone: plans whose queries see the same keys have the same digest.
    pub fn digest(&self) -> Digest {
        // A head that sees everything needs no sink.
        let dense = self.heads.iter().flatten().all(|&span| span >= self.length);
        let sink = if dense { 0 } else { self.sink };
        let layer = |spans: &Vec<u32>| spans.iter().flat_map(|span| span.to_le_bytes()).collect::<Vec<u8>>();
        let layers: Vec<Vec<u8>> = self.heads.iter().map(layer).collect();
        let head = [self.length.to_le_bytes(), sink.to_le_bytes()].concat();
        Digest::of_fields(std::iter::once(head.as_slice()).chain(layers.iter().map(Vec::as_slice)))
    }
}
