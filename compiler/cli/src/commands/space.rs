//! The flags of a search, which `moac search` and `moac plan` share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use moac_planner::search::Solver;
use moac_planner::search::influence::Influence;
use moac_planner::search::outcome::SearchOptions;
use moac_planner::search::rules::RuleGrid;
use moac_planner::search::solve::SolveOptions;
use moac_planner::search::tables::{Bound, Cost, Granularity, Space, TimeTable};
use moac_runtime::file;
use moac_runtime::plan::{DEFAULT_MIN_SPAN, DEFAULT_SINK, MAX_LENGTH, TILE};

use super::args::{STDIN, STREAM, input, once};
use crate::error::Error;

/// The search space and the limits of the search.
#[derive(Debug, clap::Args)]
pub struct SpaceArgs {
    /// Maximum cost of a plan at every bounded length, as a fraction of dense attention
    #[arg(long, value_name = "FRACTION")]
    density: f64,
    /// A different bound at one length, repeatable
    #[arg(long = "bound", value_name = "TOKENS=FRACTION", value_parser = parse_bound)]
    bounds: Vec<Bound>,
    /// The unit that a rule is chosen for
    #[arg(long, value_enum, default_value_t = Per::KvHead)]
    per: Per,
    /// The measure of cost
    #[arg(long, value_enum, default_value_t = CostKind::KvBytes)]
    cost: CostKind,
    /// Use kernel times as the cost: a JSON file of length -> span -> time of one KV head
    #[arg(long, value_name = "FILE", conflicts_with = "cost", value_parser = input())]
    times: Option<PathBuf>,
    /// Maximum number of distinct rules of a layer, or `unlimited`
    #[arg(long, value_name = "N", default_value = "2", value_parser = parse_limit)]
    rules_per_layer: Limit,
    /// Candidate rules: fine, wide, published, paper, classes (everything or the smallest span), or a JSON file of a grid
    #[arg(long, value_name = "GRID", default_value = "fine")]
    grid: String,
    /// Sink tokens of the plans
    #[arg(long, value_name = "TOKENS", default_value_t = DEFAULT_SINK)]
    sink: u32,
    /// The smallest span of the plans
    #[arg(long, value_name = "TOKENS", default_value_t = DEFAULT_MIN_SPAN)]
    min_span: u32,
    /// Intervals that the range of each loss is divided into: more intervals make a denser Pareto set
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = parse_intervals)]
    intervals: usize,
    /// Stop each solve at this proven relative gap; 0 for the optimum
    #[arg(long, value_name = "FRACTION", default_value_t = 1e-3, value_parser = parse_gap)]
    gap: f64,
    /// Stop each solve after this many seconds, with the best solution so far
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = parse_seconds)]
    time_limit: f64,
    /// Solver of the linear and mixed programs
    #[arg(long, value_enum, default_value_t = SolverKind::Microlp)]
    solver: SolverKind,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Per {
    KvHead,
    Head,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum CostKind {
    KvBytes,
    Density,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SolverKind {
    Microlp,
    #[cfg(feature = "highs")]
    Highs,
}

/// The most distinct rules of a layer.
#[derive(Clone, Copy, Debug)]
struct Limit(Option<usize>);

fn parse_limit(text: &str) -> Result<Limit, String> {
    match text.parse() {
        _ if text == "unlimited" => Ok(Limit(None)),
        Ok(limit) if limit > 0 => Ok(Limit(Some(limit))),
        _ => Err(format!("`{text}` is not a limit: expected a number of at least 1, or unlimited")),
    }
}

fn parse_bound(text: &str) -> Result<Bound, String> {
    let parse = || {
        let (length, fraction) = text.split_once('=')?;
        Some(Bound { length: length.parse().ok()?, fraction: fraction.parse().ok()? })
    };
    parse()
        .ok_or_else(|| format!("`{text}` is not a bound: expected a length and a fraction, as in 4096=0.4"))
}

fn parse_intervals(text: &str) -> Result<usize, String> {
    let intervals = text.parse().ok().filter(|intervals| (1..=64).contains(intervals));
    intervals.ok_or_else(|| format!("`{text}` is out of range: expected a number from 1 to 64"))
}

fn parse_gap(text: &str) -> Result<f64, String> {
    let gap = text.parse().ok().filter(|gap| (0.0..1.0).contains(gap));
    gap.ok_or_else(|| format!("`{text}` is not a gap: expected a fraction of at least 0 and below 1"))
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.0..1e9).contains(seconds));
    seconds.ok_or_else(|| format!("`{text}` is not a time: expected a number of seconds below 1e9"))
}

