//! Text out of a model, piece by piece.

use candle_core::Tensor;
use moac_runtime::glue::Outcome;

use super::runner::Choice;
use super::sample::{Sampling, Seen, choose};
use crate::TextStream;
use crate::{Batch, Cache};
use crate::{Model, ModelError};

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The model said so.
    EndOfText,
    /// The number of tokens that was asked for.
    Limit,
    /// The cache has no room for another token.
    ContextFull,
}

/// An answer in the making: an iterator over its pieces of text, each whole characters, some empty.
#[derive(Debug)]
pub struct Generator<'m> {
    model: &'m Model,
    cache: Cache,
    sampling: Sampling,
    seen: Seen,
    text: Option<TextStream<'m>>,
    /// The hidden state that the next token is chosen from.
    hidden: Tensor,
    /// The tokens that the cache held before the answer.
    past: Vec<u32>,
    tokens: Vec<u32>,
    limit: usize,
    stop: Option<Stop>,
}

impl<'m> Generator<'m> {
    /// Reads the prompt into the cache, behind what is there.
    pub fn new(
        model: &'m Model,
        prompt: &[u32],
        mut cache: Cache,
        sampling: &Sampling,
    ) -> Result<Self, ModelError> {
        sampling.check()?;
        let hidden = model.decoder.prefill(prompt, &mut cache)?;
        let mut seen = Seen::new(model.decoder.config().vocab_size);
        prompt.iter().for_each(|&token| seen.insert(token));
        let text = Some(model.tokenizer.stream());
        Ok(Self {
            model,
            cache,
            sampling: *sampling,
            seen,
            text,
            hidden,
            past: prompt.to_vec(),
            tokens: Vec::new(),
            limit: usize::MAX,
            stop: None,
        })
    }

    /// Ends after this many tokens.
    #[must_use]
    pub fn with_limit(mut self, tokens: usize) -> Self {
        self.limit = tokens;
        self
    }

    /// The tokens so far, without the one that ended the answer.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Why it ended, if it has.
    pub fn stop(&self) -> Option<Stop> {
        self.stop
    }

    /// Remembers the tokens that were in the cache before the prompt.
    #[must_use]
    pub(super) fn with_past(mut self, tokens: &[u32]) -> Self {
        self.past.splice(0..0, tokens.iter().copied());
        self
    }

    /// The cache and the tokens that it holds: the prompt and every token of the answer but the newest.
    pub fn into_cache(self) -> (Vec<u32>, Cache) {
        let mut tokens = self.past;
        tokens.extend(&self.tokens);
        tokens.truncate(self.cache.len());
        (tokens, self.cache)
    }

    /// Chooses the next token and takes it in.
    fn step(&mut self) -> Result<Option<String>, ModelError> {
        if self.tokens.len() >= self.limit {
            return self.end(Stop::Limit);
        }
        if let Some(&newest) = self.tokens.last() {
            if self.cache.len() == self.cache.length() {
                return self.end(Stop::ContextFull);
            }
            self.hidden = self.model.decoder.forward(&[newest], &mut Batch::one(&mut self.cache, 1))?;
        }
        let logits: Vec<f32> = self.model.decoder.logits(&self.hidden)?.flatten_all()?.to_vec1()?;
        let counter = self.tokens.len() as u32;
        let choice = Choice { sampling: &self.sampling, counter, top_logprobs: 0 };
        let (Outcome { token, logprob }, _) = choose(&logits, &self.seen, choice);
        if logprob.is_nan() {
            return Err(ModelError::Argument {
                what: "the largest logit",
                found: "not finite".into(),
                expected: "a number".into(),
            });
        }
        self.seen.insert(token);
        if self.model.decoder.config().eos.contains(&token) {
            return self.end(Stop::EndOfText);
        }
        self.tokens.push(token);
        self.text.as_mut().map(|text| text.push(token)).transpose()
    }

    fn end(&mut self, stop: Stop) -> Result<Option<String>, ModelError> {
        self.stop = Some(stop);
        self.text.take().map(TextStream::finish).transpose()
    }
}

impl Iterator for Generator<'_> {
    type Item = Result<String, ModelError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.stop.is_some() {
            return None;
        }
        self.step().transpose()
    }
}
