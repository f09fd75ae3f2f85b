//! Asks a model a question and checks its answer.

use moac_model::{Branches, CHUNK, Cache, Decoder, ModelError};

use super::Question;

/// The answer to a question.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// Whether greedy decoding gives exactly the answer.
    pub right: bool,
    /// The mean loss in nats of the answer's tokens.
    pub loss: f64,
}

/// Asks questions about a context, whose cache stays as it is: each is a branch of its own.
///
/// Greedy decoding gives the answer iff, with the answer so far given, its next token is the likeliest one at each place.
/// So one chunk decides, and nothing is decoded. Of equally likely tokens the first counts, as in greedy sampling.
pub fn ask(decoder: &Decoder, context: &Cache, questions: &[Question]) -> Result<Vec<Verdict>, ModelError> {
    let mut verdicts = Vec::with_capacity(questions.len());
    let mut rest = questions;
    while !rest.is_empty() {
        // As many go through the model together as make a chunk.
        let mut rows = 0;
        let fits = |question: &&Question| {
            rows += question.tokens.len() + question.answer.len();
            rows <= CHUNK
        };
        let count = rest.iter().take_while(fits).count().max(1);
        let (together, after) = rest.split_at(count);
        rest = after;
        let chunks = together.iter().map(chunk).collect::<Result<Vec<_>, _>>()?;
        let branches = &mut Branches::new(context, chunks.iter().map(Vec::len).collect());
        let hidden = decoder.forward(&chunks.concat(), branches)?;
        let mut first = 0;
        for (Question { tokens, answer, .. }, chunk) in together.iter().zip(&chunks) {
            let hidden = hidden.narrow(0, first + tokens.len() - 1, answer.len())?;
            first += chunk.len();
            let losses = decoder.cross_entropy(&hidden, answer)?;
            let loss = losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() / answer.len() as f64;
            let mut right = true;
            for (logits, &expected) in decoder.logits(&hidden)?.to_vec2::<f32>()?.iter().zip(answer) {
                right &= likeliest(logits) == Some(expected as usize);
            }
            verdicts.push(Verdict { right, loss });
        }
    }
    Ok(verdicts)
}

/// A question and its answer but for the last token, which nothing follows.
fn chunk(question: &Question) -> Result<Vec<u32>, ModelError> {
    let Question { tokens, answer, .. } = question;
    if tokens.is_empty() || answer.is_empty() {
        let found = format!("{} and {}", tokens.len(), answer.len());
        let what = "the number of tokens of a question and its answer";
        return Err(ModelError::Argument { what, found, expected: "at least one each".into() });
    }
    Ok([tokens.as_slice(), &answer[..answer.len() - 1]].concat())
}

/// The first of the largest.
fn likeliest(logits: &[f32]) -> Option<usize> {
    let mut best: Option<(usize, f32)> = None;
    for (at, &logit) in logits.iter().enumerate() {
        if best.is_none_or(|(_, most)| logit.total_cmp(&most).is_gt()) {
            best = Some((at, logit));
        }
    }
    best.map(|(at, _)| at)
}
