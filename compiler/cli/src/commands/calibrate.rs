//! `moac calibrate`: items to profile a model on.

use std::path::PathBuf;

use moac_model::Model;
use moac_planner::calibrate::{Calibration, Mix, Options, Repeated, Tally, calibrate};
use moac_planner::eval::fingerprint;
use moac_planner::tasks::Corpus;

use super::args::{input, on_disk, parse_count};
use super::{Context, ExitStatus, check_out};
use crate::context::Bar;
use crate::error::Error;

/// The most tokens of an answer that the model writes, by default.
pub(super) const ANSWER_TOKENS: usize = 96;

/// The lengths of the items, by default.
pub(super) const LENGTHS: &str = "1024,2048,4096";

/// Make calibration items: long texts with the model's own answers, and retrieval tasks that it solves
///
/// Use texts other than those that the plan is evaluated on. The retrieval tasks always use keys and wording that
/// `moac eval` does not.
///
/// Tasks: document, passkey, kv, text; and kinds of facts that are told once, each in several wordings, with and without the
/// model's chat template: number, uuid, word, name, sentence, table, code, chain, several, turns. `--mix facts=N` gives these
/// ten equal parts of N.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model: a GGUF file, or a Hugging Face folder
    pub model: PathBuf,
    /// Texts: a file, or a folder of .txt, .rst, .md and .jsonl files ({"text"}, or {"document", "question"}), repeatable
    #[arg(long, value_name = "PATH", required = true, value_parser = input())]
    pub data: Vec<PathBuf>,
    /// Leave out this file of a data folder, given by its path inside the folder; repeatable
    #[arg(long, value_name = "FILE")]
    pub without: Vec<String>,
    /// The file to write
    #[arg(short, long, value_name = "ITEMS.jsonl", value_parser = on_disk())]
    pub out: PathBuf,
    /// Lengths of the items
    #[arg(long, value_name = "TOKENS,..", value_delimiter = ',', default_value = LENGTHS)]
    pub lengths: Vec<u32>,
    /// Items of each length
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = parse_count)]
    pub items: usize,
    /// The same seed gives the same items
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Shares of the tasks
    #[arg(long, value_name = "TASK=SHARE,..", default_value_t = Mix::default())]
    pub mix: Mix,
    /// Maximum tokens of the model's answer to a question on a document
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
    let bar = context.steps(MAKING, 0);
    let made = calibrate(&model, fingerprint, &corpus, &options, &args.out, |done, all, newest| {
        show(&bar, done, all, newest);
    });
    drop(bar);
    let made = made?;
    tell(&made, context);
    let items = &made.items;
    context.print(format!(
        "{}: {} items of {} tokens",
        args.out.display(),
        items.items.len(),
        items.lengths().iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
    ))?;
    Ok(ExitStatus::Done)
}

/// The label of the progress bar.
pub(super) const MAKING: &str = "making items";

/// Shows how far calibration is.
pub(super) fn show(bar: &Bar, done: usize, all: usize, newest: &str) {
    bar.show(done, all);
    bar.message(newest);
}

/// Tells what came of a calibration.
pub(super) fn tell(made: &Calibration, context: &Context) {
    let Calibration { items: _, tally, given_up, resumed, repeated } = made;
    if let Some(Repeated { tokens, length }) = repeated {
        context.warn(format!(
            "the texts have {tokens} tokens in all, fewer than the {length} of the longest items, which repeat them: give more texts"
        ));
    }
    if *resumed > 0 {
        context.note(format!("{resumed} items are from an earlier run"));
    }
    if tally.asked > 0 {
        let Tally { asked, right, replaced } = tally;
        context.note(format!(
            "the model answered {right} of {asked} retrieval questions correctly; {replaced} contexts without an item were replaced"
        ));
    }
    if *given_up > 0 {
        context.note(format!(
            "{given_up} items could not be made: none of the contexts tried gave a usable answer"
        ));
    }
}
