//! The cheapest choice of a class at given prices, exactly.
//!
//! A class picks a set of at most `max_rules` rules; given the set, its units are independent. The sets are swept
//! depth first, with a bound from what the units could still reach. A class without a limit is one unit, and all
//! rules are its set.
//!
//! Within a set a unit picks a *level*: the largest cost, row by row, that its heads may cause. Levels are the joins
//! (element-wise maxima) of the rules' costs; under a level each head takes its cheapest rule.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::model::{Model, Prices};
use super::problem::Class;

/// A level: the cost a unit pays, and the rules its heads may then use.
#[derive(Clone, Debug)]
pub(super) struct Level {
    /// `[cost row]`, scaled.
    pub(super) cost: Vec<f64>,
    /// The rules that cost no more than the level in any row.
    pub(super) rules: Vec<u8>,
}

/// The levels that units of at most `heads` heads can reach with the rules of `set`.
pub(super) fn levels(model: &Model<'_>, set: &[u8], heads: usize) -> Vec<Level> {
    let cost_of = |rule: u8| -> Vec<f64> { model.costs.iter().map(|row| row[usize::from(rule)]).collect() };
    let key = |cost: &[f64]| -> Vec<u64> { cost.iter().map(|value| value.to_bits()).collect() };
    let singles: BTreeMap<Vec<u64>, Vec<f64>> =
        set.iter().map(|&rule| cost_of(rule)).map(|cost| (key(&cost), cost)).collect();
    let mut joins = singles.clone();
    let mut newest = singles.clone();
    // A join is one of at most as many rules as there are rows, each the largest in one of them.
    for _ in 1..heads.min(model.costs.len()) {
        let mut next = BTreeMap::new();
        for level in newest.values() {
            for single in singles.values() {
                let join: Vec<f64> = level.iter().zip(single).map(|(a, b)| a.max(*b)).collect();
                let name = key(&join);
                if !joins.contains_key(&name) {
                    next.insert(name, join);
                }
            }
        }
        joins.extend(next.clone());
        newest = next;
    }
    let allowed = |cost: &[f64]| -> Vec<u8> {
        let fits =
            |rule: &u8| model.costs.iter().zip(cost).all(|(row, cost)| row[usize::from(*rule)] <= *cost);
        set.iter().copied().filter(fits).collect()
    };
    joins.into_values().map(|cost| Level { rules: allowed(&cost), cost }).collect()
}

/// The price of a cost vector.
pub(super) fn price_of(prices: &Prices, cost: &[f64]) -> f64 {
    prices.cost.iter().zip(cost).map(|(multiplier, cost)| multiplier * cost).sum()
}

/// The part of a model that does not depend on prices: the rules worth considering, by class.
#[derive(Clone, Debug)]
pub(super) struct Options(Vec<ClassOptions>);

/// The rules of one class.
#[derive(Clone, Debug)]
pub(super) struct ClassOptions {
    /// The rules that no other one equals or betters for every head, in the objective and in every row.
    pub(super) rules: Vec<u8>,
    /// The levels over these rules, if the class has no limit.
    pub(super) levels: Vec<Level>,
}

impl Options {
    /// The options of every class of `model`. They hold for the relaxed model too.
    pub(super) fn new(model: &Model<'_>) -> Self {
        let options = |class: &Class| {
            let rules = undominated(model, class);
            let levels = if class.max_rules.is_none() {
                levels(model, &rules, class.heads().len())
            } else {
                Vec::new()
            };
            ClassOptions { rules, levels }
        };
        Self(model.problem.classes.par_iter().map(options).collect())
    }

    /// The options of class `class`.
    pub(super) fn of(&self, class: usize) -> &ClassOptions {
        &self.0[class]
    }
}

