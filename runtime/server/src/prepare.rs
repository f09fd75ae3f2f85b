//! From what a client sends to the engine's requests.

use std::hash::{BuildHasher as _, RandomState};

use moac_model::{Message, Request, Sampling};

use crate::api::{
    ChatRequest, Common, CompletionRequest, Content, Fields, Prompt, Stop, StreamOptions, WrongField,
};
use crate::error::ApiError;
use crate::server::App;

/// The most stop strings of a request, and the most bytes of each. Every token is compared with all of them.
const STOPS: usize = 16;
const STOP_BYTES: usize = 1024;
/// The most alternatives reported with each token's log-probability.
const TOP_LOGPROBS: u32 = 20;
/// Tokens of a completion where the client does not say.
const COMPLETION_TOKENS: u32 = 16;

/// Which of the two protocols a reply is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Completion,
    Chat,
}

/// The requests to run, and the form of the reply.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) kind: Kind,
    /// One per prompt.
    pub(crate) requests: Vec<Request>,
    /// The text before each prompt's answers.
    pub(crate) before: Vec<String>,
    /// Answers per prompt.
    pub(crate) n: u32,
    /// Whether the reply has log-probabilities.
    pub(crate) logprobs: bool,
    /// Whether the reply is streamed.
    pub(crate) stream: bool,
    /// Which chunks of a streamed reply have the token counts.
    pub(crate) options: StreamOptions,
}

/// The fields of a body.
fn fields(body: &[u8]) -> Result<Fields, ApiError> {
    Fields::new(body)
        .map_err(|error| ApiError::invalid(format!("the body is not a JSON object: {error}"), None))
}

impl From<WrongField> for ApiError {
    fn from(WrongField { field, why }: WrongField) -> Self {
        Self::invalid(format!("`{field}`: {why}"), Some(field))
    }
}

pub(crate) fn completion(app: &App, body: &[u8]) -> Result<Prepared, ApiError> {
    let fields = &mut fields(body)?;
    let common = Common::read(fields)?;
    let CompletionRequest { prompt, logprobs, echo, suffix, best_of } = CompletionRequest::read(fields)?;
    let n = common.n.unwrap_or(1);
    if suffix.is_some_and(|suffix| !suffix.is_empty()) {
        return Err(unsupported("suffix", "text behind an answer"));
    }
    if best_of.is_some_and(|best| best != n) {
        return Err(unsupported("best_of", "to choose the best of more answers than `n`"));
    }
    let echo = echo.unwrap_or(false);
    if echo && logprobs.is_some() {
        return Err(unsupported("echo", "log-probabilities of the prompt"));
    }
    let tokenizer = &app.served.tokenizer;
    let texts = |texts: Vec<String>| {
        let tokens = texts.iter().map(|text| tokenizer.encode_prompt(text));
        tokens
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| ApiError::invalid(error.to_string(), Some("prompt")))
    };
    let many = match &prompt {
        Prompt::Texts(many) => many.len(),
        Prompt::Many(many) => many.len(),
        Prompt::Text(_) | Prompt::Tokens(_) => 1,
    };
    if many == 0 || many > app.options.prompts {
        let message = format!("{many} prompts, expected 1 to {}", app.options.prompts);
        return Err(ApiError::invalid(message, Some("prompt")));
    }
    let prompts = match prompt {
        Prompt::Text(text) => texts(vec![text])?,
        Prompt::Texts(many) => texts(many)?,
        Prompt::Tokens(tokens) => vec![tokens],
        Prompt::Many(many) => many,
    };
    let vocab = app.served.engine.limits().vocab;
    if prompts.iter().flatten().any(|&token| token >= vocab) {
        return Err(ApiError::invalid(
            format!("a token is not below the vocabulary's {vocab}"),
            Some("prompt"),
        ));
    }
    let before = prompts.iter().map(|tokens| if echo { tokenizer.decode(tokens) } else { Ok(String::new()) });
    let before = before.collect::<Result<_, _>>()?;
    let max_tokens = common.max_tokens.unwrap_or(COMPLETION_TOKENS);
    let named = common.max_tokens.map(|tokens| (tokens, "max_tokens"));
    let requests = prompts.into_iter().map(|prompt| {
        let top = logprobs.unwrap_or(0);
        request(app, &common, prompt, named, max_tokens, (top, "logprobs"))
    });
    let requests = requests.collect::<Result<_, _>>()?;
    Ok(Prepared { kind: Kind::Completion, requests, before, ..prepared(&common, n, logprobs.is_some()) })
}

