//! `moac validate`: the plan with the lowest loss at a length that none was made for.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use moac_model::Model;
use moac_planner::calibrate::{Mix, Options};
use moac_planner::eval::fingerprint;
use moac_planner::items::{Item, Items, Task};
use moac_planner::pipeline;
use moac_planner::tasks::Corpus;
use moac_planner::validate::{Candidate, Losses, Progress, ValidateError, chosen, validate};
use moac_runtime::file;
use moac_runtime::plan::Plan;

use super::args::parse_count;
use super::eval::read_plan;
use super::profile::parse_task;
use super::{Context, ExitStatus, calibrate, check_out};
use crate::error::Error;
use crate::interrupt;
use crate::report::validation_table;

/// Compare plans by their loss on answers at a length they were not made for, and choose the best
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("questions").required(true).args(["items", "data"]))]
pub struct Args {
    /// The model: a GGUF file, or a Hugging Face folder
    model: PathBuf,
    /// The plans, and folders of plans
    #[arg(required = true, value_name = "PLAN")]
    plans: Vec<PathBuf>,
    /// Items to answer, as `moac calibrate` writes them
    #[arg(long, value_name = "ITEMS.jsonl")]
    items: Option<PathBuf>,
    /// Texts to make items from, as `moac calibrate` does
    #[arg(long, value_name = "PATH")]
    data: Vec<PathBuf>,
    /// The context length: another one than the profiled ones
    #[arg(long, value_name = "TOKENS")]
    length: u32,
    /// Validate only on the items of these tasks: document, passkey, kv, text
    #[arg(long, value_name = "TASK", value_delimiter = ',', value_parser = parse_task)]
    tasks: Vec<Task>,
    /// The most items; with --data, how many to make
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = parse_count)]
    most: usize,
    /// With --data: another seed than that of the calibration
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder that keeps losses and items that were made
    #[arg(long, value_name = "DIR", default_value = ".moac")]
    work: PathBuf,
    /// Write the best plan here, its provenance told how it was chosen
    #[arg(short, long, value_name = "PLAN.json")]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, Error> {
    args.out.as_deref().map_or(Ok(()), check_out)?;
    let model = Model::open(&args.model)?;
    let shape = model.decoder.config().shape();
    let files = files(&args.plans)?;
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
        let bar = calibrate::Bar::new();
        let made = pipeline::items(&model, digest, &corpus, &options, &args.work, |done, all, newest| {
            bar.show(done, all, newest);
        });
        bar.finish();
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
        return Err(ValidateError::NoItems { length: args.length, levels: items.lengths() }.into());
    }
    let bar = Bar::new();
    let losses = Losses::new(&args.work.join("losses"), digest);
    let validation = validate(&model.decoder, &candidates, &asked, args.length, &losses, &mut |progress| {
        bar.show(progress)
    });
    bar.finish();
    let validation = validation?;
    if let Some(path) = &args.out {
        write_plan(path, &chosen(&candidates, &validation, &items.header))?;
        context.note(format!("wrote {} to `{}`", candidates[validation.best].name, path.display()));
    }
    if args.json {
        context.json(&validation)?;
    } else {
        context.print(validation_table(&validation))?;
    }
    Ok(ExitStatus::Done)
}

/// Files as they are given; of a folder its `.json` files, by name.
fn files(given: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
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
        found.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
        found.sort();
        files.extend(found);
    }
    Ok(files)
}

/// Writes a plan, whole or not at all.
pub(super) fn write_plan(path: &Path, plan: &Plan) -> Result<(), Error> {
    let text =
        serde_json::to_string_pretty(plan).map_err(|error| Error::file("write", path)(error.into()))?;
    file::write(path, format!("{text}\n").as_bytes()).map_err(Error::file("write", path))
}

/// Progress and time left on stderr, and a stop where one was asked for.
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::new(0);
        if let Ok(style) =
            ProgressStyle::with_template("{elapsed_precise} {wide_bar} {pos} of {len}, {msg}, {eta} left")
        {
            bar.set_style(style);
        }
        interrupt::flag();
        Self(bar)
    }

    pub(super) fn show(&self, progress: Progress<'_>) -> ControlFlow<()> {
        self.0.set_length(progress.all as u64);
        self.0.set_position(progress.done as u64);
        self.0.set_message(format!("{} under {}", progress.item, progress.plan));
        interrupt::go_on()
    }

    pub(super) fn finish(&self) {
        self.0.finish_and_clear();
    }
}
