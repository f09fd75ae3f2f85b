//! The reads and products that a prefill of each family is allowed: which blocks of keys it loads for a tile of query rows, and which
//! its warps multiply.
//!
//! Portable kernels load a tile of 64 keys iff a query of theirs sees a key in it, no row more. Hopper's load the chunk's own
//! keys in blocks of 128 rows from the chunk's first on, whole boxes even where the chunk ends, and rings in tiles; both
//! warpgroups multiply every block that one of them sees.

use std::iter::Sum;
use std::ops::Range;

use moac_runtime::attention::KernelFacts;
use moac_runtime::launch::{Family, Phase};
use moac_runtime::plan::TILE;

use super::candidate::Candidate;
use super::case::{Case, Request};
use crate::lower::family::Tile;

/// The budget of one tile of a prefill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TileWork {
    /// Rows of K, and as many of V, from the slab.
    pub old: u64,
    /// Rows of K, and as many of V, from the chunk.
    pub new: u64,
    /// Operations of matrix instructions.
    pub flops: u64,
}

impl Sum for TileWork {
    fn sum<I: Iterator<Item = Self>>(each: I) -> Self {
        each.fold(Self::default(), |a, b| Self {
            old: a.old + b.old,
            new: a.new + b.new,
            flops: a.flops + b.flops,
        })
    }
}

/// Whether kernels of a family read exactly their budget, or may read less of it.
pub fn reads_exactly(family: Family) -> bool {
    family == Family::Sm80
}

/// Whether kernels of a family may read rows of q, k and v that belong to no request: whole boxes, of which they use what is
/// theirs.
pub fn reads_whole_boxes(family: Family) -> bool {
    family == Family::Sm90
}

/// Bank conflicts may take this share of the passes over shared memory. Prefill has none to speak of; where decode's
/// warps meet, once a segment, some rows share banks, which shows in segments as short as the tests'.
pub fn conflicts(facts: KernelFacts) -> f64 {
    match facts.phase {
        Phase::Prefill => 0.02,
        Phase::Decode => 0.25,
    }
}

/// The rows of a chunk that a tile of query rows loads and that are the request's, as ranges of tokens of the chunk.
pub fn own_rows(candidate: &Candidate, case: &Case, tile: &Tile) -> Vec<Range<u32>> {
    let layer = &candidate.layer;
    let request = &case.requests[tile.request as usize];
    let Request { cached, chunk, .. } = *request;
    let window = layer.window(request.bucket, tile.head);
    let queries = positions(request, case.tile_rows(tile, candidate.tile_m()));
    match candidate.facts.family {
        Family::Sm80 => tiles_seen(&queries, layer.sink, window)
            .map(|keys| {
                let first = (keys * TILE).saturating_sub(cached);
                first..((keys + 1) * TILE).saturating_sub(cached).min(chunk).max(first)
            })
            .collect(),
        Family::Sm90 => blocks_of(chunk)
            .filter(|own| sees_any(&queries, &(cached + own.start..cached + own.end), layer.sink, window))
            .collect(),
    }
}

/// The budget of the CTA of a tile of query rows.
pub fn tile(candidate: &Candidate, case: &Case, tile: &Tile) -> TileWork {
    match candidate.facts.family {
        Family::Sm80 => portable(candidate, case, tile),
        Family::Sm90 => hopper(candidate, case, tile),
    }
}

fn portable(candidate: &Candidate, case: &Case, tile: &Tile) -> TileWork {
    let layer = &candidate.layer;
    let request = &case.requests[tile.request as usize];
    let (cached, end) = (request.cached, request.cached + request.chunk);
    let window = layer.window(request.bucket, tile.head);
    let rows = case.tile_rows(tile, candidate.tile_m());
    let mut work = TileWork::default();
    for keys in tiles_seen(&positions(request, rows.clone()), layer.sink, window) {
        let (first, last) = (keys * TILE, end.min((keys + 1) * TILE));
        let split = cached.clamp(first, last);
        work.old += u64::from(split - first);
        work.new += u64::from(last - split);
    }
    let warps = candidate.facts.rule.threads / 32;
    let warp_rows = candidate.tile_m() / warps;
    for warp in 0..warps {
        let own = part(&rows, warp, warp_rows);
        let tiles = tiles_seen(&positions(request, own), layer.sink, window).count() as u64;
        work.flops += tiles * flops(warp_rows, TILE, layer.head_dim);
    }
    work
}

