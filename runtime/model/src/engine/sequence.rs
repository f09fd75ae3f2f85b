//! Requests that run: where each of their answers stands, and what its tokens come to.

use std::sync::Arc;

use super::job::Job;
use super::request::{End, EngineError, Event, Finish, Request, Token};
use super::runner::Chosen;
use super::sample::Sampling;
use super::stops::StopScan;
use crate::{TextStream, Tokenizer};

/// A request that runs, with those of its answers that have not ended.
#[derive(Debug)]
pub(super) struct Active<'t, S> {
    pub(super) id: u64,
    pub(super) job: Job,
    /// The bucket's context length.
    pub(super) length: u32,
    /// Tokens of the prompt that a kept slab had already.
    pub(super) cached: u32,
    /// Whether all answers have the prompt's beginning in their slabs.
    pub(super) forked: bool,
    pub(super) sequences: Vec<Sequence<'t, S>>,
}

/// One answer of a request.
#[derive(Debug)]
pub(super) struct Sequence<'t, S> {
    pub(super) choice: u32,
    pub(super) lane: u32,
    pub(super) slab: S,
    /// Tokens of the prompt that are in the slab, or in a step that is started.
    pub(super) fed: usize,
    /// Tokens of the answer that were asked for, in steps that are started or finished.
    pub(super) asked: u32,
    /// Tokens of the answer that are known.
    pub(super) tokens: Vec<u32>,
    sampling: Sampling,
    text: Text<'t>,
}

/// An answer has ended, with the events that say so, and the token that ended it, if it is not part of the answer.
#[derive(Debug)]
pub(super) enum Outcome {
    Open,
    Ended { stop_token: Option<u32> },
    Failed(EngineError),
}

impl<'t, S> Sequence<'t, S> {
    pub(super) fn new(
        job: &Job,
        choice: u32,
        lane: u32,
        slab: S,
        fed: usize,
        tokenizer: Option<&'t Tokenizer>,
    ) -> Self {
        let mut sampling = job.request.sampling;
        sampling.seed = sampling.seed.wrapping_add(u64::from(choice));
        let stops = StopScan::new(job.request.stop_strings.clone());
        let stream = tokenizer.map(|tokenizer| tokenizer.stream_after(&job.request.prompt));
        let text = Text { stream, stops };
        Self { choice, lane, slab, fed, asked: 0, tokens: Vec::new(), sampling, text }
    }

    /// Its part in a step: the lane, the slab, and how its token is chosen.
    pub(super) fn for_step(&mut self) -> (u32, &mut S, &Sampling) {
        (self.lane, &mut self.slab, &self.sampling)
    }

    /// Whether it takes part in the next step with its newest token, which may not be known yet: a stop is noticed only after
    /// the step behind it has been started.
    pub(super) fn decodes(&self, prompt: usize, max_tokens: u32, length: u32) -> bool {
        self.asked > 0 && self.asked < max_tokens && room(prompt, self.asked, length)
    }

    /// Takes the next token.
    pub(super) fn take(&mut self, job: &mut Job, length: u32, cached: u32, chosen: Chosen) -> Outcome {
        let Chosen { outcome: moac_runtime::glue::Outcome { token, logprob }, top, .. } = chosen;
        if !logprob.is_finite() {
            return Outcome::Failed(EngineError::NotFinite {
                choice: self.choice,
                at: self.tokens.len() as u32,
            });
        }
        if job.request.stop_tokens.contains(&token) {
            return self.end(job, cached, Finish::StopToken(token));
        }
        self.tokens.push(token);
        let (text, stop) = match self.text.push(token) {
            Ok(pushed) => pushed,
            Err(error) => return Outcome::Failed(error),
        };
        job.send(Event::Token(Token { choice: self.choice, token, logprob, top, text }));
        let tokens = self.tokens.len() as u32;
        if let Some(index) = stop {
            self.end(job, cached, Finish::StopString(index))
        } else if tokens >= job.request.max_tokens {
            self.end(job, cached, Finish::Limit)
        } else if !room(job.request.prompt.len(), tokens, length) {
            self.end(job, cached, Finish::ContextFull)
        } else {
            Outcome::Open
        }
    }

    /// Says that the answer ends here.
    pub(super) fn end(&mut self, job: &mut Job, cached: u32, mut finish: Finish) -> Outcome {
        // What the last tokens left unsaid may still hold a stop string.
        let text = match finish {
            Finish::StopString(_) => String::new(),
            _ => match self.text.finish() {
                Ok((text, None)) => text,
                Ok((text, Some(index))) => {
                    if finish != Finish::Cancelled {
                        finish = Finish::StopString(index);
                    }
                    text
                }
                Err(error) => return Outcome::Failed(error),
            },
        };
        let tokens = self.tokens.len() as u32;
        job.send(Event::End(End { choice: self.choice, finish, text, tokens, cached }));
        let stop_token = if let Finish::StopToken(token) = finish { Some(token) } else { None };
        Outcome::Ended { stop_token }
    }

    /// The tokens that the slab holds, if it is to be kept and all of them are known; `stop` ended the answer. The newest token
    /// of an answer is in the slab only if a step behind it was started.
    pub(super) fn held(&self, request: &Request, stop: Option<u32>) -> Option<Vec<u32>> {
        if !request.keep || self.choice != 0 {
            return None;
        }
        let answer = (self.asked as usize).saturating_sub(1);
        let mut tokens = request.prompt[..self.fed].to_vec();
        let known = self.tokens.iter().copied().chain(stop);
        tokens.extend(known.take(answer));
        (tokens.len() == self.fed + answer).then_some(tokens)
    }
}

/// Whether a slab has room for the token before the one with number `next` of an answer.
fn room(prompt: usize, next: u32, length: u32) -> bool {
    prompt as u64 + u64::from(next) <= u64::from(length)
}

/// An answer's tokens as text.
#[derive(Debug)]
struct Text<'t> {
    stream: Option<TextStream<'t>>,
    stops: StopScan,
}

impl Text<'_> {
    fn push(&mut self, token: u32) -> Result<(String, Option<usize>), EngineError> {
        let Some(stream) = &mut self.stream else { return Ok((String::new(), None)) };
        Ok(self.stops.push(&stream.push(token).map_err(text_error)?))
    }

    fn finish(&mut self) -> Result<(String, Option<usize>), EngineError> {
        let rest = self.stream.take().map(TextStream::finish).transpose().map_err(text_error)?;
        let (mut text, stop) = self.stops.push(&rest.unwrap_or_default());
        if stop.is_none() {
            text += &self.stops.finish();
        }
        Ok((text, stop))
    }
}

fn text_error(error: crate::ModelError) -> EngineError {
    EngineError::Text(Arc::new(error))
}
