//! `moac validate`: the plan with the lowest loss at a length that none was made for.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use moac_model::Model;
use moac_planner::calibrate::{Mix, Options};
use moac_planner::eval::fingerprint;
use moac_planner::items::{Item, Items, Missing, Task};
use moac_planner::pipeline;
use moac_planner::tasks::Corpus;
use moac_planner::validate::{Candidate, Losses, Progress, ValidateError, chosen, validate};
use moac_runtime::plan::Plan;

use super::args::{input, on_disk, parse_count};
use super::eval::read_plan;
use super::profile::parse_task;
use super::{Context, ExitStatus, calibrate, check_out_beside_json, print_beside, write_out};
use crate::context::Bar;
use crate::error::Error;
use crate::interrupt;
use crate::report::validation_table;

/// Compare plans by their loss at a length they were not made for, and choose the best
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("questions").required(true).args(["items", "data"]))]
pub struct Args {
    /// The model: a GGUF file, or a Hugging Face folder
    model: PathBuf,
    /// Plans, or folders of plans
    #[arg(required = true, value_name = "PLAN", value_parser = input())]
    plans: Vec<PathBuf>,
    /// Items to answer, as `moac calibrate` writes them
    #[arg(long, value_name = "ITEMS.jsonl", value_parser = input())]
    items: Option<PathBuf>,
    /// Texts to make items from, as `moac calibrate` does
    #[arg(long, value_name = "PATH", value_parser = input())]
    data: Vec<PathBuf>,
    /// The context length, other than the profiled ones
    #[arg(long, value_name = "TOKENS")]
    length: u32,
    /// Validate only on the items of these tasks: document, passkey, kv, text, or a kind of facts
    #[arg(long, value_name = "TASK,..", value_delimiter = ',', value_parser = parse_task)]
    tasks: Vec<Task>,
    /// Maximum number of items; with --data, the number to make
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = parse_count)]
    most: usize,
    /// With --data: the seed, other than that of the calibration
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder for losses and items, which are reused by later runs
    #[arg(long, value_name = "DIR", default_value = ".moac", value_parser = on_disk())]
    work: PathBuf,
    /// Write the best plan to this file, or to - for standard output; its provenance says how it was chosen
    #[arg(short, long, value_name = "PLAN.json")]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, Error> {
    args.out.as_deref().map_or(Ok(()), |path| check_out_beside_json(path, args.json))?;
    let model = Model::open(&args.model)?;
    let shape = model.decoder.config().shape();
    let files = files(&args.plans, args.out.as_deref())?;
    let stem = |path: &Path| path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let candidate = |path: &PathBuf| {
        // Plans of several searches are often called the same.
        let alone = files.iter().filter(|other| stem(other) == stem(path)).count() == 1;
        let name = if alone { stem(path) } else { path.display().to_string() };
        Ok(Candidate { name, plan: read_plan(path, &shape)? })
    };
    let candidates: Vec<Candidate> = files.iter().map(candidate).collect::<Result<_, Error>>()?;
    let digest = fingerprint::of_model(&args.model)?;
    let items = if let Some(path) = &args.items {
        Items::read(path)?
    } else {
        let options = Options {
            lengths: vec![args.length],
            items: args.most,
            seed: args.seed,
            mix: Mix::default(),
            answer_tokens: calibrate::ANSWER_TOKENS,
        };
        let corpus = Corpus::read(&args.data)?;
        let bar = context.steps(calibrate::MAKING, 0);
        let made = pipeline::items(&model, digest, &corpus, &options, &args.work, |done, all, newest| {
            calibrate::show(&bar, done, all, newest);
        });
        drop(bar);
        let made = made?;
        calibrate::tell(&made, context);
        made.items
    };
    items.belongs_to(&model.tokenizer)?;
    let fits = |item: &&Item| {
        item.length == args.length && (args.tasks.is_empty() || args.tasks.contains(&item.task))
    };
    let asked: Vec<&Item> = items.items.iter().filter(fits).take(args.most).collect();
    if asked.is_empty() {
        return Err(ValidateError::NoItems(Missing::new(&[args.length], &args.tasks, &items.items)).into());
    }
    interrupt::flag();
    let bar = context.steps(VALIDATING, 0);
    let losses = Losses::new(&args.work.join("losses"), digest);
    let validation = validate(&model.decoder, &candidates, &asked, args.length, &losses, &mut |progress| {
        show(&bar, progress)
    });
    drop(bar);
    let validation = validation?;
    if let Some(path) = &args.out {
        write_plan(path, &chosen(&candidates, &validation, &items.header), context)?;
        context.note(format!("wrote {} to `{}`", candidates[validation.best].name, path.display()));
    }
    if args.json {
        context.json(&validation)?;
    } else {
        let beside = args.out.as_deref().unwrap_or(Path::new(""));
        print_beside(beside, validation_table(&validation), context)?;
    }
    Ok(ExitStatus::Done)
}

/// Files as they are given; of a folder its `.json` files, by name, but for the file that is to be written: an earlier
/// run left there what it chose among the others.
fn files(given: &[PathBuf], out: Option<&Path>) -> Result<Vec<PathBuf>, Error> {
    let out = out.and_then(|out| out.canonicalize().ok());
    let mut files = Vec::new();
    for path in given {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = path.read_dir().map_err(Error::file("read", path))?;
        let mut found = Vec::new();
        for entry in entries {
            found.push(entry.map_err(Error::file("read", path))?.path());
        }
        let is_out = |file: &Path| out.is_some() && file.canonicalize().ok() == out;
        found.retain(|file| file.extension().is_some_and(|extension| extension == "json") && !is_out(file));
        found.sort();
        files.extend(found);
    }
    Ok(files)
}

/// Writes a plan, whole or not at all.
pub(super) fn write_plan(path: &Path, plan: &Plan, context: &Context) -> Result<(), Error> {
    let text =
        serde_json::to_string_pretty(plan).map_err(|error| Error::file("write", path)(error.into()))?;
    write_out(path, format!("{text}\n").as_bytes(), context)
}

/// The label of the progress bar.
pub(super) const VALIDATING: &str = "validating";

/// Shows how far the validation is; stops it where an interrupt asked for that.
pub(super) fn show(bar: &Bar, progress: Progress<'_>) -> ControlFlow<()> {
    bar.show(progress.done, progress.all);
    bar.message(format!("{} under {}", progress.item, progress.plan));
    interrupt::go_on()
}
