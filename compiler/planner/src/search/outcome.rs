//! From influence to plans: sets up the tables, finds the Pareto set, and writes each assignment as a plan with its
//! provenance.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use moac_runtime::plan::{PLAN_FORMAT, Plan};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::influence::Influence;
use super::pareto::{ParetoPoint, ParetoSet, pareto_set};
use super::solve::{ShortRow, Shortfall, SolveError, SolveOptions, Status};
use super::tables::{Space, TableError, Tables};

/// The `method` in the provenance of a plan that a search found.
pub const METHOD: &str = "moac search";

/// How to search a space.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchOptions {
    /// The limits of each solve.
    pub solve: SolveOptions,
    /// Intervals of each loss's range in the epsilon-constraint method.
    pub intervals: usize,
}

impl Default for SearchOptions {
    fn default() -> Self {
        Self { solve: SolveOptions::default(), intervals: 4 }
    }
}

/// A plan of the Pareto set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FoundPlan {
    /// The plan, with its provenance.
    pub plan: Plan,
    /// The loss at each profiled length: by how much the influence says the answers get worse. In nats, unless the tasks
    /// were weighed against one another: then each one's share of all that it can lose, times its weight.
    pub losses: BTreeMap<u32, f64>,
    /// The cost at each bounded length, as a fraction of the dense cost.
    pub costs: BTreeMap<u32, f64>,
    /// The lengths whose losses were minimised, together if there are several.
    pub minimised: Vec<u32>,
    /// The proven relative gap of the objective.
    pub gap: f64,
    /// The reason its solve ended.
    pub status: Status,
}

/// The result of a search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchResult {
    /// The Pareto set, ascending by the loss at the shortest length.
    pub plans: Vec<FoundPlan>,
    /// Candidate rules that differ at the lengths searched.
    pub rules: usize,
    /// Solves made.
    pub solved: usize,
    /// Combinations of caps answered by an earlier solve.
    pub reused: usize,
    /// Combinations of caps that are proven impossible.
    pub infeasible: usize,
    /// Combinations of caps without an answer within the limits.
    pub unanswered: usize,
}

/// A bound that no plan meets.
#[derive(Clone, Debug, PartialEq)]
pub struct BoundShortfall {
    /// The context length in tokens.
    pub length: u32,
    /// The bound, as a fraction of the dense cost.
    pub bound: f64,
    /// The least fraction that it could be.
    pub least: f64,
}

/// Errors of a search.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SearchError {
    /// The space makes no sense.
    #[error(transparent)]
    Space(#[from] TableError),
    /// No plan meets the bounds.
    #[error("{}", explain(.cost, .short, *.alone, *.proven))]
    Bounds {
        /// The kind of cost.
        cost: &'static str,
        /// The bounds that are missed.
        short: Vec<BoundShortfall>,
        /// Whether each of them is impossible by itself; otherwise they are those that the nearest plan misses.
        alone: bool,
        /// Whether it is proven that no plan meets them; otherwise none was found within the limits.
        proven: bool,
    },
    /// It was told to stop.
    #[error(
        "stopped after {done} of {all} solves; no plan was written, and the same command starts the search again"
    )]
    Stopped {
        /// Solves done.
        done: usize,
        /// Solves in all.
        all: usize,
    },
}

fn explain(cost: &str, short: &[BoundShortfall], alone: bool, proven: bool) -> String {
    let what = match (proven, alone) {
        (true, true) => "no plan of the candidate rules meets these bounds",
        (true, false) => "no plan of the candidate rules meets all bounds together; the nearest misses these",
        (false, _) => "found no plan that meets all bounds within the limits; the nearest misses these",
    };
    let miss = |short: &BoundShortfall| {
        let BoundShortfall { length, bound, least } = short;
        let over = least - bound;
        format!("{cost} at {length} tokens is at least {least:.6} of dense, {over:.6} over the bound {bound}")
    };
    let misses: Vec<String> = short.iter().map(miss).collect();
    format!("{what}: {}; raise the bounds or add rules with shorter spans", misses.join(", "))
}

