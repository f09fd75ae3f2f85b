//! The engine's interface: requests, events, errors.

use std::sync::Arc;

use moac_runtime::glue::TOP_LOGPROBS;
use thiserror::Error;

use super::runner::Limits;
use super::sample::Sampling;
use crate::ModelError;

/// A prompt, and how it is to be continued.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// At least one token.
    pub prompt: Vec<u32>,
    /// The most tokens of an answer.
    pub max_tokens: u32,
    /// The context length that the spans are those of, at least: the smallest bucket that holds it is taken. By default, prompt
    /// and answer, or the largest bucket.
    pub context: Option<u32>,
    /// Answers, whose prompt is read once. Answer number i is that of the seed plus i.
    pub n: u32,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Tokens that end an answer and do not belong to it.
    pub stop_tokens: Vec<u32>,
    /// Texts that end an answer and do not belong to it. None is empty.
    pub stop_strings: Vec<String>,
    /// How many of the likeliest tokens are reported beside each token.
    pub top_logprobs: u32,
    /// Whether the cache of the first answer may stay for a while, for prompts that begin with the same tokens.
    pub keep: bool,
}

impl Request {
    /// One answer of the likeliest tokens, which nothing but its length ends.
    pub fn new(prompt: Vec<u32>, max_tokens: u32) -> Self {
        Self {
            prompt,
            max_tokens,
            context: None,
            n: 1,
            sampling: Sampling::greedy(),
            stop_tokens: Vec::new(),
            stop_strings: Vec::new(),
            top_logprobs: 0,
            keep: false,
        }
    }

    /// The context length to ask a runner for: that of a bucket.
    pub(crate) fn length(&self, limits: &Limits) -> Result<u32, Refused> {
        let longest = limits.buckets.last().map_or(0, |bucket| bucket.length);
        let prompt = u32::try_from(self.prompt.len()).unwrap_or(u32::MAX);
        let context = self.context.unwrap_or(prompt.saturating_add(self.max_tokens).min(longest));
        let bucket = limits.buckets.iter().find(|bucket| bucket.length >= context);
        let bucket = bucket.ok_or(Refused::Context { found: context, longest })?;
        if prompt > bucket.length {
            return Err(Refused::PromptTooLong { found: prompt, length: bucket.length });
        }
        Ok(bucket.length)
    }

    /// Checks what can be known before the request runs.
    pub(crate) fn check(&self, limits: &Limits, text: bool) -> Result<(), Refused> {
        self.sampling.check()?;
        let argument = |what, found: String, expected: String| {
            Err(Refused::from(ModelError::Argument { what, found, expected }))
        };
        if self.prompt.is_empty() {
            return argument("the number of tokens", "0".into(), "at least one".into());
        }
        if let Some(token) = self.prompt.iter().find(|&&token| token >= limits.vocab) {
            return argument(
                "a token",
                token.to_string(),
                format!("below the vocabulary's {}", limits.vocab),
            );
        }
        if self.n == 0 || self.n > limits.lanes {
            let expected = format!("1 to {}, which run at once", limits.lanes);
            return argument("the number of answers", self.n.to_string(), expected);
        }
        if self.top_logprobs > TOP_LOGPROBS {
            let (found, expected) = (self.top_logprobs.to_string(), format!("at most {TOP_LOGPROBS}"));
            return argument("the number of likeliest tokens", found, expected);
        }
        if self.stop_strings.iter().any(String::is_empty) {
            return argument("a stop string", "empty".into(), "some text".into());
        }
        if !self.stop_strings.is_empty() && !text {
            return argument(
                "the number of stop strings",
                self.stop_strings.len().to_string(),
                "0: this engine has no tokenizer".into(),
            );
        }
        let length = self.length(limits)?;
        let slab = limits.buckets.iter().find(|bucket| bucket.length == length).map_or(0, |b| b.slab_bytes);
        match slab.checked_mul(u64::from(self.n)) {
            Some(needed) if needed <= limits.slab_bytes => Ok(()),
            needed => Err(Refused::TooLarge {
                needed: needed.unwrap_or(u64::MAX),
                length,
                answers: self.n,
                available: limits.slab_bytes,
            }),
        }
    }
}

