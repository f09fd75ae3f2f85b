//! Projected gradient descent on the spans of KV heads, at constant KV bytes.
//!
//! A KV head's rule is the line through its spans at the shortest and at the longest length. Both move by their
//! binary logarithm, in which a step is equally large for short and long heads, with Adam's estimates of the mean and
//! size of the slopes (Kingma and Ba, arXiv 1412.6980), since the slopes of every step come from other items. The
//! part of the slopes that would only change the total is removed first, and the remaining error of the total after a
//! step is spread evenly.
//!
//! What must hold: no KV head is below the plan's minimum span, and at no length that is a multiple of 1024, nor at any
//! that was given or has a bound of its own, does the plan hold more than it may.

use moac_runtime::plan::{Plan, Rule, TILE};

use super::{Options, RefineError};
use crate::eval::Spans;

/// Adam's decay rates: a few steps of memory, for there are not many.
const MEAN_DECAY: f64 = 0.8;
const SIZE_DECAY: f64 = 0.95;
/// Between the ends, plans keep their bounds at multiples of this many tokens.
const CHECKED: usize = 1024;

/// One end: a length, the spans there and how they have moved.
#[derive(Clone, Debug)]
struct End {
    length: u32,
    /// Binary logarithms of spans in tokens.
    log: Vec<f64>,
    /// Their upper bound in total, in tokens.
    total: f64,
    mean: Vec<f64>,
    size: Vec<f64>,
}

/// A plan on its way.
#[derive(Clone, Debug)]
pub(super) struct Descent {
    /// The plan it began with: its model, sink and minimum span stay.
    plan: Plan,
    lengths: Vec<u32>,
    ends: [End; 2],
    /// Lengths with the most KV bytes over those of dense attention there.
    limits: Vec<(u32, f64)>,
    steps: i32,
}

impl Descent {
    /// Starts from a plan. `lengths` are ascending, at least two.
    pub(super) fn new(plan: &Plan, lengths: &[u32], options: &Options) -> Result<Self, RefineError> {
        let heads = f64::from(plan.model.num_layers * plan.model.num_kv_heads);
        let (first, last) = (lengths[0], lengths[lengths.len() - 1]);
        let bound = |length: u32| options.bounds.iter().find(|bound| bound.length == length);
        let density = |length: u32| match bound(length).map(|bound| bound.fraction).or(options.density) {
            Some(density) => density,
            None => Spans::new(plan, length).density(),
        };
        let end = |length: u32| {
            let kv = Spans::new(plan, length);
            let log: Vec<f64> = (0..plan.model.num_layers as usize)
                .flat_map(|layer| kv.kv_spans(layer))
                .map(|&span| f64::from(span).log2())
                .collect();
            let density = density(length);
            let total = density * f64::from(length) * heads;
            let least = f64::from(plan.min_span) / f64::from(length);
            if density < least {
                return Err(RefineError::Density { density, min_span: plan.min_span, length, least });
            }
            let zeros = vec![0.0; log.len()];
            Ok(End { length, total, mean: zeros.clone(), size: zeros, log })
        };
        let between = (first..=last).filter(|length| (*length as usize).is_multiple_of(CHECKED));
        let bounded = options.bounds.iter().map(|bound| bound.length);
        let mut checked: Vec<u32> = lengths.iter().copied().chain(between).chain(bounded).collect();
        checked.sort_unstable();
        checked.dedup();
        let mut descent = Self {
            plan: Plan { provenance: None, ..plan.clone() },
            lengths: lengths.to_vec(),
            ends: [end(first)?, end(last)?],
            limits: checked.into_iter().map(|length| (length, density(length))).collect(),
            steps: 0,
        };
        let least = f64::from(plan.min_span);
        descent.ends.iter_mut().for_each(|end| end.share_out(least));
        Ok(descent)
    }

    /// Moves against the slopes of the loss, `[length][KV head]`, the first time by about `rate` powers of two.
    pub(super) fn step(&mut self, slopes: &[Vec<f64>], rate: f64) {
        self.steps += 1;
        let [first, last] = &self.ends;
        let far = f64::from(last.length - first.length);
        let mut by_end = [vec![0.0; first.log.len()], vec![0.0; first.log.len()]];
        for (&length, slopes) in self.lengths.iter().zip(slopes) {
            let share = f64::from(length - first.length) / far;
            for (head, slope) in slopes.iter().enumerate() {
                let (from, to) = ((1.0 - share) * first.log[head].exp2(), share * last.log[head].exp2());
                by_end[0][head] += slope * from / (from + to);
                by_end[1][head] += slope * to / (from + to);
            }
        }
        let least = f64::from(self.plan.min_span);
        for (end, slopes) in self.ends.iter_mut().zip(&by_end) {
            end.step(slopes, rate, self.steps, least);
        }
    }

