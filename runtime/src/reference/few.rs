//! The online softmax in float32 of a few query rows, those of one KV head in a decode step.
//!
//! Keys and values are read once, at the speed of memory: a row is too few for the lanes of a vector, so here they run
//! along the head. The scores of a key lie together, one for each row; missing rows have queries of zeros.

// As in `simd`: what is not inlined into the function with the wide vectors is compiled without them.
#![allow(clippy::inline_always)]

use ndarray::{Array1, Array2};

use super::softmax::{Row, Softmax, Tile};
use crate::geometry;
use crate::matvec::{FEW, dots, weighted_sums};
use crate::simd::{NullaryFnOnce, exp, vectorized};

/// Keys whose scores are kept at a time: their keys and values fit a first-level cache.
const KEYS: usize = 64;
/// Scores that are computed with at a time: those of four keys, a vector of the widest.
const STRETCH: usize = 4 * FEW;

/// The state of at most [`FEW`] rows.
#[derive(Debug)]
pub struct Few {
    rows: Vec<Row>,
    sink: u32,
    /// Scaled queries, `[FEW, dim]`.
    q: Vec<f32>,
    scores: [[f32; FEW]; KEYS],
    max: [f32; FEW],
    sum: [f32; FEW],
    /// Outputs before the division by `sum`, `[FEW, dim]`.
    o: Vec<f32>,
}

impl Softmax<f32> for Few {
    fn start(q: &Array2<f32>, rows: &[Row], sink: u32) -> Self {
        let mut padded = vec![0.0; FEW * q.ncols()];
        for (padded, &q) in padded.iter_mut().zip(q) {
            *padded = q;
        }
        Self {
            rows: rows.to_vec(),
            sink,
            o: vec![0.0; padded.len()],
            q: padded,
            scores: [[0.0; FEW]; KEYS],
            max: [f32::NEG_INFINITY; FEW],
            sum: [0.0; FEW],
        }
    }

    fn take(&mut self, tile: &Tile<'_, f32>) {
        // A ring is contiguous; a chunk may be a view of a wider tensor, and is copied.
        let (k, v) = (tile.k.as_standard_layout(), tile.v.as_standard_layout());
        let (Some(k), Some(v)) = (k.as_slice(), v.as_slice()) else { return };
        let keys = KEYS * self.q.len() / FEW;
        for (first, (k, v)) in (tile.first..).step_by(KEYS).zip(k.chunks(keys).zip(v.chunks(keys))) {
            self.take_part(first, k, v, tile.whole);
        }
    }

    fn finish(self) -> (Array2<f32>, Array1<f32>) {
        let dim = self.q.len() / FEW;
        let rows = self.rows.len();
        let o = Array2::from_shape_fn((rows, dim), |(row, d)| self.o[row * dim + d] / self.sum[row]);
        (o, Array1::from_shape_fn(rows, |row| self.max[row] + self.sum[row].ln()))
    }
}

impl Few {
    /// Takes in at most [`KEYS`] keys, `[keys, dim]`.
    fn take_part(&mut self, first: u32, k: &[f32], v: &[f32], whole: bool) {
        let scores = &mut self.scores[..k.len() * FEW / self.q.len()];
        dots(k, &self.q, scores);
        if !whole {
            for (j, scores) in (first..).zip(scores.iter_mut()) {
                for (score, row) in scores.iter_mut().zip(&self.rows) {
                    if !geometry::visible(row.position, j, self.sink, row.window) {
                        *score = f32::NEG_INFINITY;
                    }
                }
            }
        }
        let rescale = vectorized(Weigh { scores, max: &mut self.max, sum: &mut self.sum });
        for (o, rescale) in self.o.chunks_exact_mut(k.len() / scores.len()).zip(rescale) {
            for o in o {
                *o *= rescale;
            }
        }
        weighted_sums(v, scores, &mut self.o);
    }
}

/// Turns scores into weights relative to the largest score so far. Returns what scales down what was summed up before.
struct Weigh<'a> {
    scores: &'a mut [[f32; FEW]],
    max: &'a mut [f32; FEW],
    sum: &'a mut [f32; FEW],
}

impl NullaryFnOnce for Weigh<'_> {
    type Output = [f32; FEW];

    #[inline(always)]
    fn call(self) -> [f32; FEW] {
        let Self { scores, max, sum } = self;
        let mut stretch = [f32::NEG_INFINITY; STRETCH];
        let (chunks, rest) = scores.as_flattened().as_chunks::<STRETCH>();
        for chunk in chunks {
            for (max, &score) in stretch.iter_mut().zip(chunk) {
                *max = if score > *max { score } else { *max };
            }
        }
        let mut new_max = *max;
        for scores in stretch.as_chunks::<FEW>().0.iter().chain(rest.as_chunks::<FEW>().0) {
            for (max, &score) in new_max.iter_mut().zip(scores) {
                *max = if score > *max { score } else { *max };
            }
        }
        // A row that has seen nothing yet: its weights are exp(-inf - 0) = 0.
        let base = new_max.map(|max| if max == f32::NEG_INFINITY { 0.0 } else { max });
        let mut rescale = [0.0; FEW];
        for ((rescale, &max), base) in rescale.iter_mut().zip(&*max).zip(base) {
            *rescale = exp(max - base);
        }
        let bases: [f32; STRETCH] = std::array::from_fn(|at| base[at % FEW]);
        let mut sums = [0.0; STRETCH];
        let (chunks, rest) = scores.as_flattened_mut().as_chunks_mut::<STRETCH>();
        for chunk in chunks {
            for ((score, sum), base) in chunk.iter_mut().zip(&mut sums).zip(bases) {
                *score = exp(*score - base);
                *sum += *score;
            }
        }
        for ((score, sum), base) in rest.iter_mut().zip(&mut sums).zip(bases) {
            *score = exp(*score - base);
            *sum += *score;
        }
        for (row, (sum, rescale)) in sum.iter_mut().zip(rescale).enumerate() {
            *sum = *sum * rescale + sums.iter().skip(row).step_by(FEW).sum::<f32>();
        }
        *max = new_max;
        rescale
    }
}