pub(crate) fn chat(app: &App, body: &[u8]) -> Result<Prepared, ApiError> {
    let fields = &mut fields(body)?;
    let common = Common::read(fields)?;
    let ChatRequest {
        messages,
        max_completion_tokens,
        logprobs,
        top_logprobs,
        tools,
        functions,
        response_format,
    } = ChatRequest::read(fields)?;
    for (field, given) in [("tools", tools), ("functions", functions)] {
        if given.is_some_and(|given| !given.is_empty()) {
            return Err(unsupported(field, "calls of tools"));
        }
    }
    if response_format.is_some_and(|format| format.r#type != "text") {
        return Err(unsupported("response_format", "a format other than text"));
    }
    if top_logprobs.is_some_and(|top| top > 0) && logprobs != Some(true) {
        return Err(ApiError::invalid("`top_logprobs` needs `logprobs`: true", Some("top_logprobs")));
    }
    if messages.is_empty() {
        return Err(ApiError::invalid("there are no messages", Some("messages")));
    }
    let mut turns = Vec::with_capacity(messages.len());
    for message in messages {
        let content = match message.content {
            None => String::new(),
            Some(Content::Text(text)) => text,
            Some(Content::Parts(parts)) => {
                let texts = parts.into_iter().map(|part| match part.text {
                    Some(text) if part.r#type == "text" => Ok(text),
                    _ => Err(unsupported("messages", "a content part that is not text")),
                });
                texts.collect::<Result<Vec<_>, _>>()?.concat()
            }
        };
        turns.push(Message::new(message.role, content));
    }
    let invalid = |error: moac_model::ModelError| ApiError::invalid(error.to_string(), Some("messages"));
    let template = app.served.template.as_ref().ok_or_else(|| {
        ApiError::invalid("the model has no chat template: it answers /v1/completions only", Some("model"))
    })?;
    let prompt = template.render(&turns).map_err(invalid)?;
    let prompt = app.served.tokenizer.encode_prompt(&prompt).map_err(invalid)?;
    let named = common.max_tokens.map(|tokens| (tokens, "max_tokens"));
    let named = max_completion_tokens.map(|tokens| (tokens, "max_completion_tokens")).or(named);
    let longest = app.served.engine.limits().buckets.last().map_or(0, |bucket| bucket.length);
    let room = longest.saturating_sub(prompt.len() as u32).max(1);
    let max_tokens = named.map_or(app.options.chat_tokens.min(room), |(tokens, _)| tokens);
    let top = (top_logprobs.unwrap_or(0), "top_logprobs");
    let request = request(app, &common, prompt, named, max_tokens, top)?;
    let n = common.n.unwrap_or(1);
    let before = vec![String::new()];
    let requests = vec![request];
    Ok(Prepared { kind: Kind::Chat, requests, before, ..prepared(&common, n, logprobs == Some(true)) })
}

fn prepared(common: &Common, n: u32, logprobs: bool) -> Prepared {
    Prepared {
        kind: Kind::Chat,
        requests: Vec::new(),
        before: Vec::new(),
        n,
        logprobs,
        stream: common.stream.unwrap_or(false),
        options: common.stream_options.unwrap_or_default(),
    }
}

