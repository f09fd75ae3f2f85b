//! The scheduler: requests wait, are admitted in order, take part in steps, and leave.
//!
//! What must hold:
//! - A request is admitted when lanes and slabs for all of its answers are there, and never before one that came earlier. From
//!   then on it has all the memory that it can need.
//! - A step holds every answer that can decode, and of prompts as many tokens as its rows and the chunk allow, in the order
//!   of arrival. So a long prompt delays the others by one chunk at most, and every prompt gets on.
//! - One step is started before the tokens of the one before are known. What it chooses for answers that have ended by then
//!   is thrown away.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::job::Job;
use super::kept::{Entry, Kept};
use super::request::{End, EngineError, Event, Finish};
use super::runner::{Choice, Chosen, Decode, IN_FLIGHT, Limits, Prefill, Runner};
use super::sequence::{Active, Outcome, Sequence};
use crate::{ModelError, Tokenizer};

/// How the engine deals with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// Requests that may wait.
    pub queue: usize,
    /// Tokens of prompts in one step, at most: what a step that decodes is held up by.
    pub chunk: u32,
    /// Bytes of slabs, at most, that are kept of requests that have ended. They are given back when others need the room.
    pub keep_bytes: u64,
    /// How long they are kept.
    pub keep_for: Duration,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { queue: 1024, chunk: 512, keep_bytes: u64::MAX, keep_for: Duration::from_mins(5) }
    }
}

/// The engine's status and totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests that wait.
    pub waiting: usize,
    /// Answers that run.
    pub running: usize,
    /// Tokens of the contexts of those, as long as their slabs are made for.
    pub contexts: u64,
    /// Bytes of the slabs of those.
    pub slab_bytes: u64,
    /// Slabs that are kept of requests that have ended.
    pub kept: usize,
    /// Bytes of those.
    pub kept_bytes: u64,
    /// Requests that began with a kept slab, so far.
    pub kept_hits: u64,
    /// Steps so far.
    pub steps: u64,
    /// Tokens of prompts that were computed so far.
    pub prompt_tokens: u64,
    /// Tokens of prompts that kept slabs had already, so far.
    pub cached_tokens: u64,
    /// Tokens of answers so far.
    pub answer_tokens: u64,
}

/// Requests, and the runner that computes their steps.
#[derive(Debug)]
pub(crate) struct Scheduler<'t, R: Runner> {
    runner: R,
    limits: Limits,
    tokenizer: Option<&'t Tokenizer>,
    /// Tokens of prompts in a step; with `deterministic`, of each chunk but a prompt's last.
    chunk: usize,
    waiting: VecDeque<Job>,
    /// In the order of arrival, so ascending by id.
    active: Vec<Active<'t, R::Slab>>,
    /// Free lanes.
    lanes: Vec<u32>,
    /// For every token of the steps that are started: the request and the number of the answer.
    in_flight: VecDeque<Vec<(u64, u32)>>,
    kept: Kept<R::Slab>,
    next_id: u64,
    /// Requests that have stopped waiting since anybody asked.
    left: usize,
    stats: Stats,
}

impl<'t, R: Runner> Scheduler<'t, R> {
    pub(crate) fn new(runner: R, tokenizer: Option<&'t Tokenizer>, options: &EngineOptions) -> Self {
        let limits = runner.limits().clone();
        // While a prompt is read, at least its own lane does not decode.
        let rest = limits.rows.saturating_sub(limits.lanes) + 1;
        let chunk = options.chunk.clamp(1, rest) as usize;
        Self {
            chunk,
            waiting: VecDeque::new(),
            active: Vec::new(),
            lanes: (0..limits.lanes).rev().collect(),
            in_flight: VecDeque::new(),
            kept: Kept::new(
                options.keep_bytes,
                options.keep_for,
                if limits.deterministic { chunk } else { 1 },
            ),
            next_id: 0,
            left: 0,
            stats: Stats::default(),
            runner,
            limits,
            tokenizer,
        }
    }

    /// Takes a checked request.
    pub(crate) fn submit(&mut self, mut job: Job) {
        if job.request.max_tokens == 0 {
            self.left += 1;
            return end_all(&mut job, Finish::Limit);
        }
        self.waiting.push_back(job);
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.active.is_empty() && self.in_flight.is_empty()
    }

    /// How many requests have stopped waiting since the last call.
    pub(crate) fn left_queue(&mut self) -> usize {
        std::mem::take(&mut self.left)
    }

