//! An OpenAI-compatible server on the engine: completions and chat completions, streamed or not, models, health and
//! Prometheus metrics.
//!
//! - [`api`] has the protocol's types and nothing else.
//! - `page` is the chat at `/`, `plan` says what it shows of the plan.
//! - `prepare` turns them into the engine's requests, `answer` and `stream` turn the engine's events into replies.
//! - [`Server`] listens. A client that goes away cancels its requests; a shutdown finishes what runs.
//!
//! What must hold: no client can stop the server or another client's request, and whatever a client can mend is a 4xx whose body
//! names the field.
#![forbid(unsafe_code)]

mod answer;
pub mod api;
mod error;
mod listener;
mod metrics;
mod page;
mod plan;
mod prepare;
mod routes;
mod server;
mod stream;

pub use error::ServeError;
pub use server::{Options, Served, Server, serve};