fn unsupported(field: &str, what: &str) -> ApiError {
    ApiError::invalid(format!("`{field}`: {what} is not supported"), Some(field))
}

/// The engine's request for one prompt.
fn request(
    app: &App,
    common: &Common,
    prompt: Vec<u32>,
    asked: Option<(u32, &str)>,
    max_tokens: u32,
    (top_logprobs, top_field): (u32, &str),
) -> Result<Request, ApiError> {
    if let Some(model) = common.model.as_ref().filter(|&model| *model != app.served.name) {
        let message = format!("the model `{model}` does not exist: this server has `{}`", app.served.name);
        let error = ApiError::invalid(message, Some("model"));
        return Err(error.status(axum::http::StatusCode::NOT_FOUND, "model_not_found"));
    }
    for (field, penalty) in
        [("presence_penalty", common.presence_penalty), ("frequency_penalty", common.frequency_penalty)]
    {
        if penalty.is_some_and(|penalty| penalty.abs() > 0.0 || penalty.is_nan()) {
            return Err(unsupported(field, "a penalty other than `repetition_penalty`"));
        }
    }
    if common.logit_bias.as_ref().is_some_and(|bias| !bias.is_empty()) {
        return Err(unsupported("logit_bias", "a bias of tokens"));
    }
    if top_logprobs > TOP_LOGPROBS {
        let message = format!("`{top_field}` is {top_logprobs}, expected at most {TOP_LOGPROBS}");
        return Err(ApiError::invalid(message, Some(top_field)));
    }
    // Before anything is made for each answer.
    let (n, lanes) = (common.n.unwrap_or(1), app.served.engine.limits().lanes);
    if n == 0 || n > lanes {
        let message = format!("`n` is {n}, expected 1 to {lanes}, as many as run at once");
        return Err(ApiError::invalid(message, Some("n")));
    }
    let stop_strings = match common.stop.clone() {
        None => Vec::new(),
        Some(Stop::One(stop)) => vec![stop],
        Some(Stop::Many(stops)) => stops,
    };
    if stop_strings.len() > STOPS
        || stop_strings.iter().any(|stop| stop.is_empty() || stop.len() > STOP_BYTES)
    {
        let message = format!("`stop`: expected at most {STOPS} texts of 1 to {STOP_BYTES} bytes");
        return Err(ApiError::invalid(message, Some("stop")));
    }
    let top_k = match common.top_k {
        None | Some(0 | -1) => None,
        Some(k) => {
            Some(u32::try_from(k).map_err(|_| ApiError::invalid(format!("`top_k` is {k}"), Some("top_k")))?)
        }
    };
    let longest = app.served.engine.limits().buckets.last().map_or(0, |bucket| bucket.length);
    let beyond = |asked: u32| prompt.len() as u64 + u64::from(asked) > u64::from(longest);
    if let Some((_, field)) = asked.filter(|&(asked, _)| beyond(asked)) {
        let message = format!(
            "the prompt has {} tokens and the answer may have {max_tokens}, but the longest context has {longest} tokens",
            prompt.len()
        );
        let error = ApiError::invalid(message, Some(field));
        return Err(error.status(axum::http::StatusCode::BAD_REQUEST, "context_length_exceeded"));
    }
    let sampling = Sampling {
        temperature: common.temperature.unwrap_or(1.0),
        top_k,
        top_p: common.top_p.unwrap_or(1.0),
        min_p: common.min_p.unwrap_or(0.0),
        repetition_penalty: common.repetition_penalty.unwrap_or(1.0),
        // Without a seed, another answer every time: the standard library's hasher has random keys.
        seed: common.seed.map_or_else(|| RandomState::new().hash_one(0), i64::cast_unsigned),
    };
    Ok(Request {
        n,
        sampling,
        stop_tokens: app.served.stop_tokens.clone(),
        stop_strings,
        top_logprobs,
        keep: true,
        ..Request::new(prompt, max_tokens)
    })
}
