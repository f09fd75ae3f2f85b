//! From prompts to tokens: one engine for the command line, a server and the evaluation, over a CPU or a GPU.
//!
//! [`Engine::submit`] queues a [`Request`] and returns its [`Event`]s as they come. Requests run together: each step takes all
//! answers that can go on by one token, and chunks of the prompts of those that have come in the meantime. An answer does not
//! depend on the other requests beyond rounding; on a runner that is [deterministic](runner::Limits::deterministic), not at all.

pub(crate) mod job;
mod kept;
mod request;
pub mod runner;
mod sample;
pub(crate) mod scheduler;
mod sequence;
pub(crate) mod stops;
mod thread;

pub use job::{Sink, Ticket};
pub use request::{End, EngineError, Event, Finish, Refused, Request, Token};
pub use sample::{Sampling, Seen, choose};
pub use scheduler::{EngineOptions, Stats};
pub use thread::{Answer, Engine, Stream};
