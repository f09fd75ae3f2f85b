//! Replies that come piece by piece, as server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use moac_model::Token;
use serde::Serialize;

use crate::answer::{self, KEEP_ALIVE, Piece, Run};
use crate::api::{ChatPiece, CompletionChoice, Delta, Reply};
use crate::error::ApiError;
use crate::prepare::{Kind, Prepared};
use crate::server::App;

/// A reply in the making.
struct Stream {
    app: Arc<App>,
    prepared: Prepared,
    number: u64,
    run: Run,
    /// Characters of every answer so far, for the places of tokens.
    offsets: Vec<usize>,
    /// Answers that have been begun.
    begun: Vec<bool>,
    ready: VecDeque<Sent>,
    over: bool,
}

/// Runs the requests and tells of every token as it comes.
pub(crate) fn respond(app: Arc<App>, prepared: Prepared, number: u64) -> Result<Response, ApiError> {
    let run = Run::start(&app, &prepared)?;
    let answers = prepared.before.len() * prepared.n as usize;
    let (offsets, begun) = (vec![0; answers], vec![false; answers]);
    let state = Stream { app, prepared, number, run, offsets, begun, ready: VecDeque::new(), over: false };
    let events = stream::unfold(state, |mut state| async move {
        let event = state.next().await?;
        Some((Ok::<_, Infallible>(event), state))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

impl Stream {
    async fn next(&mut self) -> Option<Sent> {
        loop {
            if let Some(sent) = self.ready.pop_front() {
                return Some(sent);
            }
            if self.over {
                return None;
            }
            match self.run.next().await {
                Some(Ok(Piece::Token { index, token })) => {
                    let text = token.text.clone();
                    self.say(index, text, Some(&token), None);
                }
                Some(Ok(Piece::End { index, end })) => {
                    self.say(index, end.text, None, Some(answer::reason(end.finish)));
                }
                Some(Err(error)) => {
                    self.ready.push_back(Sent::default().data(error.body().to_string()));
                    self.over = true;
                }
                None => {
                    if self.prepared.options.include_usage == Some(true) {
                        let usage = Some(self.run.usage);
                        // There are no choices in it, so which kind they would be does not matter.
                        self.send(&Reply { usage, ..self.reply::<ChatPiece>() });
                    }
                    self.ready.push_back(Sent::default().data("[DONE]"));
                    self.over = true;
                }
            }
        }
    }

    fn reply<C>(&self) -> Reply<C> {
        let object = match self.prepared.kind {
            Kind::Completion => "text_completion",
            Kind::Chat => "chat.completion.chunk",
        };
        let continuous = self.prepared.options.continuous_usage_stats == Some(true);
        let usage = continuous.then_some(self.run.usage);
        Reply { usage, ..answer::reply(&self.app, self.prepared.kind, object, self.number) }
    }

    fn send(&mut self, reply: &impl Serialize) {
        // Nothing in a reply is without a form in JSON.
        let text = serde_json::to_string(reply).unwrap_or_default();
        self.ready.push_back(Sent::default().data(text));
    }

    /// Says what is new of an answer, if anything is.
    fn say(&mut self, index: u32, text: String, token: Option<&Token>, finish_reason: Option<&'static str>) {
        let place = index as usize;
        let first = !std::mem::replace(&mut self.begun[place], true);
        let tokens = token.map(std::slice::from_ref).filter(|_| self.prepared.logprobs);
        let tokenizer = self.app.served.tokenizer.clone();
        let silent = text.is_empty() && tokens.is_none() && finish_reason.is_none();
        match self.prepared.kind {
            Kind::Completion => {
                let before = &self.prepared.before[place / self.prepared.n as usize];
                let text = if first { format!("{before}{text}") } else { text };
                if silent && text.is_empty() {
                    return;
                }
                let offset = &mut self.offsets[place];
                let logprobs = tokens.map(|tokens| answer::completion_logprobs(&tokenizer, tokens, offset));
                let choice = CompletionChoice { index, text, logprobs, finish_reason };
                self.send(&Reply { choices: vec![choice], ..self.reply() });
            }
            Kind::Chat => {
                if first {
                    let delta = Delta { role: Some("assistant"), content: Some(String::new()) };
                    let begin = ChatPiece { index, delta, logprobs: None, finish_reason: None };
                    self.send(&Reply { choices: vec![begin], ..self.reply() });
                }
                if silent {
                    return;
                }
                let logprobs = tokens.map(|tokens| answer::chat_logprobs(&tokenizer, tokens));
                let content = (!text.is_empty() || logprobs.is_some()).then_some(text);
                let piece =
                    ChatPiece { index, delta: Delta { role: None, content }, logprobs, finish_reason };
                self.send(&Reply { choices: vec![piece], ..self.reply() });
            }
        }
    }
}
