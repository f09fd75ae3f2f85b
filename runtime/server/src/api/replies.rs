//! The bodies of replies.

use std::collections::BTreeMap;

use serde::Serialize;

/// A completion, or a chunk of one.
#[derive(Clone, Debug, Serialize)]
pub struct Reply<C> {
    /// The reply's own name.
    pub id: String,
    /// The kind of object.
    pub object: &'static str,
    /// When, in seconds since 1970.
    pub created: u64,
    /// The model.
    pub model: String,
    /// The answers.
    pub choices: Vec<C>,
    /// How many tokens there were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// How many tokens there were.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Usage {
    /// Of the prompts.
    pub prompt_tokens: u32,
    /// Of the answers.
    pub completion_tokens: u32,
    /// Of both.
    pub total_tokens: u32,
    /// More about the prompts.
    pub prompt_tokens_details: PromptDetails,
}

/// More about the prompts' tokens.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct PromptDetails {
    /// Those that a kept cache had already.
    pub cached_tokens: u32,
}

/// An answer to a prompt, or a piece of one.
#[derive(Clone, Debug, Serialize)]
pub struct CompletionChoice {
    /// The number of the answer.
    pub index: u32,
    /// Its text.
    pub text: String,
    /// Log-probabilities, if asked for.
    pub logprobs: Option<CompletionLogprobs>,
    /// Why it ended, if it has.
    pub finish_reason: Option<&'static str>,
}

/// Log-probabilities of a completion.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CompletionLogprobs {
    /// The text of each token.
    pub tokens: Vec<String>,
    /// Its log-probability.
    pub token_logprobs: Vec<f32>,
    /// The likeliest tokens there and their log-probabilities.
    pub top_logprobs: Vec<BTreeMap<String, f32>>,
    /// Where the token begins in the text, in characters.
    pub text_offset: Vec<usize>,
}

/// An answer to a conversation.
#[derive(Clone, Debug, Serialize)]
pub struct ChatChoice {
    /// The number of the answer.
    pub index: u32,
    /// The turn.
    pub message: ChatAnswer,
    /// Log-probabilities, if asked for.
    pub logprobs: Option<ChatLogprobs>,
    /// Why it ended.
    pub finish_reason: Option<&'static str>,
}

/// The assistant's turn.
#[derive(Clone, Debug, Serialize)]
pub struct ChatAnswer {
    /// `assistant`.
    pub role: &'static str,
    /// The text.
    pub content: String,
    /// Never.
    pub refusal: Option<String>,
}

/// A piece of an answer to a conversation.
#[derive(Clone, Debug, Serialize)]
pub struct ChatPiece {
    /// Which answer.
    pub index: u32,
    /// The new part of the message.
    pub delta: Delta,
    /// Log-probabilities, if asked for.
    pub logprobs: Option<ChatLogprobs>,
    /// Why it ended, if it has.
    pub finish_reason: Option<&'static str>,
}

/// The new part of a message.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Delta {
    /// `assistant`, in the first piece.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    /// More of the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

/// Log-probabilities of a turn.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ChatLogprobs {
    /// One entry per token.
    pub content: Vec<TokenLogprob>,
}

/// A token and its log-probability.
#[derive(Clone, Debug, Serialize)]
pub struct TokenLogprob {
    /// The token's text.
    #[serde(flatten)]
    pub token: LikelyToken,
    /// The likeliest tokens there.
    pub top_logprobs: Vec<LikelyToken>,
}

/// A token that was likely.
#[derive(Clone, Debug, Serialize)]
pub struct LikelyToken {
    /// Its text.
    pub token: String,
    /// Its log-probability.
    pub logprob: f32,
    /// The bytes of its text; none where it is only a part of a character.
    pub bytes: Option<Vec<u8>>,
}

/// What the plan keeps of a context: the reply of `/v1/moac/plan`, which is moac's own.
#[derive(Clone, Debug, Serialize)]
pub struct PlanReply {
    /// `moac.plan`.
    pub object: &'static str,
    /// The name that clients call the model by.
    pub model: String,
    /// The model that the plan is for.
    pub plan: String,
    /// Layers.
    pub layers: u32,
    /// KV heads of each.
    pub kv_heads: u32,
    /// Bytes of one token's key and value in one KV head.
    pub row_bytes: u64,
    /// The context lengths that requests can have, ascending.
    pub contexts: Vec<PlanContext>,
}

/// What the plan keeps of a context of one length.
#[derive(Clone, Debug, Serialize)]
pub struct PlanContext {
    /// The length.
    pub tokens: u32,
    /// Bytes of a request's cache.
    pub slab_bytes: u64,
    /// Bytes of a cache of all tokens.
    pub dense_bytes: u64,
    /// Tokens that a ring holds, `[layers][kv_heads]`.
    pub kv_spans: Vec<Vec<u32>>,
}

/// The models that are served.
#[derive(Clone, Debug, Serialize)]
pub struct Models {
    /// `list`.
    pub object: &'static str,
    /// One.
    pub data: Vec<ModelCard>,
}

/// A model.
#[derive(Clone, Debug, Serialize)]
pub struct ModelCard {
    /// Its name.
    pub id: String,
    /// `model`.
    pub object: &'static str,
    /// When the server started, in seconds since 1970.
    pub created: u64,
    /// The owner.
    pub owned_by: &'static str,
    /// The longest context, in tokens.
    pub max_model_len: u32,
}
