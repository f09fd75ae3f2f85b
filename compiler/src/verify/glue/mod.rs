//! The engine's own kernels against float64: tables and activations with every edge in them, outputs element by element,
//! guards behind each output, and, where the device counts, every byte.
//!
//! [`rows`] has the operations on rows of activations, [`linear`] the linear layers, [`sample`] the choice of tokens.

mod linear;
mod noise;
mod rows;
mod sample;
mod stage;

use moac_runtime::arch::Arch;
use moac_runtime::artifact::{Artifact, Resources, Role};
use moac_runtime::glue::{EngineShape, Op, Sizes};
use moac_runtime::plan::{DType, Plan};

use self::stage::Stage;
use super::device::{Device, DeviceError};
use super::verdict::Outcome;
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

/// A launch of a kernel of the engine, whose data follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GlueCase {
    /// For people.
    pub name: &'static str,
    /// Rows of activations, or samples.
    pub rows: u32,
    /// Its special property.
    pub kind: Kind,
}

/// The special property of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Plain,
    /// Embed: no bits of tokens seen. Norm: the rows that samples name. Sample: the likeliest tokens.
    Other,
    /// Sample: penalties, cuts and chance.
    Cuts,
    /// Sample: the likeliest tokens' log-probabilities.
    Top,
    /// Sample: logits that are all equal, hardly differ, or are no numbers.
    Odd,
}

/// The cases of a kernel.
pub fn cases(op: Op) -> Vec<GlueCase> {
    let case = |name, rows, kind| GlueCase { name, rows, kind };
    let plain = |name, rows| case(name, rows, Kind::Plain);
    match op {
        Op::Embed => vec![plain("one row", 1), plain("11 rows", 11), case("no bits", 5, Kind::Other)],
        Op::Norm => vec![plain("one row", 1), plain("5 rows", 5), case("rows of samples", 6, Kind::Other)],
        Op::Rotate => vec![plain("one row", 1), plain("7 rows", 7)],
        Op::Activate => vec![plain("one row", 1), plain("5 rows", 5)],
        Op::Sample => vec![
            plain("the likeliest", 3),
            case("cuts", 16, Kind::Cuts),
            case("log-probabilities", 4, Kind::Top),
            case("odd logits", 6, Kind::Odd),
        ],
        Op::Qkv | Op::Output | Op::GateUp | Op::Down | Op::Head => {
            vec![plain("one row", 1), plain("7 rows", 7), plain("16 rows", 16)]
        }
    }
}

/// Runs a case of the candidate that the device has loaded.
///
/// # Errors
/// If it could not be run.
pub fn run(
    device: &mut impl Device,
    candidate: &GlueCandidate,
    case: &GlueCase,
) -> Result<Outcome, DeviceError> {
    device.clear();
    let stage = Stage::new(device, candidate, case);
    if let Some(layer) = candidate.sizes.layer(candidate.op) {
        return linear::linear(stage, &layer);
    }
    match candidate.op {
        Op::Embed => rows::embed(stage),
        Op::Norm => rows::norm(stage),
        Op::Rotate => rows::rotate(stage),
        Op::Activate => rows::activate(stage),
        Op::Sample => sample::sample(stage),
        Op::Qkv | Op::Output | Op::GateUp | Op::Down | Op::Head => unreachable!("a linear layer"),
    }
}
