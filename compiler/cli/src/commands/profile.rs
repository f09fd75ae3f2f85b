//! `moac profile`: calibration items to attention influence.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use moac_model::Model;
use moac_planner::eval::fingerprint;
use moac_planner::items::{Items, Task};
use moac_planner::profile::store::Store;
use moac_planner::profile::{
    Choice, LengthSummary, Measure, ProfileError, Progress, Weights, choose, influence, profile, provenance,
};

use super::args::{STREAM, input, on_disk, once, parse_count};
use super::{Context, ExitStatus, check_out, is_stdout};
use crate::context::Bar;
use crate::error::Error;
use crate::interrupt;
use crate::report::profile_table;

/// Measure the influence of every head on the loss, by 64-token block
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model: a GGUF file, or a Hugging Face folder
    model: PathBuf,
    /// Calibration items, as `moac calibrate` writes them
    #[arg(value_parser = input())]
    items: PathBuf,
    /// Profile the items of these lengths [default: every length among the items]
    #[arg(long, value_name = "TOKENS,..", value_delimiter = ',')]
    lengths: Vec<u32>,
    /// Profile only the items of these tasks: document, passkey, kv, text, or a kind of facts
    #[arg(long, value_name = "TASK,..", value_delimiter = ',', value_parser = parse_task)]
    tasks: Vec<Task>,
    /// Maximum number of items of a length
    #[arg(long, value_name = "N", value_parser = parse_count)]
    most: Option<usize>,
    /// How to estimate the loss of a mask
    #[arg(long, value_enum, default_value_t = Measure::Mixed)]
    measure: Measure,
    /// Also write the influence by another measure to a file, repeatable
    #[arg(long = "also", value_name = "MEASURE=FILE", value_parser = parse_also)]
    also: Vec<(Measure, PathBuf)>,
    /// Weights of the tasks against one another: the influence of each is taken as a share of all that it can lose, times
    /// its weight [default: by the number of their items; with the measure mixed text=1,document=1,passkey=0.05,kv=0.05
    /// and 0.02 for each kind of fact]
    #[arg(long, value_name = "TASK=WEIGHT,..", value_delimiter = ',', value_parser = parse_weight)]
    weights: Vec<(Task, f64)>,
    /// Folder for the sums of every item, which are reused by later runs [default: OUT with `.items` appended]
    #[arg(long, value_name = "DIR", value_parser = on_disk())]
    work: Option<PathBuf>,
    /// The influence file
    #[arg(short, long, value_name = "OUT", value_parser = on_disk())]
    out: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn parse_task(text: &str) -> Result<Task, String> {
    Task::from_name(text)
        .ok_or_else(|| format!("`{text}` is not a task: expected {}", Task::ALL.map(Task::name).join(", ")))
}

pub(super) fn parse_weight(text: &str) -> Result<(Task, f64), String> {
    let parse = || {
        let (task, weight) = text.split_once('=')?;
        let weight = weight.parse().ok().filter(|weight| (0.0..=1e6).contains(weight))?;
        Some((Task::from_name(task)?, weight))
    };
    let names = Task::ALL.map(Task::name).join(", ");
    parse().ok_or_else(|| {
        format!(
            "`{text}`: expected a task and a weight from 0 to 1000000, as in passkey=0.5; tasks are {names}"
        )
    })
}

/// The weights of the tasks that were given, if any were.
pub(super) fn given_weights(given: &[(Task, f64)]) -> Result<Option<Weights>, Error> {
    once("--weights", given.iter().map(|(task, _)| task))?;
    Ok((!given.is_empty()).then(|| given.iter().copied().collect()))
}

fn parse_also(text: &str) -> Result<(Measure, PathBuf), String> {
    let parse = || {
        let (measure, file) = text.split_once('=').filter(|(_, file)| *file != STREAM)?;
        Some((Measure::from_name(measure)?, PathBuf::from(file)))
    };
    let names = Measure::ALL.map(Measure::name).join(", ");
    parse().ok_or_else(|| {
        format!("`{text}`: expected a measure and a file, as in absolute=FILE; measures are {names}")
    })
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, Error> {
    let given = given_weights(&args.weights)?;
    once("--also", args.also.iter().map(|(measure, _)| measure.name()))?;
    once(
        "--out or --also",
        std::iter::once(&args.out)
            .chain(args.also.iter().map(|(_, path)| path))
            .map(|path| path.display().to_string()),
    )?;
    for path in std::iter::once(&args.out).chain(args.also.iter().map(|(_, path)| path)) {
        check_out(path)?;
    }
    let items = Items::read(&args.items)?;
    let digest = fingerprint::of_model(&args.model)?;
    let model = Model::open(&args.model)?;
    items.belongs_to(&model.tokenizer)?;
    let choice = Choice { lengths: args.lengths.clone(), tasks: args.tasks.clone(), most: args.most };
    let chosen = choose(&items, &choice, model.decoder.config())?;
    let passes = |measure: Measure| Task::ALL.map(|task| measure.pass(task));
    if let Some((other, _)) = args.also.iter().find(|(other, _)| passes(*other) != passes(args.measure)) {
        return Err(ProfileError::Passes { measure: args.measure, other: *other }.into());
    }
    let work = args.work.clone().unwrap_or_else(|| beside(&args.out, ".items"));
    let store = Store::new(&work, digest);
    interrupt::flag();
    let (start, mut work) = (Instant::now(), 0.0);
    let bar = context.work(PROFILING);
    let summary = profile(&model.decoder, &chosen, (&store, args.measure), &mut |progress| {
        work = progress.work.0;
        show(&bar, progress)
    });
    drop(bar);
    if work > 0.0 {
        let seconds = start.elapsed().as_secs_f64();
        context.note(format!("profiled in {seconds:.0} s, {:.0} GFLOP/s", work / seconds / 1e9));
    }
    let summary: Vec<LengthSummary> = summary?;
    let outputs =
        std::iter::once((args.measure, &args.out)).chain(args.also.iter().map(|(m, path)| (*m, path)));
    for (measure, path) in outputs {
        let weights = given.clone().or_else(|| measure.weights());
        let of = (measure, weights.as_ref());
        let data = Some(provenance(&items, &chosen, of));
        influence(&model.decoder, &chosen, &store, of, items.header.seed, data)?.write(path)?;
        context.note(format!("wrote the {} influence to `{}`", measure.name(), path.display()));
    }
    if args.json {
        context.json(&summary)?;
    } else {
        context.print(profile_table(&summary))?;
    }
    Ok(ExitStatus::Done)
}

/// `path` with something appended to its file name; `moac` stands for standard output.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let path = if is_stdout(path) { Path::new("moac") } else { path };
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// The label of the progress bar.
pub(super) const PROFILING: &str = "profiling";

/// Shows how far profiling is; stops it where an interrupt asked for that.
pub(super) fn show(bar: &Bar, progress: Progress<'_>) -> ControlFlow<()> {
    let Progress { item, items: (done, all), work: (so_far, total) } = progress;
    bar.show_work(so_far, total);
    bar.message(format!("{done} of {all} items, at {item}"));
    interrupt::go_on()
}
