//! The text around a context and its question: the turns of a conversation, by the model's template.

use moac_model::{Message, Model, Tokenizer};

use super::TaskError;

/// Stand for the turns of the user and of the assistant while a template is rendered.
const TURN: &str = "\u{2}turn\u{2}";
const ANSWER: &str = "\u{2}answer\u{2}";
const NEXT: &str = "\u{2}next\u{2}";

/// The tokens before and after what the user says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Up to the user's first word.
    pub head: Vec<u32>,
    /// From the user's last word to the assistant's first.
    pub tail: Vec<u32>,
    /// From the assistant's last word to the user's next one.
    pub between: Vec<u32>,
}

impl Frame {
    /// The frame of a model's conversations; of a model without a template, one of plain text.
    pub fn of(model: &Model) -> Result<Self, TaskError> {
        let Some(template) = &model.template else { return Self::plain(&model.tokenizer) };
        let said = |message: Option<_>| {
            message.ok_or_else(|| {
                moac_model::ModelError::Template("it does not print what the user says".into())
            })
        };
        let text = template.render(&[Message::new("user", TURN)])?;
        let (head, tail) = said(text.split_once(TURN))?;
        let turns = [("user", TURN), ("assistant", ANSWER), ("user", NEXT)];
        let text = template.render(&turns.map(|(role, text)| Message::new(role, text)))?;
        let (_, after) = said(text.split_once(ANSWER))?;
        let (between, _) = said(after.split_once(NEXT))?;
        // Some tokenizers put a space before a text, which the tail is not the start of.
        let known = model.tokenizer.encode_chat("?")?;
        let whole = model.tokenizer.encode_chat(&format!("?{tail}"))?;
        let tail = match whole.strip_prefix(known.as_slice()) {
            Some(tail) => tail.to_vec(),
            None => model.tokenizer.encode_chat(tail)?,
        };
        let encode = |text| model.tokenizer.encode_chat(text);
        Ok(Self { head: encode(head)?, tail, between: encode(between)? })
    }

    /// No conversation: text that goes on, an answer on the line behind its question.
    pub fn plain(tokenizer: &Tokenizer) -> Result<Self, TaskError> {
        let line = |text| continuation(tokenizer, "?", text);
        Ok(Self { head: tokenizer.encode_prompt("")?, tail: line("\n")?, between: line("\n\n")? })
    }
}

/// The tokens of `text` where it follows `before`. It is an error if the two share a token.
pub fn continuation(tokenizer: &Tokenizer, before: &str, text: &str) -> Result<Vec<u32>, TaskError> {
    let known = tokenizer.encode(before)?;
    let whole = tokenizer.encode(&format!("{before}{text}"))?;
    match whole.strip_prefix(known.as_slice()) {
        Some(tokens) => Ok(tokens.to_vec()),
        None => Err(TaskError::Joined { before: before.to_owned(), text: text.to_owned() }),
    }
}