    /// Gives back what was kept for long enough.
    pub(crate) fn expire(&mut self) {
        self.kept.expire(Instant::now());
    }

    /// Whether slabs are kept, which are to be given back in time.
    pub(crate) fn keeps(&self) -> bool {
        self.kept.len() > 0
    }

    pub(crate) fn stats(&self) -> Stats {
        let bytes = |active: &Active<'_, _>| self.slab_bytes(active.length) * active.sequences.len() as u64;
        Stats {
            waiting: self.waiting.len(),
            running: self.active.iter().map(|active| active.sequences.len()).sum(),
            contexts: self
                .active
                .iter()
                .map(|active| u64::from(active.length) * active.sequences.len() as u64)
                .sum(),
            slab_bytes: self.active.iter().map(bytes).sum(),
            kept: self.kept.len(),
            kept_bytes: self.kept.bytes(),
            ..self.stats
        }
    }

    fn slab_bytes(&self, length: u32) -> u64 {
        self.limits.bucket(length).map_or(0, |bucket| bucket.slab_bytes)
    }

    /// Starts a step and takes in the tokens of the one before. An error is the end of all requests.
    pub(crate) fn step(&mut self) -> Result<(), EngineError> {
        let failed = |error| EngineError::Runner(Arc::new(error));
        self.expire();
        self.drop_cancelled().map_err(failed)?;
        self.admit().map_err(failed)?;
        self.fork().map_err(failed)?;
        let started = self.start().map_err(failed)?;
        if self.in_flight.len() >= IN_FLIGHT || !started && !self.in_flight.is_empty() {
            self.finish()?;
        }
        Ok(())
    }

    /// Ends every request with the same error.
    pub(crate) fn fail(&mut self, error: &EngineError) {
        let active = self.active.drain(..).map(|active| active.job);
        for mut job in active.chain(self.waiting.drain(..)) {
            job.send(Event::Failed(error.clone()));
        }
    }

    fn drop_cancelled(&mut self) -> Result<(), ModelError> {
        self.waiting.retain_mut(|job| {
            let cancelled = job.is_cancelled();
            if cancelled {
                end_all(job, Finish::Cancelled);
                self.left += 1;
            }
            !cancelled
        });
        let cancelled = |active: &mut Active<'t, R::Slab>| active.job.is_cancelled();
        for Active { mut job, sequences, cached, length, .. } in
            self.active.extract_if(.., cancelled).collect::<Vec<_>>()
        {
            for mut sequence in sequences {
                sequence.end(&mut job, cached, Finish::Cancelled);
                let held = sequence.held(&job.request, None);
                self.leave(sequence, held, job.request.prompt.len(), length)?;
            }
        }
        Ok(())
    }

    /// Admits waiting requests in their order, as far as lanes and slabs go.
    fn admit(&mut self) -> Result<(), ModelError> {
        while let Some(job) = self.waiting.front() {
            let answers = job.request.n as usize;
            let Ok(length) = job.request.length(&self.limits) else {
                unreachable!("requests are checked before they wait");
            };
            if self.lanes.len() < answers {
                break;
            }
            let Some((slabs, cached)) = self.slabs(length, answers)? else {
                if self.active.is_empty() && self.in_flight.is_empty() {
                    if let Some(mut job) = self.waiting.pop_front() {
                        self.left += 1;
                        job.send(Event::Failed(EngineError::NoRoom { length }));
                    }
                    continue;
                }
                break;
            };
            let Some(job) = self.waiting.pop_front() else { break };
            self.left += 1;
            let lanes = self.lanes.split_off(self.lanes.len() - answers);
            let sequences = slabs.into_iter().zip(lanes).zip(0..).map(|((slab, lane), choice)| {
                let fed = if choice == 0 { cached } else { 0 };
                Sequence::new(&job, choice, lane, slab, fed, self.tokenizer)
            });
            let sequences: Vec<_> = sequences.collect();
            for sequence in &sequences {
                self.runner.reset(sequence.lane, penalised(&job, sequence.fed))?;
            }
            let forked = answers == 1 || job.request.prompt.len() == 1;
            self.stats.cached_tokens += cached as u64;
            self.stats.kept_hits += u64::from(cached > 0);
            self.active.push(Active {
                id: self.next_id,
                job,
                length,
                cached: cached as u32,
                forked,
                sequences,
            });
            self.next_id += 1;
        }
        Ok(())
    }

