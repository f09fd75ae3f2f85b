//! Columns: ways to choose the rules of one class, and all those within a distance of the cheapest.

use std::collections::BinaryHeap;

use super::model::Totals;
use super::price::{Level, Pricing, price_of};

/// One way to choose the rules of a class.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Column {
    /// The rule of each head of the class.
    pub(super) rules: Vec<u8>,
    /// Its contribution to the model.
    pub(super) totals: Totals,
    /// Its price above the class's cheapest.
    pub(super) reduced: f64,
}

/// The columns of a class near its cheapest, by ascending reduced price.
#[derive(Clone, Debug)]
pub(super) struct Near {
    /// No two choose the same rules, and none is worse than another in everything.
    pub(super) columns: Vec<Column>,
    /// Every column with a smaller reduced price than this is here, or one that is at least as good in everything.
    pub(super) complete_below: f64,
}

/// A choice on the heap, the largest price on top.
struct Choice(f64, Vec<u8>);

impl PartialEq for Choice {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Choice {}
impl PartialOrd for Choice {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Choice {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0).then_with(|| self.1.cmp(&other.1))
    }
}

/// The columns of the class within `distance` of its cheapest value `cheapest`: all, or the `limit` nearest.
pub(super) fn near(pricing: &Pricing<'_>, cheapest: f64, distance: f64, limit: usize) -> Near {
    let mut sets = Vec::new();
    // A little beyond, so that rounding never loses a column at the very edge.
    let distance = distance + 1e-9 * (1.0 + cheapest.abs());
    pricing.sweep(cheapest + distance, &mut |set, value| {
        sets.push((value, set.to_vec()));
        cheapest + distance
    });
    sets.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
    let mut search = Enumeration {
        pricing,
        threshold: cheapest + distance,
        limit,
        heap: BinaryHeap::new(),
        rules: Vec::new(),
    };
    for (value, set) in &sets {
        if *value > search.threshold {
            break;
        }
        search.set(set);
    }
    let complete_below = if search.heap.len() == limit { search.threshold - cheapest } else { distance };
    let column = |Choice(price, rules): Choice| Column {
        totals: pricing.model.class_totals(pricing.class, &rules),
        reduced: price - cheapest,
        rules,
    };
    let columns = search.heap.into_sorted_vec().into_iter().map(column).collect();
    Near { columns: undominated(columns), complete_below }
}

/// Drops every column that another one equals or betters in the objective and in every row.
pub(super) fn undominated(columns: Vec<Column>) -> Vec<Column> {
    let mut kept: Vec<Column> = Vec::new();
    // A dominating column has a reduced price no larger, so it comes no later; equal ones keep the first.
    for column in columns {
        if !kept.iter().any(|better| dominates(&better.totals, &column.totals)) {
            kept.push(column);
        }
    }
    kept
}

fn dominates(a: &Totals, b: &Totals) -> bool {
    a.objective <= b.objective && a.rows.iter().zip(&b.rows).all(|(a, b)| a <= b)
}

struct Enumeration<'a> {
    pricing: &'a Pricing<'a>,
    threshold: f64,
    limit: usize,
    heap: BinaryHeap<Choice>,
    rules: Vec<u8>,
}

/// One way to choose the rules of a unit.
struct Part {
    price: f64,
    totals: Totals,
    rules: Vec<u8>,
    used: u128,
}

