//! Sampling against probabilities worked out by sorting and summing, the way transformers' logits processors do it, and in
//! their order: penalty, temperature, top-k, top-p, min-p.

use moac_runtime::glue::uniform;

use crate::engine::runner::Choice;
use crate::engine::{Sampling, Seen, choose};
use crate::tests::tiny::noise;

const NONE: f64 = f64::NEG_INFINITY;

/// Probabilities of all tokens, each processor on the scores that the one before left.
fn processed(logits: &[f32], seen: &[u32], sampling: &Sampling) -> Vec<f64> {
    let mut scores: Vec<f64> = logits.iter().map(|&logit| f64::from(logit)).collect();
    let penalty = f64::from(sampling.repetition_penalty);
    for &token in seen {
        let score = &mut scores[token as usize];
        *score = if *score < 0.0 { *score * penalty } else { *score / penalty };
    }
    for score in &mut scores {
        *score /= f64::from(sampling.temperature);
    }
    if let Some(k) = sampling.top_k {
        let mut sorted = scores.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let kth = sorted[(k as usize).min(scores.len()) - 1];
        cut(&mut scores, kth);
    }
    if sampling.top_p < 1.0 {
        // Ascending: out goes what is among the unlikeliest that have no more than the rest together.
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
        let probabilities = softmax(&scores);
        let mut mass = 0.0;
        let mut kept = f64::INFINITY;
        for &token in &order {
            mass += probabilities[token];
            if mass > 1.0 - f64::from(sampling.top_p) {
                kept = kept.min(scores[token]);
            }
        }
        cut(&mut scores, kept);
    }
    let probabilities = softmax(&scores);
    let most = probabilities.iter().copied().fold(0.0, f64::max);
    for (score, probability) in scores.iter_mut().zip(probabilities) {
        if probability < f64::from(sampling.min_p) * most {
            *score = NONE;
        }
    }
    softmax(&scores)
}

/// Leaves the scores that are at least `least`.
fn cut(scores: &mut [f64], least: f64) {
    for score in scores.iter_mut().filter(|score| **score < least) {
        *score = NONE;
    }
}

fn softmax(scores: &[f64]) -> Vec<f64> {
    let most = scores.iter().copied().fold(NONE, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / total).collect()
}

fn seen(vocab: usize, tokens: &[u32]) -> Seen {
    let mut seen = Seen::new(vocab);
    for &token in tokens {
        seen.insert(token);
    }
    seen
}

fn chosen(logits: &[f32], tokens: &[u32], sampling: &Sampling, counter: u32) -> u32 {
    let choice = Choice { sampling, counter, top_logprobs: 0 };
    choose(logits, &seen(logits.len(), tokens), choice).0.token
}

#[test]
fn a_token_is_where_the_number_falls_among_what_is_kept() {
    let mut random = noise(3);
    let base = Sampling { temperature: 1.0, seed: 11, ..Sampling::greedy() };
    let mut cut = 0;
    for case in 0..400u32 {
        let vocab = 2 + case as usize % 70;
        // In steps of a quarter, so that there are ties.
        let mut logits: Vec<f32> = (0..vocab).map(|_| (random() * 20.0).round() / 4.0).collect();
        if case % 5 == 0 {
            logits[vocab / 2] = f32::NEG_INFINITY;
        }
        let tokens: Vec<u32> = (0..vocab as u32).filter(|token| token % 3 == case % 3).collect();
        let sampling = Sampling {
            temperature: [0.5, 1.0, 2.0][case as usize % 3],
            top_k: (case % 2 == 0).then_some(1 + case % 11),
            top_p: [1.0, 0.9, 0.4, 0.999][case as usize % 4],
            min_p: [0.0, 0.05, 0.3][case as usize / 7 % 3],
            repetition_penalty: [1.0, 1.3, 0.7][case as usize / 3 % 3],
            ..base
        };
        let probabilities = processed(&logits, &tokens, &sampling);
        cut += probabilities.iter().filter(|&&probability| probability == 0.0).count();
        for counter in 0..20 {
            let point = f64::from(uniform(sampling.seed, counter));
            let mut mass = 0.0;
            let sums: Vec<f64> = probabilities
                .iter()
                .map(|probability| {
                    mass += probability;
                    mass
                })
                .collect();
            if sums.iter().any(|sum| (sum - point).abs() < 1e-6) {
                continue; // a border within rounding
            }
            let expected = sums.iter().position(|&sum| sum > point).unwrap() as u32;
            assert_eq!(chosen(&logits, &tokens, &sampling, counter), expected, "{sampling:?} {logits:?}");
        }
    }
    assert!(cut > 2000, "{cut}");
}

