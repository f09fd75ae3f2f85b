//! `moac verify`: every kernel against the float64 reference.

use std::path::{Path, PathBuf};

use moac_compiler::ledger::{Entry, Ledger};
use moac_compiler::verify::session::{self, Status, Verdict, Watch};
use moac_compiler::verify::{Candidate, GlueCandidate};
use moac_runtime::arch::Arch;
use moac_runtime::artifact::{Artifact, Kernel};
use moac_runtime::gpu::{Device, DeviceInfo};
use serde::Serialize;

use super::args::{ModelArg, TargetArgs, input, on_disk};
use super::{Context, ExitStatus, compile};
use crate::error::Error;
use crate::interrupt;
use crate::report::verdicts_table;
use crate::subject::Subject;

/// Check every kernel against the float64 reference, on this GPU or on the emulator
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Artifacts, or plans to compile first
    #[arg(required = true, value_name = "FILE", value_parser = input())]
    pub files: Vec<PathBuf>,
    /// The model
    #[command(flatten)]
    pub model: ModelArg,
    /// The target
    #[command(flatten)]
    pub target: TargetArgs,
    /// Run the kernels' PTX on the CPU instead of a GPU: short contexts whole, long ones at their edges
    #[arg(long)]
    pub emulate: bool,
    /// Number of warp schedules to run each case under, with --emulate
    #[arg(long, value_name = "N", default_value = "1", requires = "emulate")]
    pub schedules: std::num::NonZeroU32,
    /// Add the kernels that passed to this ledger
    #[arg(long, value_name = "PATH", conflicts_with = "emulate", value_parser = on_disk())]
    pub record: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

impl Args {
    /// Of an artifact.
    pub fn of(artifact: PathBuf, emulate: bool) -> Self {
        Self {
            files: vec![artifact],
            model: ModelArg { model: None },
            target: TargetArgs::default(),
            emulate,
            schedules: std::num::NonZeroU32::MIN,
            record: None,
            json: false,
        }
    }
}

/// The output of `--json`.
#[derive(Serialize)]
struct Summary<'a> {
    passed: bool,
    device: &'a str,
    files: Vec<Verified<'a>>,
}

#[derive(Serialize)]
struct Verified<'a> {
    file: &'a Path,
    kernels: &'a [Verdict],
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, Error> {
    // Found out first: without a GPU there is nothing to compile for.
    let device = if args.emulate { None } else { Some(Device::open(0)?) };
    let mut ledger = args.record.as_deref().map(Ledger::read).transpose()?;
    let mut files = Vec::new();
    for path in &args.files {
        let artifact = open(path, args, context)?;
        let wanted = |arch: Arch| args.target.archs.is_empty() || args.target.archs.contains(&arch);
        let ptx = |source| Error::Ptx { path: path.clone(), source };
        let candidates = Candidate::of_artifact(&artifact, wanted).map_err(ptx)?;
        let glue = GlueCandidate::of_artifact(&artifact, wanted).map_err(ptx)?;
        if candidates.is_empty() {
            return Err(Error::NoKernels { path: path.clone(), found: artifact.manifest().archs.clone() });
        }
        let verdicts = verify(args, device.as_ref(), &candidates, &glue, context)?;
        if let (Some(ledger), Some(device)) = (&mut ledger, &device) {
            record(ledger, &artifact, &verdicts, device.info())?;
        }
        files.push((path, verdicts));
    }
    if let (Some(ledger), Some(path)) = (&ledger, &args.record) {
        ledger.write(path)?;
    }
    let passed = files.iter().all(|(_, verdicts)| verdicts.iter().all(|it| it.status == Status::Passed));
    let name = device.as_ref().map_or("emulator", |device| &device.info().name);
    if args.json {
        let files = files.iter().map(|(file, kernels)| Verified { file, kernels }).collect();
        context.json(&Summary { passed, device: name, files })?;
    } else {
        for (path, verdicts) in &files {
            context.print(format!("{} on {name}\n{}", path.display(), verdicts_table(verdicts)))?;
        }
    }
    Ok(if passed { ExitStatus::Done } else { ExitStatus::No })
}

/// Notes the kernels that ran: those that passed have an entry afterwards, those that failed have none.
fn record(
    ledger: &mut Ledger,
    artifact: &Artifact,
    verdicts: &[Verdict],
    gpu: &DeviceInfo,
) -> Result<(), Error> {
    for verdict in verdicts {
        let same = |kernel: &&Kernel| (&kernel.symbol, kernel.arch) == (&verdict.symbol, verdict.arch);
        let kernel = artifact.manifest().kernels.iter().find(same);
        match (verdict.status, kernel) {
            (Status::Passed, Some(kernel)) => {
                let entry = Entry {
                    symbol: verdict.symbol.clone(),
                    arch: verdict.arch,
                    gpu: gpu.name.clone(),
                    driver: gpu.driver,
                    error: verdict.error,
                };
                ledger.record(artifact, kernel, entry)?;
            }
            (Status::Failed, _) => ledger.forget(verdict.cubin),
            (Status::Passed | Status::NotRun, _) => {}
        }
    }
    Ok(())
}

/// The artifact at `path`, or the one that the plan there compiles to.
fn open(path: &Path, args: &Args, context: &Context) -> Result<Artifact, Error> {
    match Subject::open(path, args.model.name())? {
        Subject::Artifact(artifact) => {
            // `--arch` picks kernels of it; the others would ask for another artifact.
            let others = TargetArgs { archs: Vec::new(), ..args.target.clone() };
            match others.given() {
                Some(flag) => Err(Error::Fixed { flag, path: path.to_owned() }),
                None => Ok(*artifact),
            }
        }
        Subject::Plan(plan) => Ok(compile::build(&plan, &args.target, &args.model, None, context)?.artifact),
    }
}

fn verify(
    args: &Args,
    device: Option<&Device>,
    candidates: &[Candidate],
    glue: &[GlueCandidate],
    context: &Context,
) -> Result<Vec<Verdict>, Error> {
    let bar = context.steps("verifying", candidates.len() + glue.len());
    let watch = Watch {
        case: &|symbol, case| bar.message(format!("{symbol}: {case}")),
        done: &|_| bar.inc(),
        stop: interrupt::flag(),
    };
    let run = || {
        if let Some(device) = device {
            let verdicts = session::on_gpu(device, candidates, &watch)?;
            return Ok([verdicts, session::glue_on_gpu(device, glue, &watch)?].concat());
        }
        let schedules: Vec<u64> = (0..u64::from(args.schedules.get())).collect();
        let verdicts = session::on_emulator(candidates, &schedules, &watch)?;
        Ok([verdicts, session::glue_on_emulator(glue, &schedules, &watch)?].concat())
    };
    run()
}