/// Keys of a block of the chunk's own, and query rows of a warpgroup.
const BLOCK: u32 = 128;
const GROUP_ROWS: u32 = 64;

fn hopper(candidate: &Candidate, case: &Case, tile: &Tile) -> TileWork {
    let layer = &candidate.layer;
    let request = &case.requests[tile.request as usize];
    let window = layer.window(request.bucket, tile.head);
    let rows = case.tile_rows(tile, candidate.tile_m());
    let queries = positions(request, rows.clone());
    let sees = |keys: &Range<u32>| sees_any(&queries, keys, layer.sink, window);
    let old = tiles_of(0..request.cached).filter(sees).count() as u64;
    let own = own_rows(candidate, case, tile).len() as u64;
    // Every warpgroup that has rows multiplies all blocks of its CTA; any two tiles of the ring make a block.
    let groups = u64::from(rows.end - rows.start).div_ceil(u64::from(GROUP_ROWS));
    TileWork {
        old: old * u64::from(TILE),
        new: own * u64::from(BLOCK),
        flops: groups * (old.div_ceil(2) + own) * flops(GROUP_ROWS, BLOCK, layer.head_dim),
    }
}

/// Operations of Q K and P V of a block of queries and keys.
fn flops(queries: u32, keys: u32, head_dim: u32) -> u64 {
    4 * u64::from(queries) * u64::from(keys) * u64::from(head_dim)
}

/// The positions of rows of a request's chunk.
fn positions(request: &Request, rows: Range<u32>) -> Range<u32> {
    request.cached + rows.start..request.cached + rows.end
}

/// Part number `part` of `size` rows.
fn part(rows: &Range<u32>, part: u32, size: u32) -> Range<u32> {
    let first = rows.start + part * size;
    first.min(rows.end)..(first + size).min(rows.end)
}

/// The blocks of a chunk's own keys, in tokens of the chunk, the last one shorter.
fn blocks_of(chunk: u32) -> impl Iterator<Item = Range<u32>> {
    (0..chunk).step_by(BLOCK as usize).map(move |first| first..chunk.min(first + BLOCK))
}

/// Ranges of 64 positions, the last one shorter.
fn tiles_of(positions: Range<u32>) -> impl Iterator<Item = Range<u32>> + Clone {
    let end = positions.end;
    positions.step_by(TILE as usize).map(move |first| first..end.min(first + TILE))
}

/// Whether some query at a position in `queries` sees some key at a position in `keys`.
fn sees_any(queries: &Range<u32>, keys: &Range<u32>, sink: u32, window: u32) -> bool {
    !queries.is_empty()
        && !keys.is_empty()
        && keys.start < queries.end
        && (keys.start < sink || keys.end > queries.start || queries.start - (keys.end - 1) < window)
}

/// Whether some query at a position in `queries` sees some key of tile `tile`.
pub fn sees_tile(queries: &Range<u32>, tile: u32, sink: u32, window: u32) -> bool {
    sees_any(queries, &(tile * TILE..(tile + 1) * TILE), sink, window)
}

/// The tiles of keys that some query at a position in `queries` sees, ascending.
pub fn tiles_seen(queries: &Range<u32>, sink: u32, window: u32) -> impl Iterator<Item = u32> {
    let queries = queries.clone();
    (0..queries.end.div_ceil(TILE)).filter(move |&tile| sees_tile(&queries, tile, sink, window))
}

#[cfg(test)]
mod tests {
    use moac_runtime::geometry::visible;

    use super::*;

    #[test]
    fn a_tile_is_seen_iff_some_query_sees_some_key_of_it() {
        for (sink, window) in [(64, 64), (64, 128), (128, 192)] {
            for (first, count) in
                [(0, 1), (0, 16), (60, 8), (127, 1), (128, 128), (255, 2), (300, 33), (64, 0)]
            {
                let queries = first..first + count;
                for tile in 0..8 {
                    let keys = tile * TILE..(tile + 1) * TILE;
                    let brute = queries.clone().any(|i| keys.clone().any(|j| visible(i, j, sink, window)));
                    assert_eq!(sees_tile(&queries, tile, sink, window), brute, "{queries:?} {tile} {window}");
                }
            }
        }
    }
}
