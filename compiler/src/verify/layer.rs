//! The spans of a verified kernel's layer: its properties that no kernel decides.

use std::sync::Arc;

use moac_runtime::attention::HeadShape;
use moac_runtime::geometry::{BucketGeometry, LayerGeometry};
use moac_runtime::launch::{Family, RingLayout};
use moac_runtime::plan::{DType, Plan};
use moac_runtime::reference::Spans;

/// The properties of a layer that determine its kernels' results.
#[derive(Clone, Debug)]
pub struct Layer {
    /// The element type of q, k, v, o and the cache.
    pub dtype: DType,
    /// Elements of a head.
    pub head_dim: u32,
    /// The factor on q.k.
    pub scale: f64,
    /// Sink tokens.
    pub sink: u32,
    /// Spans and rings at every bucket.
    pub geometry: Arc<LayerGeometry>,
    /// How its rings lie.
    pub ring_layout: RingLayout,
}

impl Layer {
    /// The numbers of a plan's layer.
    pub fn new(plan: &Plan, dtype: DType, geometry: &LayerGeometry, family: Family) -> Self {
        Self {
            dtype,
            head_dim: plan.model.head_dim,
            scale: plan.model.scale(),
            sink: plan.sink,
            geometry: Arc::new(geometry.clone()),
            ring_layout: family.ring_layout(),
        }
    }

    /// Query heads.
    pub fn heads(&self) -> u32 {
        self.geometry.group_of_head.len() as u32
    }

    /// KV heads.
    pub fn kv_heads(&self) -> u32 {
        self.geometry.buckets[0].kv_span.len() as u32
    }

    /// Query heads per KV head.
    pub fn group_size(&self) -> u32 {
        self.heads() / self.kv_heads()
    }

    /// The KV head of a query head.
    pub fn kv_head(&self, head: u32) -> u32 {
        head / self.group_size()
    }

    /// A bucket, by index.
    pub fn bucket(&self, bucket: usize) -> &BucketGeometry {
        &self.geometry.buckets[bucket]
    }

    /// The window of a query head in a bucket: its span less the sink.
    pub fn window(&self, bucket: usize, head: u32) -> u32 {
        self.bucket(bucket).span[self.geometry.group_of_head[head as usize] as usize] - self.sink
    }

    /// Its heads.
    pub fn shape(&self) -> HeadShape {
        HeadShape { heads: self.heads(), kv_heads: self.kv_heads(), head_dim: self.head_dim }
    }

    /// Bytes of a row of one head.
    pub fn row_bytes(&self) -> u64 {
        u64::from(self.head_dim) * u64::from(self.dtype.bytes())
    }

    /// Bytes of the layer's rings in a bucket.
    pub fn ring_bytes(&self, bucket: usize) -> u64 {
        self.geometry.rows(bucket) * self.row_bytes()
    }

    /// The keys visible to a single query head with this window, at positions below `length`.
    pub(super) fn lone_head(&self, window: u32, length: u32) -> Spans {
        let span = self.sink + window;
        Spans {
            head_dim: self.head_dim as usize,
            scale: self.scale,
            sink: self.sink,
            length,
            span: vec![span],
            kv_span: vec![span],
        }
    }
}
