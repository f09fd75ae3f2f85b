//! The server's limits, computed without reading the weights.

use moac_model::engine::runner::Limits;
use moac_model::gpu::MemoryByKind;
use moac_runtime::plan::Plan;
use serde::Serialize;

/// The model and limits that would be served.
#[derive(Debug, Serialize)]
pub(super) struct Offer {
    /// The name of the model for clients.
    model: String,
    /// The model that the plan is for.
    plan: String,
    device: String,
    /// Answers that run at once, at most.
    lanes: u32,
    /// Bytes for caches.
    kv_bytes: u64,
    /// Bytes of the device's memory, if it is a GPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<MemoryByKind>,
    contexts: Vec<Room>,
}

/// The room for contexts of one length.
#[derive(Debug, Serialize)]
struct Room {
    tokens: u32,
    /// Bytes of a slab.
    slab_bytes: u64,
    /// Bytes that a cache of all tokens would take.
    dense_bytes: u64,
    /// Slabs that fit.
    slabs: u64,
    /// Answers that run at once.
    batch: u64,
}

impl Offer {
    /// `limits` are those that the runner would have, and `dense_bytes` those of a token in a cache of all tokens.
    pub(super) fn new(
        model: &str,
        plan: &Plan,
        device: String,
        dense_bytes: u64,
        limits: &Limits,
        memory: Option<MemoryByKind>,
    ) -> Self {
        let contexts = limits.buckets.iter().map(|bucket| {
            let dense_bytes = u64::from(bucket.length) * dense_bytes;
            let slabs = limits.slab_bytes / bucket.slab_bytes.max(1);
            let batch = slabs.min(limits.lanes.into());
            Room { tokens: bucket.length, slab_bytes: bucket.slab_bytes, dense_bytes, slabs, batch }
        });
        Self {
            model: model.to_owned(),
            plan: plan.model.name.clone(),
            device,
            lanes: limits.lanes,
            kv_bytes: limits.slab_bytes,
            memory,
            contexts: contexts.collect(),
        }
    }

    /// The lines for people.
    pub(super) fn text(&self) -> String {
        let mut lines = vec![
            format!("model       {}, under a plan for {}", self.model, self.plan),
            format!("device      {}", self.device),
        ];
        if let Some(MemoryByKind { weights, activations, workspaces, slabs: _ }) = self.memory {
            lines.push(format!("weights     {weights} bytes"));
            lines.push(format!("steps       {} bytes", activations + workspaces));
        }
        lines.push(format!("caches      {} bytes", self.kv_bytes));
        for Room { tokens, slab_bytes, dense_bytes, slabs, batch } in &self.contexts {
            let share = 100.0 * *slab_bytes as f64 / *dense_bytes as f64;
            lines.push(format!(
                "context     {tokens} tokens: {slab_bytes} bytes, {share:.1}% of dense; {slabs} fit, {batch} at once"
            ));
        }
        let largest = self.contexts.iter().map(|room| room.batch).max().unwrap_or(0);
        lines.push(format!("batch       {largest} answers at most, of {} lanes", self.lanes));
        lines.join("\n")
    }
}
