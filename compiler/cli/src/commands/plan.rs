//! `moac plan`: a plan for a model, from texts.

use std::ops::ControlFlow;
use std::path::PathBuf;

use moac_model::Model;
use moac_planner::calibrate::{Calibration, Mix, Options};
use moac_planner::eval::fingerprint;
use moac_planner::items::Task;
use moac_planner::pipeline::{self, Settings, Subject, Watch, plan, unseen_length};
use moac_planner::profile::Measure;
use moac_planner::refine::{Options as Refinement, RATE};
use moac_planner::tasks::Corpus;

use super::args::{input, on_disk, parse_count};
use super::profile::{beside, given_weights, parse_weight};
use super::search::{self, write_picture};
use super::space::SpaceArgs;
use super::validate::write_plan;
use super::{Context, ExitStatus, calibrate, check_out_beside_json, print_beside, profile, refine, validate};
use crate::context::Bar;
use crate::error::Error;
use crate::report::{pareto_table, profile_table, refinement_table, validation_table};

/// Make a plan for a model from texts: calibrate, profile, search, validate and refine, resumable at any point
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model: a GGUF file, or a Hugging Face folder
    model: PathBuf,
    /// The plan file, or - for standard output
    #[arg(short, long, value_name = "OUT")]
    out: PathBuf,
    /// Folder for the results of each stage, and a picture of the Pareto set, `pareto.svg`: a run that was stopped goes on
    /// from there [default: OUT with `.work` appended]
    #[arg(long, value_name = "DIR", value_parser = on_disk())]
    work: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten, next_help_heading = "Calibration")]
    calibration: CalibrationArgs,
    #[command(flatten, next_help_heading = "Profile")]
    profile: ProfileArgs,
    #[command(flatten, next_help_heading = "Search")]
    space: SpaceArgs,
    #[command(flatten, next_help_heading = "Validation")]
    validation: ValidationArgs,
    #[command(flatten, next_help_heading = "Refinement")]
    refinement: RefinementArgs,
}

/// The calibration items.
#[derive(Debug, clap::Args)]
struct CalibrationArgs {
    /// Texts: a file, or a folder of .txt, .rst, .md and .jsonl files, repeatable
    #[arg(long, value_name = "PATH", required = true, value_parser = input())]
    data: Vec<PathBuf>,
    /// Profile at these lengths
    #[arg(long, value_name = "TOKENS,..", value_delimiter = ',', default_value = calibrate::LENGTHS)]
    lengths: Vec<u32>,
    /// Calibration items per length
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = parse_count)]
    items: usize,
    /// Shares of the tasks
    #[arg(long, value_name = "TASK=SHARE,..", default_value_t = Mix::default())]
    mix: Mix,
    /// The same seed gives the same items; validation uses the next seed, refinement the one after that
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// How the model is profiled.
#[derive(Debug, clap::Args)]
struct ProfileArgs {
    /// How to estimate the loss of a mask
    #[arg(long, value_enum, default_value_t = Measure::Mixed)]
    measure: Measure,
    /// Weights of the tasks against one another: the influence of each is taken as a share of all that it can lose, times
    /// its weight [default: by the number of their items; with the measure mixed text=1,document=1,passkey=0.05,kv=0.05
    /// and 0.02 for each kind of fact]
    #[arg(long, value_name = "TASK=WEIGHT,..", value_delimiter = ',', value_parser = parse_weight)]
    weights: Vec<(Task, f64)>,
}

/// How the plan is chosen.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_field_names, reason = "they are the names of the flags")]
struct ValidationArgs {
    /// Choose by the loss at this length [default: twice the longest profiled one, within the model's context]
    #[arg(long, value_name = "TOKENS")]
    validate_length: Option<u32>,
    /// Shares of the tasks among the items to choose on [default: as --mix]
    #[arg(long, value_name = "TASK=SHARE,..")]
    validate_mix: Option<Mix>,
    /// Items to choose on
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = parse_count)]
    validate_items: usize,
}

