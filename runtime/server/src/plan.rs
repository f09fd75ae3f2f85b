//! What a plan keeps of a context, as `GET /v1/moac/plan` says it.

use moac_runtime::geometry::Geometry;
use moac_runtime::plan::DType;

use crate::api::{PlanContext, PlanReply};
use crate::server::Served;

/// The spans and the bytes of the plan at the context lengths that requests can have.
pub(crate) fn reply(served: &Served) -> PlanReply {
    let (plan, buckets) = (&served.plan, &served.engine.limits().buckets);
    let (layers, kv_heads) = (plan.model.num_layers, plan.model.num_kv_heads);
    let lengths: Vec<u32> = buckets.iter().map(|bucket| bucket.length).collect();
    // The rows are those of any element type.
    let geometry = Geometry::new(plan, 0..kv_heads, &lengths, DType::Bf16);
    let spans = |at: usize| -> Vec<Vec<u32>> {
        geometry.layers.iter().map(|layer| layer.buckets[at].kv_span.clone()).collect()
    };
    let contexts = buckets.iter().enumerate().map(|(at, bucket)| PlanContext {
        tokens: bucket.length,
        slab_bytes: bucket.slab_bytes,
        dense_bytes: served.dense_bytes * u64::from(bucket.length),
        kv_spans: spans(at),
    });
    PlanReply {
        object: "moac.plan",
        model: served.name.clone(),
        plan: plan.model.name.clone(),
        layers,
        kv_heads,
        row_bytes: served.dense_bytes / (u64::from(layers) * u64::from(kv_heads)).max(1),
        contexts: contexts.collect(),
    }
}
