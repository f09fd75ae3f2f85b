//! One measurement: a model, an item, a plan at a length.

use moac_model::{Cache, Model};
use moac_runtime::plan::Plan;

use super::EvalError;
use super::cells::{Answer, Outcome};
use super::items::Input;
use crate::tasks::{ask, converse};

/// Measures one item under a plan in the bucket `length`.
pub fn measure(model: &Model, plan: &Plan, length: u32, input: &Input) -> Result<Outcome, EvalError> {
    let decoder = &model.decoder;
    match input {
        Input::Window(tokens) => Ok(Outcome::Losses(decoder.losses(tokens, &mut Cache::new(plan, length)?)?)),
        Input::Prompt(prompt) => {
            let mut cache = Cache::new(plan, length)?;
            decoder.prefill(&prompt.context, &mut cache)?;
            let verdicts = ask(decoder, &cache, &prompt.questions)?;
            let answers = prompt.questions.iter().zip(verdicts).map(|(question, verdict)| Answer {
                depth: question.depth,
                right: verdict.right,
                loss: verdict.loss,
            });
            Ok(Outcome::Answers(answers.collect()))
        }
        Input::Dialog(dialog) => Ok(Outcome::Said(converse(model, plan, length, dialog)?)),
    }
}

/// Whether every loss of an outcome is a number.
pub fn finite(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Losses(losses) => losses.iter().all(|loss| loss.is_finite()),
        Outcome::Answers(answers) => answers.iter().all(|answer| answer.loss.is_finite()),
        Outcome::Said(_) => true,
    }
}
