//! `moac bench --model`: time and memory of a whole model on a GPU.

use std::path::{Path, PathBuf};

use moac_compiler::bench::Ceilings;
use moac_compiler::env;
use moac_compiler::plan;
use moac_model::gpu::bench::{self, BatchSize};
use moac_model::gpu::{GpuRunner, GpuWeights, Options};
use moac_model::{Checkpoint, Config, dense_plan, read_config};
use moac_runtime::artifact::Artifact;
use moac_runtime::gpu::{Device, LoadedArtifact, Stream};

use super::{Context, ExitStatus, gpu};
use crate::error::Error;
use crate::report::bench_model::{ModelTimes, Point, Prompt};

/// Seed of random weights.
const SEED: u64 = 1;
/// Batch sizes where none are asked for.
const BATCHES: [BatchSize; 3] = [BatchSize::Of(1), BatchSize::Of(16), BatchSize::Largest];
/// Prompts that are timed for each length.
const ROUNDS: usize = 2;

/// The settings of a bench of a whole model, besides batch sizes and contexts.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Whole models")]
#[group(skip)] // its default name is that of the arguments that it is flattened into
pub struct Args {
    /// Time steps of a whole model instead of attention alone: a GGUF file, a folder, or with --random-weights a config.json
    #[arg(short, long, value_name = "MODEL")]
    pub model: Option<PathBuf>,
    /// Compile this plan for it, if there is no artifact [default: every head sees everything]
    #[arg(long, value_name = "PLAN", requires = "model", conflicts_with = "file")]
    pub plan: Option<PathBuf>,
    /// Take random weights: only the model's configuration is read
    #[arg(long, requires = "model")]
    pub random_weights: bool,
    /// Rows of a step: tokens of a prompt that are read at once
    #[arg(long, value_name = "N", default_value_t = 2048, requires = "model", value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub rows: u32,
    /// Tell where the time goes, kernel by kernel
    #[arg(long, requires = "model")]
    pub profile: bool,
}

/// Runs the command for a model.
pub fn run(
    args: &Args,
    model: &Path,
    file: Option<&PathBuf>,
    batches: &[BatchSize],
    contexts: &[u32],
    json: bool,
    context: &Context,
) -> Result<ExitStatus, Error> {
    let device = Device::open(0)?;
    let config = read_config(model)?;
    let artifact = artifact(args, model, &config, file, contexts, &device, context)?;
    let loaded = artifact.load(&device)?;
    let stream = device.new_stream()?;
    let ceilings = Ceilings::measure(&device, &stream, loaded.arch());
    for why in &ceilings.unknown {
        context.note(why);
    }
    let lengths = &artifact.manifest().geometry.lengths;
    let contexts = match contexts {
        [] => lengths.last().copied().into_iter().collect(),
        given => given.to_vec(),
    };
    let batches = if batches.is_empty() { &BATCHES } else { batches };
    let mut runner = runner(args, model, &config, &loaded, &stream, batches, &contexts)?;
    let mut times = ModelTimes::new(&device, &artifact, &loaded, &config, ceilings, runner.memory());
    for &tokens in &contexts {
        let fits = bench::fits(&runner, tokens)?;
        times.fits.push(fits);
        if fits.batch == 0 {
            context.note(format!("{tokens} tokens are left out: not one request of them fits"));
            continue;
        }
        let prompt = bench::prefill(&mut runner, tokens, ROUNDS, args.profile)?;
        let prompt = Prompt::new(prompt, &config, &times.ceilings);
        context.note(prompt.line());
        times.prompts.push(prompt);
        for &batch in batches {
            let batch = match batch {
                BatchSize::Of(batch) => batch,
                BatchSize::Largest => fits.batch,
            };
            if batch > fits.batch {
                context.note(format!("{batch} x {tokens} is left out: {} fit", fits.batch));
                continue;
            }
            let point = bench::decode(&mut runner, batch, tokens, args.profile)?;
            let point = Point::new(point, &config, &times.ceilings);
            context.note(point.line());
            times.points.push(point);
        }
    }
    times.memory_free_at_the_end = device.memory()?.free;
    if json {
        context.json(&times)?;
    } else {
        context.print(times.text())?;
    }
    Ok(ExitStatus::Done)
}

fn runner(
    args: &Args,
    model: &Path,
    config: &Config,
    loaded: &LoadedArtifact,
    stream: &Stream,
    batches: &[BatchSize],
    contexts: &[u32],
) -> Result<GpuRunner, Error> {
    let device = loaded.device();
    let weights = if args.random_weights {
        GpuWeights::random(device, stream, loaded.dtype(), config, SEED)?
    } else {
        gpu::weights(&Checkpoint::open(model)?, device, loaded, stream)?
    };
    // As many lanes as requests of the shortest context may fit, if they are asked for.
    let shortest = contexts.iter().copied().min().unwrap_or(1);
    let geometry = loaded.geometry();
    let slab = geometry.bucket_for(shortest).map_or(1, |bucket| geometry.slab_bytes[bucket].max(1));
    let most = u32::try_from(device.memory()?.free / slab).unwrap_or(u32::MAX).clamp(1, 1024);
    let lanes = batches.iter().map(|batch| match batch {
        BatchSize::Of(batch) => *batch,
        BatchSize::Largest => most,
    });
    let lanes = lanes.max().unwrap_or(1);
    let options =
        Options { lanes, rows: args.rows.max(lanes), slab_bytes: None, folder: env::cache_folder() };
    Ok(GpuRunner::new(loaded, stream.clone(), weights, &options)?)
}

/// The artifact that is given, or that of the plan that is.
fn artifact(
    args: &Args,
    model: &Path,
    config: &Config,
    file: Option<&PathBuf>,
    contexts: &[u32],
    device: &Device,
    context: &Context,
) -> Result<Artifact, Error> {
    if let Some(path) = file {
        return Artifact::open(path).map_err(|source| Error::Open { path: path.clone(), source });
    }
    let plan = match &args.plan {
        Some(path) => plan::read(path, Some(config.shape()))?,
        None => dense_plan(&config.shape()),
    };
    gpu::compile(&plan, model, contexts, device, context)
}
