//! One search: the assignment with the lowest loss under caps, and a proof of how far from the best it can be.
//!
//! 1. Each row alone: a cap below what any assignment reaches is reported at once.
//! 2. The dual (`dual`): a lower bound, prices, and feasible assignments on the way.
//! 3. Columns near the cheapest at those prices (`columns`), and the best choice of them
//!    (`master`). A solution that uses a column at a distance d from its class's cheapest is at least d above
//!    the bound, so the columns within the gap are all that matter: once they are all in the master, its optimum is
//!    the problem's. Until then the number of columns grows.
//!
//! While no assignment is known that meets the rows, the master may exceed them at a penalty. A model that minimises
//! only the excess then proves that no assignment exists, if its bound is above zero, and says by how much the caps
//! miss.

use std::time::{Duration, Instant};

use rayon::prelude::*;

use super::columns::{self, Column, Near};
use super::dual::{Evaluation, climb, evaluate};
use super::lp::Solver;
use super::master::{self, Terms};
use super::model::{Merit, Model, ROW_TOLERANCE, Row, RowKind};
use super::price::{Options, Pricing};
use super::problem::{Assignment, Goal, Problem};

/// Columns in the first master; each further one has [`GROWTH`] times as many.
const FIRST_COLUMNS: usize = 1000;
/// See [`FIRST_COLUMNS`].
const GROWTH: usize = 4;
/// A gap below this share of the loss is rounding.
const EXACT: f64 = 1e-9;

/// How to solve.
#[derive(Clone, Debug, PartialEq)]
pub struct SolveOptions {
    /// The solver of the linear and mixed programs.
    pub solver: Solver,
    /// Stop at this proven relative gap; 0 asks for the optimum.
    pub gap: f64,
    /// Stop after this time with the best solution so far. `None`: no limit.
    pub time_limit: Option<Duration>,
    /// The most columns in one master.
    pub max_columns: usize,
}

impl Default for SolveOptions {
    fn default() -> Self {
        Self { solver: Solver::default(), gap: 1e-4, time_limit: None, max_columns: 64_000 }
    }
}

/// The reason a solve ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Proven optimal.
    Optimal,
    /// Within the asked gap.
    Gap,
    /// The time limit came first.
    TimeLimit,
    /// The limit on columns came first.
    ColumnLimit,
}

/// The best assignment found.
#[derive(Clone, Debug, PartialEq)]
pub struct Solution {
    /// The rule of each head.
    pub assignment: Assignment,
    /// Its loss.
    pub loss: f64,
    /// No assignment within the caps has a lower loss than this.
    pub bound: f64,
    /// The reason the solve ended.
    pub status: Status,
}

impl Solution {
    /// The proven gap, relative to the loss.
    pub fn gap(&self) -> f64 {
        relative(self.loss, self.bound)
    }
}

/// A cap that cannot be met.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shortfall {
    /// The cost row or the objective.
    pub row: ShortRow,
    /// Its cap.
    pub cap: f64,
    /// The least that it can be; with several caps that fail only together, what it is in the nearest assignment.
    pub least: f64,
}

/// The cap that a [`Shortfall`] refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShortRow {
    /// A cost row, by index.
    Cost(usize),
    /// An objective, by index.
    Loss(usize),
}

/// Errors of a solve.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SolveError {
    /// Proven: no assignment meets the caps.
    #[error("no plan meets {}: {}", if *.alone { "these caps" } else { "all caps at once; the nearest plan misses these" }, list(.short))]
    Infeasible {
        /// The caps, each impossible by itself if `alone`.
        short: Vec<Shortfall>,
        /// Whether each of them is impossible whatever the others are.
        alone: bool,
    },
    /// None was found before the limit, and none was excluded.
    #[error("the search found no plan within its limits; the nearest plan misses: {}", list(.short))]
    NotFound {
        /// By how much the nearest assignment misses.
        short: Vec<Shortfall>,
    },
    /// It was told to stop.
    #[error("stopped after {done} of {all} solves")]
    Stopped {
        /// Solves done.
        done: usize,
        /// Solves in all.
        all: usize,
    },
}