    /// The plan, its spans whole tiles.
    pub(super) fn plan(&self) -> Plan {
        let mut share = 1.0;
        loop {
            let plan = self.rounded(share);
            let exceeds = |&(length, limit): &(u32, f64)| Spans::new(&plan, length).density() > limit + 1e-9;
            // Where heads are of the smallest span at every length, nothing is left to take away.
            if share < 0.5 || !self.limits.iter().any(exceeds) {
                return plan;
            }
            share *= 0.9975;
        }
    }

    /// Lines through the middle of the tiles that spans at both ends are rounded to: between the ends the runtime's rounding
    /// up then is rounding to the nearest.
    fn rounded(&self, share: f64) -> Plan {
        let middle = |tiles: u32| f64::from(tiles * TILE - TILE / 2);
        let least = self.plan.min_span;
        let [first, last] = self.ends.each_ref().map(|end| end.tiles(share, least));
        let [near, far] = self.ends.each_ref().map(|end| f64::from(end.length));
        let rules: Vec<Rule> = first
            .iter()
            .zip(&last)
            .map(|(&first, &last)| {
                let beta = (middle(last) - middle(first)) / (far - near);
                Rule { alpha: middle(first) - beta * near, beta }
            })
            .collect();
        let (kv_heads, group) =
            (self.plan.model.num_kv_heads as usize, self.plan.model.group_size() as usize);
        let of = |number: fn(&Rule) -> f64| -> Vec<Vec<f64>> {
            let layer = |rules: &[Rule]| {
                rules.iter().flat_map(|rule| std::iter::repeat_n(number(rule), group)).collect()
            };
            rules.chunks(kv_heads).map(layer).collect()
        };
        Plan { alphas: of(|rule| rule.alpha), betas: of(|rule| rule.beta), ..self.plan.clone() }
    }
}

impl End {
    fn step(&mut self, slopes: &[f64], rate: f64, steps: i32, least: f64) {
        let most = f64::from(self.length).log2();
        let spans: Vec<f64> = self.log.iter().map(|log| log.exp2()).collect();
        // A token costs the same everywhere, so what all slopes by token have in common only asks for more of them.
        let stuck = |head: usize| {
            let (log, slope) = (self.log[head], slopes[head]);
            (log <= least.log2() + 1e-9 && slope > 0.0) || (log >= most - 1e-9 && slope < 0.0)
        };
        let free: Vec<usize> = (0..spans.len()).filter(|&head| !stuck(head)).collect();
        let squares: f64 = free.iter().map(|&head| spans[head] * spans[head]).sum();
        let common = if squares > 0.0 {
            free.iter().map(|&head| slopes[head] * spans[head]).sum::<f64>() / squares
        } else {
            0.0
        };
        let along: Vec<f64> = slopes.iter().zip(&spans).map(|(slope, span)| slope - common * span).collect();
        // What keeps a head without any slope from moving as far as the others.
        let small = 1e-3 * (along.iter().map(|x| x * x).sum::<f64>() / along.len() as f64).sqrt();
        let (mean_of, size_of) = (1.0 - MEAN_DECAY.powi(steps), 1.0 - SIZE_DECAY.powi(steps));
        for (head, along) in along.into_iter().enumerate() {
            let (mean, size) = (&mut self.mean[head], &mut self.size[head]);
            *mean = MEAN_DECAY * *mean + (1.0 - MEAN_DECAY) * along;
            *size = SIZE_DECAY * *size + (1.0 - SIZE_DECAY) * along * along;
            let scale = (*size / size_of).sqrt() + small;
            if scale > 0.0 {
                self.log[head] -= rate * (*mean / mean_of) / scale;
            }
        }
        self.share_out(least);
    }

    /// Moves all spans by the same factor, within what there is, so that they add up to the total.
    fn share_out(&mut self, least: f64) {
        let (least, most) = (least.log2(), f64::from(self.length).log2());
        let moved = |log: f64, by: f64| (log + by).clamp(least, most);
        let by = largest(|by| self.log.iter().map(|&log| moved(log, by).exp2()).sum::<f64>() <= self.total);
        self.log.iter_mut().for_each(|log| *log = moved(*log, by));
    }

    /// The spans in whole tiles, as much as a share of the total allows.
    fn tiles(&self, share: f64, least: u32) -> Vec<u32> {
        let most = self.length / TILE;
        let of = |by: f64| {
            let tiles = |&log: &f64| ((log + by).exp2() / f64::from(TILE)).round() as u32;
            self.log.iter().map(|log| tiles(log).clamp(least / TILE, most)).collect::<Vec<u32>>()
        };
        let allowed = share * self.total / f64::from(TILE) + 1e-6;
        of(largest(|by| f64::from(of(by).iter().sum::<u32>()) <= allowed))
    }
}

/// About the largest power of two to move by that is allowed: what a smaller one is, if a larger one is.
fn largest(allowed: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (-32.0, 32.0);
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        if allowed(middle) { low = middle } else { high = middle }
    }
    low
}

#[cfg(test)]
mod tests {
    use moac_model::dense_plan;
    use moac_runtime::plan::ModelShape;
    use proptest::prelude::*;