/// How the chosen plan is refined.
#[derive(Debug, clap::Args)]
struct RefinementArgs {
    /// Refine the best plan on text in this many steps, as `moac refine` does, at the same KV bytes. This ignores facts
    /// that only few heads look up, so use it for plans too narrow to keep them. Every KV head gets its own rule
    #[arg(long, value_name = "STEPS", default_value_t = 0, conflicts_with_all = ["per", "rules_per_layer"])]
    refine: u16,
    /// Texts of each length in a step of the refinement
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    refine_batch: u16,
    /// Lengths of the refinement, at least two [default: as --lengths]
    #[arg(long, value_name = "TOKENS,..", value_delimiter = ',')]
    refine_lengths: Vec<u32>,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, Error> {
    check_out_beside_json(&args.out, args.json)?;
    let weights = given_weights(&args.profile.weights)?;
    let model = Model::open(&args.model)?;
    moac_compiler::plan::supported(&model.decoder.config().shape(), &args.model)?;
    let CalibrationArgs { data, lengths, items, mix, seed } = &args.calibration;
    let corpus = Corpus::read(data)?;
    let work = args.work.clone().unwrap_or_else(|| beside(&args.out, ".work"));
    let calibration = Options {
        lengths: lengths.clone(),
        items: *items,
        seed: *seed,
        mix: *mix,
        answer_tokens: calibrate::ANSWER_TOKENS,
    };
    let ValidationArgs { validate_length, validate_mix, validate_items } = args.validation;
    let length = validate_length.unwrap_or_else(|| unseen_length(model.decoder.config(), lengths));
    if lengths.contains(&length) {
        context.note(format!(
            "--validate-length: the plan is chosen at {length} tokens, a length that it is also profiled at"
        ));
    }
    let settings = Settings {
        validation: Options {
            lengths: vec![length],
            items: validate_items,
            mix: validate_mix.unwrap_or(*mix),
            seed: seed.wrapping_add(1),
            ..calibration.clone()
        },
        calibration,
        measure: args.profile.measure,
        weights: weights.or_else(|| args.profile.measure.weights()),
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
    let mut shown = Shown { context, stage: None };
    let made = plan(&subject, &settings, &|influence| space.space(influence, &[]), &mut shown);
    drop(shown);
    let made = made?;
    write_plan(&args.out, &made.plan, context)?;
    write_picture(&work.join("pareto.svg"), &made.search)?;
    if args.json {
        context.json(&made)?;
    } else {
        for table in
            [profile_table(&made.profile), pareto_table(&made.search), validation_table(&made.validation)]
        {
            print_beside(&args.out, format!("{table}\n"), context)?;
        }
        if let Some(refined) = &made.refined {
            print_beside(&args.out, format!("{}\n", refinement_table(refined)), context)?;
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
    /// How to refine, and on which items.
    fn refinement(&self) -> Option<(Refinement, Options)> {
        let &RefinementArgs { refine, refine_batch, ref refine_lengths } = &self.refinement;
        let (steps, batch) = (usize::from(refine), usize::from(refine_batch));
        let lengths = if refine_lengths.is_empty() { &self.calibration.lengths } else { refine_lengths };
        let items = Options {
            lengths: lengths.clone(),
            items: steps * batch,
            seed: self.calibration.seed.wrapping_add(2),
            mix: Mix::only(Task::Text),
            answer_tokens: calibrate::ANSWER_TOKENS,
        };
        let how = Refinement {
            lengths: lengths.clone(),
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

/// Shows a run on stderr: a bar for the stage at hand.
struct Shown<'a> {
    context: &'a Context,
    stage: Option<(&'static str, Bar)>,
}

impl Shown<'_> {
    /// The bar of a stage, which replaces that of the stage before it.
    fn bar(&mut self, stage: &'static str, new: impl FnOnce(&Context) -> Bar) -> &Bar {
        if self.stage.as_ref().is_none_or(|(shown, _)| *shown != stage) {
            self.stage = None;
        }
        let context = self.context;
        &self.stage.get_or_insert_with(|| (stage, new(context))).1
    }
}

impl Watch for Shown<'_> {
    fn items(&mut self, _: &'static str, done: usize, all: usize, newest: &str) {
        let bar = self.bar(calibrate::MAKING, |context| context.steps(calibrate::MAKING, 0));
        calibrate::show(bar, done, all, newest);
    }

    fn made(&mut self, what: &'static str, made: &Calibration) {
        self.stage = None;
        self.context.note(format!("{what}: {} items", made.items.items.len()));
        calibrate::tell(made, self.context);
    }

    fn profile(&mut self, progress: moac_planner::profile::Progress<'_>) -> ControlFlow<()> {
        profile::show(self.bar(profile::PROFILING, |context| context.work(profile::PROFILING)), progress)
    }

    fn search(&mut self, done: usize, all: usize) -> ControlFlow<()> {
        search::show(self.bar(search::SOLVING, |context| context.steps(search::SOLVING, 0)), done, all)
    }

    fn validate(&mut self, progress: moac_planner::validate::Progress<'_>) -> ControlFlow<()> {
        let bar = self.bar(validate::VALIDATING, |context| context.steps(validate::VALIDATING, 0));
        validate::show(bar, progress)
    }

    fn refine(&mut self, progress: moac_planner::refine::Progress) -> ControlFlow<()> {
        refine::show(self.bar(refine::REFINING, |context| context.work(refine::REFINING)), progress)
    }
}
