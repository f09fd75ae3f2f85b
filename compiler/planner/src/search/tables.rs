//! From influence, rules and a cost model to the tables of a [`Problem`], with exactly the runtime's mask.
//!
//! Spans come from [`moac_runtime::geometry::span`], so the minimum span, the rounding to tiles and the sink inside
//! the span are those of the kernels; the loss of a span is the sum of the influence that it hides.

use std::collections::BTreeMap;
use std::ops::Range;

use moac_runtime::geometry::span;
use moac_runtime::plan::{MAX_LENGTH, ModelShape, Rule, TILE};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::influence::Influence;
use super::problem::{MAX_RULES, Problem};
use super::rules::distinct;

/// The unit that a rule is chosen for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Granularity {
    /// Each KV head, for all its query heads: memory falls with every token of span.
    #[default]
    KvHead,
    /// Each query head.
    Head,
}

/// The cost of a plan. Bounds on it are fractions of the dense model's cost at the same length.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cost {
    /// KV-cache bytes: each KV head keeps the longest span of its query heads.
    #[default]
    KvBytes,
    /// Span tokens, averaged over query heads.
    Density,
    /// Kernel time of each KV head at its longest span.
    Time(TimeTable),
}

impl Cost {
    /// The name in flags and in a plan's provenance.
    pub fn name(&self) -> &'static str {
        match self {
            Self::KvBytes => "kv-bytes",
            Self::Density => "density",
            Self::Time(_) => "time",
        }
    }
}

/// Measured kernel times: context length -> span in tokens -> time of one KV head, in any unit. Between two spans the
/// time is interpolated linearly; beyond the ends it is not known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TimeTable(pub BTreeMap<u32, BTreeMap<u32, f64>>);

impl TimeTable {
    /// The time of a span at a length.
    fn time(&self, length: u32, span: u32) -> Result<f64, TableError> {
        let missing = || TableError::Time { length, span };
        let spans = self.0.get(&length).ok_or_else(missing)?;
        let (&below, &fast) = spans.range(..=span).next_back().ok_or_else(missing)?;
        let (&above, &slow) = spans.range(span..).next().ok_or_else(missing)?;
        for (span, time) in [(below, fast), (above, slow)] {
            if !(time > 0.0 && time <= 1e15) {
                return Err(TableError::NoTime { length, span, time });
            }
        }
        let share = if above == below { 0.0 } else { f64::from(span - below) / f64::from(above - below) };
        Ok(fast + share * (slow - fast))
    }
}

/// The most that a plan may cost at one length, as a fraction of the dense cost there.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bound {
    /// The context length in tokens, a multiple of 64.
    pub length: u32,
    /// In `0..=1`.
    pub fraction: f64,
}

/// The search space: the candidate rules, the unit that a rule is chosen for, and the bounds on cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Space {
    /// Candidate rules. Those with equal spans at all lengths count as one.
    pub rules: Vec<Rule>,
    /// Sink tokens of the plan.
    pub sink: u32,
    /// The smallest span of the plan.
    pub min_span: u32,
    /// The unit that a rule is chosen for.
    pub per: Granularity,
    /// The measure of cost.
    pub cost: Cost,
    /// The bounds, one for each length.
    pub bounds: Vec<Bound>,
    /// The most distinct rules of a layer; `None` for no limit.
    pub max_rules: Option<usize>,
}

/// Errors of setting up a search.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// No rules, or too many.
    #[error("found {found} distinct candidate rules, expected 1 to {MAX_RULES}")]
    Rules {
        /// How many there are.
        found: usize,
    },
    /// A rule with a number that plans do not allow.
    #[error("candidate rule alpha = {alpha}, beta = {beta}: expected |alpha| <= 2^31 and beta in [-16, 16]")]
    Rule {
        /// Its constant part.
        alpha: f64,
        /// Its slope.
        beta: f64,
    },
    /// A sink or minimum span that plans do not allow.
    #[error(
        "found sink {sink} and minimum span {min_span}, expected multiples of 64 with sink >= 64 and minimum span >= sink + 64"
    )]
    Spans {
        /// Sink tokens.
        sink: u32,
        /// The smallest span.
        min_span: u32,
    },
    /// Losses of whole KV heads, for query heads that choose for themselves.
    #[error(
        "the influence was measured for whole KV heads, not for query heads: search per KV head, or profile with a measure of query heads, such as fisher-heads"
    )]
    Joint,
    /// Sums over windows behind another sink.
    #[error("the influence was measured with a sink of {TILE} tokens, but the plan has a sink of {sink}")]
    Sink {
        /// Sink tokens of the plan.
        sink: u32,
    },
    /// A length that is too short or too long for a plan, or no whole number of tiles.
    #[error(
        "found the length {length}, expected a multiple of 64 from the minimum span {min_span} to {MAX_LENGTH}"
    )]
    Length {
        /// The length.
        length: u32,
        /// The smallest span.
        min_span: u32,
    },
    /// A bound that is not a valid fraction, or a second bound at one length.
    #[error(
        "bound {fraction} at length {length}: expected a fraction in 0..=1, and one bound for each length"
    )]
    Bound {
        /// The length.
        length: u32,
        /// The bound.
        fraction: f64,
    },
    /// A limit of no rules at all.
    #[error("--rules-per-layer: found 0, expected at least 1")]
    NoRules,
    /// A kernel time that is not a positive number.
    #[error(
        "the table of kernel times has {time} for a span of {span} tokens at length {length}: expected more than 0, at most 1e15"
    )]
    NoTime {
        /// The context length.
        length: u32,
        /// The span.
        span: u32,
        /// The value found.
        time: f64,
    },
    /// A span that the table of kernel times does not cover.
    #[error("the table of kernel times lacks a span of {span} tokens at length {length}")]
    Time {
        /// The context length.
        length: u32,
        /// The span.
        span: u32,
    },
}

