//! `moac plan`: a plan for a model, from texts.

use std::ops::ControlFlow;
use std::path::PathBuf;

use indicatif::ProgressBar;
use moac_model::Model;
use moac_planner::calibrate::{Calibration, Mix, Options};
use moac_planner::eval::fingerprint;
use moac_planner::items::Task;
use moac_planner::pipeline::{self, Settings, Subject, Watch, plan, unseen_length};
use moac_planner::profile::Measure;
use moac_planner::refine::{Options as Refinement, RATE};
use moac_planner::tasks::Corpus;

use super::args::parse_count;
use super::profile::{beside, parse_weight};
use super::search::write_picture;
use super::space::SpaceArgs;
use super::validate::write_plan;
use super::{Context, ExitStatus, calibrate, check_out, profile, refine, validate};
use crate::error::Error;
use crate::interrupt;
use crate::report::{pareto_table, profile_table, refinement_table, validation_table};

/// Make a plan for a model from texts: calibrate, profile, search, validate and refine, resumable at any point
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model: a GGUF file, or a Hugging Face folder
    model: PathBuf,
    /// Texts: a file, or a folder of .txt, .rst, .md and .jsonl files, repeatable
    #[arg(long, value_name = "PATH", required = true)]
    data: Vec<PathBuf>,
    #[command(flatten)]
    space: SpaceArgs,
    /// Profile at these lengths
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', default_values_t = [1024, 2048, 4096])]
    lengths: Vec<u32>,
    /// Calibration items per length
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = parse_count)]
    items: usize,
    /// Shares of the tasks
    #[arg(long, value_name = "TASK=SHARE,..", default_value_t = Mix::default())]
    mix: Mix,
    /// How the loss of a mask is estimated
    #[arg(long, value_enum, default_value_t = Measure::Mixed)]
    measure: Measure,
    /// Weigh the tasks against one another: each one's influence as a share of all that it can lose, times its weight
    /// [default: by their items; of the measure mixed text=1,document=1,passkey=0.05,kv=0.05]
    #[arg(long, value_name = "TASK=WEIGHT,..", value_delimiter = ',', value_parser = parse_weight)]
    weights: Vec<(Task, f64)>,
    /// Choose by the loss at this length [default: twice the longest profiled one, within the model's context]
    #[arg(long, value_name = "TOKENS")]
    validate_length: Option<u32>,
    /// Shares of the tasks among the items to choose on [default: as --mix]
    #[arg(long, value_name = "TASK=SHARE,..")]
    validate_mix: Option<Mix>,
    /// Items to choose on
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = parse_count)]
    validate_items: usize,
    /// Refine the best plan on text in so many steps, as `moac refine` does, at the same KV bytes. Facts that only few
    /// heads look up do not count then: for plans too narrow to keep them. Every KV head gets a rule of its own
    #[arg(long, value_name = "STEPS", default_value_t = 0, conflicts_with_all = ["per", "rules_per_layer"])]
    refine: u16,
    /// Texts of each length in a step of the refinement
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    refine_batch: u16,
    /// Lengths of the refinement, at least two [default: as --lengths]
    #[arg(long, value_name = "TOKENS", value_delimiter = ',')]
    refine_lengths: Vec<u32>,
    /// The same seed gives the same items; those to choose on are of the next, and those to refine on of the one behind
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder that keeps what every stage made, and a picture of the Pareto set, `pareto.svg`
    /// [default: OUT with `.work` behind its name]
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    /// The plan file
    #[arg(short, long, value_name = "OUT")]
    out: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, Error> {
    check_out(&args.out)?;
    let model = Model::open(&args.model)?;
    moac_compiler::plan::supported(&model.decoder.config().shape(), &args.model)?;
    let corpus = Corpus::read(&args.data)?;
    let work = args.work.clone().unwrap_or_else(|| beside(&args.out, ".work"));
    let calibration = Options {
        lengths: args.lengths.clone(),
        items: args.items,
        seed: args.seed,
        mix: args.mix,
        answer_tokens: calibrate::ANSWER_TOKENS,
    };
    let length = args.validate_length.unwrap_or_else(|| unseen_length(model.decoder.config(), &args.lengths));
    if args.lengths.contains(&length) {
        context.note(format!("the plan is chosen at {length} tokens, which it is also profiled at"));
    }
    let settings = Settings {
        validation: Options {
            lengths: vec![length],
            items: args.validate_items,
            mix: args.validate_mix.unwrap_or(args.mix),
            seed: args.seed.wrapping_add(1),
            ..calibration.clone()
        },
        calibration,
        measure: args.measure,
        weights: match args.measure.weights() {
            _ if !args.weights.is_empty() => Some(args.weights.iter().copied().collect()),
            weights => weights,
        },
        search: args.space.options(),
        refine: args.refinement(),
    };
    let subject = Subject {
        model: &model,
        fingerprint: fingerprint::of_model(&args.model)?,
        corpus: &corpus,
        work: &work,
    };
    let space = args.space.read()?;
    let mut shown = Shown { context, bar: Bar::None };
    let made = plan(&subject, &settings, &|influence| space.space(influence, &[]), &mut shown);
    shown.finish();
    let made = made?;
    write_plan(&args.out, &made.plan)?;
    write_picture(&work.join("pareto.svg"), &made.search)?;
    if args.json {
        context.json(&made)?;
    } else {
        for table in
            [profile_table(&made.profile), pareto_table(&made.search), validation_table(&made.validation)]
        {
            context.print(format!("{table}\n"))?;
        }
        if let Some(refined) = &made.refined {
            context.print(format!("{}\n", refinement_table(refined)))?;
        }
    }
    let pipeline::Outcome { validation, .. } = &made;
    context.note(format!(
        "wrote {} of {} to `{}`",
        validation.plans[validation.best].name,
        validation.plans.len(),
        args.out.display()
    ));
    Ok(ExitStatus::Done)
}

