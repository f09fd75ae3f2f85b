//! Plan to [`KernelSpec`]: every decision about a kernel is made here, in Rust, and printed by [`crate::render`].
//!
//! What must hold: a spec is plain data, it names every literal of its kernel file and nothing else, and equal specs
//! are one kernel. All span and ring arithmetic is [`moac_runtime::geometry`]'s.

mod dump;
pub mod family;
pub(crate) mod glue;
mod lengths;
pub(crate) mod spec;

use std::ops::Range;

use moac_runtime::arch::Arch;
use moac_runtime::artifact::LayerKernels;
use moac_runtime::geometry::Geometry;
use moac_runtime::launch::Phase;
use moac_runtime::plan::{DType, Plan};
use thiserror::Error;

pub use self::family::{Family, TileConfig};
pub use self::glue::{GlueSpec, Literal, LoweredEngine};
pub use self::lengths::{Lengths, buckets};
pub use self::spec::{BucketSpec, KernelSpec, head_order};
use crate::hint::Hint;
use crate::names;

/// Errors of lowering a valid plan.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A bucket of no tokens.
    #[error("--lengths: 0 is out of range, expected at least 1")]
    ZeroLength,
    /// A bucket longer than the model's context.
    #[error("--lengths: {length} is beyond the model's context of {context} tokens")]
    BeyondContext {
        /// The length asked for.
        length: u32,
        /// The model's context.
        context: u32,
    },
    /// A bucket longer than kernels can address.
    #[error("--lengths: {length} is beyond the longest bucket, {max} tokens")]
    TooLong {
        /// The length asked for.
        length: u32,
        /// [`moac_runtime::plan::MAX_LENGTH`].
        max: u32,
    },
    /// More buckets than the parameter block has room for.
    #[error("--lengths: {found} buckets, expected at most {max}")]
    TooManyBuckets {
        /// How many distinct buckets were asked for.
        found: usize,
        /// [`moac_runtime::abi::MAX_BUCKETS`].
        max: usize,
    },
    /// A range of KV heads that is empty, reversed or beyond the model's.
    #[error(
        "--heads: {start}..{end} is out of range, expected a range within the model's {kv_heads} KV heads"
    )]
    KvHeads {
        /// First KV head asked for.
        start: u32,
        /// One past the last.
        end: u32,
        /// How many there are.
        kv_heads: u32,
    },
    /// A model whose engine's kernels cannot be compiled.
    #[error("no kernels of the engine for this model: {reason}")]
    Engine {
        /// The invalid number, and the value expected.
        reason: String,
    },
    /// No architecture to compile for.
    #[error("no architecture is given to compile for")]
    NoArch,
}

impl Hint for Error {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::BeyondContext { context, .. } => {
                vec![format!("lengths up to {context} can be compiled for this model")]
            }
            Self::TooManyBuckets { .. } => {
                vec!["a request uses the smallest bucket that holds it: fewer, coarser ones do".to_owned()]
            }
            Self::KvHeads { kv_heads, .. } => {
                vec![format!("give KV heads, not query heads, as in --heads 0..{kv_heads}")]
            }
            Self::NoArch => vec!["name one, as in --arch sm_90a".to_owned()],
            Self::ZeroLength | Self::TooLong { .. } | Self::Engine { .. } => Vec::new(),
        }
    }
}

/// The target of a compilation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The KV heads, of every layer: a rank's share under tensor parallelism, or all of them.
    pub kv_heads: Range<u32>,
    /// The buckets, as [`buckets`] returns them: ascending multiples of 64.
    pub lengths: Vec<u32>,
    /// Element type of q, k, v, o and the cache.
    pub dtype: DType,
    /// The architectures, each once.
    pub archs: Vec<Arch>,
}

/// One compilation: a spec for an architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The real architecture.
    pub arch: Arch,
    /// Index into [`Lowered::specs`], or into [`LoweredEngine::specs`].
    pub spec: usize,
    /// The function's name, which its spec decides.
    pub symbol: String,
}

/// A lowered plan: everything that is compiled, and where everything lies.
#[derive(Clone, Debug, PartialEq)]
pub struct Lowered {
    /// The target that it was lowered for.
    pub target: Target,
    /// Spans, rings and slabs of every layer at every bucket.
    pub geometry: Geometry,
    /// The distinct specs, in order of first use.
    pub specs: Vec<KernelSpec>,
    /// The distinct (spec, architecture) pairs, by architecture and then in order of first use.
    pub kernels: Vec<Kernel>,
    /// `[layer][architecture]`, architectures in the target's order: indexes into `kernels`.
    pub layers: Vec<Vec<LayerKernels>>,
    /// The engine's own kernels, where the model is known: [`Lowered::with_engine`].
    pub engine: Option<LoweredEngine>,
}

