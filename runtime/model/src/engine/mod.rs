//! From prompts to tokens: sampling, text as it comes, conversations.

mod conversation;
mod generate;
pub mod runner;
pub(crate) mod sample;

pub use conversation::Conversation;
pub use generate::{Generator, Stop};
pub use sample::{Sampler, Sampling};
