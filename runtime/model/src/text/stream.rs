//! Text from tokens that come one by one: never half a character.

use super::tokenizer::Tokenizer;
use crate::ModelError;

/// Tokens of the prompt that an answer's first tokens are decoded with.
const BEFORE: usize = 16;
/// The most tokens at the end of a text that may hold the start of a character: one has at most four bytes.
const INCOMPLETE: usize = 3;

/// Text from tokens that come one by one.
#[derive(Clone, Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    tokens: Vec<u32>,
    /// The text of `start..end` has been handed out. It is decoded again with what follows, since the text of a token
    /// may depend on the one before it.
    start: usize,
    end: usize,
}

impl<'a> TextStream<'a> {
    /// A stream of tokens that follow `before`.
    pub(super) fn new(tokenizer: &'a Tokenizer, before: &[u32]) -> Self {
        let tokens = before[before.len().saturating_sub(BEFORE)..].to_vec();
        Self { tokenizer, start: 0, end: tokens.len(), tokens }
    }

    /// Takes a token; returns the text that it completes, perhaps none.
    pub fn push(&mut self, token: u32) -> Result<String, ModelError> {
        self.tokens.push(token);
        let mut text = self.rest(self.tokens.len())?;
        let mut end = self.tokens.len();
        if text.ends_with(char::REPLACEMENT_CHARACTER) {
            // Only the last tokens may become a character: bytes before them that form none never will.
            end -= INCOMPLETE.min(end);
            if end <= self.end {
                return Ok(String::new());
            }
            let before = self.rest(end)?;
            // Bytes on both sides of `end` that belong together would read otherwise apart.
            if text != before.clone() + &self.tokenizer.decode(&self.tokens[end..])? {
                return Ok(String::new());
            }
            text = before;
        }
        (self.start, self.end) = (self.end, end);
        Ok(text)
    }

    /// The text still held back: bytes that form no character.
    pub fn finish(self) -> Result<String, ModelError> {
        self.rest(self.tokens.len())
    }

    /// The text up to a token that has not been handed out.
    fn rest(&self, end: usize) -> Result<String, ModelError> {
        let known = self.tokenizer.decode(&self.tokens[self.start..self.end])?;
        let mut text = self.tokenizer.decode(&self.tokens[self.start..end])?;
        // What was known may end within a character that the new tokens complete.
        let same = known.bytes().zip(text.bytes()).take_while(|(a, b)| a == b).count();
        Ok(text.split_off(text.floor_char_boundary(same)))
    }
}