    /// Slabs for the request that has waited longest, and how many tokens of its prompt the first has already. Kept slabs
    /// make room for it, the oldest first. One that is to be wound back stays, and the request has a copy, where there is
    /// room for both.
    fn slabs(&mut self, length: u32, answers: usize) -> Result<Slabs<R::Slab>, ModelError> {
        let mut slabs = Vec::with_capacity(answers);
        let prompt = self.waiting.front().map_or(&[][..], |job| &job.request.prompt);
        let mut found = self.kept.take(prompt, length);
        let mut scattered = true;
        let mut copied = found.as_ref().is_some_and(|(entry, tokens)| *tokens < entry.tokens.len());
        while slabs.len() + usize::from(found.is_some()) < answers + usize::from(copied) {
            match self.runner.slab(length)? {
                Some(slab) => slabs.push(slab),
                None if self.kept.drop_oldest() => {}
                None if copied => copied = false,
                None if found.take().is_some() => {}
                // Kept slabs, gone by now, may have split the free memory between these.
                None if scattered && !slabs.is_empty() => (slabs, scattered) = (Vec::new(), false),
                None => return Ok(None),
            }
        }
        let Some((entry, cached)) = found else { return Ok(Some((slabs, 0))) };
        let held = entry.tokens.len();
        let mut first = match slabs.pop_if(|_| copied) {
            Some(mut copy) => {
                self.runner.copy(&entry.slab, &mut copy)?;
                self.kept.keep(Entry { since: Instant::now(), ..entry });
                copy
            }
            None => entry.slab,
        };
        if cached < held {
            self.runner.rewind(&mut first, cached as u32)?;
        }
        slabs.insert(0, first);
        Ok(Some((slabs, cached)))
    }

    /// An answer to a prompt of `prompt` tokens has ended: its lane is free, and its slab is kept if it holds tokens of use.
    fn leave(
        &mut self,
        sequence: Sequence<'t, R::Slab>,
        held: Option<Vec<u32>>,
        prompt: usize,
        length: u32,
    ) -> Result<(), ModelError> {
        let Sequence { lane, mut slab, .. } = sequence;
        self.lanes.push(lane);
        let (Some(&bucket), Some(mut tokens)) = (self.limits.bucket(length), held) else { return Ok(()) };
        let intact = tokens.len() <= bucket.intact as usize;
        if self.limits.deterministic {
            // Behind the prompt's last border, it was filled by other chunks than those of a longer prompt: other bits.
            let exact = tokens.len().min(prompt - 1) / self.chunk * self.chunk;
            if !intact {
                return Ok(());
            }
            self.runner.rewind(&mut slab, exact as u32)?;
            tokens.truncate(exact);
        }
        self.kept.keep(Entry {
            tokens,
            slab,
            length,
            bytes: bucket.slab_bytes,
            intact,
            since: Instant::now(),
        });
        Ok(())
    }

