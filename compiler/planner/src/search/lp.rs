//! Linear and mixed programs as data, solved through `good_lp`.

use std::time::Instant;

#[cfg(feature = "highs")]
use good_lp::solvers::highs::HighsParallelType;
use good_lp::{
    Expression, ProblemVariables, ResolutionError, Solution, SolverModel, WithInitialSolution, WithMipGap,
    WithTimeLimit, solvers::SolutionStatus, variable,
};
use serde::{Deserialize, Serialize};

/// The solver behind `good_lp`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Solver {
    /// Pure Rust, always there.
    #[default]
    MicroLp,
    /// `HiGHS`, behind the feature `highs`.
    #[cfg(feature = "highs")]
    Highs,
}

impl Solver {
    /// The name in flags and in a plan's provenance.
    pub fn name(self) -> &'static str {
        match self {
            Self::MicroLp => "microlp",
            #[cfg(feature = "highs")]
            Self::Highs => "highs",
        }
    }
}

/// A row `terms . x <= most`, or `== most`.
#[derive(Clone, Debug)]
pub(super) struct Constraint {
    /// `(variable, factor)`.
    pub(super) terms: Vec<(usize, f64)>,
    /// The right-hand side.
    pub(super) most: f64,
    /// Whether the row must be met with equality.
    pub(super) equal: bool,
}

/// Minimise `cost . x` under rows and bounds.
#[derive(Clone, Debug, Default)]
pub(super) struct Program {
    /// `(cost, least, most, integer)` of each variable.
    pub(super) variables: Vec<(f64, f64, f64, bool)>,
    /// The rows.
    pub(super) rows: Vec<Constraint>,
    /// A feasible point to start from; empty if none is known.
    pub(super) start: Vec<f64>,
    /// Stop when the point is proven to be within this share of its value.
    pub(super) gap: f64,
}

/// The values a solver found.
#[derive(Clone, Debug)]
pub(super) struct Point {
    /// One value for each variable.
    pub(super) values: Vec<f64>,
    /// Whether they are proven to be within [`Program::gap`] of the optimum.
    pub(super) proven: bool,
}

impl Program {
    /// Solves until `deadline`. `Ok(None)`: proven infeasible. An error: no point was found in time, or the solver
    /// gave up.
    pub(super) fn solve(
        &self,
        solver: Solver,
        deadline: Option<Instant>,
    ) -> Result<Option<Point>, ResolutionError> {
        let mut variables = ProblemVariables::new();
        let mut objective = Expression::with_capacity(self.variables.len());
        let names: Vec<_> = self
            .variables
            .iter()
            .map(|&(cost, least, most, integer)| {
                let definition = variable().min(least).max(most);
                let name = variables.add(if integer { definition.integer() } else { definition });
                objective.add_mul(cost, name);
                name
            })
            .collect();
        let unsolved = variables.minimise(objective);
        let start: Vec<_> = names.iter().copied().zip(self.start.iter().copied()).collect();
        let outcome = match solver {
            Solver::MicroLp => self.run(unsolved.using(good_lp::microlp), &names, start, deadline),
            #[cfg(feature = "highs")]
            Solver::Highs => {
                // Not `set_threads`: its number of threads is one for the whole process, and setting another fails.
                let model = unsolved.using(good_lp::highs).set_parallel(HighsParallelType::Off);
                let model = model.set_mip_abs_gap(0.0);
                let model = model.map_err(|_| ResolutionError::Other("the solver refused a gap of zero"))?;
                // And no start: with one and presolve, HiGHS 1.16 has called a point optimal that is not.
                self.run(model, &names, Vec::new(), deadline)
            }
        };
        match outcome {
            Ok(point) => Ok(Some(point)),
            Err(ResolutionError::Infeasible) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn run<M>(
        &self,
        mut model: M,
        names: &[good_lp::Variable],
        start: Vec<(good_lp::Variable, f64)>,
        deadline: Option<Instant>,
    ) -> Result<Point, ResolutionError>
    where
        M: SolverModel<Error = ResolutionError> + WithTimeLimit + WithInitialSolution + WithMipGap,
    {
        for row in &self.rows {
            let mut sum = Expression::with_capacity(row.terms.len());
            for &(variable, factor) in &row.terms {
                sum.add_mul(factor, names[variable]);
            }
            model.add_constraint(if row.equal { sum.eq(row.most) } else { sum.leq(row.most) });
        }
        if !start.is_empty() {
            model = model.with_initial_solution(start);
        }
        model = model
            .with_mip_gap(self.gap as f32)
            .map_err(|_| ResolutionError::Other("the gap is not a number"))?;
        if let Some(deadline) = deadline {
            model = model.with_time_limit(deadline.saturating_duration_since(Instant::now()).as_secs_f64());
        }
        let solution = model.solve()?;
        let proven = !matches!(solution.status(), SolutionStatus::TimeLimit);
        Ok(Point { values: names.iter().map(|&name| solution.value(name)).collect(), proven })
    }
}
