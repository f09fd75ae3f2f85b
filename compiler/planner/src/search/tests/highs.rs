//! The decomposed solver against `HiGHS` on the compact mixed program, written here from the problem's definition.

use good_lp::{Expression, ProblemVariables, ResolutionError, Solution as _, SolverModel, variable};

use super::instances::{Size, random};
use crate::search::Solver;
use crate::search::problem::{Goal, Problem};
use crate::search::solve::{SolveError, SolveOptions, solve};

/// The optimum by one program: a binary for each head and rule, one for each class and rule, and for each unit and
/// cost row what the unit pays.
fn compact(problem: &Problem, goal: &Goal) -> Option<f64> {
    let mut variables = ProblemVariables::new();
    let heads: Vec<Vec<_>> = (0..problem.heads)
        .map(|_| (0..problem.rules).map(|_| variables.add(variable().binary())).collect())
        .collect();
    let total = |objective: usize| {
        let mut sum = Expression::default();
        for (head, choices) in heads.iter().enumerate() {
            for (rule, &chosen) in choices.iter().enumerate() {
                sum.add_mul(problem.losses[objective][head * problem.rules + rule], chosen);
            }
        }
        sum
    };
    let mut rows = Vec::new();
    for choices in &heads {
        rows.push(choices.iter().sum::<Expression>().eq(1));
    }
    for class in &problem.classes {
        let used: Vec<_> = (0..problem.rules).map(|_| variables.add(variable().binary())).collect();
        if let Some(most) = class.max_rules {
            rows.push(used.iter().sum::<Expression>().leq(most as f64));
        }
        for head in class.heads() {
            for (rule, &used) in used.iter().enumerate() {
                rows.push((heads[head][rule] - used).leq(0));
            }
        }
    }
    for (costs, cap) in problem.costs.iter().zip(&goal.cost_caps) {
        let mut sum = Expression::default();
        for unit in problem.classes.iter().flat_map(|class| &class.units) {
            let paid = variables.add(variable().min(0));
            sum.add_mul(1.0, paid);
            for head in unit.clone() {
                for (rule, cost) in costs.iter().enumerate() {
                    rows.push((*cost / 64.0 * heads[head][rule] - paid).leq(0));
                }
            }
        }
        rows.push(sum.leq(cap / 64.0));
    }
    for &(objective, cap) in &goal.loss_caps {
        rows.push(total(objective).leq(cap));
    }
    let (objective, _) = goal.weights[0];
    let model = variables.minimise(total(objective)).using(good_lp::highs);
    let model =
        model.set_mip_rel_gap(0.0).expect("a gap of zero").set_mip_abs_gap(0.0).expect("a gap of zero");
    match model.with_all(rows).solve() {
        Ok(solution) => Some(solution.eval(total(objective))),
        Err(ResolutionError::Infeasible) => None,
        Err(error) => panic!("HiGHS failed: {error}"),
    }
}

#[test]
fn two_hundred_small_problems_agree_with_highs() {
    let size = Size { layers: 4, units: 4, heads: 3, rules: 8, costs: 3 };
    let (mut feasible, mut infeasible) = (0, 0);
    for seed in 1000..1200 {
        let (problem, goal) = random(seed, &size);
        let expected = compact(&problem, &goal);
        // HiGHS for the many tiny programs of a solve is slow to start, so it takes every tenth problem.
        let solvers = [Solver::MicroLp, Solver::Highs];
        for solver in solvers.into_iter().take(if seed % 10 == 0 { 2 } else { 1 }) {
            let options = SolveOptions { solver, gap: 0.0, ..SolveOptions::default() };
            match (solve(&problem, &goal, &options, &[]), expected) {
                (Ok(solution), Some(best)) => {
                    feasible += 1;
                    let difference = (solution.loss - best).abs();
                    assert!(difference <= 1e-6, "seed {seed}, {solver:?}: {} against {best}", solution.loss);
                }
                (Err(SolveError::Infeasible { .. }), None) => infeasible += 1,
                (found, expected) => panic!("seed {seed}, {solver:?}: {found:?} against {expected:?}"),
            }
        }
    }
    assert!(feasible >= 100 && infeasible >= 20, "{feasible} feasible and {infeasible} infeasible");
}
