//! The protocol's types: what clients send and get. Fields that are not named here are accepted and change nothing, as
//! the reference service does with those it does not know; those that would change the answer and are not implemented are
//! named, so that they can be refused.

mod replies;

pub use replies::*;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// A field of a body that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongField {
    /// The name of the field.
    pub field: &'static str,
    /// The error.
    pub why: String,
}

/// Takes the fields of a body one by one, so that an error can say which is wrong.
#[derive(Debug)]
pub struct Fields(Map<String, Value>);

impl Fields {
    /// Of a body that is an object.
    ///
    /// # Errors
    /// The error in the body.
    pub fn new(body: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(body).map(Self)
    }

    /// The field, if it is there and not null.
    ///
    /// # Errors
    /// [`WrongField`].
    pub fn take<T: DeserializeOwned>(&mut self, field: &'static str) -> Result<Option<T>, WrongField> {
        let value = self.0.remove(field).unwrap_or(Value::Null);
        serde_json::from_value(value).map_err(|error| WrongField { field, why: error.to_string() })
    }

    /// The field, which must be there.
    ///
    /// # Errors
    /// [`WrongField`].
    pub fn need<T: DeserializeOwned>(&mut self, field: &'static str) -> Result<T, WrongField> {
        self.take(field)?.ok_or_else(|| WrongField { field, why: "is missing".to_owned() })
    }
}

/// The fields that both kinds of requests share.
#[derive(Clone, Debug, Default)]
pub struct Common {
    /// The model's name, if the client says which it means.
    pub model: Option<String>,
    /// The most tokens of an answer.
    pub max_tokens: Option<u32>,
    /// 0 takes the likeliest token always; 1 by default.
    pub temperature: Option<f32>,
    /// Only the likeliest tokens that together have this probability.
    pub top_p: Option<f32>,
    /// Only so many of the likeliest tokens; 0 or -1 for all. Not the reference service's, but other servers'.
    pub top_k: Option<i64>,
    /// Only tokens at least this many times as likely as the likeliest. Other servers'.
    pub min_p: Option<f32>,
    /// Divides the logits of tokens that there are already. Other servers'.
    pub repetition_penalty: Option<f32>,
    /// The same seed gives the same text.
    pub seed: Option<i64>,
    /// Answers.
    pub n: Option<u32>,
    /// Texts that end an answer.
    pub stop: Option<Stop>,
    /// Whether the answer comes piece by piece.
    pub stream: Option<bool>,
    /// How it comes then.
    pub stream_options: Option<StreamOptions>,
    /// Refused unless 0.
    pub presence_penalty: Option<f32>,
    /// Refused unless 0.
    pub frequency_penalty: Option<f32>,
    /// Refused unless empty.
    pub logit_bias: Option<Map<String, Value>>,
}

impl Common {
    /// Reads it.
    ///
    /// # Errors
    /// [`WrongField`].
    pub fn read(fields: &mut Fields) -> Result<Self, WrongField> {
        Ok(Self {
            model: fields.take("model")?,
            max_tokens: fields.take("max_tokens")?,
            temperature: fields.take("temperature")?,
            top_p: fields.take("top_p")?,
            top_k: fields.take("top_k")?,
            min_p: fields.take("min_p")?,
            repetition_penalty: fields.take("repetition_penalty")?,
            seed: fields.take("seed")?,
            n: fields.take("n")?,
            stop: fields.take("stop")?,
            stream: fields.take("stream")?,
            stream_options: fields.take("stream_options")?,
            presence_penalty: fields.take("presence_penalty")?,
            frequency_penalty: fields.take("frequency_penalty")?,
            logit_bias: fields.take("logit_bias")?,
        })
    }
}

/// One text or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
pub enum Stop {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

/// How a stream is to be.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct StreamOptions {
    /// Whether a last chunk tells how many tokens there were.
    pub include_usage: Option<bool>,
    /// Whether every chunk tells how many there were until then. Other servers'.
    pub continuous_usage_stats: Option<bool>,
}

/// The body of `/v1/completions`.
#[derive(Clone, Debug)]
pub struct CompletionRequest {
    /// The text to continue.
    pub prompt: Prompt,
    /// How many of the likeliest tokens are told beside each token.
    pub logprobs: Option<u32>,
    /// Whether the prompt comes before the answer.
    pub echo: Option<bool>,
    /// Refused: text behind the answer.
    pub suffix: Option<String>,
    /// Refused unless `n`.
    pub best_of: Option<u32>,
}

impl CompletionRequest {
    /// Reads it.
    ///
    /// # Errors
    /// [`WrongField`].
    pub fn read(fields: &mut Fields) -> Result<Self, WrongField> {
        Ok(Self {
            prompt: fields.need("prompt")?,
            logprobs: fields.take("logprobs")?,
            echo: fields.take("echo")?,
            suffix: fields.take("suffix")?,
            best_of: fields.take("best_of")?,
        })
    }
}

/// A prompt or several, as text or as tokens.
#[derive(Clone, Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a text, a list of texts, a list of tokens, or a list of lists of tokens"
)]
pub enum Prompt {
    /// A text.
    Text(String),
    /// Texts.
    Texts(Vec<String>),
    /// Tokens.
    Tokens(Vec<u32>),
    /// Several prompts of tokens.
    Many(Vec<Vec<u32>>),
}

/// The body of `/v1/chat/completions`.
#[derive(Clone, Debug)]
pub struct ChatRequest {
    /// The turns so far.
    pub messages: Vec<ChatMessage>,
    /// The newer name of `max_tokens`.
    pub max_completion_tokens: Option<u32>,
    /// Whether log-probabilities are told.
    pub logprobs: Option<bool>,
    /// How many of the likeliest tokens are told beside each token.
    pub top_logprobs: Option<u32>,
    /// Refused unless empty.
    pub tools: Option<Vec<Value>>,
    /// Refused unless empty.
    pub functions: Option<Vec<Value>>,
    /// Refused unless of the type `text`.
    pub response_format: Option<ResponseFormat>,
}

impl ChatRequest {
    /// Reads it.
    ///
    /// # Errors
    /// [`WrongField`].
    pub fn read(fields: &mut Fields) -> Result<Self, WrongField> {
        Ok(Self {
            messages: fields.need("messages")?,
            max_completion_tokens: fields.take("max_completion_tokens")?,
            logprobs: fields.take("logprobs")?,
            top_logprobs: fields.take("top_logprobs")?,
            tools: fields.take("tools")?,
            functions: fields.take("functions")?,
            response_format: fields.take("response_format")?,
        })
    }
}

/// The format of an answer.
#[derive(Clone, Debug, Deserialize)]
pub struct ResponseFormat {
    /// `text` is all there is.
    pub r#type: String,
}

/// One turn.
#[derive(Clone, Debug, Deserialize)]
pub struct ChatMessage {
    /// `system`, `user`, `assistant`, or what else the template knows.
    pub role: String,
    /// The text.
    pub content: Option<Content>,
}

/// A text, or parts.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a text or a list of parts")]
pub enum Content {
    /// A text.
    Text(String),
    /// Parts, all of which must be text.
    Parts(Vec<Part>),
}

/// A part of a turn.
#[derive(Clone, Debug, Deserialize)]
pub struct Part {
    /// `text` is all there is.
    pub r#type: String,
    /// The text.
    pub text: Option<String>,
}
