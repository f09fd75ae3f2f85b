//! `moac eval`: the quality of plans compared with dense and uniform attention.

use std::path::{Path, PathBuf};

use moac_compiler::{env, plan};
use moac_model::Model;
use moac_planner::eval::cells::Store;
use moac_planner::eval::report::{self, Report};
use moac_planner::eval::suite::{self, QUESTIONS, ascending, once, parse_lengths};
use moac_planner::eval::{
    EvalError, Evaluation, NamedPlan, Progress, Run, Shard, Suite, Task, fingerprint, items,
};
use moac_planner::tasks::{Corpus, Set};
use moac_runtime::plan::{ModelShape, Plan};

use super::args::{input, on_disk, parse_count};
use super::{Context, ExitStatus, check_out_beside_json, print_beside, write_out};
use crate::context::Bar;
use crate::error::Error;
use crate::interrupt;
use crate::report::{quality_chart, quality_markdown, quality_tables};

/// Measure quality: dense, uniform spans and plans side by side, on text, retrieval and synthetic tasks
///
/// Tasks: nll is the loss on text. passkey, kv and facts hide facts in text and ask for one: an answer is right if greedy
/// decoding gives exactly it. turns and the tasks of RULER (all together: ruler) let the model answer in its own words: their
/// score is the share of the expected texts that are in the answer.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model: a GGUF file, or a Hugging Face folder
    pub model: PathBuf,
    /// Plans to evaluate, each beside uniform spans of the same KV bytes
    #[arg(long = "plan", value_name = "PLAN", value_parser = input())]
    pub plans: Vec<PathBuf>,
    /// The task [default: nll, passkey and kv, with --quick]
    #[arg(long = "task", value_name = "TASK,..", value_delimiter = ',', required_unless_present_any = ["suite", "quick"])]
    pub tasks: Vec<Task>,
    /// Context lengths: tokens, or a range with a step as in 1024..8192:512 [default: 1024,2048 with --quick]
    #[arg(long, value_name = "TOKENS,..", value_delimiter = ',', value_parser = parse_lengths,
          required_unless_present_any = ["suite", "quick"])]
    pub lengths: Vec<Vec<u32>>,
    /// Texts that were not used to find the plan: a .txt file, a folder of them, or - for standard input
    #[arg(long, value_name = "DIR", value_parser = input())]
    pub data: PathBuf,
    /// Texts to hide the facts of retrieval tasks in [default: those of --data]
    #[arg(long, value_name = "PATH", value_parser = input())]
    pub filler: Option<PathBuf>,
    /// Windows or contexts of each length; of each task of ruler and each kind of facts [default: 8 windows; 10 contexts, 4
    /// from 8192 on]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub items: Option<usize>,
    /// Questions about a context of passkey and kv
    #[arg(long, value_name = "N", default_value_t = QUESTIONS, value_parser = parse_count)]
    pub questions: usize,
    /// Facts in a context of passkey and kv, at least as many as questions [default: as many as are usual for the task]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub facts: Option<usize>,
    /// Seed of the retrieval tasks
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Leave the model's chat template out of synthetic tasks and turns: the text goes on with a question and its answer
    #[arg(long)]
    pub plain: bool,
    /// The formats of facts and turns; `moac calibrate` has others than these two
    #[arg(long, value_enum, default_value_t = Formats::Report)]
    pub formats: Formats,
    /// A file that lists plans and runs, to make all tables with one command
    #[arg(long, value_name = "FILE", conflicts_with_all = ["plans", "tasks", "lengths", "items", "questions", "facts", "seed", "plain", "formats"], value_parser = input())]
    pub suite: Option<PathBuf>,
    /// Use short lengths and few items, for a result within minutes
    #[arg(long)]
    pub quick: bool,
    /// Folder for the measurements, which are reused by later runs [default: eval in moac's cache folder]
    #[arg(long, value_name = "DIR", value_parser = on_disk())]
    pub cells: Option<PathBuf>,
    /// Measure only part I of N, as in 1/4; the cells of parts run elsewhere can be copied into one folder
    #[arg(long, value_name = "I/N", value_parser = parse_shard)]
    pub shard: Option<Shard>,
    /// Print tables of earlier measurements without measuring anything
    #[arg(long, conflicts_with = "shard")]
    pub tables_only: bool,
    /// Draw accuracy by length, or the loss by KV bytes: to one file (- for standard output), or to a folder where there
    /// are several runs
    #[arg(long, value_name = "OUT.svg")]
    pub svg: Option<PathBuf>,
    #[command(flatten)]
    form: Form,
}

/// What a set of formats is for.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Formats {
    /// To report what a plan keeps
    Report,
    /// To choose among settings and plans
    Choice,
}

/// How results are printed.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct Form {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print Markdown
    #[arg(long)]
    markdown: bool,
}

