//! The Lagrangian dual of a model by cutting planes: multipliers of the rows, and a proven lower bound.
//!
//! At given multipliers, every class is priced exactly and independently, so the priced total minus the value of the
//! caps is a lower bound for any multipliers. Each pricing also gives a cut, because the bound, as a function of the
//! multipliers, lies below it; the next multipliers come from the linear program over the cuts. There are few rows,
//! so that program is tiny for any number of heads.

use std::time::Instant;

use rayon::prelude::*;

use super::lp::{Constraint, Program, Solver};
use super::model::{Model, Prices, Totals};
use super::price::{Options, Pricing};
use super::problem::Assignment;

/// A climb ends after this many pricings; a few dozen are usual.
const MOST_CUTS: usize = 400;
/// A climb ends when the cuts leave less than this share of the bound to gain.
const CLOSE: f64 = 1e-8;
/// Multipliers beyond this many times their natural size are not tried.
const MOST_GROWTH: f64 = 1e12;

/// Every class at its cheapest under given multipliers.
#[derive(Clone, Debug)]
pub(super) struct Evaluation {
    /// One for each row.
    pub(super) multipliers: Vec<f64>,
    /// The prices they make.
    pub(super) prices: Prices,
    /// The cheapest value of each class.
    pub(super) cheapest: Vec<f64>,
    /// The proven lower bound.
    pub(super) bound: f64,
    /// The cheapest assignment, which need not meet the caps.
    pub(super) assignment: Assignment,
    /// Its totals.
    pub(super) totals: Totals,
}

/// Prices every class at `multipliers`.
pub(super) fn evaluate(model: &Model<'_>, options: &Options, multipliers: Vec<f64>) -> Evaluation {
    let prices = Prices::new(model, &multipliers);
    let classes: Vec<(f64, Vec<u8>)> = model
        .problem
        .classes
        .par_iter()
        .with_min_len(4)
        .enumerate()
        .map(|(at, class)| Pricing { model, prices: &prices, options: options.of(at), class }.cheapest())
        .collect();
    let cheapest: Vec<f64> = classes.iter().map(|(value, _)| *value).collect();
    let assignment: Assignment = classes.into_iter().flat_map(|(_, rules)| rules).collect();
    let totals = model.totals(&assignment);
    let worth: f64 = model.rows.iter().zip(&multipliers).map(|(row, multiplier)| row.cap * multiplier).sum();
    let bound = cheapest.iter().sum::<f64>() - worth;
    Evaluation { multipliers, prices, cheapest, bound, assignment, totals }
}

/// Climbs to the best multipliers and returns the evaluation with the highest bound. `enough` sees every evaluation;
/// true ends the climb.
pub(super) fn climb(
    model: &Model<'_>,
    options: &Options,
    solver: Solver,
    deadline: Option<Instant>,
    enough: &mut dyn FnMut(&Evaluation) -> bool,
) -> Evaluation {
    let rows = model.rows.len();
    let mut best = evaluate(model, options, vec![0.0; rows]);
    if enough(&best) || rows == 0 {
        return best;
    }
    // The assignment that meets the rows best, whatever its objective: a cut, and the size of the multipliers.
    let dear = model.totals(&evaluate(&model.relaxed(), options, vec![1.0; rows]).assignment);
    let natural = (dear.objective - best.totals.objective).abs().max(1e-12 * dear.objective.abs()).max(1e-30);
    let mut most = model.penalty().unwrap_or(10.0 * natural);
    let mut cuts = vec![best.totals.clone(), dear];
    let most_possible = model.most();
    let mut cautious = true;
    while cuts.len() < MOST_CUTS && deadline.is_none_or(|deadline| Instant::now() < deadline) {
        let Some((ceiling, peak)) = highest(model, &cuts, most, natural, solver) else { break };
        if ceiling - best.bound <= CLOSE * best.bound.abs().max(CLOSE * natural) {
            // A peak at the edge of the box may hide a higher one beyond.
            let edge = model.penalty().is_none() && peak.iter().any(|&value| value >= 0.999 * most);
            if edge && most < MOST_GROWTH * natural {
                most *= 100.0;
                continue;
            }
            break;
        }
        // Every other step goes only halfway from the best so far to the cuts' peak: the peak alone jumps from corner
        // to corner, and halfway alone creeps.
        let next = if cautious {
            best.multipliers.iter().zip(&peak).map(|(best, peak)| 0.5 * (best + peak)).collect()
        } else {
            peak
        };
        let evaluation = evaluate(model, options, next);
        cuts.push(evaluation.totals.clone());
        let done = enough(&evaluation);
        cautious = !cautious;
        if evaluation.bound > best.bound {
            best = evaluation;
        }
        // A bound above every assignment's objective: none meets the rows, and the climb would never end.
        if done || (!model.relaxed && best.bound > most_possible) {
            break;
        }
    }
    best
}

/// The peak of the cuts: its height and its multipliers, each in `0..=most`.
fn highest(
    model: &Model<'_>,
    cuts: &[Totals],
    most: f64,
    scale: f64,
    solver: Solver,
) -> Option<(f64, Vec<f64>)> {
    let rows = model.rows.len();
    let mut program = Program::default();
    // Multipliers in units of `scale`, then the height in the same unit, maximised.
    program.variables.extend(std::iter::repeat_n((0.0, 0.0, most / scale, false), rows));
    program.variables.push((-1.0, f64::NEG_INFINITY, f64::INFINITY, false));
    for cut in cuts {
        let mut terms: Vec<(usize, f64)> =
            model.rows.iter().zip(&cut.rows).map(|(row, total)| row.cap - total).enumerate().collect();
        terms.push((rows, 1.0));
        program.rows.push(Constraint { terms, most: cut.objective / scale, equal: false });
    }
    let point = program.solve(solver, None).ok()??;
    let height = point.values[rows] * scale;
    Some((height, point.values[..rows].iter().map(|value| value.max(0.0) * scale).collect()))
}
