//! Text to tokens and back, and conversations to prompts.

pub(crate) mod chat;
mod tokenizer;

pub use chat::{CHATML, ChatTemplate, Message};
pub use tokenizer::{TextStream, Tokenizer};