/// Lowers a valid plan.
pub fn lower(plan: &Plan, target: &Target) -> Result<Lowered, Error> {
    let Range { start, end } = target.kv_heads;
    let kv_heads = plan.model.num_kv_heads;
    if start >= end || end > kv_heads {
        return Err(Error::KvHeads { start, end, kv_heads });
    }
    if target.archs.is_empty() {
        return Err(Error::NoArch);
    }
    let geometry = Geometry::new(plan, target.kv_heads.clone(), &target.lengths, target.dtype);
    let mut specs: Vec<KernelSpec> = Vec::new();
    let mut kernels: Vec<Kernel> = Vec::new();
    let mut layers = vec![Vec::new(); geometry.layers.len()];
    for &arch in &target.archs {
        for (layer, kernels_of) in geometry.layers.iter().zip(&mut layers) {
            let mut kernel = |phase| {
                let spec = intern(&mut specs, KernelSpec::new(plan, layer, phase, target.dtype, arch));
                let kernel = Kernel { arch, spec, symbol: names::symbol(&specs[spec]) };
                intern(&mut kernels, kernel)
            };
            let (prefill, decode) = (kernel(Phase::Prefill), kernel(Phase::Decode));
            kernels_of.push(LayerKernels { prefill, decode });
        }
    }
    Ok(Lowered { target: target.clone(), geometry, specs, kernels, layers, engine: None })
}

/// The index of `item`, pushed if it is new. Lists are as long as a model has layers, so a scan is enough.
fn intern<T: PartialEq>(items: &mut Vec<T>, item: T) -> usize {
    items.iter().position(|known| *known == item).unwrap_or_else(|| {
        items.push(item);
        items.len() - 1
    })
}

impl Lowered {
    /// All compilations: attention's kernels, then the engine's.
    pub fn all_kernels(&self) -> impl Iterator<Item = &Kernel> {
        self.kernels.iter().chain(self.engine.iter().flat_map(|engine| &engine.kernels))
    }

    /// The layers that use spec `spec`, ascending.
    pub fn layers_of(&self, spec: usize) -> Vec<u32> {
        let uses = |of: &LayerKernels| {
            [of.prefill, of.decode].iter().any(|&kernel| self.kernels[kernel].spec == spec)
        };
        (0u32..).zip(&self.layers).filter(|(_, of)| of.iter().any(uses)).map(|(layer, _)| layer).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use moac_runtime::glue::{EngineShape, Op};
    use moac_runtime::plan::{DEFAULT_MIN_SPAN, DEFAULT_SINK, PLAN_FORMAT};

    use super::*;
    use crate::plan::presets;

    /// A plan of one layer whose two rules alternate from head to head.
    pub(crate) fn any_plan() -> Plan {
        let mut model = presets::get("llama-3-8b").unwrap();
        model.num_layers = 1;
        Plan {
            format: PLAN_FORMAT.to_owned(),
            model,
            sink: DEFAULT_SINK,
            min_span: DEFAULT_MIN_SPAN,
            alphas: vec![[0.0, -1024.0].repeat(16)],
            betas: vec![[0.25, 1.0].repeat(16)],
            provenance: None,
        }
    }

    /// The spec of an engine's kernel.
    pub(crate) fn any_glue_spec(op: Op) -> GlueSpec {
        let shape = EngineShape {
            hidden: 4096,
            intermediate: 14336,
            vocab: 128_256,
            norm_eps: 1e-5,
            frequencies: (0..64).map(|pair| 5e5f64.powf(f64::from(pair) / -64.0)).collect(),
            qkv_bias: false,
            qk_norm: false,
        };
        let sizes = shape.sizes(&any_plan().model, 8);
        GlueSpec::new(op, &shape, &sizes, DType::Bf16)
    }

    /// The spec of that plan's kernel.
    pub(crate) fn any_spec(phase: Phase) -> KernelSpec {
        let target = Target {
            kv_heads: 0..8,
            lengths: vec![1024, 4096],
            dtype: DType::Bf16,
            archs: vec![Arch::Sm90a],
        };
        let lowered = lower(&any_plan(), &target).unwrap();
        lowered.specs[lowered.kernels[lowered.layers[0][0].of(phase)].spec].clone()
    }
}