/// Searches `space` for the plans of a profiled model. `progress` gets combinations done and in all, and may
/// stop it between them.
pub fn search(
    influence: &Influence,
    space: Space,
    options: &SearchOptions,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<SearchResult, SearchError> {
    let tables = Tables::from_influence(influence, space)?;
    let source = json!({
        "absolute": influence.absolute,
        "windows": influence.windows,
        "joint": influence.joint,
        "data": influence.data,
        "items": influence.lengths.iter().map(|at| at.items).collect::<Vec<_>>(),
        "lengths": tables.lengths,
        "seed": influence.seed,
    });
    search_tables(&tables, &source, options, progress)
}

/// As [`search`], from tables that were made before; `source` says in the plans' provenance what they were made of.
pub fn search_tables(
    tables: &Tables,
    source: &Value,
    options: &SearchOptions,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<SearchResult, SearchError> {
    let objectives: Vec<usize> = (0..tables.lengths.len()).collect();
    let set =
        pareto_set(&tables.problem, &objectives, &tables.caps, options.intervals, &options.solve, progress)
            .map_err(|error| bounds_error(tables, error))?;
    let ParetoSet { points, solved, reused, infeasible, unanswered } = set;
    let plans = points.iter().map(|point| found_plan(tables, source, options, point)).collect();
    Ok(SearchResult { plans, rules: tables.problem.rules, solved, reused, infeasible, unanswered })
}

fn bounds_error(tables: &Tables, error: SolveError) -> SearchError {
    let (short, alone, proven) = match error {
        SolveError::Infeasible { short, alone } => (short, alone, true),
        SolveError::NotFound { short } => (short, false, false),
        SolveError::Stopped { done, all } => return SearchError::Stopped { done, all },
    };
    let name = |short: &Shortfall| match short.row {
        ShortRow::Cost(index) => {
            let bound = tables.space.bounds[index];
            let least = short.least / tables.dense[index];
            Some(BoundShortfall { length: bound.length, bound: bound.fraction, least })
        }
        ShortRow::Loss(_) => None,
    };
    let short = short.iter().filter_map(name).collect();
    SearchError::Bounds { cost: tables.space.cost.name(), short, alone, proven }
}

fn found_plan(tables: &Tables, source: &Value, options: &SearchOptions, point: &ParetoPoint) -> FoundPlan {
    let space = &tables.space;
    let solution = &point.solution;
    let losses: BTreeMap<u32, f64> =
        tables.lengths.iter().copied().zip(point.losses.iter().copied()).collect();
    let cost = |row: usize| tables.problem.cost(row, &solution.assignment) / tables.dense[row];
    let costs: BTreeMap<u32, f64> =
        space.bounds.iter().enumerate().map(|(row, bound)| (bound.length, cost(row))).collect();
    let minimised: Vec<u32> = point.weights.iter().map(|&(objective, _)| tables.lengths[objective]).collect();
    let caps: BTreeMap<u32, f64> =
        point.loss_caps.iter().map(|&(objective, cap)| (tables.lengths[objective], cap)).collect();
    let bounds: BTreeMap<u32, f64> =
        space.bounds.iter().map(|bound| (bound.length, bound.fraction)).collect();
    let provenance = json!({
        "method": METHOD,
        "version": env!("CARGO_PKG_VERSION"),
        "influence": source,
        "space": {
            "cost": space.cost.name(),
            "bounds": bounds,
            "per": space.per,
            "rules": tables.problem.rules,
            "max_rules_per_layer": space.max_rules,
        },
        "solver": options.solve.solver.name(),
        "minimised_lengths": minimised,
        "loss_caps": caps,
        "losses": losses,
        "costs": costs,
        "lower_bound": solution.bound,
        "gap": solution.gap(),
        "status": solution.status,
    });
    let rules = tables.rules(&solution.assignment);
    let plan = Plan {
        format: PLAN_FORMAT.to_owned(),
        model: tables.model.clone(),
        sink: space.sink,
        min_span: space.min_span,
        alphas: rules.iter().map(|layer| layer.iter().map(|rule| rule.alpha).collect()).collect(),
        betas: rules.iter().map(|layer| layer.iter().map(|rule| rule.beta).collect()).collect(),
        provenance: Some(provenance),
    };
    FoundPlan { plan, losses, costs, minimised, gap: solution.gap(), status: solution.status }
}