fn list(short: &[Shortfall]) -> String {
    let one = |short: &Shortfall| {
        let (what, index) = match short.row {
            ShortRow::Cost(index) => ("cost", index),
            ShortRow::Loss(index) => ("loss", index),
        };
        format!("{what} {index} is {} and capped at {}", short.least, short.cap)
    };
    short.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn relative(value: f64, bound: f64) -> f64 {
    if value <= bound { 0.0 } else { (value - bound) / value.abs().max(f64::MIN_POSITIVE) }
}

/// Solves `problem` for `goal`. `known` are assignments that may already meet it.
pub fn solve(
    problem: &Problem,
    goal: &Goal,
    options: &SolveOptions,
    known: &[Assignment],
) -> Result<Solution, SolveError> {
    let model = Model::new(problem, goal);
    let relaxed = model.relaxed();
    let choices = Options::new(&model);
    let deadline = options.time_limit.map(|limit| Instant::now() + limit);
    let mut run = Run { model: &model, choices: &choices, options, deadline, best: None };
    for assignment in known {
        run.offer(assignment);
    }
    let short = run.rows_alone(&relaxed);
    if !short.is_empty() {
        return Err(SolveError::Infeasible { short, alone: true });
    }
    let peak = run.climb();
    if run.misses() {
        // First whether the caps exclude each other outright, which prices alone can prove; then columns that meet
        // them; and only when those run out the proof that no whole assignment does.
        let mut relaxed = Run { model: &relaxed, choices: &choices, options, deadline, best: None };
        let relaxed_peak = relaxed.climb();
        if relaxed_peak.bound > ROW_TOLERANCE {
            relaxed.offer(&run.best().1);
            return Err(SolveError::Infeasible { short: relaxed.exceeded(), alone: false });
        }
        run.refine(&peak);
        if run.misses() {
            relaxed.offer(&run.best().1);
            let nearest = relaxed.refine(&relaxed_peak);
            run.offer(&nearest.assignment);
            if run.misses() {
                let short = relaxed.exceeded();
                return Err(match nearest.status {
                    Status::Optimal => SolveError::Infeasible { short, alone: false },
                    _ => SolveError::NotFound { short },
                });
            }
        }
    }
    Ok(run.refine(&peak))
}

/// The state of one solve.
struct Run<'a> {
    model: &'a Model<'a>,
    choices: &'a Options,
    options: &'a SolveOptions,
    deadline: Option<Instant>,
    best: Option<(Merit, Assignment)>,
}

