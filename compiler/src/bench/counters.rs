//! The cost of launches, counted on the PTX emulator: bytes and matrix operations, and how many of them are useful.
//!
//! Decode is launched whole; of a prefill, one CTA per distinct rule is, that of the last tile of query rows, which walks
//! the most keys. Counts are exact and the same on every machine. Every launch is checked against the float64
//! reference on the way, so that the counted work is that of a right answer.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use moac_runtime::arch::Arch;
use moac_runtime::launch::Phase;
use rayon::prelude::*;
use serde::Serialize;

use super::points::Point;
use super::work::{self, Useful};
use crate::verify::bounds::all_tiles;
use crate::verify::device::{Count, Counts, Device as _};
use crate::verify::{Candidate, Case, Emulated, Error, Harness, Inputs, Layout, Request, Tile, Work};

/// Multiprocessors that decode's grid is made for: an H100's or H200's.
const SMS: u32 = 132;
/// Keys, in tiles, that the counted CTAs of a prefill may walk: about a second on the emulator.
const WALK: u64 = 512;
const SEED: u64 = 1;

/// The counts of one kernel at one point.
#[derive(Clone, Debug, Serialize)]
pub struct Counters {
    /// The kernel.
    pub kernel: String,
    /// The architecture that it was compiled for.
    pub arch: Arch,
    /// The layers that use it.
    pub layers: Vec<u32>,
    /// The kernel launched.
    #[serde(flatten)]
    pub point: Point,
    /// CTAs that were counted.
    pub ctas: usize,
    /// CTAs that the whole launch has.
    pub ctas_in_all: usize,
    /// Bytes of K and V read, from rings and from new tokens.
    pub kv_bytes: u64,
    /// Of those, what the CTA reads that reads most, over the mean of all CTAs: 1 where they share evenly, the number of CTAs
    /// where one reads everything. Of decode only: no prefill is counted whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub imbalance: Option<f64>,
    /// Bytes of q read.
    pub q_bytes: u64,
    /// Bytes of o written.
    pub o_bytes: u64,
    /// Bytes of split results, written and read back.
    pub partials_bytes: u64,
    /// Operations of matrix instructions.
    pub matrix_flops: u64,
    /// The bytes of K and V of the visible tokens, and the operations of the visible pairs.
    pub useful: Useful,
    /// The failures of the launch; if there are any, its counts mean nothing.
    pub failures: Vec<String>,
}

/// Counts one kernel after the other, each at the points of its phase. `done` is called after each count, from any
/// thread; no further one is begun once `stop` is set.
///
/// # Errors
/// If the emulator or the reference refuse.
pub fn count(
    candidates: &[Candidate],
    points: &[Point],
    stop: &AtomicBool,
    done: &(dyn Fn(&Candidate) + Sync),
) -> Result<Vec<Counters>, Error> {
    let jobs: Vec<(&Candidate, Point)> = candidates
        .iter()
        .flat_map(|candidate| points.iter().map(move |point| (candidate, *point)))
        .filter(|(candidate, point)| candidate.phase() == point.phase)
        .collect();
    let counted: Result<Vec<_>, Error> = jobs
        .par_iter()
        .with_max_len(1)
        .filter(|_| !stop.load(Ordering::Relaxed))
        .map(|(candidate, point)| {
            let counters = one(candidate, *point)?;
            done(candidate);
            Ok(counters)
        })
        .collect();
    counted
}

fn one(candidate: &Candidate, point: Point) -> Result<Counters, Error> {
    let layer = &candidate.layer;
    let case = case(candidate, point);
    let mut device = Emulated::new(SEED);
    device.sms = SMS;
    device.load(candidate)?;
    let inputs = Inputs::new(layer.dtype, layer.head_dim, SEED);
    let outcome = Harness::new(device, inputs, SEED).run(candidate, &case)?;
    let counts = outcome.counts.first().cloned().unwrap_or_default();
    let total = &counts.total;
    let of = |label: &'static str| move |name: &str| name == label;
    let (ctas, ctas_in_all, useful) = if let Work::Tiles(tiles) = &case.work {
        let useful = tiles.iter().map(|tile| tile_useful(candidate, &case, tile)).sum();
        (tiles.len(), all_tiles(candidate, &case).len(), useful)
    } else {
        let shape = (layer.head_dim, layer.row_bytes());
        let bucket = case.requests[0].bucket;
        let each = work::request(&layer.geometry, bucket, point.phase, point.context, shape);
        let ctas = candidate.facts.rule.grid.split_ctas(SMS) as usize;
        (ctas, ctas, each * u64::from(point.batch))
    };
    Ok(Counters {
        kernel: candidate.symbol.clone(),
        arch: candidate.arch,
        layers: candidate.layers.clone(),
        point,
        ctas,
        ctas_in_all,
        kv_bytes: kv_bytes(total),
        imbalance: imbalance(&counts, ctas_in_all).filter(|_| point.phase == Phase::Decode),
        q_bytes: total.read_of(of("q")),
        o_bytes: total.written_of(of("o")),
        partials_bytes: total.written_of(of("partials")) + total.read_of(of("partials")),
        matrix_flops: total.matrix_flops,
        useful,
        failures: outcome.failures.iter().map(ToString::to_string).collect(),
    })
}

