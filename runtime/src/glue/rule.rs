//! Threads, grids and scratch of the engine's kernels, as they follow from a model's sizes.
//!
//! The headers compute threads from the same numbers, and every rendered kernel asserts that both sides agree.

use super::{Activate, Outcome, Row, TOP_LOGPROBS};
use super::{Block, Embed, EngineShape, Linear, Norm, Op, Rotate, Sample, SampleParams};
use crate::attention::WaitsFor;
use crate::launch::{Grid, LaunchRule};
use crate::plan::ModelShape;

/// The longest row that a norm holds in registers.
pub const MAX_HIDDEN: u32 = 1 << 15;
/// The largest vocabulary: sums of its probabilities fit 64 bits.
pub const MAX_VOCAB: u32 = 1 << 20;

/// Elements that a thread moves at once: 16 bytes.
const VECTOR: u32 = 8;
/// Threads of a norm's CTA at most: a row in one pass, two vectors a thread where it is long.
const NORM_THREADS: u32 = 512;
/// Logits of a CTA of a sample: eight a thread.
const SAMPLE_TOKENS: u32 = 8 * SAMPLE_THREADS;
const SAMPLE_THREADS: u32 = 1024;

/// The numbers that kernels are compiled for, beside [`EngineShape`]'s frequencies and flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Elements of a row between layers.
    pub hidden: u32,
    /// Elements of the MLP's inner row.
    pub intermediate: u32,
    /// Rows of the output head.
    pub vocab: u32,
    /// Query heads.
    pub heads: u32,
    /// KV heads.
    pub kv_heads: u32,
    /// Elements of a head.
    pub head_dim: u32,
    /// Whether q, k and v have a bias.
    pub qkv_bias: bool,
    /// Whether the heads of q and k have a norm.
    pub qk_norm: bool,
}

/// One launch of a kernel of the engine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Launch {
    /// CTAs in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a CTA.
    pub threads: u32,
    /// Bytes of dynamic shared memory of a CTA.
    pub shared_bytes: u32,
    /// The launch that must have ended before it begins.
    pub waits_for: WaitsFor,
    /// Its parameters.
    pub block: Block,
}

impl EngineShape {
    /// The sizes of a model, or of `kv_heads` of its KV heads with their query heads.
    pub fn sizes(&self, model: &ModelShape, kv_heads: u32) -> Sizes {
        Sizes {
            hidden: self.hidden,
            intermediate: self.intermediate,
            vocab: self.vocab,
            heads: kv_heads * model.group_size(),
            kv_heads,
            head_dim: model.head_dim,
            qkv_bias: self.qkv_bias,
            qk_norm: self.qk_norm,
        }
    }
}