impl Args {
    /// How to refine, and on what.
    fn refinement(&self) -> Option<(Refinement, Options)> {
        let (steps, batch) = (usize::from(self.refine), usize::from(self.refine_batch));
        let lengths =
            if self.refine_lengths.is_empty() { self.lengths.clone() } else { self.refine_lengths.clone() };
        let items = Options {
            lengths: lengths.clone(),
            items: steps * batch,
            seed: self.seed.wrapping_add(2),
            mix: Mix::only(Task::Text),
            answer_tokens: calibrate::ANSWER_TOKENS,
        };
        let how = Refinement {
            lengths,
            density: self.space.kv_bytes(),
            // Those of the search.
            bounds: Vec::new(),
            steps,
            batch,
            rate: RATE,
            parallel: refine::parallel(),
        };
        (steps > 0).then_some((how, items))
    }
}

/// The bar of the stage at hand.
enum Bar {
    None,
    Items(calibrate::Bar),
    Profile(profile::Bar),
    Search(ProgressBar),
    Validate(validate::Bar),
    Refine(refine::Bar),
}

/// Shows a run on stderr, one bar at a time.
struct Shown<'a> {
    context: &'a Context,
    bar: Bar,
}

impl Shown<'_> {
    fn finish(&mut self) {
        match std::mem::replace(&mut self.bar, Bar::None) {
            Bar::None => (),
            Bar::Items(bar) => bar.finish(),
            Bar::Profile(bar) => bar.finish(self.context),
            Bar::Search(bar) => bar.finish_and_clear(),
            Bar::Validate(bar) => bar.finish(),
            Bar::Refine(bar) => bar.finish(),
        }
    }
}

impl Watch for Shown<'_> {
    fn items(&mut self, _: &'static str, done: usize, all: usize, newest: &str) {
        if !matches!(self.bar, Bar::Items(_)) {
            self.finish();
            self.bar = Bar::Items(calibrate::Bar::new());
        }
        if let Bar::Items(bar) = &self.bar {
            bar.show(done, all, newest);
        }
    }

    fn made(&mut self, what: &'static str, made: &Calibration) {
        self.finish();
        self.context.note(format!("{what}: {} items", made.items.items.len()));
        calibrate::tell(made, self.context);
    }

    fn profile(&mut self, progress: moac_planner::profile::Progress<'_>) -> ControlFlow<()> {
        if !matches!(self.bar, Bar::Profile(_)) {
            self.finish();
            self.bar = Bar::Profile(profile::Bar::new());
        }
        match &self.bar {
            Bar::Profile(bar) => bar.show(progress),
            _ => ControlFlow::Continue(()),
        }
    }

    fn search(&mut self, done: usize, all: usize) -> ControlFlow<()> {
        if !matches!(self.bar, Bar::Search(_)) {
            self.finish();
            self.bar = Bar::Search(ProgressBar::new(0).with_message("solves"));
        }
        if let Bar::Search(bar) = &self.bar {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        }
        interrupt::go_on()
    }

    fn validate(&mut self, progress: moac_planner::validate::Progress<'_>) -> ControlFlow<()> {
        if !matches!(self.bar, Bar::Validate(_)) {
            self.finish();
            self.bar = Bar::Validate(validate::Bar::new());
        }
        match &self.bar {
            Bar::Validate(bar) => bar.show(progress),
            _ => ControlFlow::Continue(()),
        }
    }

    fn refine(&mut self, progress: moac_planner::refine::Progress) -> ControlFlow<()> {
        if !matches!(self.bar, Bar::Refine(_)) {
            self.finish();
            self.bar = Bar::Refine(refine::Bar::new());
        }
        match &self.bar {
            Bar::Refine(bar) => bar.show(progress),
            _ => ControlFlow::Continue(()),
        }
    }
}
