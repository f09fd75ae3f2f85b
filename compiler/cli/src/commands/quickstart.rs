//! `moac quickstart`: from nothing to proven kernels and text, by the commands that a user would type.

use std::path::{Path, PathBuf};

use moac_compiler::fetch;
use moac_compiler::nvrtc::Nvrtc;
use moac_runtime::artifact::Artifact;
use moac_runtime::gpu::Device;

use super::args::{ModelArg, PlanArgs, TargetArgs, on_disk};
use super::{Context, ExitStatus, compile, generate, inspect, verify};
use crate::error::Error;
use crate::quickstart::{PLAN, PLAN_NAME, QUESTION, cpu_layer};

/// Fetch NVRTC and a model, compile a plan, prove its kernels and generate text
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder for the results
    #[arg(short, long, value_name = "DIR", default_value = "moac-quickstart", value_parser = on_disk())]
    pub out: PathBuf,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, Error> {
    context.print(step(
        "moac doctor --fetch",
        "what is missing of NVRTC, which makes machine code of CUDA source, and of a real model; from PyPI",
    ))?;
    let nvrtc = if let Ok(nvrtc) = Nvrtc::find() {
        nvrtc
    } else {
        fetch::NVRTC.fetch()?;
        Nvrtc::find()?
    };
    let model = fetch::model()?;
    context.print(format!("NVRTC: {}\nmodel: {}", nvrtc.path().display(), model.display()))?;

    std::fs::create_dir_all(&args.out).map_err(Error::file("create", &args.out))?;
    let plan = args.out.join(PLAN_NAME);
    std::fs::write(&plan, PLAN).map_err(Error::file("write", &plan))?;
    let artifact = plan.with_extension("moac");
    let page = plan.with_extension("html");

    let typed = format!("moac compile {} -o {}", plan.display(), artifact.display());
    context.print(step(&typed, "the plan to an artifact: one kernel per distinct layer and phase"))?;
    compile::run(&compile_args(plan, artifact.clone()), context)?;

    let typed = format!("moac inspect {} --html {}", artifact.display(), page.display());
    context.print(step(&typed, "what is in it; the span map of every head as a page"))?;
    inspect::run(&inspect::Args::of(artifact.clone(), None), context)?;
    inspect::run(&inspect::Args::of(artifact.clone(), Some(page)), context)?;

    context.print("\nOne layer on the CPU, in float32: prefill, then decode from its rings")?;
    context.print(on_the_cpu(&artifact)?)?;

    let emulate = Device::open(0).is_err();
    let typed = format!("moac verify {}{}", artifact.display(), if emulate { " --emulate" } else { "" });
    let why = if emulate {
        "every kernel's PTX on the CPU, since there is no GPU: against float64, for races, byte by byte"
    } else {
        "every kernel on the GPU, against float64"
    };
    context.print(step(&typed, why))?;
    let verified = verify::run(&verify::Args::of(artifact.clone(), emulate), context)?;
    if verified != ExitStatus::Done {
        return Ok(verified);
    }

    let typed =
        format!("moac generate {} --artifact {} -p \"{QUESTION}\"", model.display(), artifact.display());
    context.print(step(&typed, "the real model, every head with its span"))?;
    generate::run(&generate::Args::asking(model, artifact, QUESTION), context)
}

fn step(typed: &str, why: &str) -> String {
    format!("\n$ {typed}\n  ({why})")
}

fn compile_args(plan: PathBuf, out: PathBuf) -> compile::Args {
    let plan = PlanArgs { plan, model: ModelArg { model: None } };
    compile::Args { plan, target: TargetArgs::default(), out: Some(out), jobs: None, json: false }
}

fn on_the_cpu(path: &Path) -> Result<String, Error> {
    let artifact = Artifact::open(path).map_err(|source| Error::Open { path: path.to_owned(), source })?;
    let run = cpu_layer(&artifact)?;
    Ok(format!(
        "layer {}: {} tokens prefilled in {:.0?}, {} decoded in {:.0?}; from float64 they differ by {:.1e}",
        run.layer, run.prefilled, run.took[0], run.decoded, run.took[1], run.error
    ))
}
