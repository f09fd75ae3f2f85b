//! The tokens of a context under construction: the text written so far, and filler after it.

use moac_model::{ModelError, Tokenizer};

use super::TaskError;
use super::frame::continuation;

/// How a text ends that something follows on a line of its own: a place that no token reaches across.
const END: &str = "end.";

/// A context in the making.
///
/// Everything is added on the white space before it, which tokens do not reach across; so the tokens are those that the
/// whole text would have.
#[derive(Clone, Debug)]
pub struct Page<'m> {
    tokenizer: &'m Tokenizer,
    /// The tokens so far.
    pub tokens: Vec<u32>,
    /// Whether what comes next begins a paragraph, whatever it did in its own text.
    afresh: bool,
}

impl<'m> Page<'m> {
    /// A page that begins with some tokens.
    pub fn new(tokenizer: &'m Tokenizer, tokens: Vec<u32>) -> Self {
        Self { tokenizer, tokens, afresh: true }
    }

    /// The tokens of a paragraph after another text.
    pub fn paragraph(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, TaskError> {
        continuation(tokenizer, END, &format!("\n\n{text}"))
    }

    /// Adds a paragraph.
    pub fn add_paragraph(&mut self, tokens: &[u32]) {
        self.tokens.extend(tokens);
        self.afresh = true;
    }

    /// The tokens that a unit of filler would add; none if the vocabulary lacks one of its characters.
    pub fn measure(&self, unit: &str) -> Result<Option<Vec<u32>>, TaskError> {
        let tokens = if self.tokens.is_empty() {
            self.tokenizer.encode(unit.trim_start()).map_err(TaskError::from)
        } else if self.afresh || !unit.starts_with(char::is_whitespace) {
            Self::paragraph(self.tokenizer, unit.trim_start())
        } else {
            continuation(self.tokenizer, END, unit)
        };
        match tokens {
            Ok(tokens) => Ok(Some(tokens)),
            Err(TaskError::Model(ModelError::NotInVocabulary { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Adds a unit of filler if it ends within `room` tokens; else as many of its words as do. Says whether it was
    /// whole.
    pub fn add(&mut self, unit: &str, room: usize) -> Result<bool, TaskError> {
        let mut words = unit.trim_end();
        let mut whole = true;
        while !words.trim_start().is_empty() {
            let tokens = self.measure(words)?.unwrap_or_default();
            if self.tokens.len() + tokens.len() <= room {
                self.afresh &= tokens.is_empty();
                self.tokens.extend(tokens);
                return Ok(whole);
            }
            whole = false;
            words = words[..words.rfind(char::is_whitespace).unwrap_or(0)].trim_end();
        }
        Ok(whole)
    }
}
