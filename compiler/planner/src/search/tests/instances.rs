//! Small random problems.

use std::ops::Range;

use crate::search::problem::{Goal, Problem};
use crate::search::synthetic::Stream;

/// How large the problems get.
pub(super) struct Size {
    pub(super) layers: u64,
    pub(super) units: u64,
    pub(super) heads: u64,
    pub(super) rules: u64,
    pub(super) costs: u64,
}

fn up_to(stream: &mut Stream, most: u64) -> usize {
    (1 + stream.bits() % most) as usize
}

/// A random problem and a goal, feasible or not: whole costs as spans have, losses that mostly fall with cost, and
/// sometimes a cap on a second loss.
pub(super) fn random(seed: u64, size: &Size) -> (Problem, Goal) {
    let mut stream = Stream::new(seed);
    let (layers, units_per_layer) = (up_to(&mut stream, size.layers), up_to(&mut stream, size.units));
    let (group, rules) = (up_to(&mut stream, size.heads), up_to(&mut stream, size.rules));
    let heads = layers * units_per_layer * group;
    let units: Vec<Range<usize>> =
        (0..layers * units_per_layer).map(|u| u * group..(u + 1) * group).collect();
    let costs: Vec<Vec<f64>> = (0..up_to(&mut stream, size.costs))
        .map(|_| (0..rules).map(|_| 64.0 * (1 + stream.bits() % 32) as f64).collect())
        .collect();
    let losses: Vec<Vec<f64>> = (0..2)
        .map(|_| {
            let mut table = Vec::new();
            for _ in 0..heads {
                let amount = stream.log_normal(1.0, 1.0);
                for cost in &costs[0] {
                    // One head in six gains from being masked, as signed influence allows.
                    let sign = if stream.unit() < 0.17 { -0.3 } else { 1.0 };
                    table.push(sign * amount * (-cost / 640.0).exp() * stream.between(0.5, 1.5));
                }
            }
            table
        })
        .collect();
    let max_rules = [Some(1), Some(2), Some(3), None][(stream.bits() % 4) as usize];
    let classes = Problem::classes(&units, units_per_layer, rules, max_rules);
    let problem = Problem { rules, heads, losses, costs, classes };
    let between = |values: Vec<f64>, share: f64| {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        (high - low).mul_add(share, low)
    };
    // From a little below what is possible to where the cap no longer matters.
    let cost_caps = problem
        .costs
        .iter()
        .map(|row| (units.len() as f64 * between(row.clone(), stream.between(-0.05, 0.8))).floor())
        .collect();
    let mut loss_caps = Vec::new();
    if stream.unit() < 0.5 {
        let each = problem.losses[1].chunks(rules).map(|head| between(head.to_vec(), 1.0)).sum::<f64>();
        let least = problem.losses[1].chunks(rules).map(|head| between(head.to_vec(), 0.0)).sum::<f64>();
        loss_caps.push((1, (each - least).mul_add(stream.between(0.02, 0.6), least)));
    }
    let goal = Goal { weights: vec![(0, 1.0)], cost_caps, loss_caps };
    (problem, goal)
}
