//! From the engine's events to replies.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use moac_model::{End, Event, Finish, Ticket, Token, Tokenizer};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, Receiver};

use crate::api::{
    ChatAnswer, ChatChoice, ChatLogprobs, CompletionChoice, CompletionLogprobs, LikelyToken, Reply,
    TokenLogprob, Usage,
};
use crate::error::ApiError;
use crate::prepare::{Kind, Prepared};
use crate::server::{App, now};

/// Tokens that wait for a client to read them, for each answer. The engine waits for nobody: a client that is further behind
/// loses its request, and the request its slab.
const UNREAD: usize = 4096;

/// Requests that run. To drop it cancels them.
pub(crate) struct Run {
    events: Receiver<(u32, Event)>,
    /// Whether events were lost because the client did not read them.
    unread: Arc<AtomicBool>,
    /// Answers that have not ended.
    open: u32,
    /// Answers per prompt.
    n: u32,
    deadline: tokio::time::Instant,
    pub(crate) usage: Usage,
    _tickets: Vec<Ticket>,
}

/// An event of the answer `index` of a reply.
pub(crate) enum Piece {
    Token { index: u32, token: Token },
    End { index: u32, end: End },
}

impl Run {
    /// Hands the requests to the engine.
    pub(crate) fn start(app: &App, prepared: &Prepared) -> Result<Self, ApiError> {
        let answers = prepared.n * prepared.requests.len() as u32;
        let (sender, events) = mpsc::channel(UNREAD * answers.max(1) as usize);
        let unread = Arc::new(AtomicBool::new(false));
        let mut tickets = Vec::new();
        let mut usage = Usage::default();
        for (prompt, request) in (0..).zip(&prepared.requests) {
            usage.prompt_tokens += request.prompt.len() as u32;
            usage.total_tokens = usage.prompt_tokens;
            app.metrics.prompt(request.prompt.len());
            let (sender, metrics, unread) = (sender.clone(), Arc::clone(&app.metrics), unread.clone());
            let start = Instant::now();
            let mut newest = vec![None; request.n as usize];
            // On the engine's thread, so the times are the engine's and no slow reader's.
            let sink = Box::new(move |event: Event| {
                match &event {
                    Event::Token(token) => {
                        let now = Instant::now();
                        let before = newest[token.choice as usize].replace(now);
                        metrics.token(before.is_none(), now - before.unwrap_or(start));
                    }
                    Event::End(end) => metrics.end(end.finish, end.tokens, start.elapsed()),
                    Event::Failed(_) => {}
                }
                let sent = sender.try_send((prompt, event));
                if let Err(TrySendError::Full(_)) = sent {
                    unread.store(true, Ordering::Relaxed);
                }
                sent.is_ok()
            });
            tickets.push(app.served.engine.submit_to(request.clone(), sink)?);
        }
        let deadline = tokio::time::Instant::now() + app.options.time;
        Ok(Self { events, unread, open: answers, n: prepared.n, deadline, usage, _tickets: tickets })
    }

    /// The next event; none after the last answer's end.
    pub(crate) async fn next(&mut self) -> Option<Result<Piece, ApiError>> {
        if self.open == 0 {
            return None;
        }
        let event = tokio::time::timeout_at(self.deadline, self.events.recv()).await;
        let failed = match event {
            _ if self.unread.load(Ordering::Relaxed) => {
                ApiError::server(format!("the client has not read the last {UNREAD} tokens of an answer"))
                    .status(axum::http::StatusCode::REQUEST_TIMEOUT, "slow_reader")
            }
            Ok(Some((prompt, Event::Token(token)))) => {
                let index = prompt * self.n + token.choice;
                self.usage.completion_tokens += 1;
                self.usage.total_tokens = self.usage.prompt_tokens + self.usage.completion_tokens;
                return Some(Ok(Piece::Token { index, token }));
            }
            Ok(Some((prompt, Event::End(end)))) => {
                self.open -= 1;
                if end.choice == 0 {
                    self.usage.prompt_tokens_details.cached_tokens += end.cached;
                }
                return Some(Ok(Piece::End { index: prompt * self.n + end.choice, end }));
            }
            Ok(Some((_, Event::Failed(error)))) => error.into(),
            Ok(None) => ApiError::server("the engine has stopped"),
            Err(_) => ApiError::server("the request took too long")
                .status(axum::http::StatusCode::GATEWAY_TIMEOUT, "timeout"),
        };
        self.open = 0;
        Some(Err(failed))
    }
}

/// Why an answer ended, in the protocol's words.
pub(crate) fn reason(finish: Finish) -> &'static str {
    match finish {
        Finish::StopToken(_) | Finish::StopString(_) => "stop",
        Finish::Limit | Finish::ContextFull | Finish::Cancelled => "length",
    }
}

