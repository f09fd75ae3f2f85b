//! Whole models on a GPU: what the commands that run one share.

use std::path::Path;

use moac_compiler::env;
use moac_model::gpu::{GpuRunner, GpuWeights, Options};
use moac_model::{Checkpoint, Engine, EngineOptions, ModelFiles};
use moac_runtime::arch::Arch;
use moac_runtime::artifact::Artifact;
use moac_runtime::gpu::Device;
use moac_runtime::plan::Plan;

use super::args::{ModelArg, TargetArgs};
use super::{Context, compile};
use crate::error::Error;

/// Rows of a step where nothing else is asked for: tokens of prompts that are read at once.
pub const ROWS: u32 = 2048;

/// Whether there is a GPU that a model can run on.
pub fn present() -> bool {
    Device::all().is_ok_and(|devices| !devices.is_empty())
}

/// Compiles a plan for a device and the model at `model`, with the engine's kernels, or takes what was compiled before.
pub fn compile(
    plan: &Plan,
    model: &Path,
    lengths: &[u32],
    device: &Device,
    context: &Context,
) -> Result<Artifact, Error> {
    let [major, minor] = device.info().capability;
    let arch = Arch::ALL.into_iter().filter(|arch| arch.runs_on(major, minor)).max();
    let archs = arch.into_iter().collect();
    let target = TargetArgs { archs, lengths: lengths.to_vec(), ..TargetArgs::default() };
    let model = ModelArg { model: Some(model.to_string_lossy().into_owned()) };
    Ok(compile::build(plan, &target, &model, None, context)?.artifact)
}

/// The options of a runner for `lanes` requests at once and `rows` rows of a step. Without bytes for slabs, it takes all that is
/// free.
pub fn options(lanes: u32, rows: u32, slab_bytes: Option<u64>) -> Options {
    Options { lanes, rows: rows.max(lanes), slab_bytes, folder: env::cache_folder() }
}

/// The bytes of `lanes` slabs of the longest context.
pub fn longest_in_every_lane(artifact: &Artifact, lanes: u32) -> u64 {
    let largest = artifact.geometry().slab_bytes.last().copied().unwrap_or_default();
    u64::from(lanes) * largest.next_multiple_of(moac_runtime::space::ALIGNMENT)
}

/// An engine on a GPU.
pub fn engine(
    files: &ModelFiles,
    artifact: &Artifact,
    device: &Device,
    options: &Options,
    engine: EngineOptions,
) -> Result<Engine, Error> {
    let (loaded, stream) = (artifact.load(device)?, device.new_stream()?);
    let weights = weights(&files.checkpoint, device, &loaded, &stream)?;
    let runner = GpuRunner::new(&loaded, stream, weights, options)?;
    Ok(Engine::start(runner, Some(files.tokenizer.clone()), engine)?)
}

/// The weights of a checkpoint on a device, with a bar of how far they are.
pub fn weights(
    checkpoint: &Checkpoint,
    device: &Device,
    loaded: &moac_runtime::gpu::LoadedArtifact,
    stream: &moac_runtime::gpu::Stream,
) -> Result<GpuWeights, Error> {
    let style = indicatif::ProgressStyle::with_template("weights {bar:32} {bytes}/{total_bytes} {elapsed}");
    let bar = indicatif::ProgressBar::new(checkpoint.bytes());
    bar.set_style(style.unwrap_or_else(|_| indicatif::ProgressStyle::default_bar()));
    let weights = GpuWeights::read(device, stream, loaded.dtype(), checkpoint, &mut |done, _| {
        bar.set_position(done);
    });
    bar.finish_and_clear();
    Ok(weights?)
}
