//! The outcome of a case, and how it is decided: one failure for each kind of violation.

use std::collections::BTreeMap;

use super::bounds;
use super::candidate::Candidate;
use super::case::{Case, Work};
use super::compare::{self, Failure, Kind};
use super::device::{Counts, Seen};
use super::expect::Query;
use super::rows::Chunk;
use moac_runtime::abi::Task;

/// Failures of a case that are worth their lines; beyond them, a few of each kind.
const SHOWN: usize = 12;
const SHOWN_OF_KIND: usize = 3;

/// The outcome of a case.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Query rows that were compared with the oracle, over all heads.
    pub rows: usize,
    /// Their relative Frobenius error.
    pub error: f64,
    /// The error of the worst row.
    pub row_error: f64,
    /// The largest difference of a log-sum-exp.
    pub lse_error: f64,
    /// The failures; empty if the case passed.
    pub failures: Vec<Failure>,
    /// Counts of each launch, where the device counts.
    pub counts: Vec<Counts>,
    /// A digest of the compared rows of o and lse of each request: the same twice is the same bytes.
    pub digests: Vec<[u8; 32]>,
}

/// A row that is compared with the oracle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// The request, by index in the batch.
    pub(super) request: usize,
    /// The query head.
    pub(super) head: u32,
    /// The token, counted from the chunk's first.
    pub(super) token: u32,
}

/// A case under way.
pub(super) struct Run<'a> {
    pub(super) candidate: &'a Candidate,
    pub(super) case: &'a Case,
    pub(super) outcome: Outcome,
}

impl<'a> Run<'a> {
    pub(super) fn new(candidate: &'a Candidate, case: &'a Case) -> Self {
        Self { candidate, case, outcome: Outcome::default() }
    }

    pub(super) fn fail_all(&mut self, failures: Vec<(Kind, String)>) {
        self.outcome.failures.extend(failures.into_iter().map(|(kind, what)| Failure::new(kind, what)));
    }

    pub(super) fn fail(&mut self, kind: Kind, what: impl Into<String>) {
        self.outcome.failures.push(Failure::new(kind, what));
    }

    pub(super) fn look_at(&mut self, seen: Seen, task: Task, grid: [u32; 3]) {
        for finding in seen.findings {
            self.fail(Kind::Finding, finding);
        }
        if let Some(counts) = seen.counts {
            self.outcome.failures.extend(bounds::check(self.candidate, self.case, task, grid, &counts));
            self.outcome.counts.push(counts);
        }
    }

    /// The rows to compare with the oracle.
    pub(super) fn checked(&self, seed: u64) -> Vec<Row> {
        let Self { candidate, case, .. } = self;
        let layer = &candidate.layer;
        let mut checked = Vec::new();
        if let Work::Tiles(tiles) = &case.work {
            for tile in tiles {
                let row = |token| Row { request: tile.request as usize, head: tile.head, token };
                checked.extend(case.tile_rows(tile, candidate.tile_m()).map(row));
            }
            return checked;
        }
        for (index, request) in case.requests.iter().enumerate() {
            for head in 0..layer.heads() {
                let kv_span = layer.bucket(request.bucket).kv_span[layer.kv_head(head) as usize];
                let chunk = Chunk {
                    cached: request.cached,
                    len: request.chunk,
                    tile_m: candidate.tile_m(),
                    sink: layer.sink,
                    window: layer.window(request.bucket, head),
                    kv_window: kv_span - layer.sink,
                };
                let row = |token| Row { request: index, head, token };
                checked.extend(chunk.rows(seed ^ u64::from(head)).into_iter().map(row));
            }
        }
        checked
    }

    /// The inputs that determine a row's result.
    pub(super) fn query(&self, row: &Row) -> Query {
        let layer = &self.candidate.layer;
        let request = &self.case.requests[row.request];
        let heads = (layer.kv_head(row.head), row.head);
        Query::new(
            request.sequence,
            heads,
            layer.window(request.bucket, row.head),
            request.cached + row.token,
        )
    }

    /// Judges a row by its error and the difference of its log-sum-exp, of which `slack` is forgiven.
    pub(super) fn row(&mut self, row: &Row, error: f64, lse_error: Option<f64>, slack: f64) {
        let layer = &self.candidate.layer;
        let request = &self.case.requests[row.request];
        let position = request.cached + row.token;
        let place = || format!("request {}, head {}, position {position}", row.request, row.head);
        let mut failures = Vec::new();
        let bound = compare::ROW * compare::tolerance(layer.dtype);
        if !compare::within(error, bound) {
            let what = format!("{}: relative error {error:.2e} > {bound:.2e}", place());
            failures.push((Kind::Output, what));
        }
        let visible = (position + 1).min(layer.sink + layer.window(request.bucket, row.head));
        let bound = compare::lse_tolerance(visible) + slack;
        if let Some(difference) = lse_error
            && !compare::within(difference, bound)
        {
            failures.push((Kind::Lse, format!("{}: lse is off by {difference:.2e} > {bound:.1e}", place())));
        }
        self.fail_all(failures);
        self.outcome.row_error = worse(self.outcome.row_error, error);
        self.outcome.lse_error = worse(self.outcome.lse_error, lse_error.unwrap_or(0.0));
    }

    pub(super) fn total(&mut self, rows: usize, error: f64) {
        let bound = compare::tolerance(self.candidate.layer.dtype);
        self.outcome.rows += rows;
        self.outcome.error = worse(self.outcome.error, error);
        if !compare::within(error, bound) {
            self.fail(
                Kind::Output,
                format!("relative Frobenius error {error:.2e} > {bound:.0e} over {rows} rows"),
            );
        }
    }

    pub(super) fn finish(mut self) -> Outcome {
        let more = self.outcome.failures.len().saturating_sub(SHOWN);
        if more > 0 {
            self.outcome.failures.sort_by_key(|failure| failure.kind);
            let mut of_kind = BTreeMap::<Kind, usize>::new();
            self.outcome.failures.retain(|failure| {
                let seen = of_kind.entry(failure.kind).or_default();
                *seen += 1;
                *seen <= SHOWN_OF_KIND
            });
        }
        self.outcome
    }
}

fn worse(a: f64, b: f64) -> f64 {
    if b > a || b.is_nan() { b } else { a }
}
