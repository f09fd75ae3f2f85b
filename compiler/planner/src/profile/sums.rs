//! The sums of one item: the results of its reverse pass, by block, for every head and [`Part`].

use moac_model::Config;
use moac_model::backward::influence::{BLOCK, HeadSums, Sums};

use crate::items::Item;

/// One of the sums by block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `E` over far halves.
    Far,
    /// `E` over near halves.
    Near,
    /// `|E|` over far halves.
    FarAbsolute,
    /// `|E|` over near halves.
    NearAbsolute,
    /// `F` over rows, by window instead of key block.
    Windows,
    /// `|F|` over rows.
    WindowsAbsolute,
    /// The loss in nats of an answer's token that the squares of `F` over rows stand for.
    Squares,
    /// A head's share in the same of all heads of its KV head together.
    JointSquares,
}

/// How many there are.
pub(super) const PARTS: usize = 8;

/// The sums of one item.
#[derive(Clone, Debug, PartialEq)]
pub struct ItemInfluence {
    /// The mean loss in nats of the answer's tokens.
    pub loss: f64,
    /// 64-token blocks of the item.
    pub blocks: usize,
    answer_tokens: usize,
    heads_per_layer: usize,
    heads_per_kv_head: usize,
    heads: usize,
    /// `[PARTS][heads][triangle]`
    pub(super) values: Vec<f32>,
}

/// Blocks on and below the diagonal of `blocks` times `blocks`.
pub(super) fn triangle(blocks: usize) -> usize {
    blocks * (blocks + 1) / 2
}

impl ItemInfluence {
    /// Zeros for an item, all of whose tokens but the last are given to the model.
    pub fn new(config: &Config, item: &Item, loss: f64) -> Self {
        let blocks = (item.tokens.len() - 1).div_ceil(BLOCK);
        let heads = config.num_layers * config.num_heads;
        let values = vec![0.0; PARTS * heads * triangle(blocks)];
        Self {
            loss,
            blocks,
            answer_tokens: item.tokens.len() - item.answer,
            heads_per_layer: config.num_heads,
            heads_per_kv_head: config.num_heads / config.num_kv_heads,
            heads,
            values,
        }
    }

    /// Query heads of all layers.
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// Puts in the sums of a layer.
    pub fn put(&mut self, layer: usize, heads: &[HeadSums]) {
        // F is of the mean loss of the answer's tokens; the Fisher information is that of their sum, and the loss again the
        // mean.
        let half = 0.5 * self.answer_tokens as f64;
        let share = half / self.heads_per_kv_head as f64;
        for (head, sums) in heads.iter().enumerate() {
            let head = layer * self.heads_per_layer + head;
            for query in 0..self.blocks {
                for key in 0..=query {
                    let from = query * sums.blocks + key;
                    let parts = [
                        (sums.far[from], Part::Far, Part::FarAbsolute),
                        (sums.near[from], Part::Near, Part::NearAbsolute),
                        (sums.windows[from], Part::Windows, Part::WindowsAbsolute),
                    ];
                    for (Sums { signed, absolute }, plain, magnitudes) in parts {
                        for (part, value) in [(plain, signed), (magnitudes, absolute)] {
                            let at = self.at(part, head, query, key);
                            self.values[at] = value as f32;
                        }
                    }
                    let squares = [
                        (Part::Squares, half * sums.squares[from]),
                        (Part::JointSquares, share * sums.joint_squares[from]),
                    ];
                    for (part, value) in squares {
                        let at = self.at(part, head, query, key);
                        self.values[at] = value as f32;
                    }
                }
            }
        }
    }

    /// A sum: `key` is a key block, or a window in blocks. At most `query`.
    pub fn get(&self, part: Part, head: usize, query: usize, key: usize) -> f32 {
        self.values[self.at(part, head, query, key)]
    }

    fn at(&self, part: Part, head: usize, query: usize, key: usize) -> usize {
        (part as usize * self.heads + head) * triangle(self.blocks) + triangle(query) + key
    }

    /// Whether every sum is a number.
    pub fn is_finite(&self) -> bool {
        self.loss.is_finite() && self.values.iter().all(|value| value.is_finite())
    }
}
