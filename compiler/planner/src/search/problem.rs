//! The search as a mathematical problem, free of models and lengths.
//!
//! Every *head* takes one *rule*. Heads form *units*: the unit pays, in each cost row, the largest cost among the
//! rules of its heads (a KV head pays for its longest span). Units form *classes*: the heads of a class use at most
//! `max_rules` distinct rules (a layer). Losses add up over heads, costs over units. A [`Goal`] names the loss to
//! minimise, and caps on the costs and on other losses.

use std::ops::Range;

/// The most candidate rules of one problem: sets of rules are 128-bit masks.
pub const MAX_RULES: usize = 128;

/// The rule of each head, by index.
pub type Assignment = Vec<u8>;

/// Units that share a limit on distinct rules: a layer, or a single unit where there is no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// The heads of each unit, as ranges of the problem's heads. Consecutive.
    pub units: Vec<Range<usize>>,
    /// The most distinct rules of the class. `None` only for a class of one unit.
    pub max_rules: Option<usize>,
}

impl Class {
    /// The heads of the class.
    pub fn heads(&self) -> Range<usize> {
        self.units[0].start..self.units[self.units.len() - 1].end
    }
}

/// The tables of a search.
#[derive(Clone, Debug)]
pub struct Problem {
    /// Candidate rules, at most [`MAX_RULES`].
    pub rules: usize,
    /// Heads.
    pub heads: usize,
    /// `[objective][head * rules + rule]`: the loss of a head under a rule.
    pub losses: Vec<Vec<f64>>,
    /// `[cost row][rule]`: what a unit pays, not negative.
    pub costs: Vec<Vec<f64>>,
    /// The classes: their heads are consecutive and cover the problem's.
    pub classes: Vec<Class>,
}

/// The objective of a solve, and its caps.
#[derive(Clone, Debug, PartialEq)]
pub struct Goal {
    /// The objectives, by index into [`Problem::losses`], each with a non-negative weight.
    pub weights: Vec<(usize, f64)>,
    /// One cap per cost row.
    pub cost_caps: Vec<f64>,
    /// Caps on objectives: `(index, cap)`.
    pub loss_caps: Vec<(usize, f64)>,
}

impl Goal {
    /// Minimise one objective under the cost caps alone.
    pub fn single(objective: usize, cost_caps: &[f64]) -> Self {
        Self { weights: vec![(objective, 1.0)], cost_caps: cost_caps.to_vec(), loss_caps: Vec::new() }
    }
}

impl Problem {
    /// Divides `units` into classes of `units_per_class` that use at most `max_rules` distinct rules each. A limit
    /// that cannot bind is dropped, and every unit becomes a class of its own.
    pub fn classes(
        units: &[Range<usize>],
        units_per_class: usize,
        rules: usize,
        max_rules: Option<usize>,
    ) -> Vec<Class> {
        units
            .chunks(units_per_class)
            .flat_map(|layer| {
                let heads: usize = layer.iter().map(ExactSizeIterator::len).sum();
                match max_rules {
                    Some(limit) if limit < heads.min(rules) => {
                        vec![Class { units: layer.to_vec(), max_rules: Some(limit) }]
                    }
                    _ => layer
                        .iter()
                        .map(|unit| Class { units: vec![unit.clone()], max_rules: None })
                        .collect(),
                }
            })
            .collect()
    }

    /// Units in all classes.
    pub fn units(&self) -> usize {
        self.classes.iter().map(|class| class.units.len()).sum()
    }

    /// The total of objective `objective` under an assignment.
    pub fn loss(&self, objective: usize, assignment: &[u8]) -> f64 {
        let table = &self.losses[objective];
        assignment.iter().enumerate().map(|(head, &rule)| table[head * self.rules + usize::from(rule)]).sum()
    }

    /// The total of cost row `row` under an assignment.
    pub fn cost(&self, row: usize, assignment: &[u8]) -> f64 {
        let costs = &self.costs[row];
        self.classes
            .iter()
            .flat_map(|class| &class.units)
            .map(|unit| {
                assignment[unit.clone()].iter().map(|&rule| costs[usize::from(rule)]).fold(0.0, f64::max)
            })
            .sum()
    }
}
