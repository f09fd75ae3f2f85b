//! The portable kernels' tiles and what follows from them: a pure function of the kernel's shape. Each row says why.
//!
//! The headers compute threads and shared memory too, and every rendered kernel asserts that both sides agree.

use moac_runtime::arch::Arch;
use moac_runtime::launch::{Grid, LaunchRule, Phase};
use moac_runtime::plan::{DType, TILE};

use super::{KernelShape, TileConfig};

/// CTAs that the launch bounds make room for on a multiprocessor. Two, so that one computes while the other waits for
/// memory: the portable kernels have no warps that only load.
pub const CTAS_PER_SM: u32 = 2;

/// Query rows of a decode CTA: one `mma` of 16 rows holds any group size up to 16.
const DECODE_ROWS: u32 = 16;

/// The tiles of a portable kernel and how it is launched.
pub fn configure(shape: KernelShape, arch: Arch) -> (TileConfig, LaunchRule) {
    let KernelShape { phase, dtype, head_dim, group_size } = shape;
    match phase {
        // 128 rows are the most whose accumulators 4 warps hold without spilling at head_dim 128. Two buffers of K and
        // one of V put all loads before the scores, where registers are free, and leave room for two CTAs on an SM,
        // which overlap each other's waits.
        Phase::Prefill => {
            let tiles = TileConfig { tile_m: 128, tile_n: TILE, warps: 4, stages: 2, min_tiles: 0 };
            let shared_bytes = (tiles.tile_m + (tiles.stages + 1) * tiles.tile_n) * head_dim * dtype.bytes();
            let grid = Grid::Tiles { rows: tiles.tile_m };
            (tiles, LaunchRule { threads: 32 * tiles.warps, shared_bytes, grid })
        }
        // Decode waits for memory: two CTAs an SM, each with as many stages as that leaves room for, up to what the
        // latency of memory can use. Where two do not fit with two stages, one has to do.
        Phase::Decode => {
            let warps = 4;
            let shared = |stages| decode_shared_bytes(warps, stages, head_dim, group_size, dtype);
            let most = if head_dim == 64 { 4 } else { 3 };
            let stages = (2..=most).rev().find(|&n| residents(shared(n), arch) >= CTAS_PER_SM).unwrap_or(2);
            let min_tiles = min_tiles(group_size, head_dim, dtype);
            let tiles = TileConfig { tile_m: DECODE_ROWS, tile_n: TILE, warps, stages, min_tiles };
            let shared_bytes = shared(stages);
            let grid = Grid::Split { per_sm: residents(shared_bytes, arch).clamp(1, CTAS_PER_SM) };
            (tiles, LaunchRule { threads: 32 * warps, shared_bytes, grid })
        }
    }
}

/// The last rows of a chunk see the most keys, and their CTAs go first.
pub fn prefill_cta(grid: [u32; 3], request: u32, rank: u32, index: u32) -> (u32, u32, u32) {
    (grid[0] - 1 - index, rank, request)
}

/// CTAs whose shared memory fits on a multiprocessor at once.
fn residents(shared_bytes: u32, arch: Arch) -> u32 {
    arch.shared_memory_per_sm() / (shared_bytes + 1024)
}

/// Each warp streams its own 16 rows of K and V through `stages` buffers; then the warps' results of the group's heads
/// meet in f32: the output, two numbers of the softmax and two of padding.
fn decode_shared_bytes(warps: u32, stages: u32, head_dim: u32, group_size: u32, dtype: DType) -> u32 {
    let stage = 2 * DECODE_ROWS * head_dim * dtype.bytes();
    let meeting = group_size * (head_dim + 4) * 4;
    warps * (stages * stage + meeting)
}

/// Visible tiles of a KV head from which on split results are to be at most 3% of its K and V: 4096 tokens.
const LONG: u32 = 4096 / TILE;

/// The fewest tiles of a split, such that a KV head of [`LONG`] tiles or more writes and reads at most 3% of its K and V
/// bytes again as split results. If cut every `m` tiles, it has up to `LONG / m + 1` splits, because the first and the last
/// cut need not lie at its ends.
fn min_tiles(group_size: u32, head_dim: u32, dtype: DType) -> u32 {
    let result = 2 * group_size * (head_dim + 2) * 4;
    let tile = 2 * TILE * head_dim * dtype.bytes();
    (100 * LONG * result).div_ceil(3 * LONG * tile - 100 * result)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(phase: Phase, head_dim: u32, group_size: u32) -> KernelShape {
        KernelShape { phase, dtype: DType::Bf16, head_dim, group_size }
    }

    #[test]
    fn split_results_are_at_most_three_percent_and_one_tile_less_would_not_do() {
        for head_dim in [64, 128] {
            for group_size in 1..=16 {
                let tiles = min_tiles(group_size, head_dim, DType::Bf16);
                let share = |tiles: u32| {
                    let result = f64::from(2 * group_size * (head_dim + 2) * 4);
                    (64.0 / f64::from(tiles) + 1.0) * result / (64.0 * f64::from(64 * head_dim * 2 * 2))
                };
                assert!(share(tiles) <= 0.03, "{head_dim} {group_size}");
                assert!(tiles == 1 || share(tiles - 1) > 0.03, "{head_dim} {group_size}");
            }
        }
        assert_eq!(min_tiles(4, 128, DType::Bf16), 5);
    }

    #[test]
    fn every_kernel_fits_the_shared_memory_of_every_architecture() {
        for arch in Arch::ALL {
            for head_dim in [64, 128] {
                for group_size in 1..=16 {
                    for phase in [Phase::Prefill, Phase::Decode] {
                        let (tiles, launch) = configure(shape(phase, head_dim, group_size), arch);
                        assert!(
                            residents(launch.shared_bytes, arch) >= 1,
                            "{arch} {head_dim} {group_size} {tiles:?}"
                        );
                        assert!(tiles.stages >= 2 && launch.threads == 128);
                    }
                }
            }
        }
    }

    #[test]
    fn the_llama_shape_is_as_designed() {
        let (tiles, launch) = configure(shape(Phase::Prefill, 128, 4), Arch::Sm90a);
        assert_eq!(tiles, TileConfig { tile_m: 128, tile_n: 64, warps: 4, stages: 2, min_tiles: 0 });
        assert_eq!(launch, LaunchRule { threads: 128, shared_bytes: 81920, grid: Grid::Tiles { rows: 128 } });
        let (tiles, launch) = configure(shape(Phase::Decode, 128, 4), Arch::Sm90a);
        assert_eq!(tiles, TileConfig { tile_m: 16, tile_n: 64, warps: 4, stages: 3, min_tiles: 5 });
        assert_eq!(launch.grid, Grid::Split { per_sm: 2 });
        let (tiles, launch) = configure(shape(Phase::Decode, 128, 4), Arch::Sm86);
        assert_eq!((tiles.stages, launch.grid), (2, Grid::Split { per_sm: 1 }));
    }
}
