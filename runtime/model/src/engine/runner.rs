//! What runs a model's steps for the engine: the CPU path or a GPU.
//!
//! A step takes one token of some requests and a chunk of the prompts of others through all layers. Steps are queued: the
//! engine starts the next one before it has read the tokens of the one before, so a runner keeps the newest token of each
//! lane to itself and takes it from there.

use moac_runtime::glue::Outcome;

use super::sample::Sampling;
use crate::ModelError;

/// What a runner can hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Lanes: requests that run at once.
    pub lanes: u32,
    /// Rows of a step: one per decode, one per token of a chunk.
    pub rows: u32,
    /// Context lengths of the buckets, ascending, and the bytes of a slab of each.
    pub buckets: Vec<(u32, u64)>,
    /// Bytes that there are for slabs.
    pub slab_bytes: u64,
    /// Rows of the output head.
    pub vocab: u32,
}

/// How a step's token is to be chosen: the request's parameters and the token's number in its answer, from 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice<'a> {
    /// The request's parameters.
    pub sampling: &'a Sampling,
    /// The token's number in the answer.
    pub counter: u32,
    /// How many of the likeliest tokens are reported beside the chosen one.
    pub top_logprobs: u32,
}

/// A request that takes its lane's newest token and chooses the next one.
#[derive(Debug)]
pub struct Decode<'a, S> {
    /// Its place among the running requests.
    pub lane: u32,
    /// Its cache.
    pub slab: &'a mut S,
    /// How the next token is chosen.
    pub choice: Choice<'a>,
}

/// A chunk of a request's prompt, behind what the slab holds.
#[derive(Debug)]
pub struct Prefill<'a, S> {
    /// Its place among the running requests.
    pub lane: u32,
    /// Its cache.
    pub slab: &'a mut S,
    /// The chunk, at least one token.
    pub tokens: &'a [u32],
    /// With the prompt's last chunk: how the first token is chosen.
    pub choice: Option<Choice<'a>>,
}

/// A token that a step chose.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// The lane.
    pub lane: u32,
    /// The token and its log-probability.
    pub outcome: Outcome,
    /// The likeliest tokens and their log-probabilities, as many as were asked for.
    pub top: Vec<(u32, f32)>,
}

/// Runs steps.
pub trait Runner {
    /// The cache of one request.
    type Slab: Send;

    /// What it can hold.
    fn limits(&self) -> &Limits;

    /// An empty slab for at most `max_len` tokens; none while there is no room for it.
    ///
    /// # Errors
    /// A length beyond the largest bucket, or what the device says.
    fn slab(&mut self, max_len: u32) -> Result<Option<Self::Slab>, ModelError>;

    /// Copies a prefix's state to an empty slab of the same bucket.
    ///
    /// # Errors
    /// Slabs of different buckets, or what the device says.
    fn copy(&mut self, from: &Self::Slab, to: &mut Self::Slab) -> Result<(), ModelError>;

    /// A lane changes hands: what it remembers of tokens seen is forgotten.
    ///
    /// # Errors
    /// What the device says.
    fn reset(&mut self, lane: u32) -> Result<(), ModelError>;

    /// Queues a step. Slabs' positions move with it.
    ///
    /// # Errors
    /// What the device says; no slab has moved then.
    fn start(
        &mut self,
        decodes: &mut [Decode<'_, Self::Slab>],
        prefills: &mut [Prefill<'_, Self::Slab>],
    ) -> Result<(), ModelError>;

    /// Waits for the oldest step that was started and not finished, and returns what it chose: the decodes' tokens in order, then
    /// those of prefills that asked for one.
    ///
    /// # Errors
    /// What the device says.
    fn finish(&mut self) -> Result<Vec<Chosen>, ModelError>;
}
