//! A problem and a goal as one linear model: an objective and scaled rows, and the prices that multipliers make of
//! them.
//!
//! Rows are the cost rows, then the capped losses, each divided by a scale that brings it near one. A relaxed model
//! has no objective and only minimises the excess over the rows: each scaled row may be exceeded at a penalty of one.

use std::ops::Range;

use super::problem::{Assignment, Class, Goal, Problem};

/// How far a scaled row may exceed its cap and still count as met: the tolerance of the solvers below.
pub(super) const ROW_TOLERANCE: f64 = 1e-7;

/// One coupling row.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// The cost row, or the capped objective.
    pub(super) kind: RowKind,
    /// The value of one scaled unit.
    pub(super) scale: f64,
    /// The cap, scaled.
    pub(super) cap: f64,
}

/// The quantity that a row sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowKind {
    /// [`Problem::costs`], by index.
    Cost(usize),
    /// [`Problem::losses`], by index.
    Loss(usize),
}

/// The totals of an assignment or of a column in a model.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Totals {
    /// The objective, unscaled; 0 in a relaxed model.
    pub(super) objective: f64,
    /// The scaled rows.
    pub(super) rows: Vec<f64>,
}

impl Totals {
    /// No heads at all.
    pub(super) fn zero(rows: usize) -> Self {
        Self { objective: 0.0, rows: vec![0.0; rows] }
    }

    /// Adds another part of the model.
    pub(super) fn add(&mut self, other: &Self) {
        self.objective += other.objective;
        for (sum, row) in self.rows.iter_mut().zip(&other.rows) {
            *sum += row;
        }
    }
}

/// A linear model over a problem.
#[derive(Clone, Debug)]
pub(super) struct Model<'a> {
    pub(super) problem: &'a Problem,
    /// The weighted losses to minimise; empty in a relaxed model.
    pub(super) weights: Vec<(usize, f64)>,
    /// Whether rows may be exceeded, and that is what is minimised.
    pub(super) relaxed: bool,
    pub(super) rows: Vec<Row>,
    /// `[cost row][rule]`, scaled.
    pub(super) costs: Vec<Vec<f64>>,
}

impl<'a> Model<'a> {
    /// The model of `goal`.
    pub(super) fn new(problem: &'a Problem, goal: &Goal) -> Self {
        let units = problem.units() as f64;
        let largest = |values: &[f64]| values.iter().fold(0.0, |most: f64, v| most.max(v.abs()));
        let nonzero = |scale: f64| if scale > 0.0 { scale } else { 1.0 };
        let mut rows = Vec::new();
        for (row, &cap) in goal.cost_caps.iter().enumerate() {
            let scale = nonzero(largest(&problem.costs[row]) * units);
            rows.push(Row { kind: RowKind::Cost(row), scale, cap: cap / scale });
        }
        for &(objective, cap) in &goal.loss_caps {
            // Losses of different heads differ by orders of magnitude; the cap itself is the size that matters.
            let scale = nonzero(cap.abs().max(largest(&problem.losses[objective]) * 1e-3));
            rows.push(Row { kind: RowKind::Loss(objective), scale, cap: cap / scale });
        }
        let costs = (0..goal.cost_caps.len())
            .map(|row| problem.costs[row].iter().map(|cost| cost / rows[row].scale).collect())
            .collect();
        Self { problem, weights: goal.weights.clone(), relaxed: false, rows, costs }
    }

    /// The same rows without the objective, each of which may be exceeded at a penalty.
    pub(super) fn relaxed(&self) -> Self {
        Self { weights: Vec::new(), relaxed: true, ..self.clone() }
    }

    /// The objectives of the problem that count in this model.
    pub(super) fn losses(&self) -> impl Iterator<Item = usize> {
        let capped = self.rows.iter().filter_map(|row| match row.kind {
            RowKind::Loss(objective) => Some(objective),
            RowKind::Cost(_) => None,
        });
        self.weights.iter().map(|&(objective, _)| objective).chain(capped)
    }

    /// The price of exceeding a scaled row by one, if rows may be exceeded.
    pub(super) fn penalty(&self) -> Option<f64> {
        self.relaxed.then_some(1.0)
    }

