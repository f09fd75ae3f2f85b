//! Conversations about one context: what is asked, turn by turn, what must be in the answers, and what a model says.
//!
//! What must hold: the context, what is asked and answers of as many tokens as are allowed fit the requested length together,
//! and nearly fill it; a turn begins where the answer before it ended, on the same slab.

use moac_model::{CpuOptions, EngineOptions, Finish, Model, Request, Tokenizer};
use moac_runtime::plan::Plan;

use super::frame::Frame;
use super::{Page, TaskError};

/// Ends an answer where there is no conversation whose end of turn would.
const PARAGRAPH: &str = "\n\n";

/// One context and what is asked of it, one turn after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct Dialog {
    /// The task and its number, different for all of a seed.
    pub id: String,
    /// The tokens to prefill.
    pub context: Vec<u32>,
    /// The turns, at least one.
    pub turns: Vec<Turn>,
    /// What ends an answer beside the model's own end of turn; none in a conversation.
    pub stop: Option<&'static str>,
    /// The text that the filler begins with.
    pub source: String,
}

/// A question, and what must be in its answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// The tokens after the context or after the answer before, up to where the answer begins.
    pub tokens: Vec<u32>,
    /// The most tokens of the answer.
    pub limit: u32,
    /// The texts that the answer must have.
    pub expected: Vec<String>,
    /// Where in the context the first of them begins to be told: 0 at the start, 1 at the end.
    pub depth: f64,
}

/// A question as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// The user's words.
    pub(super) question: String,
    /// How the answer begins, without a space at its end.
    pub(super) begun: String,
    /// The texts that the answer must have.
    pub(super) expected: Vec<String>,
}

/// The share of the expected texts that are in an answer, whatever their case: the recall of RULER.
pub fn recall(said: &str, expected: &[String]) -> f64 {
    let said = said.to_lowercase();
    let found = expected.iter().filter(|text| said.contains(&text.to_lowercase())).count();
    found as f64 / expected.len().max(1) as f64
}

/// The most tokens of an answer: those of the expected texts in one list, half as many again, and 16 for words around them.
fn limit(tokenizer: &Tokenizer, expected: &[String]) -> Result<u32, TaskError> {
    let list = tokenizer.encode(&expected.join(", "))?.len();
    Ok((list + list / 2 + 16) as u32)
}

/// Turns whose facts are not placed yet. The first stands behind the context, a paragraph of its own.
pub(super) fn turns(tokenizer: &Tokenizer, frame: &Frame, asked: &[Asked]) -> Result<Vec<Turn>, TaskError> {
    let turn = |(at, asked): (usize, &Asked)| {
        let Asked { question, begun, expected } = asked;
        let question = if at == 0 {
            Page::paragraph(tokenizer, question)?
        } else {
            [frame.between.clone(), tokenizer.encode(question)?].concat()
        };
        let tokens = [question, frame.tail.clone(), tokenizer.encode(begun)?].concat();
        Ok(Turn { tokens, limit: limit(tokenizer, expected)?, expected: expected.clone(), depth: 0.0 })
    };
    asked.iter().enumerate().map(turn).collect()
}

/// The frame of a task: a conversation if the model has a template and nothing else is asked for, and what ends an answer.
pub(super) fn frame(model: &Model, plain: bool) -> Result<(Frame, Option<&'static str>), TaskError> {
    if plain || model.template.is_none() {
        return Ok((Frame::plain(&model.tokenizer)?, Some(PARAGRAPH)));
    }
    Ok((Frame::of(model)?, None))
}

/// Tokens that turns and their answers take at most.
pub(super) fn tokens_of(turns: &[Turn]) -> usize {
    turns.iter().map(|turn| turn.tokens.len() + turn.limit as usize).sum()
}

/// Holds the conversation with the model under a plan in the bucket `length`: what it says in every turn, by greedy decoding.
/// The answers become part of the conversation.
pub fn converse(model: &Model, plan: &Plan, length: u32, dialog: &Dialog) -> Result<Vec<String>, TaskError> {
    let cpu = CpuOptions { lanes: 1, ..CpuOptions::default() };
    let engine = model.cpu_engine(plan, &[length], &cpu, EngineOptions::default())?;
    let mut prompt = dialog.context.clone();
    let mut said = Vec::with_capacity(dialog.turns.len());
    for turn in &dialog.turns {
        prompt.extend(&turn.tokens);
        let request = Request {
            context: Some(length),
            keep: dialog.turns.len() > 1,
            stop_strings: dialog.stop.iter().map(|&stop| stop.to_owned()).collect(),
            ..model.request(prompt.clone(), turn.limit)
        };
        let answer = engine.submit(request)?.answers()?.pop().unwrap_or_default();
        // Of a stop string the tokens stay: the paragraph has ended with them.
        prompt.extend(&answer.tokens);
        debug_assert!(answer.finish != Some(Finish::ContextFull));
        said.push(answer.text);
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recall_is_the_share_of_texts_found_in_any_case() {
        let expected = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let cases = [
            ("The numbers are 12 and 345.", &["12", "345"][..], 1.0),
            ("12, 12", &["12", "345"], 0.5),
            ("QXRTV", &["qxrtv", "abcde", "vwxyz"], 1.0 / 3.0),
            ("nothing", &["12"], 0.0),
            // A number within a longer one counts, as in the definition.
            ("91234", &["1234"], 1.0),
        ];
        for (said, texts, share) in cases {
            assert!((recall(said, &expected(texts)) - share).abs() < 1e-12, "{said}");
        }
        assert!(recall("x", &[]).abs() < 1e-12);
    }
}
