//! Several losses at once by the epsilon-constraint method: the assignments that no other assignment beats in every
//! loss.
//!
//! Each loss is minimised alone first, and then, within the gap of that minimum, the others: that gives the range of
//! every loss (minimised alone, a loss leaves the others anywhere). Then all are minimised together, each relative to its
//! minimum: a plan that is good at all of its lengths, however few others are asked for. Then each loss is minimised again under
//! every combination of caps on the others, the caps being the upper ends of equal intervals of their ranges: with
//! three losses and four intervals, 3 + 3 x 16 = 51 solves, as many as the published method makes, and 4 for the ranges and
//! the losses together. A solve whose answer is already known, because a looser one met the tighter caps, is not repeated.

use std::ops::ControlFlow;

use super::problem::{Assignment, Goal, Problem};
use super::solve::{Solution, SolveError, SolveOptions, Status, solve};

/// One assignment of a Pareto set.
#[derive(Clone, Debug, PartialEq)]
pub struct ParetoPoint {
    /// The losses whose sum was minimised when this assignment was found, each with its weight: one, or all.
    pub weights: Vec<(usize, f64)>,
    /// The caps on other losses then: `(index, cap)`.
    pub loss_caps: Vec<(usize, f64)>,
    /// The assignment and its proof.
    pub solution: Solution,
    /// Every loss of it.
    pub losses: Vec<f64>,
}

/// A Pareto set and how it was found.
#[derive(Clone, Debug, PartialEq)]
pub struct ParetoSet {
    /// Ascending by the first loss, then the second, ...; none is better than another in every loss.
    pub points: Vec<ParetoPoint>,
    /// Combinations that were solved.
    pub solved: usize,
    /// Combinations answered by an earlier solve.
    pub reused: usize,
    /// Combinations whose caps are proven impossible together.
    pub infeasible: usize,
    /// Combinations without an answer within the limits.
    pub unanswered: usize,
}

/// Finds the Pareto set of `objectives` under the cost caps. `progress` gets combinations done and in all.
pub fn pareto_set(
    problem: &Problem,
    objectives: &[usize],
    cost_caps: &[f64],
    intervals: usize,
    options: &SolveOptions,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<ParetoSet, SolveError> {
    let mut tell = |done, all| match progress(done, all) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(SolveError::Stopped { done, all }),
    };
    let others = objectives.len().saturating_sub(1);
    let combinations = if others == 0 { 0 } else { intervals.saturating_pow(others as u32) };
    let together = usize::from(others > 0);
    let total = (objectives.len() + together).saturating_add(objectives.len().saturating_mul(combinations));
    let mut set = ParetoSet { points: Vec::new(), solved: 0, reused: 0, infeasible: 0, unanswered: 0 };
    let mut known: Vec<Assignment> = Vec::new();
    let mut done = 0;
    for &primary in objectives {
        let (solution, solves) = minimise(problem, objectives, primary, cost_caps, options, &known)?;
        known.push(solution.assignment.clone());
        set.solved += solves;
        set.points.push(point(problem, vec![(primary, 1.0)], Vec::new(), solution));
        done += 1;
        tell(done, total)?;
    }
    let range = |objective: usize| {
        let losses = set.points.iter().map(|point| point.losses[objective]);
        losses.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), loss| (low.min(loss), high.max(loss)))
    };
    let ranges: Vec<(f64, f64)> = (0..problem.losses.len()).map(range).collect();
    if others > 0 {
        let weights =
            objectives.iter().map(|&objective| (objective, relative(ranges[objective].0))).collect();
        let goal = Goal { weights, cost_caps: cost_caps.to_vec(), loss_caps: Vec::new() };
        let solution = solve(problem, &goal, options, &known)?;
        known.push(solution.assignment.clone());
        set.solved += 1;
        set.points.push(point(problem, goal.weights, Vec::new(), solution));
        done += 1;
        tell(done, total)?;
    }
    for &primary in objectives {
        // From the loosest combination to the tightest, so that a known answer comes before those it settles.
        for combination in 0..combinations {
            let mut digits = combination;
            let caps = objectives.iter().filter(|&&other| other != primary).map(|&other| {
                let step = (intervals - digits % intervals) as f64 / intervals as f64;
                digits /= intervals;
                let (low, high) = ranges[other];
                (other, (high - low).mul_add(step, low))
            });
            let goal = Goal { loss_caps: caps.collect(), ..Goal::single(primary, cost_caps) };
            if set.points.iter().any(|point| settles(point, primary, &goal.loss_caps)) {
                set.reused += 1;
            } else {
                match solve(problem, &goal, options, &known) {
                    Ok(solution) => {
                        known.push(solution.assignment.clone());
                        set.solved += 1;
                        set.points.push(point(problem, goal.weights, goal.loss_caps, solution));
                    }
                    Err(SolveError::Infeasible { .. }) => set.infeasible += 1,
                    Err(SolveError::NotFound { .. }) => set.unanswered += 1,
                    Err(stopped @ SolveError::Stopped { .. }) => return Err(stopped),
                }
            }
            done += 1;
            tell(done, total)?;
        }
    }
    set.points = undominated(std::mem::take(&mut set.points), objectives);
    Ok(set)
}