impl SpaceArgs {
    /// The KV bytes that a plan may hold where no other bound is given, if that is what its cost is.
    pub(super) fn kv_bytes(&self) -> Option<f64> {
        (self.times.is_none() && self.cost == CostKind::KvBytes).then_some(self.density)
    }

    /// The limits of the search.
    pub(super) fn options(&self) -> SearchOptions {
        SearchOptions {
            solve: SolveOptions {
                solver: match self.solver {
                    SolverKind::Microlp => Solver::MicroLp,
                    #[cfg(feature = "highs")]
                    SolverKind::Highs => Solver::Highs,
                },
                gap: self.gap,
                time_limit: Some(Duration::from_secs_f64(self.time_limit)),
                ..SolveOptions::default()
            },
            intervals: self.intervals,
        }
    }

    /// The flags, with the files that they name.
    pub(super) fn read(&self) -> Result<Described<'_>, Error> {
        once("--bound", self.bounds.iter().map(|bound| bound.length))?;
        let times = self.times.as_deref().map(read_json).transpose()?;
        let grid = match self.grid.as_str() {
            "fine" => Grid::OfLongest(RuleGrid::fine),
            "wide" => Grid::OfLongest(RuleGrid::wide),
            "published" => Grid::OfLongest(RuleGrid::published),
            "paper" => Grid::Given(RuleGrid::paper()),
            "classes" => Grid::Given(RuleGrid::classes()),
            STREAM => Grid::Given(read_json(Path::new(STDIN))?),
            path => Grid::Given(read_json(Path::new(path))?),
        };
        Ok(Described { args: self, times, grid })
    }
}

/// The search space, as described by the flags and the files that they name.
pub(super) struct Described<'a> {
    args: &'a SpaceArgs,
    times: Option<TimeTable>,
    grid: Grid,
}

enum Grid {
    /// One that depends on the longest profiled length.
    OfLongest(fn(u32) -> RuleGrid),
    Given(RuleGrid),
}

impl Described<'_> {
    /// The space, bounded at `lengths`; none are the profiled ones, and twice the longest.
    pub(super) fn space(&self, influence: &Influence, lengths: &[u32]) -> Space {
        let args = self.args;
        let profiled: Vec<u32> = influence.lengths.iter().map(|at| at.length).collect();
        let longest = profiled.last().copied().unwrap_or(TILE);
        let mut bounds: BTreeMap<u32, f64> = BTreeMap::new();
        if lengths.is_empty() {
            let beyond = longest.saturating_mul(2);
            let within = beyond <= influence.model.context.unwrap_or(MAX_LENGTH);
            bounds.extend(
                profiled.iter().chain(within.then_some(&beyond)).map(|&length| (length, args.density)),
            );
        } else {
            bounds.extend(lengths.iter().map(|&length| (length, args.density)));
        }
        bounds.extend(args.bounds.iter().map(|bound| (bound.length, bound.fraction)));
        let cost = match (&self.times, args.cost) {
            (Some(times), _) => Cost::Time(times.clone()),
            (None, CostKind::KvBytes) => Cost::KvBytes,
            (None, CostKind::Density) => Cost::Density,
        };
        let grid = match &self.grid {
            Grid::OfLongest(grid) => grid(longest),
            Grid::Given(grid) => grid.clone(),
        };
        Space {
            rules: grid.rules(),
            sink: args.sink,
            min_span: args.min_span,
            per: match args.per {
                Per::KvHead => Granularity::KvHead,
                Per::Head => Granularity::Head,
            },
            cost,
            bounds: bounds.into_iter().map(|(length, fraction)| Bound { length, fraction }).collect(),
            max_rules: args.rules_per_layer.0,
        }
    }
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let text = file::read_text(path).map_err(Error::file("read", path))?;
    serde_json::from_str(&text).map_err(|error| Error::file("read", path)(error.into()))
}
