//! The solver against every assignment of tiny problems.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Duration;

use super::go_on;
use super::instances::{Size, random};
use crate::search::pareto::pareto_set;
use crate::search::problem::{Goal, Problem};
use crate::search::solve::{ShortRow, SolveError, SolveOptions, Status, solve};
use crate::search::synthetic::{Stream, Synthetic, shape};
use crate::search::tables::{Bound, Cost, Granularity, Space, Tables};

/// Calls `visit` with every assignment that keeps the limits on distinct rules.
fn every(problem: &Problem, visit: &mut dyn FnMut(&[u8])) {
    let mut assignment = vec![0u8; problem.heads];
    loop {
        let few = |class: &crate::search::problem::Class| {
            let used: BTreeSet<u8> = assignment[class.heads()].iter().copied().collect();
            class.max_rules.is_none_or(|most| used.len() <= most)
        };
        if problem.classes.iter().all(few) {
            visit(&assignment);
        }
        let Some(head) = assignment.iter().position(|&rule| usize::from(rule) + 1 < problem.rules) else {
            break;
        };
        assignment[..head].fill(0);
        assignment[head] += 1;
    }
}

fn meets(problem: &Problem, goal: &Goal, assignment: &[u8]) -> bool {
    let cost = |(row, cap): (usize, &f64)| problem.cost(row, assignment) <= cap + 1e-6;
    goal.cost_caps.iter().enumerate().all(cost)
        && goal.loss_caps.iter().all(|&(objective, cap)| problem.loss(objective, assignment) <= cap + 1e-9)
}

fn exact() -> SolveOptions {
    SolveOptions { gap: 0.0, ..SolveOptions::default() }
}

