//! What is verified: one compiled kernel, and what it is meant to compute.

use std::sync::Arc;

use moac_runtime::arch::Arch;
use moac_runtime::artifact::{self, Artifact, Resources};
use moac_runtime::attention::{HeadShape, KernelFacts};
use moac_runtime::geometry::{BucketGeometry, LayerGeometry};
use moac_runtime::launch::{Family, Grid, Phase, RingLayout};
use moac_runtime::plan::{DType, Plan};
use moac_runtime::reference::Spans;

use super::case::Case;
pub use crate::lower::family::Tile;
use crate::lower::{self, Lowered, family};
use crate::nvrtc::Compiled;

/// One kernel and the layer it was compiled for; of several layers that share it, any.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The function's name.
    pub symbol: String,
    /// What its cubin was made for.
    pub arch: Arch,
    /// What it computes, its family, and how it is launched.
    pub facts: KernelFacts,
    /// What it takes of a multiprocessor.
    pub resources: Resources,
    /// The layers that use it.
    pub layers: Vec<u32>,
    /// What those layers see: the same, all of them.
    pub layer: Layer,
    /// The PTX that the emulator runs.
    pub ptx: String,
    /// The machine code that a GPU runs; empty where only the emulator is asked.
    pub cubin: Vec<u8>,
}

/// The numbers of a layer that its kernels' answers hang on.
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

    /// What a lone query head with this window sees, at positions below `length`.
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

impl Candidate {
    /// The kernels of an artifact that `wanted` names, each once, in the manifest's order.
    ///
    /// # Errors
    /// PTX that is no text.
    pub fn of_artifact(
        opened: &Artifact,
        wanted: impl Fn(Arch) -> bool,
    ) -> Result<Vec<Self>, std::str::Utf8Error> {
        let manifest = opened.manifest();
        let mut candidates = Vec::new();
        for (index, kernel) in manifest.kernels.iter().enumerate() {
            let uses = |layer: &artifact::Layer| {
                layer.kernels.get(&kernel.arch).is_some_and(|ids| ids.of(kernel.phase) == index)
            };
            let layers = (0..).zip(&manifest.layers).filter(|(_, layer)| uses(layer));
            let layers: Vec<u32> = layers.map(|(index, _)| index).collect();
            let Some(&first) = layers.first() else { continue };
            if !wanted(kernel.arch) {
                continue;
            }
            candidates.push(Self {
                symbol: kernel.symbol.clone(),
                arch: kernel.arch,
                facts: kernel.facts(),
                resources: kernel.resources,
                layer: Layer::new(
                    &manifest.plan,
                    manifest.dtype,
                    &manifest.geometry.layers[first as usize],
                    kernel.family,
                ),
                layers,
                ptx: opened.ptx(kernel)?.to_owned(),
                cubin: opened.cubin(kernel).to_vec(),
            });
        }
        Ok(candidates)
    }

    /// Kernel number `kernel` of a lowered plan, compiled somehow: with headers of the caller's, if need be.
    ///
    /// # Panics
    /// If there is no such kernel.
    pub fn of_lowered(plan: &Plan, lowered: &Lowered, kernel: usize, compiled: Compiled) -> Self {
        let lower::Kernel { arch, spec, symbol } = &lowered.kernels[kernel];
        let layers = lowered.layers_of(*spec);
        let spec = &lowered.specs[*spec];
        Self {
            symbol: symbol.clone(),
            arch: *arch,
            facts: KernelFacts { phase: spec.phase, family: spec.family, rule: spec.launch },
            resources: compiled.resources,
            layer: Layer::new(plan, spec.dtype, &lowered.geometry.layers[layers[0] as usize], spec.family),
            layers,
            ptx: compiled.ptx,
            cubin: compiled.cubin,
        }
    }

    /// Query rows of a prefill CTA.
    pub fn tile_m(&self) -> u32 {
        self.facts.rule.tile_rows()
    }

    /// The CTA of a prefill grid that attends a tile of query rows, where each CTA has at most one.
    pub fn prefill_cta(&self, case: &Case, grid: [u32; 3], tile: Tile) -> (u32, u32, u32) {
        let rows = self.tile_m();
        if let Grid::Items { .. } = self.facts.rule.grid {
            let chunks: Vec<[u32; 2]> = case.requests.iter().map(|it| [it.cached, it.chunk]).collect();
            return (family::sm90::item(&chunks, self.layer.shape(), rows, tile), 0, 0);
        }
        let order = lower::head_order(&self.layer.geometry);
        let rank = order.iter().position(|&head| head == tile.head).unwrap_or_default();
        family::sm80::prefill_cta(grid, tile.request, rank as u32, tile.index)
    }

    /// Whether no CTA of a prefill grid attends more than one tile of query rows.
    pub fn one_tile_a_cta(&self, grid: [u32; 3], case: &Case) -> bool {
        match self.facts.rule.grid {
            Grid::Items { .. } => grid[0] >= self.items(case),
            _ => true,
        }
    }

    /// The prefill grid in which no CTA attends more than one tile of query rows, where `usual` is the launch's.
    pub fn grid_of_tiles(&self, case: &Case, usual: [u32; 3]) -> [u32; 3] {
        match self.facts.rule.grid {
            Grid::Items { .. } => [self.items(case).max(1), 1, 1],
            _ => usual,
        }
    }

    /// Tiles of query rows of a case, over all heads and requests.
    fn items(&self, case: &Case) -> u32 {
        let tiles = case.requests.iter().map(|request| request.chunk.div_ceil(self.tile_m()));
        tiles.sum::<u32>() * self.layer.heads()
    }

    /// Prefill or decode.
    pub fn phase(&self) -> Phase {
        self.facts.phase
    }
}
