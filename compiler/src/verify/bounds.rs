//! How many bytes and matrix operations a launch may take: the law of every family, from the visibility rule alone.
//!
//! Decode reads every visible row of K and V once and no other. An append reads and writes each row that stays once. What
//! a prefill may read and multiply depends on the blocks of its family: `budget.rs`. Query rows, outputs and split
//! results are counted apart.

use std::collections::BTreeMap;

use moac_runtime::abi::Task;
use moac_runtime::launch::{Grid, Phase};
use moac_runtime::plan::TILE;

use super::budget::{self, TileWork};
use super::candidate::Candidate;
use super::case::{Case, Layout, Work};
use super::compare::{Failure, Kind};
use super::device::{Count, Counts};
use super::image;
use crate::lower::family::Tile;

/// Split results may take this share of the bytes of K and V, written and read back, once a KV head sees
/// [`LONG`] tokens.
const PARTIALS: f64 = 0.03;
const LONG: u64 = 4096;

/// The counters of a launch, checked against their bounds.
pub fn check(
    candidate: &Candidate,
    case: &Case,
    task: Task,
    grid: [u32; 3],
    counts: &Counts,
) -> Vec<Failure> {
    let mut bounds = Bounds { candidate, case, failures: Vec::new() };
    bounds.writes(task, &counts.total);
    bounds.banks(&counts.total);
    match (candidate.phase(), task) {
        (Phase::Decode, _) => bounds.decode(&counts.total),
        (Phase::Prefill, Task::Fill) => bounds.fill(&counts.total),
        (Phase::Prefill, Task::Attend) => bounds.attend(grid, counts),
    }
    bounds.failures
}

struct Bounds<'a> {
    candidate: &'a Candidate,
    case: &'a Case,
    failures: Vec<Failure>,
}

