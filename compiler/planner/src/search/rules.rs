//! Candidate rules: grids of alpha and beta, and which of their pairs are useful.

use moac_runtime::geometry::span;
use moac_runtime::plan::Rule;
use serde::{Deserialize, Serialize};

/// A grid of rules. A pair is a candidate if its raw span `alpha + beta * N` is at most N at every length of `within`
/// and positive at every length of `positive`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleGrid {
    /// Constant parts in tokens.
    pub alphas: Vec<f64>,
    /// Slopes in tokens per token of context.
    pub betas: Vec<f64>,
    /// Lengths at which the raw span may not exceed the length.
    #[serde(default)]
    pub within: Vec<u32>,
    /// Lengths at which the raw span must be positive.
    #[serde(default)]
    pub positive: Vec<u32>,
}

impl RuleGrid {
    /// The grid in the paper's text: 6 alphas in -2048..=8192 by 9 betas in 0..=1, all 54 pairs.
    pub fn paper() -> Self {
        Self { alphas: steps(-2048.0, 2048.0, 6), betas: eighths(), within: Vec::new(), positive: Vec::new() }
    }

    /// The grid behind the published plans, for a longest profiled length of `longest` tokens: 11 alphas from
    /// `-longest / 4` to `longest` by 9 betas in 0..=1, kept where the span fits at `longest` and twice that and is
    /// positive at `longest / 4`. 48 pairs at 8192.
    pub fn published(longest: u32) -> Self {
        let step = f64::from(longest) / 8.0;
        Self {
            alphas: steps(-2.0 * step, step, 11),
            betas: eighths(),
            within: vec![longest, longest.saturating_mul(2)],
            positive: vec![longest / 4],
        }
    }

    /// A finer grid for a longest profiled length of `longest` tokens, 58 pairs: short spans too, so that densities well
    /// below an eighth can be reached. Constants and slopes fall by halves; kept where the span fits at `longest` and
    /// twice that and is positive at `longest / 2`.
    pub fn fine(longest: u32) -> Self {
        let length = f64::from(longest);
        let alphas = [-16.0, 0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0].map(|parts| parts / 64.0 * length);
        let betas = [0.0, 1.0, 2.0, 4.0, 8.0, 12.0, 16.0, 24.0, 32.0].map(|parts| parts / 32.0);
        Self {
            alphas: alphas.to_vec(),
            betas: betas.to_vec(),
            within: vec![longest, longest.saturating_mul(2)],
            positive: vec![longest / 2],
        }
    }

    /// A grid for a longest profiled length of `longest` tokens, none of whose pairs is left out: constants far below zero,
    /// which with steep slopes make heads that begin to see far only in long contexts, and more short spans. Some
    /// ninety rules with different spans: for models with few KV heads, each of which matters.
    pub fn wide(longest: u32) -> Self {
        let length = f64::from(longest);
        let alphas = [-64.0, -32.0, -24.0, -16.0, -8.0, -4.0, 0.0, 1.0, 1.5, 2.0, 4.0, 8.0, 16.0, 32.0];
        let betas = [0.0, 1.0, 2.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0];
        Self {
            alphas: alphas.map(|parts| parts / 64.0 * length).to_vec(),
            betas: betas.map(|parts| parts / 32.0).to_vec(),
            within: Vec::new(),
            positive: Vec::new(),
        }
    }

    /// Two rules: all of the context, or as little as a plan may show, the sink and the last tokens: two classes of heads.
    pub fn classes() -> Self {
        Self { alphas: vec![0.0], betas: vec![0.0, 1.0], within: Vec::new(), positive: Vec::new() }
    }

    /// Spans that are a fixed share of the context: `beta * N` for multiples of `1 / parts`.
    pub fn proportional(parts: u32) -> Self {
        let betas = (1..=parts).map(|part| f64::from(part) / f64::from(parts)).collect();
        Self { alphas: vec![0.0], betas, within: Vec::new(), positive: Vec::new() }
    }

    /// The candidates, by alpha, then beta.
    pub fn rules(&self) -> Vec<Rule> {
        let raw = |rule: Rule, n: &u32| rule.beta.mul_add(f64::from(*n), rule.alpha);
        self.alphas
            .iter()
            .flat_map(|&alpha| self.betas.iter().map(move |&beta| Rule { alpha, beta }))
            .filter(|&rule| self.within.iter().all(|n| raw(rule, n) <= f64::from(*n)))
            .filter(|&rule| self.positive.iter().all(|n| raw(rule, n) > 0.0))
            .collect()
    }
}

fn steps(from: f64, step: f64, count: u32) -> Vec<f64> {
    (0..count).map(|at| step.mul_add(f64::from(at), from)).collect()
}

fn eighths() -> Vec<f64> {
    steps(0.0, 0.125, 9)
}

/// Drops rules whose spans equal another's at every one of `lengths`. Of equals, the one with the smallest |alpha|
/// stays, then the smallest beta: its share of the context changes least at other lengths.
pub fn distinct(rules: &[Rule], lengths: &[u32], min_span: u32) -> Vec<Rule> {
    let spans = |rule: Rule| -> Vec<u32> { lengths.iter().map(|&n| span(rule, n, min_span)).collect() };
    let mut kept: Vec<(Vec<u32>, Rule)> = Vec::new();
    for &rule in rules {
        let here = spans(rule);
        match kept.iter_mut().find(|(spans, _)| *spans == here) {
            Some((_, known)) => {
                let order =
                    rule.alpha.abs().total_cmp(&known.alpha.abs()).then(rule.beta.total_cmp(&known.beta));
                if order.is_lt() {
                    *known = rule;
                }
            }
            None => kept.push((here, rule)),
        }
    }
    kept.into_iter().map(|(_, rule)| rule).collect()
}
