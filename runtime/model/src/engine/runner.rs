//! The interface of whatever runs a model's steps for the engine: the CPU path or a GPU.
//!
//! A step takes one token of some requests and a chunk of the prompts of others through all layers. Steps are queued: the
//! engine starts the next one before it has read the tokens of the one before, so a runner keeps the newest token of each
//! lane to itself and takes it from there. All calls take effect in the order in which they are made, as on a stream.

use moac_runtime::glue::Outcome;

pub use super::sample::Choice;
use crate::ModelError;

/// Steps that are started and not finished, at most.
pub const IN_FLIGHT: usize = 2;

/// A context length that requests can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// The context length, in tokens.
    pub length: u32,
    /// Bytes of a slab, as they are counted against [`Limits::slab_bytes`].
    pub slab_bytes: u64,
    /// Tokens up to which a slab has overwritten none: those of its shortest ring.
    pub intact: u32,
}

/// The capacity of a runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Lanes: requests that run at once.
    pub lanes: u32,
    /// Rows of a step, one per decode and one per token of a chunk: at least as many as lanes.
    pub rows: u32,
    /// Ascending by length, at least one.
    pub buckets: Vec<Bucket>,
    /// Bytes that there are for slabs.
    pub slab_bytes: u64,
    /// Rows of the output head: tokens are below it.
    pub vocab: u32,
    /// Whether a row has the same bits whatever else is in its step. The engine then keeps the borders of chunks the same too,
    /// so that a request's answer does not depend on others at all.
    pub deterministic: bool,
}

impl Limits {
    /// The bucket of a context length.
    pub(crate) fn bucket(&self, length: u32) -> Option<&Bucket> {
        self.buckets.iter().find(|bucket| bucket.length == length)
    }
}

/// A request that takes its lane's newest token and chooses the next one.
#[derive(Debug)]
pub struct Decode<'a, S> {
    /// Its place among the running requests.
    pub lane: u32,
    /// Its cache, which has room.
    pub slab: &'a mut S,
    /// How the next token is chosen.
    pub choice: Choice<'a>,
}

/// A chunk of a request's prompt, behind what the slab holds.
#[derive(Debug)]
pub struct Prefill<'a, S> {
    /// Its place among the running requests.
    pub lane: u32,
    /// Its cache, which has room.
    pub slab: &'a mut S,
    /// The chunk, at least one token, each below the vocabulary's size.
    pub tokens: &'a [u32],
    /// With the prompt's last chunk: how the first token is chosen.
    pub choice: Option<Choice<'a>>,
}

/// A token that a step chose.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// The lane.
    pub lane: u32,
    /// The token and its log-probability; NaN where the logits are NaN, which ends this request only.
    pub outcome: Outcome,
    /// The likeliest tokens and their log-probabilities, as many as were asked for.
    pub top: Vec<(u32, f32)>,
}

/// Runs steps. An error is the end of all requests.
pub trait Runner: Send {
    /// The cache of one request. To drop it gives its bytes back, perhaps only when the last step that it is in is finished.
    type Slab: Send;

    /// Its capacity. The same at every call.
    fn limits(&self) -> &Limits;

    /// An empty slab of the smallest bucket for `max_len` tokens; none while there is no room for it.
    ///
    /// # Errors
    /// A length beyond the largest bucket, or what the device says.
    fn slab(&mut self, max_len: u32) -> Result<Option<Self::Slab>, ModelError>;

    /// Copies a prefix's state, position included, to an empty slab of the same bucket.
    ///
    /// # Errors
    /// Slabs of different buckets, or what the device says.
    fn copy(&mut self, from: &Self::Slab, to: &mut Self::Slab) -> Result<(), ModelError>;

    /// Winds a slab back to its first `tokens` tokens, of those that it has, none of which it has overwritten.
    ///
    /// # Errors
    /// Tokens that are not in the slab any more.
    fn rewind(&mut self, slab: &mut Self::Slab, tokens: u32) -> Result<(), ModelError>;

    /// A lane changes hands. For the repetition penalty it forgets the tokens that it has seen and takes `seen` instead: those
    /// that the request's slab holds already. A lane adds every token of its decodes and prefills by itself.
    ///
    /// # Errors
    /// Any error of the device.
    fn reset(&mut self, lane: u32, seen: &[u32]) -> Result<(), ModelError>;

    /// Queues a step. Slabs' positions move with it. No lane is in it twice.
    ///
    /// # Errors
    /// Any error of the device.
    fn start(
        &mut self,
        decodes: &mut [Decode<'_, Self::Slab>],
        prefills: &mut [Prefill<'_, Self::Slab>],
    ) -> Result<(), ModelError>;

    /// Waits for the oldest step that was started and not finished, and returns what it chose: the decodes' tokens in order, then
    /// those of prefills that asked for one.
    ///
    /// # Errors
    /// Any error of the device.
    fn finish(&mut self) -> Result<Vec<Chosen>, ModelError>;
}