impl Sizes {
    /// Elements of a row of q, k and v together.
    pub const fn qkv(&self) -> u32 {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Words of the bits of a lane's tokens.
    pub const fn seen_words(&self) -> u32 {
        self.vocab.div_ceil(32)
    }

    /// CTAs that look at one sample.
    pub const fn sample_parts(&self) -> u32 {
        self.vocab.div_ceil(SAMPLE_TOKENS)
    }

    /// Bytes of scratch of a launch over `samples` samples: what each CTA finds, which is three numbers and the likeliest of
    /// its tokens.
    pub fn scratch_bytes(&self, samples: u32) -> u64 {
        let found = 16 + 8 * u64::from(TOP_LOGPROBS);
        u64::from(samples) * u64::from(self.sample_parts()) * found
    }

    /// How the kernel of an operation is launched.
    pub const fn rule(&self, op: Op) -> LaunchRule {
        let (threads, parts) = match op {
            Op::Embed => {
                let vectors = (self.hidden / VECTOR).next_multiple_of(32);
                (if vectors < 256 { vectors } else { 256 }, 1)
            }
            Op::Norm => {
                let vectors = self.hidden / VECTOR;
                let of_thread = vectors.div_ceil(NORM_THREADS);
                (vectors.div_ceil(of_thread).next_multiple_of(32), 1)
            }
            // A thread has a vector of each half of a head.
            Op::Rotate => {
                let heads = self.heads + if self.qkv_bias { 2 } else { 1 } * self.kv_heads;
                let of_cta = 128 / (self.head_dim / (2 * VECTOR));
                (128, heads.div_ceil(of_cta))
            }
            Op::Activate => (128, (self.intermediate / VECTOR).div_ceil(128)),
            Op::Sample => (SAMPLE_THREADS, self.sample_parts()),
            Op::Qkv | Op::Output | Op::GateUp | Op::Down | Op::Head => {
                let Some(layer) = self.layer(op) else { unreachable!() };
                return layer.rule();
            }
        };
        LaunchRule { threads, shared_bytes: 0, grid: Grid::Rows { parts } }
    }

    /// The launch of a block on a device of `sms` multiprocessors. Where the kernel's architecture can (`overlaps`), it may
    /// begin while the kernel before it ends.
    pub const fn launch(&self, block: Block, overlaps: bool, sms: u32) -> Launch {
        let LaunchRule { threads, shared_bytes, grid } = self.rule(block.op());
        let waits_for = if overlaps { WaitsFor::AllButTheLast } else { WaitsFor::AllBefore };
        Launch { grid: grid.of_rows_on(block.rows(), sms), threads, shared_bytes, waits_for, block }
    }

    /// The ranges of memory that a launch may touch: where each begins, and how many bytes it has. Optional ones that are
    /// absent are left out.
    pub fn ranges(&self, block: &Block) -> Vec<(u64, u64)> {
        let [hidden, vocab] = [self.hidden, self.vocab].map(u64::from);
        let [qkv, head_dim, inner] = [self.qkv(), self.head_dim, self.intermediate].map(u64::from);
        let seen = |lanes: u32| u64::from(lanes) * u64::from(self.seen_words()) * 4;
        let table = |rows: u32, bytes: usize| u64::from(rows) * bytes as u64;
        let elements = |rows: u32, width: u64| u64::from(rows) * width * 2;
        let mut ranges = match *block {
            Block::Embed(Embed { table: rows_of, embedding, x, newest, seen: bits, lanes, rows }) => vec![
                (rows_of, table(rows, Row::BYTES)),
                (embedding, vocab * hidden * 2),
                (x, elements(rows, hidden)),
                (newest, table(lanes, 4)),
                (bits, seen(lanes)),
            ],
            Block::Norm(Norm { x, weight, y, samples, of_rows, rows }) => vec![
                (x, elements(of_rows, hidden)),
                (weight, hidden * 2),
                (y, elements(rows, hidden)),
                (samples, table(rows, Sample::BYTES)),
            ],
            Block::Rotate(Rotate { table: rows_of, qkv: x, bias, q_norm, k_norm, rows, reserved: _ }) => {
                vec![
                    (rows_of, table(rows, Row::BYTES)),
                    (x, elements(rows, qkv)),
                    (bias, qkv * 2),
                    (q_norm, head_dim * 2),
                    (k_norm, head_dim * 2),
                ]
            }
            Block::Linear(op, Linear { x, weights, norm, y, rows, reserved: _ }) => {
                let layer = self.layer(op).expect("the block of a linear layer has the operation of one");
                let [depth, results] = [layer.depth, layer.results()].map(u64::from);
                vec![
                    (x, elements(rows, depth)),
                    (weights, elements(layer.out, depth)),
                    (norm, depth * 2),
                    (y, u64::from(rows) * results * u64::from(layer.result_bytes())),
                ]
            }
            Block::Activate(Activate { gate_up, y, rows, reserved: _ }) => {
                vec![(gate_up, elements(rows, 2 * inner)), (y, elements(rows, inner))]
            }
            Block::Sample(SampleParams {
                samples,
                logits,
                outcomes,
                top,
                newest,
                seen: bits,
                counters,
                scratch,
                lanes,
                rows,
            }) => {
                vec![
                    (samples, table(rows, Sample::BYTES)),
                    (logits, u64::from(rows) * vocab * 4),
                    (outcomes, table(rows, Outcome::BYTES)),
                    (top, table(rows, Outcome::BYTES) * u64::from(TOP_LOGPROBS)),
                    (newest, table(lanes, 4)),
                    (bits, seen(lanes)),
                    (counters, table(rows, 4)),
                    (scratch, self.scratch_bytes(rows)),
                ]
            }
        };
        ranges.retain(|(address, _)| *address != 0);
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes() -> Sizes {
        Sizes {
            hidden: 4096,
            intermediate: 14336,
            vocab: 128_256,
            heads: 32,
            kv_heads: 8,
            head_dim: 128,
            qkv_bias: false,
            qk_norm: false,
        }
    }

    #[test]
    fn the_llama_shape_is_launched_as_designed() {
        let rule = |sizes: Sizes, op| {
            let LaunchRule { threads, shared_bytes, grid } = sizes.rule(op);
            assert_eq!(shared_bytes, 0);
            (threads, grid.of_rows(3))
        };
        assert_eq!(rule(sizes(), Op::Embed), (256, [3, 1, 1]));
        assert_eq!(rule(sizes(), Op::Norm), (512, [3, 1, 1]));
        assert_eq!(rule(sizes(), Op::Rotate), (128, [3, 3, 1])); // 40 heads, 16 to a CTA
        assert_eq!(rule(sizes(), Op::Activate), (128, [3, 14, 1]));
        assert_eq!(rule(sizes(), Op::Sample), (1024, [3, 16, 1]));
        assert_eq!(rule(Sizes { hidden: 8, ..sizes() }, Op::Norm), (32, [3, 1, 1]));
        assert_eq!(rule(Sizes { hidden: 8200, ..sizes() }, Op::Norm).0, 352); // 1025 vectors, three to a thread
        assert_eq!(rule(Sizes { head_dim: 64, qkv_bias: true, ..sizes() }, Op::Rotate).1, [3, 2, 1]);
    }

    /// Every kernel's threads cover its row, whatever the sizes.
    #[test]
    fn threads_and_parts_cover_every_row() {
        for width in (8..=MAX_HIDDEN).step_by(8 * 37) {
            let sizes = Sizes { hidden: width, intermediate: width, vocab: width * 7 + 1, ..sizes() };
            for op in Op::ALL {
                let LaunchRule { threads, grid, .. } = sizes.rule(op);
                assert!(threads % 32 == 0 && (32..=1024).contains(&threads), "{op:?} {width}");
                let all = threads * grid.of_rows(1)[1];
                match op {
                    Op::Norm => assert!(all * (width / 8).div_ceil(all) >= width / 8 && all * 8 >= width / 8),
                    Op::Activate => assert!(all >= width / 8 && all < width / 8 + 128),
                    Op::Sample => assert!(all * 8 >= sizes.vocab && grid.of_rows(1)[1] <= threads),
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn a_launch_names_the_memory_that_it_touches() {
        let block = Block::Norm(Norm { x: 256, weight: 512, y: 1024, samples: 0, of_rows: 5, rows: 2 });
        assert_eq!(sizes().ranges(&block), [(256, 5 * 8192), (512, 8192), (1024, 2 * 8192)]);
        let launch = sizes().launch(block, true, 132);
        assert_eq!((launch.grid, launch.waits_for), ([2, 1, 1], WaitsFor::AllButTheLast));
        assert_eq!(sizes().launch(block, false, 132).waits_for, WaitsFor::AllBefore);
        assert_eq!(block.to_bytes().len(), block.op().abi().params_bytes);
        assert_eq!(sizes().scratch_bytes(2), 2 * 16 * 176);
    }
}
