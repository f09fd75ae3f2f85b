//! A conversation whose cache lives on from turn to turn.

use moac_runtime::plan::Plan;

use super::generate::Generator;
use super::sample::Sampling;
use crate::Cache;
use crate::Message;
use crate::{Model, ModelError};

/// The turns so far, and a cache that holds the tokens of most of them.
#[derive(Debug)]
pub struct Conversation<'m> {
    model: &'m Model,
    plan: Plan,
    length: u32,
    messages: Vec<Message>,
    /// The tokens that the cache holds, and the cache; none while an answer is being made.
    cached: Option<(Vec<u32>, Cache)>,
}

impl<'m> Conversation<'m> {
    /// Starts with `messages`, often one of the system; the whole conversation may take `length` tokens
    /// ([`Cache::new`]).
    pub fn new(
        model: &'m Model,
        plan: &Plan,
        length: u32,
        messages: Vec<Message>,
    ) -> Result<Self, ModelError> {
        let cached = Some((Vec::new(), Cache::new(plan, length)?));
        Ok(Self { model, plan: plan.clone(), length, messages, cached })
    }

    /// The turns so far.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Takes the user's turn and starts on the answer, which must be given back with [`Self::answered`].
    pub fn ask(&mut self, text: &str, sampling: &Sampling) -> Result<Generator<'m>, ModelError> {
        self.messages.push(Message::new("user", text));
        let prompt = self.model.chat(&self.messages);
        let generator = prompt.and_then(|prompt| self.start(&prompt, sampling));
        if generator.is_err() {
            self.messages.pop();
        }
        generator
    }

    fn start(&mut self, prompt: &[u32], sampling: &Sampling) -> Result<Generator<'m>, ModelError> {
        let (known, cache) = match self.cached.take() {
            // A ring cannot be wound back: it is of use if all that it holds begins the prompt, and not all of it.
            Some((tokens, cache)) if prompt.len() > tokens.len() && prompt.starts_with(&tokens) => {
                (tokens.len(), cache)
            }
            _ => (0, Cache::new(&self.plan, self.length)?),
        };
        let generator = Generator::new(self.model, &prompt[known..], cache, sampling)?;
        Ok(generator.with_past(&prompt[..known]))
    }

    /// Takes the answer into the conversation, whole or not.
    pub fn answered(&mut self, answer: Generator<'m>) -> Result<(), ModelError> {
        let text = self.model.tokenizer.decode(answer.tokens())?;
        self.messages.push(Message::new("assistant", text));
        self.cached = Some(answer.into_cache());
        Ok(())
    }
}