/// The rules of a class that no other one makes useless. Replacing a useless rule everywhere in the class never makes
/// it use more rules.
fn undominated(model: &Model<'_>, class: &Class) -> Vec<u8> {
    let rules = model.problem.rules;
    let losses: Vec<&[f64]> = model.losses().map(|at| model.problem.losses[at].as_slice()).collect();
    let no_worse = |a: usize, b: usize| {
        model.costs.iter().all(|row| row[a] <= row[b])
            && losses
                .iter()
                .all(|losses| class.heads().all(|head| losses[head * rules + a] <= losses[head * rules + b]))
    };
    let useless = |b: usize| (0..rules).any(|a| a != b && no_worse(a, b) && (a < b || !no_worse(b, a)));
    (0..rules).filter(|&rule| !useless(rule)).map(|rule| rule as u8).collect()
}

/// A class at given prices.
pub(super) struct Pricing<'a> {
    pub(super) model: &'a Model<'a>,
    pub(super) prices: &'a Prices,
    pub(super) options: &'a ClassOptions,
    pub(super) class: &'a Class,
}

/// The bounds that hold once some rules are in the set.
#[derive(Clone, Default)]
struct Node {
    /// The cheapest value of each unit so far.
    units: Vec<f64>,
    /// For each subset of the set, the join of its costs and then each head's cheapest price in it. Only kept for
    /// classes with units of several heads.
    subsets: Vec<Vec<f64>>,
}

impl Pricing<'_> {
    /// The price of a head under a rule, the unit's cost aside.
    pub(super) fn head(&self, head: usize, rule: u8) -> f64 {
        self.prices.head[head * self.model.problem.rules + usize::from(rule)]
    }

    fn shared_units(&self) -> bool {
        self.class.units.iter().any(|unit| unit.len() > 1)
    }

    /// The levels that the units of the class can reach with `set`.
    pub(super) fn levels(&self, set: &[u8]) -> Vec<Level> {
        if self.class.max_rules.is_none() {
            return self.options.levels.clone();
        }
        let heads = self.class.units.iter().map(ExactSizeIterator::len).max().unwrap_or(0);
        levels(self.model, set, heads)
    }

    /// The cheapest value of the class, and its rules by head.
    pub(super) fn cheapest(&self) -> (f64, Vec<u8>) {
        let mut best = (f64::INFINITY, Vec::new());
        self.sweep(f64::INFINITY, &mut |set, value| {
            if value < best.0 {
                best = (value, set.to_vec());
            }
            best.0
        });
        let rules = self.choose(&best.1);
        (best.0, rules)
    }

    /// The cheapest rules by head within a set.
    fn choose(&self, set: &[u8]) -> Vec<u8> {
        let levels = self.levels(set);
        let mut rules = Vec::new();
        for unit in &self.class.units {
            let mut best = (f64::INFINITY, Vec::new());
            for level in &levels {
                let mut value = price_of(self.prices, &level.cost);
                let mut heads = Vec::with_capacity(unit.len());
                for head in unit.clone() {
                    let cheapest = level.rules.iter().map(|&rule| (self.head(head, rule), rule));
                    let (price, rule) =
                        cheapest.fold((f64::INFINITY, 0), |a, b| if b.0 < a.0 { b } else { a });
                    value += price;
                    heads.push(rule);
                }
                if value < best.0 {
                    best = (value, heads);
                }
            }
            rules.extend(best.1);
        }
        rules
    }

    /// Calls `visit` with each set whose cheapest value is at most the threshold, and that value. `visit` returns
    /// the threshold from then on.
    pub(super) fn sweep(&self, threshold: f64, visit: &mut dyn FnMut(&[u8], f64) -> f64) {
        let Some(max_rules) = self.class.max_rules else {
            let unit = self.class.heads();
            let mut best = f64::INFINITY;
            for level in &self.options.levels {
                let heads = unit.clone().map(|head| {
                    level.rules.iter().map(|&rule| self.head(head, rule)).fold(f64::INFINITY, f64::min)
                });
                best = best.min(price_of(self.prices, &level.cost) + heads.sum::<f64>());
            }
            if best <= threshold {
                visit(&self.options.rules, best);
            }
            return;
        };
        let rules = &self.options.rules;
        let shared = self.shared_units();
        // [place in rules][unit]: what the units could reach with that rule and all later ones. Not known for shared
        // units.
        let mut later = vec![vec![f64::NEG_INFINITY; self.class.units.len()]; rules.len() + 1];
        if !shared {
            later[rules.len()].fill(f64::INFINITY);
            for (place, &rule) in rules.iter().enumerate().rev() {
                for (unit, range) in self.class.units.iter().enumerate() {
                    let single = self.head(range.start, rule) + self.prices.rule[usize::from(rule)];
                    later[place][unit] = later[place + 1][unit].min(single);
                }
            }
        }
        let mut nodes = vec![Node::default(); max_rules + 1];
        nodes[0].units = vec![f64::INFINITY; self.class.units.len()];
        let heads = self.class.heads().len();
        let mut empty = vec![0.0; self.model.costs.len()];
        empty.extend(std::iter::repeat_n(f64::INFINITY, heads));
        nodes[0].subsets = if shared { vec![empty] } else { Vec::new() };
        let mut sweep = Sweep { pricing: self, later: &later, shared, threshold, set: Vec::new(), visit };
        sweep.descend(&mut nodes, 0);
    }
}

