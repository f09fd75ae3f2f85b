//! A kernel of the engine to verify, with the model that it was compiled for.

use moac_runtime::arch::Arch;
use moac_runtime::artifact::{Artifact, Resources, Role};
use moac_runtime::glue::{EngineShape, Op, Sizes};
use moac_runtime::plan::{DType, Plan};

use crate::lower::{self, Lowered};
use crate::nvrtc::Compiled;

/// One kernel of the engine, and the model that it was compiled for.
#[derive(Clone, Debug)]
pub struct GlueCandidate {
    /// The function's name.
    pub symbol: String,
    /// The architecture of its cubin.
    pub arch: Arch,
    /// Its effect.
    pub op: Op,
    /// Frequencies and the like.
    pub shape: EngineShape,
    /// Sizes of rows and tables.
    pub sizes: Sizes,
    /// Element type of activations and weights.
    pub dtype: DType,
    /// Its resources on a multiprocessor.
    pub resources: Resources,
    /// The PTX that the emulator runs.
    pub ptx: String,
    /// The machine code that a GPU runs; empty where only the emulator is asked.
    pub cubin: Vec<u8>,
}

impl GlueCandidate {
    /// The engine's kernels of an artifact that `wanted` names, in the manifest's order.
    ///
    /// # Errors
    /// PTX that is not UTF-8 text.
    pub fn of_artifact(
        opened: &Artifact,
        wanted: impl Fn(Arch) -> bool,
    ) -> Result<Vec<Self>, std::str::Utf8Error> {
        let manifest = opened.manifest();
        let Some(engine) = &manifest.engine else { return Ok(Vec::new()) };
        let kv_heads = manifest.kv_heads.end - manifest.kv_heads.start;
        let sizes = engine.shape.sizes(&manifest.plan.model, kv_heads);
        let mut candidates = Vec::new();
        for kernel in manifest.kernels.iter().filter(|kernel| wanted(kernel.arch)) {
            let Role::Glue(op) = kernel.role else { continue };
            candidates.push(Self {
                symbol: kernel.symbol.clone(),
                arch: kernel.arch,
                op,
                shape: engine.shape.clone(),
                sizes,
                dtype: manifest.dtype,
                resources: kernel.resources,
                ptx: opened.ptx(kernel)?.to_owned(),
                cubin: opened.cubin(kernel).to_vec(),
            });
        }
        Ok(candidates)
    }

    /// Kernel number `kernel` of a lowered engine, compiled somehow: with headers of the caller's, if need be.
    ///
    /// # Panics
    /// If the kernel does not exist.
    pub fn of_lowered(plan: &Plan, lowered: &Lowered, kernel: usize, compiled: Compiled) -> Self {
        let engine = lowered.engine.as_ref().expect("the plan was lowered with an engine");
        let lower::Kernel { arch, spec, symbol } = &engine.kernels[kernel];
        let spec = &engine.specs[*spec];
        let kv_heads = lowered.target.kv_heads.end - lowered.target.kv_heads.start;
        Self {
            symbol: symbol.clone(),
            arch: *arch,
            op: spec.op,
            shape: engine.shape.clone(),
            sizes: engine.shape.sizes(&plan.model, kv_heads),
            dtype: spec.dtype,
            resources: compiled.resources,
            ptx: compiled.ptx,
            cubin: compiled.cubin,
        }
    }
}
