//! From logits to a token, as [`moac_runtime::glue::Sample`] has it: a GPU's kernel and this file follow that one text.

use moac_runtime::glue::{self, Outcome, uniform};

use crate::ModelError;

/// How the next token is chosen: repetition penalty, temperature, top-k, top-p and min-p, in this order. A token that is as
/// likely as the last one kept is kept too.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the likeliest token always, of equally likely ones the first.
    pub temperature: f32,
    /// Only this many of the likeliest tokens, if given.
    pub top_k: Option<u32>,
    /// Only the likeliest tokens that together have this probability: above 0, at most 1.
    pub top_p: f32,
    /// Only tokens at least this many times as likely as the likeliest: 0 to 1.
    pub min_p: f32,
    /// Divides the positive logits of tokens that prompt or answer have already, and multiplies the negative ones.
    pub repetition_penalty: f32,
    /// The same seed gives the same text.
    pub seed: u64,
}

/// How a step's token is to be chosen: the request's parameters and the token's number in its answer, from 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice<'a> {
    /// The request's parameters, which are checked.
    pub sampling: &'a Sampling,
    /// The token's number in the answer.
    pub counter: u32,
    /// How many of the likeliest tokens are reported beside the chosen one.
    pub top_logprobs: u32,
}

impl Sampling {
    /// Always the likeliest token.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, top_k: None, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 }
    }

    /// Checks the parameters.
    ///
    /// # Errors
    /// [`ModelError::Argument`] with the one that cannot be.
    pub fn check(&self) -> Result<(), ModelError> {
        let &Self { temperature, top_k, top_p, min_p, repetition_penalty: penalty, seed: _ } = self;
        let wrong = |what, found: String, expected: &str| {
            Err(ModelError::Argument { what, found, expected: expected.to_owned() })
        };
        if !(0.0..=100.0).contains(&temperature) {
            return wrong("the temperature", temperature.to_string(), "0 to 100");
        }
        if top_k == Some(0) {
            return wrong("top-k", "0".into(), "at least 1");
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return wrong("top-p", top_p.to_string(), "above 0, at most 1");
        }
        if !(0.0..=1.0).contains(&min_p) {
            return wrong("min-p", min_p.to_string(), "0 to 1");
        }
        if !(0.01..=100.0).contains(&penalty) {
            return wrong("the repetition penalty", penalty.to_string(), "0.01 to 100");
        }
        Ok(())
    }

    /// Whether it matters which tokens there are already.
    pub fn penalises(&self) -> bool {
        // 1 itself, which is what changes nothing, and no number near it.
        self.repetition_penalty.to_bits() != 1f32.to_bits()
    }

    /// The entry of a step's table for the token number `counter` of an answer.
    pub fn entry(&self, row: u32, lane: u32, counter: u32) -> glue::Sample {
        let &Self { temperature, top_k, top_p, min_p, repetition_penalty: penalty, seed } = self;
        let top_k = top_k.unwrap_or(0);
        let greedy = glue::Sample::greedy(row, lane);
        glue::Sample { top_k, temperature, top_p, min_p, penalty, counter, seed, ..greedy }
    }
}

/// The tokens that a request's prompt and answer have, for its repetition penalty.
#[derive(Clone, Debug)]
pub struct Seen(Vec<u64>);

impl Seen {
    /// None of a vocabulary of `vocab` tokens.
    pub fn new(vocab: usize) -> Self {
        Self(vec![0; vocab.div_ceil(64)])
    }

    /// Adds a token of the vocabulary.
    pub fn insert(&mut self, token: u32) {
        self.0[token as usize / 64] |= 1 << (token % 64);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.fill(0);
    }

    fn contains(&self, token: usize) -> bool {
        self.0[token / 64] >> (token % 64) & 1 == 1
    }
}

/// Chooses from a row of logits; returns the token and the likeliest ones that were asked for. Where the largest logit is not
/// finite or one is not a number, the log-probability is NaN and the token means nothing.
pub fn choose(logits: &[f32], seen: &Seen, choice: Choice<'_>) -> (Outcome, Vec<(u32, f32)>) {
    let Choice { sampling, counter, top_logprobs } = choice;
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if !largest.is_finite() || logits.iter().any(|logit| logit.is_nan()) {
        return (Outcome { token: 0, logprob: f32::NAN }, Vec::new());
    }
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - largest).exp()).sum();
    let logprob = |token: u32| (f64::from(logits[token as usize] - largest) - sum.ln()) as f32;
    let token = if sampling.penalises() {
        pick(&penalised(logits, seen, sampling.repetition_penalty), sampling, counter)
    } else {
        pick(logits, sampling, counter)
    };
    let top = likeliest(logits, top_logprobs as usize).into_iter().map(|token| (token, logprob(token)));
    (Outcome { token, logprob: logprob(token) }, top.collect())
}

fn penalised(logits: &[f32], seen: &Seen, penalty: f32) -> Vec<f32> {
    let of = |(token, &logit): (usize, &f32)| match (seen.contains(token), logit > 0.0) {
        (false, _) => logit,
        (true, true) => logit / penalty,
        (true, false) => logit * penalty,
    };
    logits.iter().enumerate().map(of).collect()
}

/// The token, from logits of which the largest is finite.
fn pick(logits: &[f32], sampling: &Sampling, counter: u32) -> u32 {
    let best = likeliest(logits, 1)[0];
    if sampling.temperature == 0.0 {
        return best;
    }
    let weight =
        |logit: f32| (f64::from(logit - logits[best as usize]) / f64::from(sampling.temperature)).exp();
    // Every cut keeps the tokens whose logit is at least some number.
    let mut least = f32::NEG_INFINITY;
    if let Some(k) = sampling.top_k.map(|k| k as usize).filter(|&k| k < logits.len()) {
        let mut sorted = logits.to_vec();
        least = *sorted.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1;
    }
    if sampling.top_p < 1.0 {
        let mut sorted: Vec<f32> = logits.iter().copied().filter(|&logit| logit >= least).collect();
        sorted.sort_unstable_by(|a, b| b.total_cmp(a));
        let enough = f64::from(sampling.top_p) * sorted.iter().map(|&logit| weight(logit)).sum::<f64>();
        let mut mass = 0.0;
        let last = sorted.iter().position(|&logit| {
            mass += weight(logit);
            mass >= enough
        });
        least = last.map_or(least, |last| sorted[last]);
    }
    let kept = |logit: f32| match weight(logit) {
        weight if logit >= least && weight >= f64::from(sampling.min_p) => weight,
        _ => 0.0,
    };
    let total: f64 = logits.iter().map(|&logit| kept(logit)).sum();
    let point = f64::from(uniform(sampling.seed, counter)) * total;
    let mut mass = 0.0;
    let chosen = logits.iter().position(|&logit| {
        mass += kept(logit);
        mass > point
    });
    chosen.map_or(best, |token| token as u32)
}

/// The tokens of the largest logits, the largest first; of equal ones the first.
fn likeliest(logits: &[f32], count: usize) -> Vec<u32> {
    let logit = |token: u32| logits[token as usize];
    let likelier = |a: &u32, b: &u32| logit(*b).total_cmp(&logit(*a)).then(a.cmp(b));
    let tokens = 0..logits.len() as u32;
    match count {
        0 => Vec::new(),
        1 => tokens.min_by(likelier).into_iter().collect(),
        _ => {
            let mut order: Vec<u32> = tokens.collect();
            if count < order.len() {
                order.select_nth_unstable_by(count, likelier);
                order.truncate(count);
            }
            order.sort_unstable_by(likelier);
            order
        }
    }
}