#[test]
fn tiny_problems_are_solved_exactly() {
    let wide = Size { layers: 2, units: 2, heads: 2, rules: 3, costs: 3 };
    let deep = Size { layers: 1, units: 2, heads: 2, rules: 6, costs: 2 };
    let (mut feasible, mut infeasible) = (0, 0);
    for seed in 0..300 {
        let (problem, goal) = random(seed, if seed % 2 == 0 { &wide } else { &deep });
        let mut best = f64::INFINITY;
        every(&problem, &mut |assignment| {
            if meets(&problem, &goal, assignment) {
                best = best.min(problem.loss(0, assignment));
            }
        });
        match solve(&problem, &goal, &exact(), &[]) {
            Ok(solution) => {
                feasible += 1;
                assert!(
                    (solution.loss - best).abs() <= 1e-9,
                    "seed {seed}: {} but {best} is possible",
                    solution.loss
                );
                assert!(meets(&problem, &goal, &solution.assignment), "seed {seed}: a cap is exceeded");
                assert!((problem.loss(0, &solution.assignment) - solution.loss).abs() <= 1e-12);
                assert_eq!(solution.status, Status::Optimal, "seed {seed}");
                assert!(solution.bound <= solution.loss && solution.gap() <= 1e-9, "seed {seed}");
            }
            Err(SolveError::Infeasible { short, alone }) => {
                infeasible += 1;
                assert!(best.is_infinite(), "seed {seed}: called infeasible, but {best} is possible");
                check_shortfall(&problem, &short, alone);
            }
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
    assert!(feasible >= 100 && infeasible >= 20, "{feasible} feasible and {infeasible} infeasible problems");
}

/// A cap that is impossible alone is reported with exactly the least it can be.
fn check_shortfall(problem: &Problem, short: &[crate::search::solve::Shortfall], alone: bool) {
    assert!(!short.is_empty());
    for shortfall in short {
        let of = |assignment: &[u8]| match shortfall.row {
            ShortRow::Cost(row) => problem.cost(row, assignment),
            ShortRow::Loss(objective) => problem.loss(objective, assignment),
        };
        let mut least = f64::INFINITY;
        every(problem, &mut |assignment| least = least.min(of(assignment)));
        assert!(shortfall.least > shortfall.cap, "{shortfall:?} is met");
        if alone {
            assert!((shortfall.least - least).abs() <= 1e-9, "{shortfall:?}, but {least} is possible");
        }
    }
}

#[test]
fn the_pareto_set_of_a_tiny_problem_is_complete_at_its_corners() {
    for seed in 0..40 {
        let (mut problem, mut goal) =
            random(seed, &Size { layers: 2, units: 2, heads: 1, rules: 4, costs: 1 });
        let mut stream = Stream::new(seed);
        problem.losses.push(problem.losses[0].iter().map(|loss| loss * stream.between(0.2, 2.0)).collect());
        goal.cost_caps = problem.costs.iter().map(|row| problem.units() as f64 * row[0]).collect();
        let mut all: Vec<Vec<f64>> = Vec::new();
        every(&problem, &mut |assignment| {
            if meets(&problem, &Goal { loss_caps: Vec::new(), ..goal.clone() }, assignment) {
                all.push((0..3).map(|objective| problem.loss(objective, assignment)).collect());
            }
        });
        let mut steps = Vec::new();
        let set = pareto_set(&problem, &[0, 1, 2], &goal.cost_caps, 4, &exact(), &mut |done, total| {
            assert_eq!(total, 52);
            steps.push(done);
            ControlFlow::Continue(())
        });
        let set = set.expect("the caps allow the first rule everywhere");
        assert_eq!(steps, (1..=52).collect::<Vec<_>>());
        for objective in 0..3 {
            let best = all.iter().map(|losses| losses[objective]).fold(f64::INFINITY, f64::min);
            let found = set.points.iter().map(|point| point.losses[objective]).fold(f64::INFINITY, f64::min);
            assert!(
                (best - found).abs() <= 1e-9,
                "seed {seed}: loss {objective} is {found}, {best} is possible"
            );
        }
        for point in &set.points {
            // Every point has the least objective under its caps.
            let within =
                |losses: &&Vec<f64>| point.loss_caps.iter().all(|&(at, cap)| losses[at] <= cap + 1e-9);
            let of = |losses: &Vec<f64>| {
                point.weights.iter().map(|&(at, weight)| weight * losses[at]).sum::<f64>()
            };
            let least = all.iter().filter(within).map(of).fold(f64::INFINITY, f64::min);
            assert!(
                (of(&point.losses) - least).abs() <= 1e-8 * least.abs().max(1.0),
                "seed {seed}: {point:?} against {least}"
            );
            for other in &set.points {
                let beaten = (0..3).all(|at| other.losses[at] <= point.losses[at]);
                assert!(other == point || !beaten, "seed {seed}: {other:?} beats {point:?}");
            }
        }
    }
}

fn tables(per: Granularity, cost: Cost, max_rules: Option<usize>, fraction: f64) -> Tables {
    let model = Synthetic::new(shape("small", 6, 8, 2), 7);
    let lengths = [512, 1024];
    let rules = crate::search::rules::RuleGrid::published(1024).rules();
    let bounds = lengths.iter().map(|&length| Bound { length, fraction }).collect();
    let space = Space { rules, sink: 64, min_span: 128, per, cost, bounds, max_rules };
    Tables::new(model.model(), &lengths, space, &|at, head| model.losses(head, lengths[at], 1))
        .expect("a valid space")
}

#[test]
fn more_freedom_never_costs_loss() {
    let loss = |per, cost, max_rules| {
        let tables = tables(per, cost, max_rules, 0.4);
        solve(&tables.problem, &Goal::single(1, &tables.caps), &exact(), &[]).expect("feasible").loss
    };
    let by_limit: Vec<f64> = [Some(1), Some(2), Some(3), None]
        .into_iter()
        .map(|max_rules| loss(Granularity::KvHead, Cost::KvBytes, max_rules))
        .collect();
    assert!(by_limit.is_sorted_by(|tighter, looser| *tighter >= looser - 1e-12), "{by_limit:?}");
    // A KV head that keeps the longest span of its query heads gains nothing from shorter ones beside it.
    let per_head = loss(Granularity::Head, Cost::KvBytes, None);
    assert!((per_head - by_limit[3]).abs() <= 1e-9, "{per_head} against {}", by_limit[3]);
    assert!(loss(Granularity::Head, Cost::Density, None) <= per_head + 1e-12);
}

#[test]
fn a_time_limit_returns_the_best_so_far_with_its_gap() {
    let tables = tables(Granularity::KvHead, Cost::KvBytes, Some(2), 0.4);
    let goal = Goal::single(1, &tables.caps);
    let best = solve(&tables.problem, &goal, &exact(), &[]).expect("feasible");
    let options = SolveOptions { time_limit: Some(Duration::ZERO), ..exact() };
    let early = solve(&tables.problem, &goal, &options, &[]).expect("there is always an assignment");
    assert_eq!(early.status, Status::TimeLimit);
    assert!(early.gap() > 0.0 && early.loss >= best.loss && early.bound <= best.loss, "{early:?}");
    for (row, cap) in tables.caps.iter().enumerate() {
        assert!(tables.problem.cost(row, &early.assignment) <= *cap);
    }
}

#[test]
fn a_looser_gap_is_kept_and_proven() {
    for gap in [0.1, 0.01, 0.001] {
        let tables = tables(Granularity::KvHead, Cost::KvBytes, Some(2), 0.3);
        let goal = Goal::single(0, &tables.caps);
        let best = solve(&tables.problem, &goal, &exact(), &[]).expect("feasible").loss;
        let options = SolveOptions { gap, ..exact() };
        let found = solve(&tables.problem, &goal, &options, &[]).expect("feasible");
        assert!(found.gap() <= gap && found.bound <= best + 1e-12 && best <= found.loss + 1e-12, "{found:?}");
    }
}

#[test]
fn a_search_stops_between_solves() {
    let tables = tables(Granularity::KvHead, Cost::KvBytes, Some(2), 0.3);
    let mut stop = |done, _| if done < 2 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
    let stopped = pareto_set(&tables.problem, &[0, 1], &tables.caps, 4, &SolveOptions::default(), &mut stop);
    assert_eq!(stopped, Err(SolveError::Stopped { done: 2, all: 11 }));
}

#[test]
fn the_same_search_gives_the_same_answer() {
    let tables = tables(Granularity::KvHead, Cost::KvBytes, Some(2), 0.3);
    let run = || pareto_set(&tables.problem, &[0, 1], &tables.caps, 4, &SolveOptions::default(), &mut go_on);
    assert_eq!(run(), run());
}
