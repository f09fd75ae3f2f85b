//! The engine: sampling, stop strings, schedules on a fake runner and on the CPU, its thread.

mod fake;
mod order;
mod sampling;
mod schedules;
mod stops;
mod thread;

use std::sync::{Arc, Mutex, PoisonError};

use crate::engine::job::Sink;
use crate::engine::{Answer, EngineError, Event};

/// The outcome of a request: its answers, and its error if it failed.
#[derive(Clone, Debug, Default)]
struct Heard(Arc<Mutex<(Vec<Answer>, Option<EngineError>)>>);

impl Heard {
    fn new(answers: u32) -> Self {
        Self(Arc::new(Mutex::new((vec![Answer::default(); answers as usize], None))))
    }

    fn with<T>(&self, act: impl FnOnce(&mut (Vec<Answer>, Option<EngineError>)) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn sink(&self) -> Sink {
        let heard = self.clone();
        Box::new(move |event| {
            heard.with(|(answers, error)| {
                assert!(error.is_none(), "an event after the failure: {event:?}");
                match event {
                    Event::Token(token) => {
                        let answer = &mut answers[token.choice as usize];
                        assert_eq!(answer.finish, None, "a token after the end");
                        answer.push(&token);
                    }
                    Event::End(end) => {
                        let answer = &mut answers[end.choice as usize];
                        assert_eq!(answer.finish, None, "two ends");
                        answer.end(&end);
                        assert_eq!(answer.tokens.len(), end.tokens as usize);
                    }
                    Event::Failed(failed) => *error = Some(failed),
                }
            });
            true
        })
    }

    fn answers(&self) -> Vec<Answer> {
        self.with(|(answers, _)| answers.clone())
    }

    fn is_over(&self) -> bool {
        self.with(|(answers, error)| error.is_some() || answers.iter().all(|answer| answer.finish.is_some()))
    }
}
