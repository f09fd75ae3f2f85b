//! From logits to a token.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::ModelError;

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the likeliest token always.
    pub temperature: f32,
    /// Only this many of the likeliest tokens, if given.
    pub top_k: Option<usize>,
    /// Only the likeliest tokens that together have this probability: above 0, at most 1.
    pub top_p: f32,
    /// The same seed gives the same text.
    pub seed: u64,
}

impl Sampling {
    /// Always the likeliest token.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, top_k: None, top_p: 1.0, seed: 0 }
    }
}

/// Chooses tokens.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    rng: ChaCha8Rng,
}

impl Sampler {
    /// Checks the parameters.
    pub fn new(sampling: &Sampling) -> Result<Self, ModelError> {
        let wrong = |what, found: String, expected: &str| {
            Err(ModelError::Argument { what, found, expected: expected.to_owned() })
        };
        let Sampling { temperature, top_k, top_p, seed } = *sampling;
        if !(0.0..=100.0).contains(&temperature) {
            return wrong("the temperature", temperature.to_string(), "0 to 100");
        }
        if top_k == Some(0) {
            return wrong("top-k", "0".into(), "at least 1");
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return wrong("top-p", top_p.to_string(), "above 0, at most 1");
        }
        Ok(Self { sampling: *sampling, rng: ChaCha8Rng::seed_from_u64(seed) })
    }

    /// Chooses from the logits of one row. Of equally likely tokens the first comes first.
    pub fn choose(&mut self, logits: &[f32]) -> Result<u32, ModelError> {
        let Sampling { temperature, top_k, top_p, .. } = self.sampling;
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        let logit = |token: u32| logits[token as usize];
        let likelier = |a: &u32, b: &u32| logit(*b).total_cmp(&logit(*a)).then(a.cmp(b));
        let likeliest = order.iter().copied().min_by(likelier).filter(|&best| logit(best).is_finite());
        let Some(best) = likeliest else {
            let found = "not finite".to_owned();
            return Err(ModelError::Argument {
                what: "the largest logit",
                found,
                expected: "a number".into(),
            });
        };
        if temperature == 0.0 || top_k == Some(1) {
            return Ok(best);
        }
        if let Some(k) = top_k.filter(|&k| k < order.len()) {
            order.select_nth_unstable_by(k, likelier);
            order.truncate(k);
        }
        order.sort_unstable_by(likelier);
        let weight = |&token: &u32| f64::from((logit(token) - logit(best)) / temperature).exp();
        let weights: Vec<f64> = order.iter().map(weight).collect();
        let total: f64 = weights.iter().sum();
        // The nucleus: the shortest head of the order that has the probability.
        let mut mass = 0.0;
        let mut kept = 0;
        while kept < weights.len() && mass < f64::from(top_p) * total {
            mass += weights[kept];
            kept += 1;
        }
        let mut point = uniform(&mut self.rng) * mass;
        let chosen = weights[..kept].iter().position(|weight| {
            point -= weight;
            point < 0.0
        });
        Ok(order[chosen.unwrap_or(kept - 1)])
    }
}

/// A number in [0, 1).
pub(crate) fn uniform(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}