    use super::*;
    use crate::search::tables::Bound;

    const LENGTHS: [u32; 3] = [1024, 2048, 8192];

    fn uniform(density: f64) -> Plan {
        let shape = ModelShape {
            name: "small".into(),
            num_layers: 4,
            num_heads: 6,
            num_kv_heads: 3,
            head_dim: 64,
            rope_theta: None,
            context: None,
            softmax_scale: None,
        };
        Plan { betas: vec![vec![density; 6]; 4], ..dense_plan(&shape) }
    }

    fn options(density: Option<f64>) -> Options {
        let (lengths, bounds) = (LENGTHS.to_vec(), Vec::new());
        Options { lengths, density, bounds, steps: 1, batch: 1, rate: 0.2, parallel: 1 }
    }

    #[test]
    fn bounds_of_their_own_hold_between_the_ends_and_beyond() {
        let bounds = [(512, 0.6), (1024, 0.4), (4096, 0.3), (16384, 0.35)];
        let bounds = bounds.map(|(length, fraction)| Bound { length, fraction }).to_vec();
        let options = Options { bounds: bounds.clone(), ..options(Some(0.5)) };
        let mut descent = Descent::new(&uniform(0.5), &LENGTHS, &options).unwrap();
        for step in 0..6_u32 {
            let slope = |length: usize, head: u32| -f64::from((head * 7 + step * 5) % 11) * length as f64;
            let slopes: Vec<Vec<f64>> =
                (1..=3).map(|length| (0..12).map(|head| slope(length, head)).collect()).collect();
            descent.step(&slopes, 0.3);
            let plan = descent.plan();
            for Bound { length, fraction } in &bounds {
                let density = Spans::new(&plan, *length).density();
                assert!(density <= fraction + 1e-9, "{density} at {length}");
            }
            assert!(Spans::new(&plan, 8192).density() <= 0.5 + 1e-9);
        }
    }

    /// With a loss of `need / span` at every length, the best spans are proportional to the roots of the needs.
    #[test]
    fn spans_go_where_the_loss_is_least() {
        let needs: Vec<f64> = (0..12).map(|head| 2f64.powi(head % 5)).collect();
        let mut descent = Descent::new(&uniform(0.5), &LENGTHS, &options(None)).unwrap();
        let loss = |descent: &Descent| -> f64 {
            let at = |end: &End| needs.iter().zip(&end.log).map(|(need, log)| need / log.exp2()).sum::<f64>();
            descent.ends.iter().map(at).sum()
        };
        let before = loss(&descent);
        for step in 0..80 {
            let slopes: Vec<Vec<f64>> = LENGTHS
                .iter()
                .map(|&length| {
                    let share = f64::from(length - 1024) / 7168.0;
                    let span = |head: usize| {
                        (1.0 - share) * descent.ends[0].log[head].exp2()
                            + share * descent.ends[1].log[head].exp2()
                    };
                    (0..12).map(|head| -needs[head] / span(head)).collect()
                })
                .collect();
            descent.step(&slopes, 0.2 * (1.0 - f64::from(step) / 81.0));
        }
        assert!(loss(&descent) < 0.9 * before);
        let end = &descent.ends[1];
        let roots: f64 = needs.iter().map(|need| need.sqrt()).sum();
        for (head, need) in needs.iter().enumerate() {
            let best = end.total * need.sqrt() / roots;
            assert!(
                (end.log[head] - best.log2()).abs() < 0.1,
                "head {head}: {}, {best}",
                end.log[head].exp2()
            );
        }
    }

    #[test]
    fn a_density_that_the_smallest_spans_exceed_is_an_error() {
        let error = Descent::new(&uniform(0.25), &LENGTHS, &options(Some(0.1))).unwrap_err().to_string();
        let expected = "--density 0.1 is too low: at 1024 tokens, the smallest spans of 128 tokens already take 0.1250 of the dense KV bytes";
        assert!(error.contains(expected), "{error}");
    }

    proptest! {
        /// Whatever the slopes, the plan keeps its bytes at every length, and uses nearly all of them at the ends.
        #[test]
        fn plans_keep_their_bytes(
            density in 0.13..1.0,
            slopes in prop::collection::vec(prop::collection::vec(-1.0..1.0, 12), 3),
            steps in 0..6,
        ) {
            let mut descent = Descent::new(&uniform(0.3), &LENGTHS, &options(Some(density))).unwrap();
            for _ in 0..steps {
                descent.step(&slopes, 0.7);
            }
            let plan = descent.plan();
            for length in (1024..=8192).step_by(1024) {
                let spans = Spans::new(&plan, length);
                prop_assert!(spans.density() <= density + 1e-3, "{} at {length}", spans.density());
                for layer in 0..4 {
                    prop_assert!(spans.kv_spans(layer).iter().all(|span| *span >= 128));
                }
            }
            prop_assert!(Spans::new(&plan, 8192).density() > 0.9 * density);
        }
    }
}