impl Run<'_> {
    /// Keeps an assignment if it is better than the best.
    fn offer(&mut self, assignment: &Assignment) {
        let merit = self.model.merit(&self.model.totals(assignment));
        if self.best.as_ref().is_none_or(|(best, _)| merit.beats(best)) {
            self.best = Some((merit, assignment.clone()));
        }
    }

    /// The best assignment; there is one after the first offer.
    fn best(&self) -> &(Merit, Assignment) {
        self.best.as_ref().expect("a climb offers at least one assignment")
    }

    /// Whether even the best assignment exceeds the rows.
    fn misses(&self) -> bool {
        self.best().0.excess > 0.0
    }

    /// The objective of the best assignment: infinite if it exceeds the rows and may not.
    fn value(&self) -> f64 {
        let merit = self.best().0;
        if self.model.relaxed {
            merit.excess
        } else if merit.excess > 0.0 {
            f64::INFINITY
        } else {
            merit.objective
        }
    }

    /// The rows that the best assignment exceeds.
    fn exceeded(&self) -> Vec<Shortfall> {
        let totals = self.model.totals(&self.best().1);
        let over =
            self.model.rows.iter().zip(totals.rows).filter(|(row, total)| total - row.cap > ROW_TOLERANCE);
        over.map(|(row, _)| self.shortfall(row, &self.best().1)).collect()
    }

    /// The value of a row under an assignment that exceeds it.
    fn shortfall(&self, row: &Row, assignment: &[u8]) -> Shortfall {
        let problem = self.model.problem;
        let (name, least) = match row.kind {
            RowKind::Cost(index) => (ShortRow::Cost(index), problem.cost(index, assignment)),
            RowKind::Loss(index) => (ShortRow::Loss(index), problem.loss(index, assignment)),
        };
        Shortfall { row: name, cap: row.cap * row.scale, least }
    }

    fn late(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// The rows whose cap no assignment meets, whatever the other rows.
    fn rows_alone(&mut self, relaxed: &Model<'_>) -> Vec<Shortfall> {
        let mut short = Vec::new();
        for (at, row) in relaxed.rows.iter().enumerate() {
            let mut only = vec![0.0; relaxed.rows.len()];
            only[at] = 1.0;
            let evaluation = evaluate(relaxed, self.choices, only);
            if evaluation.bound > ROW_TOLERANCE {
                short.push(self.shortfall(row, &evaluation.assignment));
            }
            self.offer(&evaluation.assignment);
        }
        short
    }

    /// The best dual, keeping the best assignment met on the way.
    fn climb(&mut self) -> Evaluation {
        let (model, choices, solver, deadline) =
            (self.model, self.choices, self.options.solver, self.deadline);
        climb(model, choices, solver, deadline, &mut |evaluation| {
            self.offer(&evaluation.assignment);
            self.close(evaluation.bound)
        })
    }

    /// Whether the best assignment is as near to the bound as was asked.
    fn close(&self, bound: f64) -> bool {
        relative(self.value(), bound) <= self.options.gap.max(EXACT)
    }

    /// Improves the best assignment and the bound until they are close, or the limits are reached.
    fn refine(&mut self, peak: &Evaluation) -> Solution {
        let mut bound = peak.bound;
        let mut budget = FIRST_COLUMNS;
        let status = loop {
            if self.close(bound) {
                break if relative(self.value(), bound) <= EXACT { Status::Optimal } else { Status::Gap };
            }
            if self.late() {
                break Status::TimeLimit;
            }
            if budget > self.options.max_columns {
                break Status::ColumnLimit;
            }
            let missed = self.misses();
            let (mut columns, complete) = self.columns(peak, self.value() - peak.bound, budget);
            let start = include(self.model, &mut columns, &self.best().1);
            let terms = Terms {
                // While the rows are exceeded, nothing else counts: the columns are near the best in any case.
                excess_only: missed || self.model.relaxed,
                // A little less than asked, to allow for rounding.
                gap: if missed { 0.0 } else { 0.99 * self.options.gap },
                solver: self.options.solver,
                deadline: self.deadline,
            };
            if let Some(choice) = master::choose(self.model, &columns, &start, &terms) {
                self.offer(&choice.assignment);
                if choice.proven && self.value().is_finite() {
                    // Anything better than the master's optimum uses a column that is not in it.
                    let optimum = self.value() - terms.gap * self.value().abs();
                    bound = bound.max(optimum.min(peak.bound + complete));
                }
            }
            // Columns for an assignment that meets the rows are taken without regard to its value; now it is known.
            if !missed || self.misses() {
                budget *= GROWTH;
            }
        };
        let loss = self.value();
        Solution { assignment: self.best().1.clone(), loss, bound: bound.min(loss), status }
    }

    /// About `budget` columns within `distance`, the nearest, and the distance below which none is missing.
    fn columns(&self, peak: &Evaluation, distance: f64, budget: usize) -> (Vec<Vec<Column>>, f64) {
        let problem = self.model.problem;
        let limit = (8 * budget / problem.classes.len()).max(16);
        let near: Vec<Near> = problem
            .classes
            .par_iter()
            .zip(&peak.cheapest)
            .enumerate()
            .map(|(at, (class, &cheapest))| {
                let options = self.choices.of(at);
                let pricing = Pricing { model: self.model, prices: &peak.prices, options, class };
                columns::near(&pricing, cheapest, distance, limit)
            })
            .collect();
        let mut complete = near.iter().map(|near| near.complete_below).fold(f64::INFINITY, f64::min);
        let mut reduced: Vec<f64> =
            near.iter().flat_map(|near| &near.columns).map(|column| column.reduced).collect();
        if reduced.len() > budget {
            let (_, &mut farthest, _) = reduced.select_nth_unstable_by(budget, f64::total_cmp);
            complete = complete.min(farthest);
        }
        let keep = |near: Near| -> Vec<Column> {
            let kept = near.columns.iter().take_while(|column| column.reduced < complete).count().max(1);
            near.columns.into_iter().take(kept).collect()
        };
        (near.into_iter().map(keep).collect(), complete)
    }
}

/// Makes sure that every class has the column of `assignment`, and returns their indexes.
fn include(model: &Model<'_>, columns: &mut [Vec<Column>], assignment: &Assignment) -> Vec<usize> {
    let classes = model.problem.classes.iter().zip(columns);
    classes
        .map(|(class, columns)| {
            let rules = &assignment[class.heads()];
            columns.iter().position(|column| column.rules == rules).unwrap_or_else(|| {
                columns.push(Column {
                    rules: rules.to_vec(),
                    totals: model.class_totals(class, rules),
                    reduced: f64::INFINITY,
                });
                columns.len() - 1
            })
        })
        .collect()
}