/// Errors of submitting a request.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Refused {
    /// A parameter that makes no sense.
    #[error(transparent)]
    Argument(Box<ModelError>),
    /// A context length beyond the largest bucket.
    #[error("a context of {found} tokens is too long: the longest available has {longest}")]
    Context {
        /// As asked for.
        found: u32,
        /// The largest bucket.
        longest: u32,
    },
    /// A prompt that is longer than its context.
    #[error("the prompt has {found} tokens, more than the context of {length}")]
    PromptTooLong {
        /// Its tokens.
        found: u32,
        /// The context's.
        length: u32,
    },
    /// A request that would not fit if it ran alone.
    #[error(
        "the caches of {answers} answers in a context of {length} tokens take {needed} bytes, and there are {available}: \
         ask for a shorter context or fewer answers, or give the engine more memory"
    )]
    TooLarge {
        /// Bytes of its slabs.
        needed: u64,
        /// The context's tokens.
        length: u32,
        /// Answers asked for.
        answers: u32,
        /// Bytes there are.
        available: u64,
    },
    /// As many requests are waiting as may.
    #[error("{limit} requests are waiting, the maximum: try again later")]
    QueueFull {
        /// How many may.
        limit: usize,
    },
    /// The engine has stopped.
    #[error(transparent)]
    Stopped(#[from] EngineError),
}

impl From<ModelError> for Refused {
    fn from(error: ModelError) -> Self {
        Self::Argument(Box::new(error))
    }
}

/// Errors that end a request before its answers are complete.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A logit is NaN or infinite.
    #[error(
        "the logits of token {at} of answer {choice} are NaN or infinite: the model's weights or its input are damaged"
    )]
    NotFinite {
        /// The index of the answer.
        choice: u32,
        /// The index of the token, from 0.
        at: u32,
    },
    /// The tokens have no text.
    #[error("the text of an answer: {0}")]
    Text(Arc<ModelError>),
    /// The device failed, and all requests with it.
    #[error("the engine has stopped: {0}")]
    Runner(Arc<ModelError>),
    /// A step returned tokens that were not requested, or missed some: a defect of the runner.
    #[error("the engine has stopped: a step chose {found} tokens, expected {expected}")]
    Chosen {
        /// Tokens it chose.
        found: usize,
        /// Tokens it was to choose.
        expected: usize,
    },
    /// There is no room for the caches although nothing else runs.
    #[error("there is no room for a cache of {length} tokens, although no other request runs")]
    NoRoom {
        /// The context length.
        length: u32,
    },
    /// The engine was shut down, or its thread ended.
    #[error("the engine has been shut down")]
    ShutDown,
}

/// The reason an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// One of the request's stop tokens.
    StopToken(u32),
    /// A stop string of the request, by index.
    StopString(usize),
    /// The number of tokens that was asked for.
    Limit,
    /// The context has no room for another token.
    ContextFull,
    /// The request was cancelled.
    Cancelled,
}

/// An event of a request.
#[derive(Clone, Debug)]
pub enum Event {
    /// An answer has another token.
    Token(Token),
    /// An answer ends; the request ends with the last of its answers.
    End(End),
    /// The request ends, with all of its answers.
    Failed(EngineError),
}

/// A token of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// The index of the answer, from 0.
    pub choice: u32,
    /// The token.
    pub token: u32,
    /// The natural logarithm of its probability, before temperature, penalties and cuts.
    pub logprob: f32,
    /// The likeliest tokens and their log-probabilities, as many as were asked for.
    pub top: Vec<(u32, f32)>,
    /// The text that is certain by now: whole characters that can be no part of a stop string any more.
    pub text: String,
}

/// The end of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    /// The index of the answer, from 0.
    pub choice: u32,
    /// The reason.
    pub finish: Finish,
    /// The text that was held back until now.
    pub text: String,
    /// Tokens of the answer, without a stop token.
    pub tokens: u32,
    /// Tokens of the prompt that a kept cache had already.
    pub cached: u32,
}
