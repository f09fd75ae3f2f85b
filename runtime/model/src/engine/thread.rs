//! The engine's thread, and the handles that talk to it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use super::job::{Job, Sink, Ticket};
use super::request::{End, EngineError, Event, Finish, Refused, Request, Token};
use super::runner::{Limits, Runner};
use super::scheduler::{EngineOptions, Scheduler, Stats};
use crate::{ModelError, Tokenizer};

/// How often an idle engine looks at what it keeps.
const IDLE: Duration = Duration::from_secs(1);

/// Runs requests on a runner, many at once, on a thread of its own. To drop it cancels what runs and waits for the thread;
/// [`shut_down`](Self::shut_down) lets it finish first.
#[derive(Debug)]
pub struct Engine {
    shared: Arc<Shared>,
    /// Closed to say that no more requests come.
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// The state shared by the engine's thread and its callers.
#[derive(Debug)]
struct Shared {
    limits: Limits,
    options: EngineOptions,
    /// Whether answers have text.
    text: bool,
    /// Requests on their way to the thread, and those that wait there.
    waiting: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    stats: Stats,
    /// The reason the engine takes no more requests.
    stopped: Option<EngineError>,
    /// Whether what runs is to be cancelled.
    cancel: bool,
}

impl Shared {
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        // A panic elsewhere leaves the numbers as they were.
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Engine {
    /// Starts the thread. Without a tokenizer, events carry no text.
    ///
    /// # Errors
    /// [`ModelError::Thread`].
    pub fn start<R: Runner + 'static>(
        runner: R,
        tokenizer: Option<Arc<Tokenizer>>,
        options: EngineOptions,
    ) -> Result<Self, ModelError> {
        let shared = Arc::new(Shared {
            limits: runner.limits().clone(),
            options,
            text: tokenizer.is_some(),
            waiting: AtomicUsize::new(0),
            state: Mutex::default(),
        });
        let (jobs, incoming) = mpsc::channel();
        let inner = shared.clone();
        let run = move || run(Scheduler::new(runner, tokenizer.as_deref(), &options), &incoming, &inner);
        let thread = Builder::new().name("engine".to_owned()).spawn(run);
        let thread = thread.map_err(ModelError::Thread)?;
        Ok(Self { shared, jobs: Some(jobs), thread: Some(thread) })
    }

    /// The capacity of the runner.
    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// The engine's status after its latest step.
    pub fn stats(&self) -> Stats {
        let stats = self.shared.with(|state| state.stats);
        Stats { waiting: self.shared.waiting.load(Ordering::Relaxed), ..stats }
    }

    /// Why no request is taken any more, once that is so.
    pub fn stopped(&self) -> Option<EngineError> {
        let ended = || self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        self.shared.with(|state| state.stopped.clone()).or_else(|| ended().then_some(EngineError::ShutDown))
    }

    /// The context length that a request gets: that of the smallest bucket that holds it.
    ///
    /// # Errors
    /// [`Refused`], if none does.
    pub fn context(&self, request: &Request) -> Result<u32, Refused> {
        request.length(&self.shared.limits)
    }

    /// Queues a request; its events are read from what is returned.
    ///
    /// # Errors
    /// [`Refused`]; the request has not run then.
    pub fn submit(&self, request: Request) -> Result<Stream, Refused> {
        let (answers, (sender, events)) = (request.n, mpsc::channel());
        let ticket = self.submit_to(request, Box::new(move |event| sender.send(event).is_ok()))?;
        Ok(Stream { events, open: answers, ticket })
    }

    /// Queues a request; `sink` gets its events. It is dropped with the last of them, or without it if the engine's thread ends.
    ///
    /// # Errors
    /// [`Refused`]; the request has not run then.
    pub fn submit_to(&self, request: Request, sink: Sink) -> Result<Ticket, Refused> {
        let shared = &self.shared;
        request.check(&shared.limits, shared.text)?;
        if let Some(error) = self.stopped() {
            return Err(error.into());
        }
        let limit = shared.options.queue;
        let room = |waiting: usize| (waiting < limit).then_some(waiting + 1);
        if shared.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_err() {
            return Err(Refused::QueueFull { limit });
        }
        let (job, ticket) = Job::new(request, sink);
        match &self.jobs {
            Some(jobs) if jobs.send(job).is_ok() => Ok(ticket),
            _ => Err(EngineError::ShutDown.into()),
        }
    }