/// A reply without its answers.
pub(crate) fn reply<C>(app: &App, kind: Kind, object: &'static str, number: u64) -> Reply<C> {
    let prefix = match kind {
        Kind::Completion => "cmpl",
        Kind::Chat => "chatcmpl",
    };
    Reply {
        id: format!("{prefix}-{number:016x}"),
        object,
        created: now(),
        model: app.served.name.clone(),
        choices: Vec::new(),
        usage: None,
    }
}

/// An answer so far.
#[derive(Clone, Debug, Default)]
struct Whole {
    text: String,
    tokens: Vec<Token>,
    finish: Option<&'static str>,
}

/// Waits for all answers.
async fn collect(run: &mut Run, answers: usize) -> Result<Vec<Whole>, ApiError> {
    let mut whole = vec![Whole::default(); answers];
    while let Some(piece) = run.next().await {
        match piece? {
            Piece::Token { index, token } => {
                let answer = &mut whole[index as usize];
                answer.text += &token.text;
                answer.tokens.push(token);
            }
            Piece::End { index, end } => {
                let answer = &mut whole[index as usize];
                answer.text += &end.text;
                answer.finish = Some(reason(end.finish));
            }
        }
    }
    Ok(whole)
}

pub(crate) async fn completion(
    app: &App,
    prepared: &Prepared,
    number: u64,
) -> Result<Reply<CompletionChoice>, ApiError> {
    let mut run = Run::start(app, prepared)?;
    let whole = collect(&mut run, prepared.before.len() * prepared.n as usize).await?;
    let mut reply = reply(app, prepared.kind, "text_completion", number);
    for (index, answer) in (0..).zip(whole) {
        let before = &prepared.before[(index / prepared.n) as usize];
        let logprobs = prepared.logprobs.then(|| {
            let mut offset = 0;
            completion_logprobs(&app.served.tokenizer, &answer.tokens, &mut offset)
        });
        let text = format!("{before}{}", answer.text);
        reply.choices.push(CompletionChoice { index, text, logprobs, finish_reason: answer.finish });
    }
    reply.usage = Some(run.usage);
    Ok(reply)
}

pub(crate) async fn chat(app: &App, prepared: &Prepared, number: u64) -> Result<Reply<ChatChoice>, ApiError> {
    let mut run = Run::start(app, prepared)?;
    let whole = collect(&mut run, prepared.n as usize).await?;
    let mut reply = reply(app, prepared.kind, "chat.completion", number);
    for (index, answer) in (0..).zip(whole) {
        let logprobs = prepared.logprobs.then(|| chat_logprobs(&app.served.tokenizer, &answer.tokens));
        let message = ChatAnswer { role: "assistant", content: answer.text, refusal: None };
        reply.choices.push(ChatChoice { index, message, logprobs, finish_reason: answer.finish });
    }
    reply.usage = Some(run.usage);
    Ok(reply)
}

/// The text of one token; of a token that is a part of a character, what stands for it.
fn spelling(tokenizer: &Tokenizer, token: u32) -> String {
    tokenizer.decode(&[token]).unwrap_or_default()
}

/// Log-probabilities of tokens of a completion, the first of which begins at the character `offset`.
pub(crate) fn completion_logprobs(
    tokenizer: &Tokenizer,
    tokens: &[Token],
    offset: &mut usize,
) -> CompletionLogprobs {
    let mut out = CompletionLogprobs::default();
    for token in tokens {
        let text = spelling(tokenizer, token.token);
        let mut top: BTreeMap<String, f32> =
            token.top.iter().map(|&(token, logprob)| (spelling(tokenizer, token), finite(logprob))).collect();
        top.insert(text.clone(), finite(token.logprob));
        out.text_offset.push(*offset);
        *offset += text.chars().count();
        out.tokens.push(text);
        out.token_logprobs.push(finite(token.logprob));
        out.top_logprobs.push(top);
    }
    out
}

pub(crate) fn chat_logprobs(tokenizer: &Tokenizer, tokens: &[Token]) -> ChatLogprobs {
    let likely = |token: u32, logprob: f32| {
        let text = spelling(tokenizer, token);
        let whole = !text.contains(char::REPLACEMENT_CHARACTER);
        LikelyToken { bytes: whole.then(|| text.as_bytes().to_vec()), token: text, logprob: finite(logprob) }
    };
    let entry = |token: &Token| TokenLogprob {
        token: likely(token.token, token.logprob),
        top_logprobs: token.top.iter().map(|&(token, logprob)| likely(token, logprob)).collect(),
    };
    ChatLogprobs { content: tokens.iter().map(entry).collect() }
}

/// JSON has no infinity: a token that cannot be has the least number that clients of the protocol know.
fn finite(logprob: f32) -> f32 {
    logprob.max(-9999.0)
}

/// How long a stream may be silent before a comment is sent, for proxies between server and client.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(15);