    /// The totals of one unit; `rules` holds its heads only.
    pub(super) fn unit_totals(&self, unit: &Range<usize>, rules: &[u8]) -> Totals {
        let loss = |objective: usize| -> f64 {
            let losses = &self.problem.losses[objective];
            let entry = |(head, &rule): (usize, &u8)| losses[head * self.problem.rules + usize::from(rule)];
            unit.clone().zip(rules).map(entry).sum()
        };
        let largest = |cost: &[f64]| rules.iter().map(|&rule| cost[usize::from(rule)]).fold(0.0, f64::max);
        let rows = self.rows.iter().map(|row| match row.kind {
            RowKind::Loss(objective) => loss(objective) / row.scale,
            RowKind::Cost(cost) => largest(&self.costs[cost]),
        });
        let objective = self.weights.iter().map(|&(objective, weight)| weight * loss(objective)).sum();
        Totals { objective, rows: rows.collect() }
    }

    /// The totals of one class; `rules` holds its heads only.
    pub(super) fn class_totals(&self, class: &Class, rules: &[u8]) -> Totals {
        let first = class.heads().start;
        let mut sum = Totals::zero(self.rows.len());
        for unit in &class.units {
            sum.add(&self.unit_totals(unit, &rules[unit.start - first..unit.end - first]));
        }
        sum
    }

    /// The totals of a whole assignment.
    pub(super) fn totals(&self, assignment: &Assignment) -> Totals {
        let mut sum = Totals::zero(self.rows.len());
        for class in &self.problem.classes {
            sum.add(&self.class_totals(class, &assignment[class.heads()]));
        }
        sum
    }

    /// No assignment has a larger objective than this.
    pub(super) fn most(&self) -> f64 {
        let table = |&(objective, weight): &(usize, f64)| -> f64 {
            let heads = self.problem.losses[objective].chunks(self.problem.rules);
            weight * heads.map(|head| head.iter().copied().fold(f64::NEG_INFINITY, f64::max)).sum::<f64>()
        };
        self.weights.iter().map(table).sum()
    }

    /// By how much each scaled row is exceeded, beyond the tolerance.
    pub(super) fn excess(&self, totals: &Totals) -> f64 {
        let over = self.rows.iter().zip(&totals.rows).map(|(row, total)| total - row.cap);
        over.filter(|&over| over > ROW_TOLERANCE).sum()
    }

    /// How good an assignment with these totals is.
    pub(super) fn merit(&self, totals: &Totals) -> Merit {
        Merit { excess: self.excess(totals), objective: totals.objective }
    }
}

/// How good an assignment is: first by how much it exceeds the rows, 0 if it meets them, then its objective.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Merit {
    /// The scaled excess of all rows.
    pub(super) excess: f64,
    /// The objective.
    pub(super) objective: f64,
}

impl Merit {
    /// Whether this one is better.
    pub(super) fn beats(&self, other: &Self) -> bool {
        self.excess.total_cmp(&other.excess).then(self.objective.total_cmp(&other.objective)).is_lt()
    }
}

/// The price of heads and units under fixed multipliers of the rows.
#[derive(Clone, Debug)]
pub(super) struct Prices {
    /// `[head * rules + rule]`: the objective and the priced losses.
    pub(super) head: Vec<f64>,
    /// The multipliers of the cost rows.
    pub(super) cost: Vec<f64>,
    /// `[rule]`: what a unit pays under one rule.
    pub(super) rule: Vec<f64>,
}

impl Prices {
    /// The prices under `multipliers`, one for each row, not negative.
    pub(super) fn new(model: &Model<'_>, multipliers: &[f64]) -> Self {
        let problem = model.problem;
        let mut head = vec![0.0; problem.heads * problem.rules];
        let mut add = |objective: usize, weight: f64| {
            for (sum, loss) in head.iter_mut().zip(&problem.losses[objective]) {
                *sum += weight * loss;
            }
        };
        for &(objective, weight) in &model.weights {
            add(objective, weight);
        }
        let mut cost = Vec::new();
        let mut rule = vec![0.0; problem.rules];
        for (row, &multiplier) in model.rows.iter().zip(multipliers) {
            match row.kind {
                RowKind::Cost(index) => {
                    cost.push(multiplier);
                    for (sum, cost) in rule.iter_mut().zip(&model.costs[index]) {
                        *sum += multiplier * cost;
                    }
                }
                RowKind::Loss(objective) => add(objective, multiplier / row.scale),
            }
        }
        Self { head, cost, rule }
    }
}
