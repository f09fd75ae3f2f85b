//! The spec of one kernel: every literal of its file.

use std::cmp::Reverse;

use moac_runtime::arch::Arch;
use moac_runtime::geometry::LayerGeometry;
use moac_runtime::launch::{Grid, LaunchRule, Phase};
use moac_runtime::plan::{DType, Plan};
use serde::{Serialize, Serializer};

use super::family::{self, Family, KernelShape, TileConfig};

/// One bucket's row of the tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BucketSpec {
    /// Context length in tokens.
    pub length: u32,
    /// Span in tokens of each head group, sink included.
    pub span: Vec<u32>,
    /// KV span in tokens of each KV head.
    pub kv_span: Vec<u32>,
    /// Tiles of the KV heads before each one, and in all.
    pub tile_prefix: Vec<u32>,
}

/// One kernel. Equal specs are one kernel, and [`crate::names`] digests every field.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KernelSpec {
    /// Prefill or decode.
    pub phase: Phase,
    /// Element type of q, k, v, o and the cache.
    pub dtype: DType,
    /// The headers that hold the algorithm.
    pub family: Family,
    /// Query heads.
    pub heads: u32,
    /// KV heads.
    pub kv_heads: u32,
    /// Elements of a head.
    pub head_dim: u32,
    /// Sink tokens.
    pub sink: u32,
    /// The factor on q.k times log2(e): kernels exponentiate in base 2.
    pub scale_log2: f32,
    /// The head group of each query head.
    pub group_of_head: Vec<u32>,
    /// Query heads by descending span at the largest bucket, ties by index: the longest start first.
    pub head_order: Vec<u32>,
    /// One row per bucket, ascending.
    pub buckets: Vec<BucketSpec>,
    /// Tile sizes.
    pub tiles: TileConfig,
    /// Threads, shared memory and grid.
    #[serde(serialize_with = "flat")]
    pub launch: LaunchRule,
}

/// A launch rule as symbols digest it: the flat form of the first kernels, whose names and proofs stay what they are.
fn flat<S: Serializer>(rule: &LaunchRule, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Flat {
        threads: u32,
        shared_bytes: u32,
        tile_m: u32,
        ctas_per_sm: u32,
    }
    let LaunchRule { threads, shared_bytes, grid } = *rule;
    let (tile_m, ctas_per_sm) = match grid {
        Grid::Tiles { rows } => (rows, 0),
        Grid::Items { rows } => (rows, 1),
        Grid::Split { per_sm } => (0, per_sm),
        Grid::Rows { .. } | Grid::Wave { .. } => (0, 0), // never attention's
    };
    Flat { threads, shared_bytes, tile_m, ctas_per_sm }.serialize(serializer)
}

impl KernelSpec {
    /// The spec of a layer's kernel. `layer` is of `plan`, over any range of its KV heads.
    pub fn new(plan: &Plan, layer: &LayerGeometry, phase: Phase, dtype: DType, arch: Arch) -> Self {
        let model = &plan.model;
        let group_size = model.group_size();
        let shape = KernelShape { phase, dtype, head_dim: model.head_dim, group_size };
        let family = family::of(arch);
        let (tiles, launch) = family::configure(family, shape, arch);
        let buckets: Vec<BucketSpec> = layer
            .buckets
            .iter()
            .map(|bucket| BucketSpec {
                length: bucket.length,
                span: bucket.span.clone(),
                kv_span: bucket.kv_span.clone(),
                tile_prefix: bucket.tile_prefix.clone(),
            })
            .collect();
        let heads = layer.group_of_head.len() as u32;
        Self {
            phase,
            dtype,
            family,
            heads,
            kv_heads: heads / group_size,
            head_dim: model.head_dim,
            sink: plan.sink,
            scale_log2: (model.scale() * std::f64::consts::LOG2_E) as f32,
            head_order: head_order(layer),
            group_of_head: layer.group_of_head.clone(),
            buckets,
            tiles,
            launch,
        }
    }

    /// Query heads per KV head.
    pub fn group_size(&self) -> u32 {
        self.heads / self.kv_heads
    }
}

/// Query heads by descending span at the largest bucket, ties by index: the order in which a prefill grid takes them.
pub fn head_order(layer: &LayerGeometry) -> Vec<u32> {
    let mut order: Vec<u32> = (0..layer.group_of_head.len() as u32).collect();
    if let Some(largest) = layer.buckets.last() {
        order.sort_by_key(|&head| Reverse(largest.span[layer.group_of_head[head as usize] as usize]));
    }
    order
}
