//! A runner whose tokens are a hash of all before them: fast, and it checks that the engine keeps the contract.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use moac_runtime::glue::{Outcome, uniform};

use crate::ModelError;
use crate::engine::Request;
use crate::engine::runner::{Bucket, Choice, Chosen, Decode, IN_FLIGHT, Limits, Prefill, Runner};

pub(super) const VOCAB: u32 = 1 << 20;
/// A token that makes the logits NaN.
pub(super) const POISON: u32 = VOCAB - 1;
/// A token that makes the device fail.
pub(super) const FATAL: u32 = VOCAB - 2;
/// Tokens of answers are below it.
pub(super) const SMALL: u32 = 16;

/// The runner's record, for tests to inspect.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// The first token of every prompt, in the order in which they were begun.
    pub(super) begun: Vec<u32>,
    pub(super) steps: u64,
    pub(super) prefilled: u64,
    pub(super) taken: u64,
}

#[derive(Debug)]
pub(super) struct Fake {
    limits: Limits,
    chunk: usize,
    newest: Vec<Option<u32>>,
    seen: Vec<BTreeSet<u32>>,
    done: VecDeque<Vec<Chosen>>,
    pub(super) log: Arc<Mutex<Log>>,
}

#[derive(Debug)]
pub(super) struct FakeSlab {
    bucket: Bucket,
    tokens: Vec<u32>,
    log: Arc<Mutex<Log>>,
}

impl Drop for FakeSlab {
    fn drop(&mut self) {
        self.log.lock().unwrap().taken -= self.bucket.slab_bytes;
    }
}

impl Fake {
    pub(super) fn new(limits: Limits, chunk: u32) -> Self {
        let lanes = limits.lanes as usize;
        Self {
            limits,
            chunk: chunk as usize,
            newest: vec![None; lanes],
            seen: vec![BTreeSet::new(); lanes],
            done: VecDeque::new(),
            log: Arc::default(),
        }
    }

    fn choose(&mut self, lane: u32, tokens: &[u32], choice: Choice<'_>) -> Chosen {
        if choice.sampling.penalises() {
            let expected: BTreeSet<u32> = tokens.iter().copied().collect();
            assert_eq!(self.seen[lane as usize], expected, "tokens seen");
        }
        let token = next(tokens, choice.sampling.seed, choice.counter);
        self.newest[lane as usize] = Some(token);
        let logprob = if tokens.contains(&POISON) { f32::NAN } else { -1.0 };
        let top = (0..choice.top_logprobs).map(|token| (token, -2.0)).collect();
        Chosen { lane, outcome: Outcome { token, logprob }, top }
    }
}

/// The token behind some others.
fn next(tokens: &[u32], seed: u64, counter: u32) -> u32 {
    let hash = tokens.iter().fold(seed, |hash, &token| {
        (hash ^ u64::from(token)).wrapping_mul(0x100_0000_01b3).rotate_left(23) ^ 0x9e37_79b9
    });
    (uniform(hash, counter) * SMALL as f32) as u32
}

/// All tokens of an answer, if nothing but its length ends it.
pub(super) fn answer(request: &Request, choice: u32, count: usize) -> Vec<u32> {
    let mut tokens = request.prompt.clone();
    for counter in 0..count as u32 {
        tokens.push(next(&tokens, request.sampling.seed.wrapping_add(choice.into()), counter));
    }
    tokens.split_off(request.prompt.len())
}

impl Runner for Fake {
    type Slab = FakeSlab;

    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn slab(&mut self, max_len: u32) -> Result<Option<FakeSlab>, ModelError> {
        let bucket = *self.limits.buckets.iter().find(|bucket| bucket.length >= max_len).unwrap();
        let mut log = self.log.lock().unwrap();
        if log.taken + bucket.slab_bytes > self.limits.slab_bytes {
            return Ok(None);
        }
        log.taken += bucket.slab_bytes;
        Ok(Some(FakeSlab { bucket, tokens: Vec::new(), log: self.log.clone() }))
    }

    fn copy(&mut self, from: &FakeSlab, to: &mut FakeSlab) -> Result<(), ModelError> {
        assert_eq!(from.bucket, to.bucket);
        assert!(to.tokens.is_empty(), "a copy to a slab in use");
        to.tokens.clone_from(&from.tokens);
        Ok(())
    }

    fn rewind(&mut self, slab: &mut FakeSlab, tokens: u32) -> Result<(), ModelError> {
        assert!(slab.tokens.len() <= slab.bucket.intact as usize, "tokens were overwritten");
        assert!(tokens as usize <= slab.tokens.len());
        slab.tokens.truncate(tokens as usize);
        Ok(())
    }

    fn reset(&mut self, lane: u32, seen: &[u32]) -> Result<(), ModelError> {
        self.newest[lane as usize] = None;
        self.seen[lane as usize] = seen.iter().copied().collect();
        Ok(())
    }

    fn start(
        &mut self,
        decodes: &mut [Decode<'_, FakeSlab>],
        prefills: &mut [Prefill<'_, FakeSlab>],
    ) -> Result<(), ModelError> {
        assert!(self.done.len() < IN_FLIGHT, "too many steps in flight");
        let tokens: usize = prefills.iter().map(|prefill| prefill.tokens.len()).sum();
        assert!(decodes.len() + prefills.len() > 0 && tokens <= self.chunk, "{tokens} tokens of prompts");
        assert!(decodes.len() + tokens <= self.limits.rows as usize, "too many rows");
        let lanes = decodes.iter().map(|of| of.lane).chain(prefills.iter().map(|of| of.lane));
        assert_eq!(lanes.collect::<BTreeSet<_>>().len(), decodes.len() + prefills.len(), "a lane twice");
        let mut chosen = Vec::new();
        for Decode { lane, slab, choice } in decodes {
            let newest = self.newest[*lane as usize].expect("a lane with a token");
            slab.tokens.push(newest);
            self.seen[*lane as usize].insert(newest);
            assert!(slab.tokens.len() <= slab.bucket.length as usize, "no room");
            chosen.push(self.choose(*lane, &slab.tokens, *choice));
        }
        for Prefill { lane, slab, tokens, choice } in prefills {
            assert!(!tokens.is_empty());
            if slab.tokens.is_empty() {
                self.log.lock().unwrap().begun.push(tokens[0]);
            }
            slab.tokens.extend_from_slice(tokens);
            self.seen[*lane as usize].extend(tokens.iter());
            assert!(slab.tokens.len() <= slab.bucket.length as usize, "no room");
            if slab.tokens.contains(&FATAL) {
                return Err(ModelError::Template("the device is gone".into()));
            }
            if let Some(choice) = choice {
                assert_eq!(choice.counter, 0);
                chosen.push(self.choose(*lane, &slab.tokens, *choice));
            }
        }
        let mut log = self.log.lock().unwrap();
        log.steps += 1;
        log.prefilled += tokens as u64;
        self.done.push_back(chosen);
        Ok(())
    }

    fn finish(&mut self) -> Result<Vec<Chosen>, ModelError> {
        Ok(self.done.pop_front().expect("a step in flight"))
    }
}
