//! `moac compile`: plan to artifact.

use std::io::IsTerminal as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use moac_compiler::build::{Builder, Built};
use moac_compiler::cache::Cache;
use moac_compiler::nvrtc::Nvrtc;
use moac_runtime::artifact::{Kernel, Manifest};
use moac_runtime::digest::Digest;
use moac_runtime::plan::Plan;
use serde::Serialize;

use super::args::{self, ModelArg, PlanArgs, STDIN, TargetArgs};
use super::{Context, ExitStatus, check_out_beside_json, is_stdout, print_beside, write_out};
use crate::error::Error;
use crate::interrupt;

/// Compile a plan to an artifact
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The plan
    #[command(flatten)]
    pub plan: PlanArgs,
    /// The target
    #[command(flatten)]
    pub target: TargetArgs,
    /// The artifact, or - for standard output [default: the plan's name with .moac, in the working folder]
    #[arg(short, long, value_name = "OUT.moac")]
    pub out: Option<PathBuf>,
    /// Compilations at once [default: one per core]
    #[arg(short, long, value_name = "N")]
    pub jobs: Option<NonZeroUsize>,
    /// Print what was compiled as JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, Error> {
    let out = out(&args.plan.plan, args.out.as_deref())?;
    check_out_beside_json(&out, args.json)?;
    let plan = args.plan.read()?;
    let built = build(&plan, &args.target, &args.plan.model, args.jobs, context)?;
    write_out(&out, built.artifact.bytes(), context)?;
    let summary = Summary::new(&out, &built);
    if args.json {
        context.json(&summary)?;
    } else {
        print_beside(&out, summary.line(), context)?;
    }
    Ok(ExitStatus::Done)
}

/// Compiles a plan for `target` and `model`, with progress and the compiler's warnings on stderr.
pub fn build(
    plan: &Plan,
    target: &TargetArgs,
    model: &ModelArg,
    jobs: Option<NonZeroUsize>,
    context: &Context,
) -> Result<Built, Error> {
    let lowered = args::lower(plan, target, model, context)?;
    let nvrtc = Nvrtc::find()?;
    let bar = context.steps("compiling", lowered.all_kernels().count());
    let builder = Builder {
        nvrtc: &nvrtc,
        cache: &Cache::of_this_machine(),
        jobs,
        stop: interrupt::flag(),
        progress: &|source, _| {
            bar.message(&source.symbol);
            bar.inc();
        },
    };
    let built = builder.build(plan, &lowered);
    drop(bar);
    let built = built?;
    for (kernel, warnings) in built.artifact.manifest().kernels.iter().zip(&built.warnings) {
        for warning in warnings {
            context.note(format!("{} for {}: {warning}", kernel.symbol, kernel.arch));
        }
    }
    Ok(built)
}

/// Where the artifact goes. Found out first: a compilation is long, and a wrong path should not wait for it.
fn out(plan: &Path, out: Option<&Path>) -> Result<PathBuf, Error> {
    let out = match out {
        Some(out) => out.to_owned(),
        None if plan == Path::new(STDIN) => return Err(Error::Unnamed),
        None => PathBuf::from(plan.with_extension("moac").file_name().unwrap_or_default()),
    };
    if is_stdout(&out) {
        return if std::io::stdout().is_terminal() { Err(Error::Terminal) } else { Ok(out) };
    }
    let other = |message: &str| Error::file("write", &out)(std::io::Error::other(message.to_owned()));
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty());
    if folder.is_some_and(|folder| !folder.is_dir()) {
        return Err(other("its folder does not exist"));
    }
    if out.is_dir() {
        return Err(other("it is a folder"));
    }
    let same = |a: &Path, b: &Path| Some(a.canonicalize().ok()? == b.canonicalize().ok()?);
    if same(&out, plan) == Some(true) {
        return Err(other("it is the plan"));
    }
    Ok(out)
}

/// The output of `--json`.
#[derive(Serialize)]
struct Summary<'a> {
    artifact: &'a Path,
    sha256: Digest,
    bytes: usize,
    compiled: usize,
    cached: usize,
    manifest: Facts<'a>,
}

/// Of the manifest, what was decided here.
#[derive(Serialize)]
struct Facts<'a> {
    model: &'a str,
    dtype: &'a str,
    archs: Vec<&'a str>,
    kv_heads: [u32; 2],
    lengths: &'a [u32],
    nvrtc: &'a str,
    kernels: &'a [Kernel],
}

impl<'a> Summary<'a> {
    fn new(artifact: &'a Path, built: &'a Built) -> Self {
        let Manifest { producer, dtype, archs, kv_heads, plan, geometry, kernels, .. } =
            built.artifact.manifest();
        let cached = built.cached.iter().filter(|cached| **cached).count();
        Self {
            artifact,
            sha256: built.artifact.digest(),
            bytes: built.artifact.bytes().len(),
            compiled: built.cached.len() - cached,
            cached,
            manifest: Facts {
                model: &plan.model.name,
                dtype: dtype.name(),
                archs: archs.iter().map(|arch| arch.name()).collect(),
                kv_heads: [kv_heads.start, kv_heads.end],
                lengths: &geometry.lengths,
                nvrtc: &producer.nvrtc,
                kernels,
            },
        }
    }

    fn line(&self) -> String {
        let Self { artifact, bytes, compiled, cached, manifest, .. } = self;
        let archs = manifest.archs.join(", ");
        let mebibytes = *bytes as f64 / f64::from(1 << 20);
        format!(
            "{}: {} kernels for {archs}, {mebibytes:.1} MiB ({compiled} compiled, {cached} from the cache)",
            artifact.display(),
            manifest.kernels.len(),
        )
    }
}