/// The state of one depth-first sweep over sets of rules.
struct Sweep<'a, 'v> {
    pricing: &'a Pricing<'a>,
    later: &'a [Vec<f64>],
    shared: bool,
    threshold: f64,
    set: Vec<u8>,
    visit: &'v mut dyn FnMut(&[u8], f64) -> f64,
}

impl Sweep<'_, '_> {
    /// Extends the set of `nodes[0]` by each rule from `first` on.
    fn descend(&mut self, nodes: &mut [Node], first: usize) {
        let (here, deeper) = nodes.split_at_mut(1);
        let more = deeper.len() > 1;
        let rules = &self.pricing.options.rules;
        for (place, &rule) in rules.iter().enumerate().skip(first) {
            let value = self.extend(&here[0], usize::from(rule), &mut deeper[0], more);
            self.set.push(rule);
            if value <= self.threshold {
                self.threshold = (self.visit)(&self.set, value);
            }
            if more {
                let reach = deeper[0].units.iter().zip(&self.later[place + 1]);
                if reach.map(|(now, later)| now.min(*later)).sum::<f64>() <= self.threshold {
                    self.descend(deeper, place + 1);
                }
            }
            self.set.pop();
        }
    }

    /// Adds `rule` to the set of `from` and returns the value of the larger set.
    fn extend(&self, from: &Node, rule: usize, to: &mut Node, keep_subsets: bool) -> f64 {
        let Pricing { model, prices, class, .. } = self.pricing;
        let rules = model.problem.rules;
        let first = class.heads().start;
        to.units.clear();
        if !self.shared {
            let single =
                |unit: &std::ops::Range<usize>| prices.head[unit.start * rules + rule] + prices.rule[rule];
            to.units.extend(from.units.iter().zip(&class.units).map(|(now, unit)| now.min(single(unit))));
            return to.units.iter().sum();
        }
        to.units.extend_from_slice(&from.units);
        to.subsets.clear();
        if keep_subsets {
            to.subsets.extend_from_slice(&from.subsets);
        }
        let rows = model.costs.len();
        for subset in &from.subsets {
            let (cost, cheapest) = subset.split_at(rows);
            let join = |row: usize| cost[row].max(model.costs[row][rule]);
            let head = |head: usize| cheapest[head].min(prices.head[(first + head) * rules + rule]);
            let price: f64 =
                prices.cost.iter().enumerate().map(|(row, multiplier)| multiplier * join(row)).sum();
            for (value, unit) in to.units.iter_mut().zip(&class.units) {
                let heads: f64 = (unit.start - first..unit.end - first).map(head).sum();
                *value = value.min(price + heads);
            }
            if keep_subsets {
                to.subsets.push((0..rows).map(join).chain((0..cheapest.len()).map(head)).collect());
            }
        }
        to.units.iter().sum()
    }
}