impl Space {
    /// Whether an influence of this kind says what the space asks for.
    pub fn suits(&self, influence: &Influence) -> Result<(), TableError> {
        if influence.windows && self.sink != TILE {
            return Err(TableError::Sink { sink: self.sink });
        }
        if influence.joint && self.per == Granularity::Head {
            return Err(TableError::Joint);
        }
        Ok(())
    }
}

/// The tables of a search over one model.
#[derive(Clone, Debug)]
pub struct Tables {
    /// The model.
    pub model: ModelShape,
    /// The lengths of the losses, ascending.
    pub lengths: Vec<u32>,
    /// The space as given, its rules made distinct.
    pub space: Space,
    /// The abstract problem: its objectives are `lengths`, its cost rows `space.bounds`.
    pub problem: Problem,
    /// The cost of the dense model at each bound.
    pub dense: Vec<f64>,
    /// The cost that each bound allows. Token costs are rounded down to a total that spans can reach.
    pub caps: Vec<f64>,
}

impl Tables {
    /// The tables for a profiled model.
    pub fn from_influence(influence: &Influence, space: Space) -> Result<Self, TableError> {
        let lengths: Vec<u32> = influence.lengths.iter().map(|at| at.length).collect();
        space.suits(influence)?;
        let sink_blocks = (space.sink / TILE) as usize;
        let losses = |at: usize, head: usize| influence.lengths[at].head(head).losses(sink_blocks);
        Self::new(&influence.model, &lengths, space, &losses)
    }

    /// The tables from any source of losses: `losses(length index, head counted through all layers)` is the loss of
    /// a window of `w` tiles, for each `w` up to the whole length.
    pub fn new(
        model: &ModelShape,
        lengths: &[u32],
        mut space: Space,
        losses: &(dyn Fn(usize, usize) -> Vec<f64> + Sync),
    ) -> Result<Self, TableError> {
        check(lengths, &space)?;
        let all_lengths: Vec<u32> =
            lengths.iter().copied().chain(space.bounds.iter().map(|bound| bound.length)).collect();
        space.rules = distinct(&space.rules, &all_lengths, space.min_span);
        let rules = space.rules.len();
        if rules == 0 || rules > MAX_RULES {
            return Err(TableError::Rules { found: rules });
        }
        let (layers, group) = (model.num_layers as usize, model.group_size() as usize);
        let query_heads = layers * model.num_heads as usize;
        let heads_per_choice = match space.per {
            Granularity::KvHead => group,
            Granularity::Head => 1,
        };
        let heads = query_heads / heads_per_choice;
        let losses = lengths
            .iter()
            .enumerate()
            .map(|(at, &length)| {
                let windows: Vec<usize> = space
                    .rules
                    .iter()
                    .map(|&rule| ((span(rule, length, space.min_span) - space.sink) / TILE) as usize)
                    .collect();
                (0..heads)
                    .into_par_iter()
                    .flat_map_iter(|choice| {
                        let mut sums = vec![0.0; rules];
                        for head in choice * heads_per_choice..(choice + 1) * heads_per_choice {
                            let by_window = losses(at, head);
                            for (sum, &window) in sums.iter_mut().zip(&windows) {
                                *sum += by_window[window];
                            }
                        }
                        sums
                    })
                    .collect()
            })
            .collect();
        let (costs, dense) = costs(model, &space)?;
        // A unit pays once for heads that share a KV head, unless each query head pays for itself.
        let heads_per_unit = match (space.per, &space.cost) {
            (Granularity::Head, Cost::KvBytes | Cost::Time(_)) => group,
            _ => 1,
        };
        let units: Vec<Range<usize>> = (0..heads / heads_per_unit)
            .map(|unit| unit * heads_per_unit..(unit + 1) * heads_per_unit)
            .collect();
        let caps = space
            .bounds
            .iter()
            .zip(costs.iter().zip(&dense))
            .map(|(bound, (row, dense))| match space.cost {
                Cost::KvBytes | Cost::Density => reachable(bound.fraction * dense, row, units.len()),
                Cost::Time(_) => bound.fraction * dense,
            })
            .collect();
        let classes = Problem::classes(&units, units.len() / layers, rules, space.max_rules);
        let problem = Problem { rules, heads, losses, costs, classes };
        Ok(Self { model: model.clone(), lengths: lengths.to_vec(), space, problem, dense, caps })
    }