fn parse_shard(text: &str) -> Result<Shard, String> {
    let parse = || {
        let (at, of) = text.split_once('/')?;
        let (at, of): (usize, usize) = (at.parse().ok()?, of.parse().ok()?);
        (1..=of).contains(&at).then(|| Shard { at: at - 1, of })
    };
    parse().ok_or_else(|| format!("`{text}` is not a part: expected two numbers, as in 1/4"))
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, Error> {
    let model = Model::open(&args.model)?;
    let shape = model.decoder.config().shape();
    let suite = args.suite(&shape)?;
    if let (Some(path), [_]) = (&args.svg, suite.runs.as_slice()) {
        check_out_beside_json(path, args.form.json)?;
    }
    let asks = |questions| suite.runs.iter().any(|run| run.task.asks() == questions);
    let texts = if asks(false) { items::texts(&args.data, &model.tokenizer)? } else { Vec::new() };
    let filler = [args.filler.as_ref().unwrap_or(&args.data).clone()];
    let filler = asks(true).then(|| Corpus::read(&filler)).transpose().map_err(EvalError::from)?;
    let store = Store::at(&args.cells.clone().unwrap_or_else(default_cells));
    let fingerprint = fingerprint::of_model(&args.model)?;
    let evaluation = Evaluation {
        model: &model,
        fingerprint,
        plans: &suite.plans,
        texts: &texts,
        filler: filler.as_ref(),
        store: &store,
        stop: interrupt::flag(),
    };
    let shard = if args.tables_only { Shard::NONE } else { args.shard.unwrap_or(Shard::ALL) };
    let bar = context.work("evaluating");
    let measured = evaluation.run(&suite.runs, shard, &mut |progress| show(&bar, progress));
    drop(bar);
    let runs = report::of_runs(&measured?, &suite.plans);
    let report = Report { title: suite.title, model: shape.name, fingerprint, runs };
    let rows = || report.runs.iter().flat_map(|run| &run.by_length).flat_map(|at| &at.rows);
    let (done, all) =
        (rows().map(|row| row.items).sum::<usize>(), rows().map(|row| row.all_items).sum::<usize>());
    if done < all {
        context.note(format!("{done} of {all} items are measured; the tables cover only these"));
    }
    if let Some(path) = &args.svg {
        draw(path, &report, context)?;
    }
    let beside = args.svg.as_deref().unwrap_or(Path::new(""));
    if args.form.json {
        context.json(&report)?;
    } else if args.form.markdown {
        print_beside(beside, quality_markdown(&report), context)?;
    } else {
        print_beside(beside, quality_tables(&report), context)?;
    }
    Ok(ExitStatus::Done)
}

/// Writes the pictures: into the file of a single run, or into a folder, named as the runs are.
fn draw(path: &Path, report: &Report, context: &Context) -> Result<(), Error> {
    let [run] = report.runs.as_slice() else {
        std::fs::create_dir_all(path).map_err(Error::file("create", path))?;
        return report.runs.iter().try_for_each(|run| {
            let path = path.join(format!("{}.svg", run.run.name));
            write_out(&path, quality_chart(run).as_bytes(), context)
        });
    };
    write_out(path, quality_chart(run).as_bytes(), context)
}

fn default_cells() -> PathBuf {
    env::cache_folder().unwrap_or_else(|| PathBuf::from(".moac")).join("eval")
}

impl Args {
    /// The suite that the flags describe.
    fn suite(&self, shape: &ModelShape) -> Result<Suite, Error> {
        let mut suite = match &self.suite {
            Some(path) => suite::read(path, |path| read_plan(path, shape))?,
            None => self.of_flags(shape)?,
        };
        if self.quick {
            suite.runs = suite.runs.into_iter().map(Run::quick).collect();
        }
        Ok(suite)
    }

    fn of_flags(&self, shape: &ModelShape) -> Result<Suite, Error> {
        let mut plans = Vec::new();
        for path in &self.plans {
            let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
            plans.push(NamedPlan { name, plan: read_plan(path, shape)? });
        }
        once("plans", plans.iter().map(|plan| plan.name.as_str()))?;
        let tasks = if self.tasks.is_empty() { Task::QUICK.to_vec() } else { self.tasks.clone() };
        let run = |task: Task| Run {
            name: task.name().to_owned(),
            title: task.title().to_owned(),
            task,
            lengths: ascending(self.lengths.clone()),
            plans: (0..plans.len()).collect(),
            items: self.items,
            long_items: None,
            questions: self.questions,
            facts: self.facts,
            seed: self.seed,
            plain: self.plain,
            set: match self.formats {
                Formats::Report => Set::Report,
                Formats::Choice => Set::Choice,
            },
        };
        let runs = tasks.into_iter().map(run).collect();
        Ok(Suite { title: None, runs, plans })
    }
}

/// A plan of this very model.
pub(super) fn read_plan(path: &Path, shape: &ModelShape) -> Result<Plan, Error> {
    let plan = plan::read(path, Some(shape.clone()))?;
    let sizes = |s: &ModelShape| (s.num_layers, s.num_heads, s.num_kv_heads, s.head_dim, s.scale().to_bits());
    if sizes(&plan.model) != sizes(shape) {
        let (found, expected) = (plan.model.name, shape.name.clone());
        return Err(Error::OtherModel { path: path.to_owned(), found, expected });
    }
    Ok(plan)
}

/// Shows how far the evaluation is.
fn show(bar: &Bar, progress: &Progress) {
    let Progress { cells, all_cells, work, all_work, next, .. } = progress;
    bar.show_work(*work, *all_work);
    bar.message(format!("{cells} of {all_cells} cells, next {next}"));
}
