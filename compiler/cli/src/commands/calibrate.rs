//! `moac calibrate`: items to profile a model on.

use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressStyle};
use moac_model::Model;
use moac_planner::calibrate::{Calibration, Mix, Options, Tally, calibrate};
use moac_planner::eval::fingerprint;
use moac_planner::tasks::Corpus;

use super::args::parse_count;
use super::{Context, ExitStatus, check_out};
use crate::error::Error;

/// The most tokens of an answer that the model writes, by default.
pub(super) const ANSWER_TOKENS: usize = 96;

/// Make calibration items: long texts with questions that the dense model answers, and retrieval tasks that it solves
///
/// Give it other texts than those that a plan is judged on. Keys and wording of the retrieval tasks are other ones than
/// those of `moac eval` in any case.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model: a GGUF file, or a Hugging Face folder
    pub model: PathBuf,
    /// Texts: a file, or a folder of .txt, .rst, .md and .jsonl files ({"text"}, or {"document", "question"}), repeatable
    #[arg(long, value_name = "PATH", required = true)]
    pub data: Vec<PathBuf>,
    /// A file of a data folder that is not to be used, by its path within; repeatable
    #[arg(long, value_name = "FILE")]
    pub without: Vec<String>,
    /// The file to write
    #[arg(short, long, value_name = "ITEMS.jsonl")]
    pub out: PathBuf,
    /// Levels of length in tokens
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', default_values_t = [1024, 2048, 4096])]
    pub lengths: Vec<u32>,
    /// Items per level
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = parse_count)]
    pub items: usize,
    /// The same seed gives the same items
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Shares of the tasks
    #[arg(long, value_name = "TASK=SHARE,..", default_value_t = Mix::default())]
    pub mix: Mix,
    /// The most tokens of an answer that the model writes to a question on a document
    #[arg(long, value_name = "TOKENS", default_value_t = ANSWER_TOKENS, value_parser = parse_count)]
    pub answer_tokens: usize,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, Error> {
    check_out(&args.out)?;
    let fingerprint = fingerprint::of_model(&args.model)?;
    let model = Model::open(&args.model)?;
    let corpus =
        args.without.iter().try_fold(Corpus::read(&args.data)?, |corpus, file| corpus.without(file))?;
    let &Args { items, seed, mix, answer_tokens, .. } = args;
    let options = Options { lengths: args.lengths.clone(), items, seed, mix, answer_tokens };
    let bar = Bar::new();
    let made = calibrate(&model, fingerprint, &corpus, &options, &args.out, |done, all, newest| {
        bar.show(done, all, newest);
    });
    bar.finish();
    let made = made?;
    tell(&made, context);
    let items = &made.items;
    context.print(format!(
        "{}: {} items at {:?} tokens",
        args.out.display(),
        items.items.len(),
        items.lengths()
    ))?;
    Ok(ExitStatus::Done)
}

/// How far calibration is, on stderr.
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::new(0);
        let style =
            ProgressStyle::with_template("items {bar:32} {pos}/{len} {elapsed}, {eta} left, {wide_msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self(bar)
    }

    pub(super) fn show(&self, done: usize, all: usize, newest: &str) {
        self.0.set_length(all as u64);
        self.0.set_position(done as u64);
        self.0.set_message(newest.to_owned());
    }

    pub(super) fn finish(&self) {
        self.0.finish_and_clear();
    }
}

/// Tells what came of a calibration.
pub(super) fn tell(made: &Calibration, context: &Context) {
    let Calibration { items: _, tally, given_up, resumed } = made;
    if *resumed > 0 {
        context.note(format!("{resumed} items are from an earlier run"));
    }
    if tally.asked > 0 {
        let Tally { asked, right, replaced } = tally;
        context.note(format!(
            "of {asked} retrieval questions the model got {right} right; {replaced} contexts gave no item and were replaced"
        ));
    }
    if *given_up > 0 {
        context.note(format!(
            "{given_up} items could not be made: no context tried for them gave a usable answer"
        ));
    }
}