    /// The rule of each query head, `[layer][head]`.
    pub fn rules(&self, assignment: &[u8]) -> Vec<Vec<Rule>> {
        let per_layer = assignment.len() / self.model.num_layers as usize;
        let repeat = self.model.num_heads as usize / per_layer;
        let rule = |&rule: &u8| std::iter::repeat_n(self.space.rules[usize::from(rule)], repeat);
        assignment.chunks(per_layer).map(|layer| layer.iter().flat_map(rule).collect()).collect()
    }
}

/// The largest cost up to `cap` that `units` units may add up to, each paying one of `row`, whole tokens: a multiple of
/// the greatest common divisor of their differences above the least. A tighter cap makes a tighter lower bound.
fn reachable(cap: f64, row: &[f64], units: usize) -> f64 {
    let least = row.iter().copied().fold(f64::INFINITY, f64::min);
    let step = row.iter().fold(0u64, |step, cost| gcd(step, (cost - least) as u64)).max(1) as f64;
    let floor = least * units as f64;
    // The small addition keeps a fraction such as 0.3 from losing the token that it names.
    ((cap - floor) / step + 1e-6).floor().mul_add(step, floor).min(cap)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn check(lengths: &[u32], space: &Space) -> Result<(), TableError> {
    let (sink, min_span) = (space.sink, space.min_span);
    if !sink.is_multiple_of(TILE)
        || !min_span.is_multiple_of(TILE)
        || sink < TILE
        || min_span < sink.saturating_add(TILE)
    {
        return Err(TableError::Spans { sink, min_span });
    }
    if let Some(rule) =
        space.rules.iter().find(|rule| !(rule.alpha.abs() <= 2f64.powi(31) && rule.beta.abs() <= 16.0))
    {
        return Err(TableError::Rule { alpha: rule.alpha, beta: rule.beta });
    }
    for length in lengths.iter().copied().chain(space.bounds.iter().map(|bound| bound.length)) {
        if !length.is_multiple_of(TILE) || length < min_span || length > MAX_LENGTH {
            return Err(TableError::Length { length, min_span });
        }
    }
    for (at, bound) in space.bounds.iter().enumerate() {
        let again = space.bounds[..at].iter().any(|other| other.length == bound.length);
        if !(0.0..=1.0).contains(&bound.fraction) || again {
            return Err(TableError::Bound { length: bound.length, fraction: bound.fraction });
        }
    }
    if space.max_rules == Some(0) {
        return Err(TableError::NoRules);
    }
    Ok(())
}

/// The cost of each rule at each bound, and of the dense model.
fn costs(model: &ModelShape, space: &Space) -> Result<(Vec<Vec<f64>>, Vec<f64>), TableError> {
    let kv_heads = f64::from(model.num_layers) * f64::from(model.num_kv_heads);
    let heads = f64::from(model.num_layers) * f64::from(model.num_heads);
    // How many heads one choice pays for, and how many the dense model has.
    let (weight, payers) = match (&space.cost, space.per) {
        (Cost::Density, Granularity::KvHead) => (f64::from(model.group_size()), heads),
        (Cost::Density, Granularity::Head) => (1.0, heads),
        (Cost::KvBytes | Cost::Time(_), _) => (1.0, kv_heads),
    };
    let unit = |length: u32, span: u32| match &space.cost {
        Cost::KvBytes | Cost::Density => Ok(f64::from(span)),
        Cost::Time(times) => times.time(length, span),
    };
    let mut rows = Vec::new();
    let mut dense = Vec::new();
    for &Bound { length, .. } in &space.bounds {
        let row: Result<Vec<f64>, TableError> = space
            .rules
            .iter()
            .map(|&rule| Ok(weight * unit(length, span(rule, length, space.min_span))?))
            .collect();
        rows.push(row?);
        dense.push(payers * unit(length, length)?);
    }
    Ok((rows, dense))
}
