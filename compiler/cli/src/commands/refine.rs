//! `moac refine`: a plan's spans moved to where the model under the plan loses least.

use std::ops::ControlFlow;
use std::path::PathBuf;

use moac_model::Model;
use moac_planner::eval::fingerprint;
use moac_planner::items::Items;
use moac_planner::refine::{Options, Progress, RATE, Slopes, refine};

use super::args::{input, on_disk};
use super::eval::read_plan;
use super::profile::beside;
use super::validate::write_plan;
use super::{Context, ExitStatus, check_out_beside_json, print_beside};
use crate::context::Bar;
use crate::error::Error;
use crate::interrupt;
use crate::report::refinement_table;

/// Move the spans of a plan, at the same KV bytes, to where the model loses least under the plan
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model: a GGUF file, or a Hugging Face folder
    model: PathBuf,
    /// The plan to start from
    #[arg(value_parser = input())]
    plan: PathBuf,
    /// Calibration items, as `moac calibrate` writes them: enough for every step to have its own
    #[arg(value_parser = input())]
    items: PathBuf,
    /// Refine on the items of these lengths, at least two: a rule is set by its spans at the first and the last
    /// [default: every length among the items]
    #[arg(long, value_name = "TOKENS,..", value_delimiter = ',')]
    lengths: Vec<u32>,
    /// KV bytes from the first to the last length over those of dense attention [default: the plan's own at each]
    #[arg(long, value_name = "FRACTION", value_parser = parse_density)]
    density: Option<f64>,
    /// Number of steps
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..))]
    steps: u16,
    /// Items of each length in a step
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// How far spans move in the first step, as a power of two; the distance falls to a fifth of that in the last step
    #[arg(long, value_name = "POWER", default_value_t = RATE, value_parser = parse_rate)]
    rate: f64,
    /// Items to process at the same time, each with its own memory [default: one for every four cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    parallel: Option<u16>,
    /// Folder for the gradient of every item, which is reused by later runs [default: OUT with `.slopes` appended]
    #[arg(long, value_name = "DIR", value_parser = on_disk())]
    work: Option<PathBuf>,
    /// The refined plan, or - for standard output
    #[arg(short, long, value_name = "OUT")]
    out: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn parse_density(text: &str) -> Result<f64, String> {
    let density = text.parse().ok().filter(|density| *density > 0.0 && *density <= 1.0);
    density.ok_or_else(|| format!("`{text}` is not a density: expected a fraction above 0 and at most 1"))
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| *rate > 0.0 && *rate <= 4.0);
    rate.ok_or_else(|| format!("`{text}` is not a rate: expected a number above 0 and at most 4"))
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, Error> {
    check_out_beside_json(&args.out, args.json)?;
    let items = Items::read(&args.items)?;
    let digest = fingerprint::of_model(&args.model)?;
    let model = Model::open(&args.model)?;
    items.belongs_to(&model.tokenizer)?;
    let plan = read_plan(&args.plan, &model.decoder.config().shape())?;
    let options = Options {
        lengths: if args.lengths.is_empty() { items.lengths() } else { args.lengths.clone() },
        density: args.density,
        bounds: Vec::new(),
        steps: usize::from(args.steps),
        batch: usize::from(args.batch),
        rate: args.rate,
        parallel: args.parallel.map_or_else(parallel, usize::from),
    };
    let work = args.work.clone().unwrap_or_else(|| beside(&args.out, ".slopes"));
    interrupt::flag();
    let bar = context.work(REFINING);
    let slopes = Slopes::new(&work, digest);
    let refined =
        refine(&model.decoder, &plan, &items, &options, &slopes, &mut |progress| show(&bar, progress));
    drop(bar);
    let refined = refined?;
    write_plan(&args.out, &refined.plan, context)?;
    context.note(format!("wrote `{}`", args.out.display()));
    if args.json {
        context.json(&refined)?;
    } else {
        print_beside(&args.out, refinement_table(&refined), context)?;
    }
    Ok(ExitStatus::Done)
}

/// Items at work at the same time where nothing is said: the cores of one share its matrix products well up to about four.
pub(super) fn parallel() -> usize {
    rayon::current_num_threads().div_ceil(4)
}

/// The label of the progress bar.
pub(super) const REFINING: &str = "refining";

/// Shows how far the refinement is; stops it where an interrupt asked for that.
pub(super) fn show(bar: &Bar, progress: Progress) -> ControlFlow<()> {
    let Progress { steps: (done, all), work: (so_far, total) } = progress;
    bar.show_work(so_far, total);
    bar.message(format!("{done} of {all} steps"));
    interrupt::go_on()
}