impl Bounds<'_> {
    fn banks(&mut self, total: &Count) {
        let Count { shared_passes, bank_conflicts, .. } = total;
        let share = budget::conflicts(self.candidate.facts);
        if *bank_conflicts as f64 > share * *shared_passes as f64 {
            let what =
                format!("{bank_conflicts} of {shared_passes} passes over shared memory are bank conflicts");
            self.failures.push(Failure::new(Kind::Count, what));
        }
    }

    fn expect(&mut self, what: impl FnOnce() -> String, found: u64, expected: u64) {
        if found != expected {
            let what = format!("{}: {found}, expected {expected}", what());
            self.failures.push(Failure::new(Kind::Count, what));
        }
    }

    fn at_most(&mut self, what: impl FnOnce() -> String, found: u64, most: u64) {
        if found > most {
            let what = format!("{}: {found}, expected at most {most}", what());
            self.failures.push(Failure::new(Kind::Count, what));
        }
    }

    /// Everything written is something to write, and written once.
    fn writes(&mut self, task: Task, total: &Count) {
        let Self { candidate, case, .. } = *self;
        let layer = &candidate.layer;
        let head_rows: u64 = match (&case.work, task) {
            (_, Task::Fill) => 0,
            (Work::Tiles(tiles), _) => {
                tiles.iter().map(|tile| case.tile_rows(tile, candidate.tile_m()).len() as u64).sum()
            }
            _ => {
                case.requests.iter().map(|request| u64::from(request.chunk)).sum::<u64>()
                    * u64::from(layer.heads())
            }
        };
        let appended = match (candidate.phase(), task) {
            (Phase::Prefill, Task::Attend) => 0,
            _ => self.appended_rows(),
        };
        let lse = if case.lse { head_rows * 4 } else { 0 };
        let expected = BTreeMap::from([
            ("o", head_rows * layer.row_bytes()),
            ("lse", lse),
            ("slab", appended * layer.row_bytes()),
        ]);
        let scratch = |label: &str| match candidate.facts.rule.grid {
            Grid::Split { .. } => matches!(label, "partials" | "counters"),
            Grid::Items { .. } => label == "counters",
            Grid::Tiles { .. } | Grid::Rows { .. } | Grid::Wave { .. } => false,
        };
        for label in total.written.keys() {
            if !expected.contains_key(label.as_str()) && !scratch(label) {
                self.failures.push(Failure::new(Kind::Stray, format!("`{label}` was written to")));
            }
        }
        for (label, bytes) in expected {
            let of = |counts: &BTreeMap<String, u64>| counts.get(label).copied().unwrap_or(0);
            self.expect(|| format!("bytes written to `{label}`"), of(&total.written), bytes);
            self.expect(|| format!("distinct bytes written to `{label}`"), of(&total.unique_written), bytes);
        }
    }

    /// Rows of K and V that the chunks of the batch leave in rings.
    fn appended_rows(&self) -> u64 {
        let Self { candidate, case, .. } = self;
        let rows = |request: &super::case::Request| -> usize {
            let (from, to) = (request.cached, request.cached + request.chunk);
            image::rings(&candidate.layer, request.bucket).map(|ring| ring.changed(from, to).count()).sum()
        };
        case.requests.iter().map(rows).sum::<usize>() as u64
    }

    fn fill(&mut self, total: &Count) {
        if self.case.layout != Layout::Fused {
            let bytes = self.appended_rows() * self.candidate.layer.row_bytes();
            self.expect(|| "bytes of K and V read".into(), total.read_of(is_new), bytes);
        }
        self.expect(|| "bytes of the slab read".into(), total.read_of(is_slab), 0);
    }

    fn decode(&mut self, total: &Count) {
        let layer = &self.candidate.layer;
        let (mut visible, mut new, mut tiles, mut shortest) = (0, 0, 0, u64::MAX);
        for request in self.case.requests.iter().filter(|request| request.chunk > 0) {
            for &kv_span in &layer.bucket(request.bucket).kv_span {
                let tokens = u64::from(kv_span.min(request.cached + 1));
                visible += tokens;
                new += 1;
                tiles += tokens.div_ceil(u64::from(TILE));
                shortest = shortest.min(tokens);
            }
        }
        let pair = 2 * layer.row_bytes();
        let row_flops = 4 * u64::from(layer.head_dim);
        self.expect(|| "bytes of the slab read".into(), total.read_of(is_slab), (visible - new) * pair);
        if self.case.layout != Layout::Fused {
            self.expect(|| "bytes of the new token's K and V read".into(), total.read_of(is_new), new * pair);
        }
        // One matrix operand of 16 rows holds the query heads of a group.
        let flops = tiles * u64::from(TILE) * 16 * row_flops;
        self.at_most(|| "matrix operations".into(), total.matrix_flops, flops);
        if (LONG..u64::MAX).contains(&shortest) {
            let is_partials = |label: &str| label == "partials";
            let partials = total.read_of(is_partials) + total.written_of(is_partials);
            let most = (PARTIALS * (visible * pair) as f64) as u64;
            self.at_most(|| "bytes of split results, written and read".into(), partials, most);
        }
    }

    fn attend(&mut self, grid: [u32; 3], counts: &Counts) {
        let Self { candidate, case, .. } = *self;
        if candidate.one_tile_a_cta(grid, case) {
            let by_cta: BTreeMap<_, _> = counts.ctas.iter().map(|(cta, count)| (*cta, count)).collect();
            let nothing = Count::default();
            for tile in self.tiles() {
                let found = by_cta.get(&candidate.prefill_cta(case, grid, tile)).copied().unwrap_or(&nothing);
                let work = budget::tile(candidate, case, &tile);
                self.tile_work(&format!("the CTA of {tile:?}"), found, work);
            }
        } else {
            let work = self.tiles().iter().map(|tile| budget::tile(candidate, case, tile)).sum();
            self.tile_work("all CTAs", &counts.total, work);
        }
    }

    /// Holds the counts of some CTAs against what their tiles may take.
    fn tile_work(&mut self, who: &str, found: &Count, work: TileWork) {
        let pair = 2 * self.candidate.layer.row_bytes();
        let exact = budget::reads_exactly(self.candidate.facts.family);
        let at = |what: &str| format!("{what} by {who}");
        let (old, new) = (found.read_of(is_slab), found.read_of(is_new));
        if exact {
            self.expect(|| at("bytes of the slab read"), old, work.old * pair);
        } else {
            self.at_most(|| at("bytes of the slab read"), old, work.old * pair);
        }
        if self.case.layout != Layout::Fused {
            if exact {
                self.expect(|| at("bytes of K and V read"), new, work.new * pair);
            } else {
                self.at_most(|| at("bytes of K and V read"), new, work.new * pair);
            }
        }
        self.at_most(|| at("matrix operations"), found.matrix_flops, work.flops);
    }

    /// The tiles of the case, all or those chosen.
    fn tiles(&self) -> Vec<Tile> {
        match &self.case.work {
            Work::Tiles(tiles) => tiles.clone(),
            _ => all_tiles(self.candidate, self.case),
        }
    }
}

/// Every tile of query rows of a case.
pub fn all_tiles(candidate: &Candidate, case: &Case) -> Vec<Tile> {
    let mut tiles = Vec::new();
    for (request, &super::case::Request { chunk, .. }) in (0..).zip(&case.requests) {
        for head in 0..candidate.layer.heads() {
            let count = chunk.div_ceil(candidate.tile_m());
            tiles.extend((0..count).map(|index| Tile { request, head, index }));
        }
    }
    tiles
}

fn is_slab(label: &str) -> bool {
    label == "slab"
}

fn is_new(label: &str) -> bool {
    label == "k" || label == "v"
}
