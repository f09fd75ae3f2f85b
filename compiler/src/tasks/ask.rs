//! Whether a model answers a question.

use moac_runtime::model::{Batch, Cache, Decoder, ModelError};

use super::Question;

/// What came of a question.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// Whether greedy decoding gives exactly the answer.
    pub right: bool,
    /// The mean loss in nats of the answer's tokens.
    pub loss: f64,
}

/// Asks a question on a copy of a context's cache.
///
/// Greedy decoding gives the answer iff, with the answer so far given, its next token is the likeliest one at each place.
/// So one chunk decides, and nothing is decoded. Of equally likely tokens the first counts, as in greedy sampling.
pub fn ask(decoder: &Decoder, context: &Cache, question: &Question) -> Result<Verdict, ModelError> {
    let Question { tokens, answer, .. } = question;
    if tokens.is_empty() || answer.is_empty() {
        let found = format!("{} and {}", tokens.len(), answer.len());
        let what = "the number of tokens of a question and its answer";
        return Err(ModelError::Argument { what, found, expected: "at least one each".into() });
    }
    let mut cache = context.clone();
    let chunk = [tokens.as_slice(), &answer[..answer.len() - 1]].concat();
    let hidden = decoder.forward(&chunk, &mut Batch::one(&mut cache, chunk.len()))?;
    let hidden = hidden.narrow(0, tokens.len() - 1, answer.len())?;
    let losses = decoder.cross_entropy(&hidden, answer)?;
    let mut right = true;
    for (logits, &expected) in decoder.logits(&hidden)?.to_vec2::<f32>()?.iter().zip(answer) {
        right &= likeliest(logits) == Some(expected as usize);
    }
    Ok(Verdict { right, loss: losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() / answer.len() as f64 })
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