    /// Takes no more requests, and returns when all that were taken have ended.
    pub fn shut_down(mut self) {
        self.close(false);
    }

    fn close(&mut self, cancel: bool) {
        self.shared.with(|state| {
            state.stopped.get_or_insert(EngineError::ShutDown);
            state.cancel |= cancel;
        });
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported by then; its requests have ended without an event.
            let _ = thread.join();
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.close(true);
    }
}

/// The thread: takes requests in between steps, and waits where there is nothing to do.
fn run<R: Runner>(mut scheduler: Scheduler<'_, R>, incoming: &Receiver<Job>, shared: &Shared) {
    let mut open = true;
    while open || !scheduler.is_idle() {
        loop {
            let next = match incoming.try_recv() {
                Err(TryRecvError::Empty) if scheduler.is_idle() => wait(incoming, &mut scheduler, shared),
                next => next,
            };
            match next {
                Ok(job) => scheduler.submit(job),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    open = false;
                    break;
                }
            }
        }
        let mut result = scheduler.step();
        if shared.with(|state| state.cancel) {
            result = Err(EngineError::ShutDown);
        }
        shared.waiting.fetch_sub(scheduler.left_queue(), Ordering::Relaxed);
        shared.with(|state| state.stats = scheduler.stats());
        if let Err(error) = result {
            shared.with(|state| state.stopped.get_or_insert(error.clone()).clone_from(&error));
            // Later submissions are refused at once; those received so far are refused here.
            for job in incoming.try_iter() {
                scheduler.submit(job);
            }
            scheduler.fail(&error);
            return;
        }
    }
}

/// Waits for a request while nothing runs, and gives back in time what is kept.
fn wait<R: Runner>(
    incoming: &Receiver<Job>,
    scheduler: &mut Scheduler<'_, R>,
    shared: &Shared,
) -> Result<Job, TryRecvError> {
    while scheduler.keeps() {
        match incoming.recv_timeout(IDLE) {
            Ok(job) => return Ok(job),
            Err(RecvTimeoutError::Disconnected) => return Err(TryRecvError::Disconnected),
            Err(RecvTimeoutError::Timeout) => scheduler.expire(),
        }
        shared.with(|state| state.stats = scheduler.stats());
    }
    incoming.recv().map_err(|_| TryRecvError::Disconnected)
}

/// The events of a request, as they come. To drop it cancels the request.
#[derive(Debug)]
pub struct Stream {
    events: Receiver<Event>,
    /// Answers that have not ended.
    open: u32,
    ticket: Ticket,
}

impl Stream {
    /// Ends the request: its answers end with the tokens that they have.
    pub fn cancel(&self) {
        self.ticket.cancel();
    }

    /// Waits for all answers.
    ///
    /// # Errors
    /// The reason the request failed.
    pub fn answers(self) -> Result<Vec<Answer>, EngineError> {
        let mut answers = vec![Answer::default(); self.open as usize];
        for event in self {
            match event {
                Event::Token(token) => answers[token.choice as usize].push(&token),
                Event::End(end) => answers[end.choice as usize].end(&end),
                Event::Failed(error) => return Err(error),
            }
        }
        Ok(answers)
    }
}

impl Iterator for Stream {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        if self.open == 0 {
            return None;
        }
        let event = self.events.recv().unwrap_or(Event::Failed(EngineError::ShutDown));
        match event {
            Event::Token(_) => {}
            Event::End(_) => self.open -= 1,
            Event::Failed(_) => self.open = 0,
        }
        Some(event)
    }
}

/// A whole answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Its tokens, without a stop token.
    pub tokens: Vec<u32>,
    /// The log-probability of each.
    pub logprobs: Vec<f32>,
    /// Its text, without a stop string.
    pub text: String,
    /// The reason it ended, if it has.
    pub finish: Option<Finish>,
    /// Tokens of the prompt that a kept cache had already.
    pub cached: u32,
}

impl Answer {
    /// Takes the next token.
    pub fn push(&mut self, token: &Token) {
        self.tokens.push(token.token);
        self.logprobs.push(token.logprob);
        self.text += &token.text;
    }

    /// Takes the end.
    pub fn end(&mut self, end: &End) {
        self.text += &end.text;
        (self.finish, self.cached) = (Some(end.finish), end.cached);
    }
}