#[test]
fn frequencies_follow_the_probabilities() {
    let logits = [1.0f32, 4.0, 3.0, 4.0, f32::NEG_INFINITY];
    let tally = |sampling: Sampling| {
        let mut count = [0u32; 5];
        (0..20_000).for_each(|counter| count[chosen(&logits, &[], &sampling, counter) as usize] += 1);
        count
    };
    let base = Sampling { temperature: 1.0, seed: 5, ..Sampling::greedy() };
    assert_eq!(tally(Sampling::greedy()), [0, 20_000, 0, 0, 0]);
    let count = tally(base);
    let total: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
    for (&count, &logit) in count.iter().zip(&logits) {
        let expected = 20_000.0 * f64::from(logit).exp() / total;
        assert!((f64::from(count) - expected).abs() <= 5.0 * expected.sqrt(), "{count} and {expected}");
    }
    // The second likeliest is as likely as the first, so one is two.
    let count = tally(Sampling { top_k: Some(1), ..base });
    assert!(count[1] > 9500 && count[3] > 9500 && count[1] + count[3] == 20_000, "{count:?}");
    assert_eq!(tally(Sampling { top_k: Some(1), ..Sampling::greedy() }), [0, 20_000, 0, 0, 0]);
    let cold = tally(Sampling { temperature: 0.1, ..base });
    assert!(cold[2] < 10, "{cold:?}");
    assert_ne!(tally(base), tally(Sampling { seed: 6, ..base }));
}

#[test]
fn log_probabilities_are_those_before_all_cuts() {
    let logits = [1.0f32, 4.0, 3.0, 4.0, f32::NEG_INFINITY];
    let total: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
    let logprob = |logit: f64| (logit - total.ln()) as f32;
    let sampling = Sampling { top_k: Some(2), repetition_penalty: 1.5, ..Sampling::greedy() };
    let choice = Choice { sampling: &sampling, counter: 0, top_logprobs: 3 };
    let (outcome, top) = choose(&logits, &seen(5, &[1, 3]), choice);
    assert_eq!(outcome.token, 2);
    let expected = [(1, logprob(4.0)), (3, logprob(4.0)), (2, logprob(3.0))];
    assert!((outcome.logprob - logprob(3.0)).abs() < 1e-6, "{}", outcome.logprob);
    assert!(top.iter().zip(expected).all(|(a, b)| a.0 == b.0 && (a.1 - b.1).abs() < 1e-6), "{top:?}");
    let all = choose(&logits, &seen(5, &[]), Choice { top_logprobs: 9, ..choice }).1;
    assert_eq!(all.iter().map(|&(token, _)| token).collect::<Vec<_>>(), [1, 3, 2, 0, 4]);
    for broken in
        [&[f32::NAN, 1.0][..], &[1.0, f32::NAN], &[f32::NEG_INFINITY; 2], &[1.0, f32::INFINITY], &[]]
    {
        assert!(choose(broken, &seen(2, &[]), choice).0.logprob.is_nan(), "{broken:?}");
    }
}

#[test]
fn parameters_that_cannot_be_are_refused() {
    let base = Sampling::greedy();
    base.check().unwrap();
    for (wrong, what) in [
        (Sampling { temperature: f32::NAN, ..base }, "the temperature"),
        (Sampling { temperature: -1.0, ..base }, "the temperature"),
        (Sampling { top_k: Some(0), ..base }, "top-k"),
        (Sampling { top_p: 0.0, ..base }, "top-p"),
        (Sampling { top_p: 1.5, ..base }, "top-p"),
        (Sampling { min_p: -0.1, ..base }, "min-p"),
        (Sampling { min_p: f32::NAN, ..base }, "min-p"),
        (Sampling { repetition_penalty: 0.0, ..base }, "the repetition penalty"),
        (Sampling { repetition_penalty: f32::INFINITY, ..base }, "the repetition penalty"),
    ] {
        let error = wrong.check().unwrap_err().to_string();
        assert!(error.starts_with(what), "{error}");
    }
}