impl Enumeration<'_> {
    /// Adds the choices that use exactly the rules of `set` (all rules: any).
    fn set(&mut self, set: &[u8]) {
        let levels = self.pricing.levels(set);
        let units = &self.pricing.class.units;
        // The cheapest of each unit, and what is left to spend on one unit when the others are at their cheapest.
        let floors: Vec<f64> = units.iter().map(|unit| self.unit_floor(unit.clone(), &levels)).collect();
        let spare = self.threshold - floors.iter().sum::<f64>();
        let parts: Vec<Vec<Part>> = units
            .iter()
            .zip(&floors)
            .map(|(unit, floor)| self.parts(unit.clone(), &levels, floor + spare))
            .collect();
        let wanted = match self.pricing.class.max_rules {
            Some(_) => set.iter().fold(0, |mask, &rule| mask | 1u128 << rule),
            None => 0,
        };
        let mut after = vec![0.0; units.len() + 1];
        for unit in (0..units.len()).rev() {
            after[unit] = after[unit + 1] + floors[unit];
        }
        self.rules.clear();
        self.combine(&parts, &after, 0.0, 0, wanted);
    }

    fn unit_floor(&self, unit: std::ops::Range<usize>, levels: &[Level]) -> f64 {
        let value = |level: &Level| {
            let head = |head| {
                level.rules.iter().map(|&rule| self.pricing.head(head, rule)).fold(f64::INFINITY, f64::min)
            };
            price_of(self.pricing.prices, &level.cost) + unit.clone().map(head).sum::<f64>()
        };
        levels.iter().map(value).fold(f64::INFINITY, f64::min)
    }

    /// The ways to choose a unit's rules at a price of at most `most`, by ascending price.
    fn parts(&self, unit: std::ops::Range<usize>, levels: &[Level], most: f64) -> Vec<Part> {
        let mut parts = Vec::new();
        let mut rules = Vec::new();
        for level in levels {
            let price = price_of(self.pricing.prices, &level.cost);
            let cheapest: Vec<f64> = unit
                .clone()
                .map(|head| {
                    level
                        .rules
                        .iter()
                        .map(|&rule| self.pricing.head(head, rule))
                        .fold(f64::INFINITY, f64::min)
                })
                .collect();
            let floor = price + cheapest.iter().sum::<f64>();
            if floor <= most {
                self.heads(unit.start, &cheapest, level, price, floor, most, &mut rules, &mut parts);
            }
        }
        parts.sort_by(|a, b| a.price.total_cmp(&b.price));
        let mut kept: Vec<Part> = Vec::new();
        // A part that another one equals or betters is not needed: with the better one the column uses no more rules.
        for part in parts {
            if !kept.iter().any(|better| dominates(&better.totals, &part.totals)) {
                kept.push(part);
            }
        }
        kept
    }

    /// Extends `rules` by every rule of the next head that stays within `most`.
    #[allow(clippy::too_many_arguments)]
    fn heads(
        &self,
        head: usize,
        cheapest: &[f64],
        level: &Level,
        price: f64,
        floor: f64,
        most: f64,
        rules: &mut Vec<u8>,
        parts: &mut Vec<Part>,
    ) {
        let Some((least, rest)) = cheapest.split_first() else {
            // A unit whose heads stay below the level belongs to a lower one.
            let reaches = level
                .cost
                .iter()
                .zip(&self.pricing.model.costs)
                .all(|(cost, row)| rules.iter().any(|&rule| row[usize::from(rule)] >= *cost));
            if reaches {
                let used = rules.iter().fold(0, |mask, &rule| mask | 1u128 << rule);
                let unit = head - rules.len()..head;
                let totals = self.pricing.model.unit_totals(&unit, rules);
                parts.push(Part { price, totals, rules: rules.clone(), used });
            }
            return;
        };
        for &rule in &level.rules {
            let paid = self.pricing.head(head, rule);
            let floor = floor - least + paid;
            if floor <= most {
                rules.push(rule);
                self.heads(head + 1, rest, level, price + paid, floor, most, rules, parts);
                rules.pop();
            }
        }
    }

    /// Combines the parts of the units from `after.len() - 1 - ...` on.
    fn combine(&mut self, parts: &[Vec<Part>], after: &[f64], price: f64, used: u128, wanted: u128) {
        let Some((unit, rest)) = parts.split_first() else {
            if used & wanted == wanted {
                self.offer(price);
            }
            return;
        };
        for part in unit {
            if price + part.price + after[1] > self.threshold {
                break;
            }
            let length = self.rules.len();
            self.rules.extend_from_slice(&part.rules);
            self.combine(rest, &after[1..], price + part.price, used | part.used, wanted);
            self.rules.truncate(length);
        }
    }

    fn offer(&mut self, price: f64) {
        if self.heap.len() == self.limit {
            if price >= self.threshold {
                return;
            }
            self.heap.pop();
        }
        self.heap.push(Choice(price, self.rules.clone()));
        if self.heap.len() == self.limit
            && let Some(Choice(largest, _)) = self.heap.peek()
        {
            self.threshold = *largest;
        }
    }
}
