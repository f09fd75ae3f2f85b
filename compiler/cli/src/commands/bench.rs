//! `moac bench`: time and rates per phase.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use moac_compiler::bench::Ceilings;
use moac_compiler::bench::counters::{self, Counters};
use moac_compiler::bench::points::{self, BATCHES, Point};
use moac_compiler::bench::time::{Outcome, Timer};
use moac_compiler::verify::Candidate;
use moac_model::gpu::bench::BatchSize;
use moac_runtime::artifact::Artifact;
use moac_runtime::attention::MAX_BATCH;
use moac_runtime::gpu::Device;
use moac_runtime::launch::Phase;

use super::args::parse_phase;
use super::{Context, ExitStatus, bench_model};
use crate::error::Error;
use crate::interrupt;
use crate::report::bench::{PointTime, Skipped, Times, counters_table};

/// Time the kernels of an artifact, or a whole model, and compare them with ceilings measured in the same run
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The artifact
    #[arg(required_unless_present = "model")]
    pub file: Option<PathBuf>,
    /// Batch sizes; with --model also `max`, as many as fit [default: 1,8,32; with --emulate: 1; with --model: 1,16,max]
    #[arg(long, value_name = "N,..", value_delimiter = ',', value_parser = parse_batch)]
    pub batch: Vec<BatchSize>,
    /// Context lengths [default: the smallest and the largest bucket]
    #[arg(long, value_name = "TOKENS,..", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..))]
    pub context: Vec<u32>,
    /// Only this phase
    #[arg(long, value_name = "prefill|decode", value_parser = parse_phase, conflicts_with = "model")]
    pub phase: Option<Phase>,
    /// Count bytes and operations on the emulator instead of measuring time
    #[arg(long, conflicts_with = "model")]
    pub emulate: bool,
    /// Print the table as JSON, with a row for each layer
    #[arg(long)]
    pub json: bool,
    /// A whole model
    #[command(flatten)]
    pub of_model: bench_model::Args,
}

impl Args {
    /// The points asked for, with `batches` where none are.
    fn points(&self, batches: &[u32], contexts: &[u32]) -> Result<Vec<Point>, Error> {
        let given = self.batch.iter().map(|batch| match batch {
            BatchSize::Of(batch) => Ok(*batch),
            BatchSize::Largest => Err(Error::LargestBatch),
        });
        let given = given.collect::<Result<Vec<_>, _>>()?;
        let mut points = Point::all(if given.is_empty() { batches } else { &given }, contexts);
        points.retain(|point| self.phase.is_none_or(|phase| point.phase == phase));
        Ok(points)
    }
}

/// A number of requests, or `max`.
fn parse_batch(text: &str) -> Result<BatchSize, String> {
    let wrong = || format!("invalid batch size `{text}`: expected 1 to {MAX_BATCH}, or max");
    match text {
        "max" => Ok(BatchSize::Largest),
        _ => text.parse().ok().filter(|n| (1..=MAX_BATCH).contains(n)).map(BatchSize::Of).ok_or_else(wrong),
    }
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, Error> {
    if let Some(model) = &args.of_model.model {
        let Args { file, batch, context: contexts, json, of_model, .. } = args;
        return bench_model::run(of_model, model, file.as_ref(), batch, contexts, *json, context);
    }
    // One of the two is there: the command line asks for it.
    let Some(file) = &args.file else { return Ok(ExitStatus::Error) };
    let artifact = Artifact::open(file).map_err(|source| Error::Open { path: file.clone(), source })?;
    let contexts = points::contexts(&args.context, &artifact.manifest().geometry)?;
    if args.emulate {
        return emulate(args, (&artifact, file), &contexts, context);
    }
    let device = Device::open(0)?;
    time(args, &artifact, &device, &args.points(&BATCHES, &contexts)?, context)
}

fn time(
    args: &Args,
    artifact: &Artifact,
    device: &Device,
    points: &[Point],
    context: &Context,
) -> Result<ExitStatus, Error> {
    let bar = context.steps("timing", points.len() + 1);
    let model = artifact.load(device)?;
    let stream = device.new_stream()?;
    bar.message("the ceilings");
    let ceilings = Ceilings::measure(device, &stream, model.arch());
    for why in &ceilings.unknown {
        context.note(why);
    }
    bar.inc();
    let timer = Timer { model: &model, stream: &stream };
    let mut times = Times {
        device: device.info().name.clone(),
        arch: model.arch(),
        dtype: model.dtype(),
        ceilings,
        points: Vec::new(),
        skipped: Vec::new(),
    };
    for &point in points.iter().take_while(|_| !interrupt::flag().load(Ordering::Relaxed)) {
        bar.message(format!("{} of {} x {} tokens", point.phase.name(), point.batch, point.context));
        match timer.time(point, args.json)? {
            Outcome::Timed(timed) => times.points.push(PointTime::new(point, &timed, &times.ceilings)),
            Outcome::TooLarge(missing) => {
                let skipped = Skipped { point, missing };
                context.note(skipped.note());
                times.skipped.push(skipped);
            }
        }
        bar.inc();
    }
    drop(bar);
    if args.json {
        context.json(&times)?;
    } else {
        context.print(times.text())?;
    }
    Ok(whole(times.points.len() + times.skipped.len() == points.len(), context))
}

fn emulate(
    args: &Args,
    (artifact, file): (&Artifact, &Path),
    contexts: &[u32],
    context: &Context,
) -> Result<ExitStatus, Error> {
    let candidates = candidates(artifact, file)?;
    let points = args.points(&[1], contexts)?;
    let of = |candidate: &Candidate| points.iter().filter(|point| point.phase == candidate.phase()).count();
    let wanted = candidates.iter().map(of).sum();
    let bar = context.steps("counting", wanted);
    let counted = counters::count(&candidates, &points, interrupt::flag(), &|candidate| {
        bar.message(&candidate.symbol);
        bar.inc();
    });
    drop(bar);
    let counted = counted?;
    if args.json {
        context.json(&counted)?;
    } else {
        context.print(counters_table(&counted))?;
    }
    let wrong: Vec<&Counters> = counted.iter().filter(|it| !it.failures.is_empty()).collect();
    for it in &wrong {
        for failure in &it.failures {
            context.note(format!("{} is wrong at {} tokens: {failure}", it.kernel, it.point.context));
        }
    }
    let status = whole(counted.len() == wanted, context);
    Ok(if wrong.is_empty() || status != ExitStatus::Done { status } else { ExitStatus::No })
}

fn candidates(artifact: &Artifact, path: &Path) -> Result<Vec<Candidate>, Error> {
    Candidate::of_artifact(artifact, |_| true).map_err(|source| Error::Ptx { path: path.to_owned(), source })
}

/// The exit status: an interrupted run shows the results so far and is an error.
fn whole(whole: bool, context: &Context) -> ExitStatus {
    if whole {
        return ExitStatus::Done;
    }
    context.note("interrupted: these are the results so far");
    ExitStatus::Error
}
