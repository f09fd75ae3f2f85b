//! Arguments that several commands share, and what they mean.

use std::fmt::Display;
use std::ops::Range;
use std::path::{Path, PathBuf};

use clap::builder::{PathBufValueParser, TypedValueParser};
use moac_compiler::env;
use moac_compiler::lower::{self, Lowered, Target};
use moac_compiler::plan;
use moac_runtime::arch::Arch;
use moac_runtime::launch::Phase;
use moac_runtime::plan::{DType, Plan};

use super::Context;
use crate::error::Error;
use crate::shape::{engine_shape, shape};

/// The name of standard input and standard output.
pub const STREAM: &str = "-";
/// Standard input as a file, so that code that reads files can read it too.
pub const STDIN: &str = "/dev/stdin";

/// A plan and the model it is for.
#[derive(Debug, clap::Args)]
pub struct PlanArgs {
    /// The plan file (JSON), or - for standard input
    #[arg(value_parser = input())]
    pub plan: PathBuf,
    /// The model
    #[command(flatten)]
    pub model: ModelArg,
}

impl PlanArgs {
    /// Reads and checks the plan.
    pub fn read(&self) -> Result<Plan, Error> {
        let model = self.model.name().map(shape).transpose()?;
        Ok(plan::read(&self.plan, model)?)
    }
}

/// The model's shape, where the plan file does not state it.
#[derive(Debug, clap::Args)]
pub struct ModelArg {
    /// Shape of the model: a preset, a Hugging Face config.json or a folder with one, or a GGUF file
    #[arg(short, long = "model", value_name = "MODEL", long_help = model_help())]
    pub model: Option<String>,
}

impl ModelArg {
    /// The value given.
    pub fn name(&self) -> Option<&str> {
        self.model.as_deref()
    }
}

fn model_help() -> String {
    let presets = plan::presets::names().join(", ");
    format!(
        "Shape of the model: a preset, a Hugging Face config.json or a folder with one, or a GGUF file.\nPresets: {presets}"
    )
}

/// The target of a compilation.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct TargetArgs {
    /// Architectures [default: that of CUDA_COMPUTE_CAP, else sm_90a]
    #[arg(long = "arch", value_name = "ARCH,..", value_delimiter = ',')]
    pub archs: Vec<Arch>,
    /// Context lengths [default: multiples of 1024 up to the model's context, at most 16384]
    #[arg(long, value_name = "TOKENS,..", value_delimiter = ',')]
    pub lengths: Vec<u32>,
    /// Element type of q, k, v, o and the cache [default: bf16]
    #[arg(long, value_name = "bf16|f16", value_parser = parse_dtype)]
    pub dtype: Option<DType>,
    /// Range of KV heads, for one rank of tensor parallelism [default: all]
    #[arg(long, value_name = "A..B", value_parser = parse_range)]
    pub heads: Option<Range<u32>>,
}

impl TargetArgs {
    /// The first flag that was given, if any: an artifact has its target already.
    pub fn given(&self) -> Option<&'static str> {
        let Self { archs, lengths, dtype, heads } = self;
        let flags = [
            ("--arch", !archs.is_empty()),
            ("--lengths", !lengths.is_empty()),
            ("--dtype", dtype.is_some()),
            ("--heads", heads.is_some()),
        ];
        flags.into_iter().find(|(_, given)| *given).map(|(flag, _)| flag)
    }

    /// The target, with a note for every length that is not compiled as asked.
    pub fn target(&self, plan: &Plan, context: &Context) -> Result<Target, Error> {
        let lengths = lower::buckets(plan, &self.lengths)?;
        for note in &lengths.notes {
            context.note(note);
        }
        let mut archs = if self.archs.is_empty() { vec![default_arch()?] } else { self.archs.clone() };
        archs.sort_unstable();
        archs.dedup();
        Ok(Target {
            kv_heads: self.heads.clone().unwrap_or(0..plan.model.num_kv_heads),
            lengths: lengths.buckets,
            dtype: self.dtype.unwrap_or(DType::Bf16),
            archs,
        })
    }
}

/// A plan lowered for a target, with the engine's kernels where `model` says what they are compiled for. A model that they
/// cannot be compiled for gets attention alone, and a note that says why.
pub fn lower(
    plan: &Plan,
    target: &TargetArgs,
    model: &ModelArg,
    context: &Context,
) -> Result<Lowered, Error> {
    let lowered = lower::lower(plan, &target.target(plan, context)?)?;
    let Some(name) = model.name() else { return Ok(lowered) };
    let with_engine = match engine_shape(name) {
        Ok(None) => return Ok(lowered),
        Ok(Some(shape)) => lowered.clone().with_engine(plan, &shape).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    Ok(with_engine.unwrap_or_else(|reason| {
        context.note(format!("attention only, without the engine's kernels: {reason}"));
        lowered
    }))
}

/// The architecture to compile for where none is asked for: `CUDA_COMPUTE_CAP` as in `90`, `9.0` or `90a`, else Hopper.
pub fn default_arch() -> Result<Arch, Error> {
    match env::CUDA_COMPUTE_CAP.text() {
        Some(capability) => {
            let digits = capability.replace('.', "");
            format!("sm_{}", digits.trim_start_matches("sm_")).parse().map_err(Error::ComputeCap)
        }
        None => Ok(Arch::Sm90a),
    }
}

/// A file to read, of which `-` is standard input.
pub fn input() -> impl TypedValueParser<Value = PathBuf> {
    let file = |path: PathBuf| if path == Path::new(STREAM) { PathBuf::from(STDIN) } else { path };
    PathBufValueParser::new().map(file)
}

/// A file or folder to write that cannot be standard output: it is read again, is one of several, or holds no text.
pub fn on_disk() -> impl TypedValueParser<Value = PathBuf> {
    let file = |path: PathBuf| {
        if path == Path::new(STREAM) {
            Err("this cannot be written to standard output: give a path")
        } else {
            Ok(path)
        }
    };
    PathBufValueParser::new().try_map(file)
}

/// Refuses a key that a repeatable flag is given for twice: neither value could be the one that was meant.
pub fn once<K: PartialEq + Display>(
    flag: &'static str,
    keys: impl IntoIterator<Item = K>,
) -> Result<(), Error> {
    let mut seen = Vec::new();
    for key in keys {
        if seen.contains(&key) {
            return Err(Error::Twice { flag, key: key.to_string() });
        }
        seen.push(key);
    }
    Ok(())
}

/// `bf16` or `f16`.
pub fn parse_dtype(text: &str) -> Result<DType, String> {
    [DType::Bf16, DType::F16]
        .into_iter()
        .find(|dtype| dtype.name() == text)
        .ok_or_else(|| format!("`{text}` is not an element type: expected bf16 or f16"))
}

/// `prefill` or `decode`.
pub fn parse_phase(text: &str) -> Result<Phase, String> {
    [Phase::Prefill, Phase::Decode]
        .into_iter()
        .find(|phase| phase.name() == text)
        .ok_or_else(|| format!("`{text}` is not a phase: expected prefill or decode"))
}

/// `a..b`.
pub fn parse_range(text: &str) -> Result<Range<u32>, String> {
    let parse = || {
        let (start, end) = text.split_once("..")?;
        Some(start.trim().parse().ok()?..end.trim().parse().ok()?)
    };
    parse().ok_or_else(|| format!("`{text}` is not a range: expected two numbers, as in 0..4"))
}

/// How many of something there are to be made: so many that memory holds them.
pub fn parse_count(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=1_000_000).contains(count));
    count.ok_or_else(|| format!("`{text}` is out of range: expected a number from 1 to 1000000"))
}