/// Minimises one objective and then, within the gap of its minimum, the sum of the others relative to their size.
/// Also returns the number of solves.
fn minimise(
    problem: &Problem,
    objectives: &[usize],
    primary: usize,
    cost_caps: &[f64],
    options: &SolveOptions,
    known: &[Assignment],
) -> Result<(Solution, usize), SolveError> {
    let first = solve(problem, &Goal::single(primary, cost_caps), options, known)?;
    let others = objectives.iter().filter(|&&other| other != primary);
    let weight = |&other: &usize| (other, relative(problem.loss(other, &first.assignment)));
    let weights: Vec<(usize, f64)> = others.map(weight).collect();
    if weights.is_empty() {
        return Ok((first, 1));
    }
    // As much more loss as keeps the proven gap within the asked one.
    let cap = first.loss.max(options.gap.mul_add(first.bound.abs(), first.bound));
    let goal = Goal { weights, cost_caps: cost_caps.to_vec(), loss_caps: vec![(primary, cap)] };
    match solve(problem, &goal, options, std::slice::from_ref(&first.assignment)) {
        Ok(second) => {
            let loss = problem.loss(primary, &second.assignment);
            let found = Solution { loss, status: first.status, bound: first.bound.min(loss), ..second };
            // The gap is that of the first; the second only chose among what lies within it.
            let status = if found.gap() == 0.0 { Status::Optimal } else { found.status };
            Ok((Solution { status, ..found }, 2))
        }
        Err(_) => Ok((first, 2)),
    }
}

/// The weight of a loss that counts relative to its `size`.
fn relative(size: f64) -> f64 {
    1.0 / size.abs().max(f64::MIN_POSITIVE)
}

fn point(
    problem: &Problem,
    weights: Vec<(usize, f64)>,
    loss_caps: Vec<(usize, f64)>,
    solution: Solution,
) -> ParetoPoint {
    let losses =
        (0..problem.losses.len()).map(|objective| problem.loss(objective, &solution.assignment)).collect();
    ParetoPoint { weights, loss_caps, solution, losses }
}

/// Whether a known answer is also the answer under `caps`: it was found under looser ones and meets these.
fn settles(known: &ParetoPoint, primary: usize, caps: &[(usize, f64)]) -> bool {
    let cap = |caps: &[(usize, f64)], objective: usize| {
        caps.iter().find(|(other, _)| *other == objective).map_or(f64::INFINITY, |(_, cap)| *cap)
    };
    let looser = |&(objective, most): &(usize, f64)| cap(caps, objective) <= most;
    let meets = |&(objective, most): &(usize, f64)| known.losses[objective] <= most;
    known.weights == [(primary, 1.0)] && known.loss_caps.iter().all(looser) && caps.iter().all(meets)
}

/// The points that no other one equals or beats in every objective.
fn undominated(mut points: Vec<ParetoPoint>, objectives: &[usize]) -> Vec<ParetoPoint> {
    let compare = |a: &ParetoPoint, b: &ParetoPoint| {
        let by_loss = objectives.iter().map(|&at| a.losses[at].total_cmp(&b.losses[at]));
        by_loss.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
    };
    points.sort_by(|a, b| compare(a, b).then_with(|| a.solution.assignment.cmp(&b.solution.assignment)));
    // In this order a point can only be beaten by an earlier one.
    let mut kept: Vec<ParetoPoint> = Vec::new();
    for point in points {
        let beaten = |by: &ParetoPoint| objectives.iter().all(|&at| by.losses[at] <= point.losses[at]);
        if !kept.iter().any(beaten) {
            kept.push(point);
        }
    }
    kept
}