fn kv_bytes(count: &Count) -> u64 {
    count.read_of(|label| matches!(label, "slab" | "k" | "v"))
}

/// The K and V of the busiest CTA over the mean of `ctas`; `None` if nothing was read.
fn imbalance(counts: &Counts, ctas: usize) -> Option<f64> {
    let most = counts.ctas.iter().map(|(_, count)| kv_bytes(count)).max()?;
    let total = kv_bytes(&counts.total);
    (total > 0).then(|| most as f64 * ctas as f64 / total as f64)
}

/// The launch of a point, or what is counted of it.
fn case(candidate: &Candidate, point: Point) -> Case {
    let layer = &candidate.layer;
    let lengths = layer.geometry.buckets.iter().map(|bucket| bucket.length);
    // Contexts that no bucket holds were refused.
    let bucket = lengths.into_iter().position(|length| length >= point.context).unwrap_or_default();
    let (chunk, batch) = (point.chunk(), point.batch);
    let cached = point.context - chunk;
    let mut case = Case {
        name: format!("{} tokens", point.context),
        requests: (0..batch).map(|sequence| Request { sequence, bucket, cached, chunk }).collect(),
        work: Work::Decode { ctas: 0 },
        layout: Layout::Packed,
        lse: false,
    };
    if point.phase == Phase::Prefill {
        case.work = Work::Tiles(tiles(candidate, &case));
    }
    case
}

/// The last tile of query rows of a head of each rule, as many as fit the walk: longest span first.
fn tiles(candidate: &Candidate, case: &Case) -> Vec<Tile> {
    let layer = &candidate.layer;
    let request = case.requests[0];
    let index = (request.chunk - 1) / candidate.tile_m();
    let mut groups = BTreeSet::new();
    let mut heads: Vec<u32> = (0..layer.heads())
        .filter(|&head| groups.insert(layer.geometry.group_of_head[head as usize]))
        .collect();
    heads.sort_by_key(|&head| std::cmp::Reverse(layer.window(request.bucket, head)));
    let mut walk = 0;
    let mut tiles = Vec::new();
    for head in heads {
        let tile = Tile { request: 0, head, index };
        let span = layer.window(request.bucket, head) + layer.sink;
        walk += work::keys(&case.tile_rows(&tile, candidate.tile_m()), span).div_ceil(64);
        if walk > WALK && !tiles.is_empty() {
            break;
        }
        tiles.push(tile);
    }
    tiles
}

fn tile_useful(candidate: &Candidate, case: &Case, tile: &Tile) -> Useful {
    let layer = &candidate.layer;
    let Request { bucket, cached, .. } = case.requests[tile.request as usize];
    let rows = case.tile_rows(tile, candidate.tile_m());
    let queries = cached + rows.start..cached + rows.end;
    let span = layer.window(bucket, tile.head) + layer.sink;
    work::head(&queries, span, layer.head_dim, layer.row_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_cta_is_compared_with_the_mean_of_all() {
        let count = |slab: u64, q: u64| Count {
            read: [("slab".to_owned(), slab), ("q".to_owned(), q)].into(),
            ..Count::default()
        };
        let counts = |ctas: &[Count], total| Counts {
            ctas: (0..).zip(ctas).map(|(x, count)| ((x, 0, 0), count.clone())).collect(),
            total,
        };
        let some = counts(&[count(300, 1), count(100, 900), count(0, 1)], count(400, 902));
        assert_eq!(imbalance(&some, 4), Some(3.0));
        assert_eq!(imbalance(&counts(&[count(50, 0), count(50, 7)], count(100, 7)), 2), Some(1.0));
        assert_eq!(imbalance(&counts(&[count(0, 5)], count(0, 5)), 1), None, "nothing is read");
    }
}
