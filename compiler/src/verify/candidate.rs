//! The subject of a verification: one compiled kernel, and the layer that it computes.

use moac_runtime::arch::Arch;
use moac_runtime::artifact::{self, Artifact, Resources};
use moac_runtime::attention::KernelFacts;
use moac_runtime::launch::{Grid, Phase};
use moac_runtime::plan::Plan;

use super::case::Case;
use super::layer::Layer;
use crate::lower::family::Tile;
use crate::lower::{self, Lowered, family};
use crate::nvrtc::Compiled;

/// One kernel and the layer it was compiled for; of several layers that share it, any.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The function's name.
    pub symbol: String,
    /// The architecture of its cubin.
    pub arch: Arch,
    /// Its phase, its family, and its launch.
    pub facts: KernelFacts,
    /// Its resources on a multiprocessor.
    pub resources: Resources,
    /// The layers that use it.
    pub layers: Vec<u32>,
    /// The spans of those layers, which are all the same.
    pub layer: Layer,
    /// The PTX that the emulator runs.
    pub ptx: String,
    /// The machine code that a GPU runs; empty where only the emulator is asked.
    pub cubin: Vec<u8>,
}

impl Candidate {
    /// The kernels of attention of an artifact that `wanted` names, each once, in the manifest's order.
    ///
    /// # Errors
    /// PTX that is not UTF-8 text.
    pub fn of_artifact(
        opened: &Artifact,
        wanted: impl Fn(Arch) -> bool,
    ) -> Result<Vec<Self>, std::str::Utf8Error> {
        let manifest = opened.manifest();
        let mut candidates = Vec::new();
        for (index, kernel) in manifest.kernels.iter().enumerate() {
            let Some(facts) = kernel.facts() else { continue };
            let uses = |layer: &artifact::Layer| {
                layer.kernels.get(&kernel.arch).is_some_and(|ids| ids.of(facts.phase) == index)
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
                facts,
                resources: kernel.resources,
                layer: Layer::new(
                    &manifest.plan,
                    manifest.dtype,
                    &manifest.geometry.layers[first as usize],
                    facts.family,
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
    /// If the kernel does not exist.
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
