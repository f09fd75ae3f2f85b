//! `moac exec`: one layer on the caller's tensors.

use std::path::PathBuf;

use moac_compiler::exec::emulator::EmulatedLayer;
use moac_compiler::exec::tensors::{Expected, Inputs};
use moac_compiler::exec::{self, ExecError, Steps};
use moac_runtime::artifact::Artifact;
use moac_runtime::backend::LayerBackend;
use moac_runtime::gpu::{self, GpuLayer};
use moac_runtime::launch::Phase;
use moac_runtime::plan::DType;

use super::args::{on_disk, parse_phase};
use super::{Context, ExitStatus};
use crate::error::Error;

/// Run one layer on tensors of your own
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The artifact
    pub file: PathBuf,
    /// The layer
    #[arg(long, value_name = "L")]
    pub layer: u32,
    /// The phase to run
    #[arg(long, value_name = "prefill|decode", value_parser = parse_phase)]
    pub phase: Phase,
    /// safetensors with q [B,T,H,D], k and v [B,T,G,D], and optionally lengths [B] (i32)
    #[arg(long, value_name = "IN.safetensors")]
    pub inputs: PathBuf,
    /// safetensors to write: o and lse
    #[arg(long, value_name = "OUT.safetensors", value_parser = on_disk())]
    pub outputs: PathBuf,
    /// With decode: the number of positions to prefill first
    #[arg(long, value_name = "P")]
    pub prompt: Option<u32>,
    /// Prefill in chunks of this many tokens
    #[arg(long, value_name = "C")]
    pub chunk: Option<std::num::NonZeroU32>,
    /// Bucket of every row [default: the smallest that holds the row's length]
    #[arg(long, value_name = "N")]
    pub bucket: Option<u32>,
    /// The device to run on; another one is never used instead
    #[arg(long, value_enum, default_value = "gpu")]
    pub device: Device,
    /// Convert the inputs to the artifact's element type
    #[arg(long)]
    pub cast: bool,
}

/// The device that a layer runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Device {
    /// The GPU
    Gpu,
    /// The float32 CPU path
    Cpu,
    /// The PTX emulator
    Emulator,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, Error> {
    let open = |source| Error::Open { path: args.file.clone(), source };
    let artifact = Artifact::open(&args.file).map_err(open)?;
    let layers = artifact.geometry().layers.len();
    if args.layer as usize >= layers {
        return Err(ExecError::Layer { layer: args.layer, layers }.into());
    }
    if args.phase == Phase::Prefill && args.prompt.is_some() {
        return Err(ExecError::PromptOfPrefill.into());
    }
    let manifest = artifact.manifest();
    let group_size = manifest.plan.model.group_size() as usize;
    let expected = Expected {
        dtype: manifest.dtype,
        heads: manifest.kv_heads.len() * group_size,
        kv_heads: manifest.kv_heads.len(),
        head_dim: manifest.plan.model.head_dim as usize,
        cast: args.cast,
    };
    let inputs = Inputs::read(&args.inputs, &expected)?;
    let buckets = exec::buckets(&artifact, &inputs.lengths, args.bucket)?;
    let (mut layer, dtype) = layer(args, &artifact, &buckets)?;
    let steps = Steps { phase: args.phase, prompt: args.prompt, chunk: args.chunk.map(Into::into) };
    let bar = context.steps("running tokens", 0);
    let results = exec::run(layer.as_mut(), &inputs, &steps, &|done, all| bar.show(done, all));
    drop(bar);
    results?.write(&args.outputs, dtype)?;
    context.note(format!("wrote `{}`", args.outputs.display()));
    Ok(ExitStatus::Done)
}

/// The layer on the device asked for, and the element type of its outputs where it is not f32.
fn layer(
    args: &Args,
    artifact: &Artifact,
    buckets: &[usize],
) -> Result<(Box<dyn LayerBackend>, Option<DType>), Error> {
    let dtype = artifact.manifest().dtype;
    Ok(match args.device {
        Device::Cpu => (Box::new(exec::cpu(artifact, args.layer, buckets)), None),
        Device::Emulator => {
            // The emulator runs any architecture's PTX, and an artifact has at least one.
            let arch = artifact.manifest().archs[0];
            (Box::new(EmulatedLayer::new(artifact, args.layer, arch, buckets)?), Some(dtype))
        }
        Device::Gpu => {
            let device = gpu::Device::open(0)?;
            let lengths: Vec<u32> =
                buckets.iter().map(|&bucket| artifact.geometry().lengths[bucket]).collect();
            let model = artifact.load(&device)?;
            (Box::new(GpuLayer::new(&model, args.layer as usize, &lengths)?), Some(dtype))
        }
    })
}
