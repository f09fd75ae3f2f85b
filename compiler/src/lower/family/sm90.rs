//! Hopper's kernels: tiles and what follows from them, and the order in which prefill's items are taken.
//!
//! The headers compute threads and shared memory too, and every rendered kernel asserts that both sides agree.

use moac_runtime::attention::HeadShape;
use moac_runtime::launch::{Grid, LaunchRule, Phase};
use moac_runtime::plan::TILE;

use super::{KernelShape, Tile, TileConfig};

/// Keys of a block of a prefill, query rows of a warpgroup, and bytes of a row of a panel of shared memory.
const BLOCK: u32 = 128;
const GROUP_ROWS: u32 = 64;
const PANEL_ROW: u32 = 128;

/// The tiles of a kernel and how it is launched.
pub fn configure(shape: KernelShape) -> (TileConfig, LaunchRule) {
    match shape.phase {
        Phase::Prefill => prefill(shape.head_dim),
        Phase::Decode => decode(shape),
    }
}

/// Two warpgroups multiply 64 query rows each at `head_dim` 128, whose accumulators fill their registers; at 64 there is room
/// for three. A third one copies. Two blocks of K and of V and the queries of two items fill the shared memory.
fn prefill(head_dim: u32) -> (TileConfig, LaunchRule) {
    let tile_m = if head_dim == 64 { 192 } else { 128 };
    let stages = 2;
    let groups = tile_m / GROUP_ROWS;
    let tiles = TileConfig { tile_m, tile_n: BLOCK, warps: 4 * (groups + 1), stages, min_tiles: 0 };
    let panels = head_dim / 64 * PANEL_ROW;
    let (queries, blocks) = (2 * tile_m * panels, 2 * stages * BLOCK * panels);
    let shared_bytes = queries + blocks + 2 * NOTE_BYTES + QUEUE_BYTES + (1 + 2 * 2 + 4 * stages) * 8;
    (tiles, LaunchRule { threads: 32 * tiles.warps, shared_bytes, grid: Grid::Items { rows: tile_m } })
}

/// Bytes of the producer's note of an item, and of its place in the order of items.
const NOTE_BYTES: u32 = 144;
const QUEUE_BYTES: u32 = 16;

/// Eight warps multiply, two by turns each quarter of a tile; two more copy. One CTA a multiprocessor, with 128 KiB of tiles
/// in flight: more of them queue behind each other in memory, and the first one of each CTA comes later.
fn decode(shape: KernelShape) -> (TileConfig, LaunchRule) {
    let KernelShape { head_dim, .. } = shape;
    let warps = 8;
    let bytes = |stages| decode_shared_bytes(shape, warps, stages);
    let stages = if head_dim == 64 { 8 } else { 4 };
    let tiles = TileConfig { tile_m: 8, tile_n: TILE, warps, stages, min_tiles: 2 };
    let grid = Grid::Split { per_sm: 1 };
    (tiles, LaunchRule { threads: 32 * warps + 64, shared_bytes: bytes(stages), grid })
}

/// Each stage holds a tile of K and of V and two barriers, each of two desks the query rows of the group, a segment's
/// description and two barriers. Then the warps' results of the group's heads meet in f32, or the parts of them that its
/// threads add up.
fn decode_shared_bytes(shape: KernelShape, warps: u32, stages: u32) -> u32 {
    let KernelShape { dtype, head_dim, group_size, .. } = shape;
    let tile = TILE * head_dim * dtype.bytes();
    let queries = group_size * (head_dim * dtype.bytes() + 16);
    let segment = 68 + 4 * (group_size / 4 * 4 + 3);
    let (threads, elements) = (32 * warps, group_size * head_dim / 4);
    let meeting = warps * group_size * (head_dim + 4) * 4;
    let sets = if threads / elements > 1 { threads * 32 } else { 0 };
    stages * (2 * tile + 16) + 2 * (queries + segment + 16) + meeting.max(sets) + 16
}

/// CTAs that the launch bounds make room for on a multiprocessor: one, which takes its shared memory.
pub const CTAS_PER_SM: u32 = 1;

/// Bytes of K and V of a section of KV heads, which are to stay in the L2 cache while their items are taken.
const SECTION_BYTES: u32 = 32 << 20;

/// The place of a tile of query rows in the order in which a prefill takes its items (`moac/sm90/items.cuh`). `chunks` has
/// the tokens in the slab and the new tokens of each request.
pub fn item(chunks: &[[u32; 2]], shape: HeadShape, rows: u32, tile: Tile) -> u32 {
    let HeadShape { heads, kv_heads, head_dim } = shape;
    let group = shape.group_size();
    let tiles = |chunk: u32| chunk.div_ceil(rows);
    let before: u32 = chunks[..tile.request as usize].iter().map(|&[_, chunk]| tiles(chunk) * heads).sum();
    let [cached, chunk] = chunks[tile.request as usize];
    let section = (SECTION_BYTES / (head_dim * 4) / (cached + chunk).max(1)).clamp(1, kv_heads);
    let first = tile.head / group / section * section;
    let heads_of_section = section.min(kv_heads - first) * group;
    let from_last = tiles(chunk) - 1 - tile.index;
    before + tiles(chunk) * group * first + from_last * heads_of_section + (tile.head - first * group)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn items_are_numbered_without_gaps_whatever_the_sections() {
        let shape = HeadShape { heads: 12, kv_heads: 4, head_dim: 128 };
        // Sections of all KV heads, of three, of one; and a request without new tokens.
        let chunks: [[u32; 2]; 4] = [[0, 300], [20_000, 130], [0, 0], [1_000_000, 1]];
        let mut seen = BTreeSet::new();
        for (request, &[_, chunk]) in (0..).zip(&chunks) {
            for head in 0..12 {
                for index in 0..chunk.div_ceil(128) {
                    assert!(seen.insert(item(&chunks, shape, 128, Tile { request, head, index })));
                }
            }
        }
        let all: BTreeSet<u32> = (0..12 * (3 + 2 + 1)).collect();
        assert_eq!(seen, all);
    }
}
