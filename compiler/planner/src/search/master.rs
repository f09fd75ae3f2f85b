//! The restricted master: the best choice of one column for each class, by a mixed program over few columns.

use std::time::Instant;

use super::columns::Column;
use super::lp::{Constraint, Program, Solver};
use super::model::{Model, Totals};
use super::problem::Assignment;

/// The solution of the master problem.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    /// The chosen columns, put together.
    pub(super) assignment: Assignment,
    /// Whether no choice of these columns is better by more than the asked gap.
    pub(super) proven: bool,
}

/// How a master is solved.
pub(super) struct Terms {
    /// Whether rows may be exceeded and the sum of that is all that is minimised.
    pub(super) excess_only: bool,
    /// Stop within this share of the optimum.
    pub(super) gap: f64,
    /// The solver.
    pub(super) solver: Solver,
    /// When to stop.
    pub(super) deadline: Option<Instant>,
}

/// The best choice of one of `columns[class]` for each class, from the choice `start` (an index for each class; it
/// meets the rows, unless they may be exceeded). `None` if the solver found nothing in time.
pub(super) fn choose(
    model: &Model<'_>,
    columns: &[Vec<Column>],
    start: &[usize],
    terms: &Terms,
) -> Option<Choice> {
    // Classes with one column are settled; they only use up the caps.
    let mut settled = Totals::zero(model.rows.len());
    let mut known = settled.clone();
    for (class, &chosen) in columns.iter().zip(start) {
        known.add(&class[chosen].totals);
        if let [only] = class.as_slice() {
            settled.add(&only.totals);
        }
    }
    // Objectives near one, for the solver's tolerances.
    let weight = match known.objective.abs() {
        _ if terms.excess_only => 0.0,
        size if size > 0.0 => 1.0 / size,
        _ => 1.0,
    };
    let mut program = Program { gap: terms.gap, ..Program::default() };
    let mut rows: Vec<Vec<(usize, f64)>> = vec![Vec::new(); model.rows.len()];
    for (class, &chosen) in columns.iter().zip(start).filter(|(class, _)| class.len() > 1) {
        let first = program.variables.len();
        for (at, column) in class.iter().enumerate() {
            let name = first + at;
            program.variables.push((weight * column.totals.objective, 0.0, 1.0, true));
            program.start.push(if at == chosen { 1.0 } else { 0.0 });
            for (row, &total) in rows.iter_mut().zip(&column.totals.rows) {
                row.push((name, total));
            }
        }
        let one = (first..first + class.len()).map(|name| (name, 1.0)).collect();
        program.rows.push(Constraint { terms: one, most: 1.0, equal: true });
    }
    for (at, (row, mut sum)) in model.rows.iter().zip(rows).enumerate() {
        if terms.excess_only {
            sum.push((program.variables.len(), -1.0));
            program.variables.push((1.0, 0.0, f64::INFINITY, false));
            program.start.push((known.rows[at] - row.cap).max(0.0));
        }
        program.rows.push(Constraint { terms: sum, most: row.cap - settled.rows[at], equal: false });
    }
    let point = if program.variables.is_empty() {
        None
    } else {
        Some(program.solve(terms.solver, terms.deadline).ok()??)
    };
    let mut assignment = Vec::new();
    let mut first = 0;
    for class in columns {
        let chosen = match (&point, class.len()) {
            (Some(point), 2..) => {
                let values = &point.values[first..first + class.len()];
                first += class.len();
                (0..class.len()).max_by(|&a, &b| values[a].total_cmp(&values[b]))?
            }
            _ => 0,
        };
        assignment.extend_from_slice(&class[chosen].rules);
    }
    Some(Choice { assignment, proven: point.is_none_or(|point| point.proven) })
}