    /// Starts the next step; false if no request has work in it.
    fn start(&mut self) -> Result<bool, ModelError> {
        let Self { active, limits, .. } = self;
        let decoding = |active: &Active<'_, _>| {
            let (prompt, max) = (active.job.request.prompt.len(), active.job.request.max_tokens);
            active.sequences.iter().filter(|sequence| sequence.decodes(prompt, max, active.length)).count()
        };
        let decoding: usize = active.iter().map(decoding).sum();
        let mut rows = self.chunk.min(limits.rows as usize - decoding);
        let (mut decodes, mut prefills) = (Vec::new(), Vec::new());
        let (mut choosing, mut first) = (Vec::new(), Vec::new());
        for Active { id, job, length, forked, sequences, .. } in active {
            let request = &job.request;
            let prompt = request.prompt.len();
            // The others wait for the first, whose slab they begin with.
            let reading = if *forked { sequences.len() } else { 1 };
            for (at, sequence) in sequences.iter_mut().enumerate() {
                let decode = sequence.decodes(prompt, request.max_tokens, *length);
                let (choice, fed) = (sequence.choice, sequence.fed);
                let mut tokens = 0;
                if !decode && at < reading && fed < prompt {
                    let end = border(prompt, fed, self.chunk, *forked, limits.deterministic);
                    tokens = (end - fed).min(rows);
                    if limits.deterministic && fed + tokens < end {
                        // Not the whole chunk, so none of it; and nobody behind it gets ahead.
                        (tokens, rows) = (0, 0);
                    }
                }
                if !decode && tokens == 0 {
                    continue;
                }
                let chooses = decode || fed + tokens == prompt;
                let counter = sequence.asked;
                sequence.asked += u32::from(chooses);
                sequence.fed += tokens;
                rows -= tokens;
                self.stats.prompt_tokens += tokens as u64;
                let (lane, slab, sampling) = sequence.for_step();
                let choice_of = Choice { sampling, counter, top_logprobs: request.top_logprobs };
                if decode {
                    decodes.push(Decode { lane, slab, choice: choice_of });
                    choosing.push((*id, choice));
                } else {
                    let tokens = &request.prompt[fed..fed + tokens];
                    prefills.push(Prefill { lane, slab, tokens, choice: chooses.then_some(choice_of) });
                    first.extend(chooses.then_some((*id, choice)));
                }
            }
        }
        if decodes.is_empty() && prefills.is_empty() {
            return Ok(false);
        }
        self.runner.start(&mut decodes, &mut prefills)?;
        choosing.append(&mut first);
        self.in_flight.push_back(choosing);
        self.stats.steps += 1;
        Ok(true)
    }

    /// Gives the other answers of a request the prompt's beginning, once its first answer has all of it but a token.
    fn fork(&mut self) -> Result<(), ModelError> {
        for Active { job, forked, sequences, .. } in self.active.iter_mut().filter(|active| !active.forked) {
            let begun = job.request.prompt.len() - 1;
            let Some((first, others)) = sequences.split_first_mut().filter(|(first, _)| first.fed == begun)
            else {
                continue;
            };
            for other in others {
                self.runner.copy(&first.slab, &mut other.slab)?;
                self.runner.reset(other.lane, penalised(job, begun))?;
                other.fed = begun;
            }
            *forked = true;
        }
        Ok(())
    }

    /// Takes in the tokens of the oldest step.
    fn finish(&mut self) -> Result<(), EngineError> {
        let chosen = self.runner.finish().map_err(|error| EngineError::Runner(Arc::new(error)))?;
        let expected = self.in_flight.pop_front().unwrap_or_default();
        if chosen.len() != expected.len() {
            return Err(EngineError::Chosen { found: chosen.len(), expected: expected.len() });
        }
        for ((id, choice), chosen) in expected.into_iter().zip(chosen) {
            self.take(id, choice, chosen).map_err(|error| EngineError::Runner(Arc::new(error)))?;
        }
        self.active.retain(|active| !active.sequences.is_empty());
        Ok(())
    }

    /// Takes in a token, if its answer still wants it.
    fn take(&mut self, id: u64, choice: u32, chosen: Chosen) -> Result<(), ModelError> {
        let Ok(at) = self.active.binary_search_by_key(&id, |active| active.id) else { return Ok(()) };
        let Active { job, length, cached, sequences, .. } = &mut self.active[at];
        let Some(place) = sequences.iter().position(|sequence| sequence.choice == choice) else {
            return Ok(());
        };
        self.stats.answer_tokens += 1;
        match sequences[place].take(job, *length, *cached, chosen) {
            Outcome::Open => {}
            Outcome::Ended { stop_token } => {
                let (sequence, length, prompt) = (sequences.remove(place), *length, job.request.prompt.len());
                let held = sequence.held(&job.request, stop_token);
                self.leave(sequence, held, prompt, length)?;
            }
            Outcome::Failed(error) => {
                job.send(Event::Failed(error));
                self.lanes.extend(sequences.drain(..).map(|sequence| sequence.lane));
            }
        }
        Ok(())
    }
}

/// The slabs of a request, and how many tokens of its prompt the first one already holds. `None` if they do not fit now.
type Slabs<S> = Option<(Vec<S>, usize)>;

/// Where the chunk of a prompt that begins at `fed` ends at the latest.
fn border(prompt: usize, fed: usize, chunk: usize, forked: bool, deterministic: bool) -> usize {
    if !deterministic {
        // The last token of a prompt is read by every answer, which chooses its own first token behind it.
        return if forked { prompt } else { prompt - 1 };
    }
    // Multiples of the chunk, and the last token alone, whether or not there are several answers.
    if fed + 1 == prompt { prompt } else { (fed / chunk * chunk + chunk).min(prompt - 1) }
}

/// The tokens of a prompt that are passed to a lane: none unless a penalty needs them.
fn penalised(job: &Job, tokens: usize) -> &[u32] {
    if job.request.sampling.penalises() { &job.request.prompt[..tokens] } else { &[] }
}

fn end_all(job: &mut Job, finish: Finish) {
    for choice in 0..job.request.n {
        job.send(Event::End(End { choice, finish, text: String::new(), tokens: 0, cached: 0 }));
    }
}
