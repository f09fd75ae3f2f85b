//! From prompts to tokens: sampling, text as it comes, conversations.

mod conversation;
mod generate;
pub mod runner;
mod sample;

pub use conversation::Conversation;
pub use generate::{Generator, Stop};
pub use sample::{Sampling, Seen, choose};
