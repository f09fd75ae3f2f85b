//! `moac profile`: calibration items to attention influence.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use moac_model::Model;
use moac_planner::eval::fingerprint;
use moac_planner::items::{Items, Task};
use moac_planner::profile::store::Store;
use moac_planner::profile::{
    Choice, LengthSummary, Measure, ProfileError, Progress, Weights, choose, influence, profile, provenance,
};

use super::args::parse_count;
use super::{Context, ExitStatus, check_out};
use crate::error::Error;
use crate::interrupt;
use crate::report::profile_table;

/// Measure what masking attention would do to the loss: the influence of every head by 64-token block
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model: a GGUF file, or a Hugging Face folder
    model: PathBuf,
    /// Calibration items, as `moac calibrate` writes them
    items: PathBuf,
    /// Profile the items of these lengths [default: all that there are items of]
    #[arg(long, value_name = "TOKENS", value_delimiter = ',')]
    lengths: Vec<u32>,
    /// Profile only the items of these tasks: document, passkey, kv, text
    #[arg(long, value_name = "TASK", value_delimiter = ',', value_parser = parse_task)]
    tasks: Vec<Task>,
    /// The most items of a length
    #[arg(long, value_name = "N", value_parser = parse_count)]
    most: Option<usize>,
    /// How the loss of a mask is estimated
    #[arg(long, value_enum, default_value_t = Measure::Mixed)]
    measure: Measure,
    /// Write another file by another measure, repeatable
    #[arg(long = "also", value_name = "MEASURE=FILE", value_parser = parse_also)]
    also: Vec<(Measure, PathBuf)>,
    /// Weigh the tasks against one another: each one's influence as a share of all that it can lose, times its weight
    /// [default: by their items; of the measure mixed text=1,document=1,passkey=0.05,kv=0.05]
    #[arg(long, value_name = "TASK=WEIGHT,..", value_delimiter = ',', value_parser = parse_weight)]
    weights: Vec<(Task, f64)>,
    /// Folder that keeps every item's sums [default: OUT with `.items` behind its name]
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    /// The influence file
    #[arg(short, long, value_name = "OUT")]
    out: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn parse_task(text: &str) -> Result<Task, String> {
    Task::from_name(text)
        .ok_or_else(|| format!("`{text}` is no task: expected {}", Task::ALL.map(Task::name).join(", ")))
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

fn parse_also(text: &str) -> Result<(Measure, PathBuf), String> {
    let parse = || {
        let (measure, file) = text.split_once('=')?;
        Some((Measure::from_name(measure)?, PathBuf::from(file)))
    };
    let names = Measure::ALL.map(Measure::name).join(", ");
    parse().ok_or_else(|| {
        format!("`{text}`: expected a measure and a file, as in absolute=FILE; measures are {names}")
    })
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, Error> {
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
    let bar = Bar::new();
    let summary =
        profile(&model.decoder, &chosen, (&store, args.measure), &mut |progress| bar.show(progress));
    bar.finish(context);
    let summary: Vec<LengthSummary> = summary?;
    let given: Option<Weights> = (!args.weights.is_empty()).then(|| args.weights.iter().copied().collect());
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

/// `path` with something behind its file name.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Progress and time left on stderr, and a stop where one was asked for.
pub(super) struct Bar {
    drawn: ProgressBar,
    start: Instant,
    /// Floating-point operations done.
    work: std::cell::Cell<f64>,
}

impl Bar {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("{elapsed_precise} {wide_bar} {msg}, {eta} left") {
            bar.set_style(style);
        }
        interrupt::flag();
        Self { drawn: bar, start: Instant::now(), work: std::cell::Cell::new(0.0) }
    }

    pub(super) fn show(&self, progress: Progress<'_>) -> ControlFlow<()> {
        let Progress { item, items: (done, all), work: (so_far, total) } = progress;
        // In millions of operations, which fit.
        self.drawn.set_length((total / 1e6) as u64);
        self.drawn.set_position((so_far / 1e6) as u64);
        self.drawn.set_message(format!("{done} of {all} items, at {item}"));
        self.work.set(so_far);
        interrupt::go_on()
    }

    pub(super) fn finish(&self, context: &Context) {
        self.drawn.finish_and_clear();
        let (seconds, work) = (self.start.elapsed().as_secs_f64(), self.work.get());
        if work > 0.0 {
            context.note(format!("profiled in {seconds:.0} s, {:.0} GFLOP/s", work / seconds / 1e9));
        }
    }
}
