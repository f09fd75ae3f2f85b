//! The online softmax in float32, with query rows side by side in the lanes of vectors.
//!
//! Everything is kept transposed, `[.., rows]`: scores are K times q^T and outputs V^T times the weights, so keys and
//! values are read as they lie, one broadcast element at a time, and the softmax runs along the lanes without ever
//! crossing them. Rows are padded to whole vectors; padding sees every key and is dropped at the end.

// As in `simd`: what is not inlined into the function with the wide vectors is compiled without them.
#![allow(clippy::inline_always)]

use ndarray::{Array1, Array2};
use pulp::{Arch, Simd, WithSimd};

use super::softmax::{Row, Softmax, Tile};
use crate::simd::{NullaryFnOnce, exp, vectorized};

/// Rows are padded to a multiple of this, the lanes of the widest vector.
const LANES: usize = 16;
/// Keys whose scores are kept at a time: with 64 rows they fill most of a first-level cache.
const KEYS: usize = 128;

/// The state of some rows. Matrices are row-major, a column for each of the padded rows.
#[derive(Debug)]
pub struct Lanes {
    rows: usize,
    padded: usize,
    dim: usize,
    sink: u32,
    /// `[padded]`
    position: Vec<u32>,
    /// `[padded]`
    window: Vec<u32>,
    /// Scaled queries, `[dim, padded]`.
    q: Vec<f32>,
    /// `[KEYS, padded]`
    scores: Vec<f32>,
    /// `[padded]`
    max: Vec<f32>,
    /// `[padded]`
    sum: Vec<f32>,
    /// Outputs before the division by `sum`, `[dim, padded]`.
    o: Vec<f32>,
}

impl Softmax<f32> for Lanes {
    fn start(q: &Array2<f32>, rows: &[Row], sink: u32) -> Self {
        let padded = rows.len().next_multiple_of(LANES);
        let dim = q.ncols();
        let mut transposed = vec![0.0; dim * padded];
        for (row, q) in q.rows().into_iter().enumerate() {
            for (d, &q) in q.iter().enumerate() {
                transposed[d * padded + row] = q;
            }
        }
        let mut position = vec![u32::MAX; padded];
        let mut window = vec![u32::MAX; padded];
        for (at, row) in rows.iter().enumerate() {
            (position[at], window[at]) = (row.position, row.window);
        }
        Self {
            rows: rows.len(),
            padded,
            dim,
            sink,
            position,
            window,
            q: transposed,
            scores: vec![0.0; KEYS * padded],
            max: vec![f32::NEG_INFINITY; padded],
            sum: vec![0.0; padded],
            o: vec![0.0; dim * padded],
        }
    }

    fn take(&mut self, tile: &Tile<'_, f32>) {
        // A ring is contiguous; a chunk may be a view of a wider tensor, and is copied.
        let (k, v) = (tile.k.as_standard_layout(), tile.v.as_standard_layout());
        let (Some(k), Some(v)) = (k.as_slice(), v.as_slice()) else { return };
        let parts = k.chunks(KEYS * self.dim).zip(v.chunks(KEYS * self.dim));
        for (first, (k, v)) in (tile.first..).step_by(KEYS).zip(parts) {
            self.take_part(first, k, v, tile.whole);
        }
    }

    fn finish(self) -> (Array2<f32>, Array1<f32>) {
        let lse = Array1::from_shape_fn(self.rows, |row| self.max[row] + self.sum[row].ln());
        let o = Array2::from_shape_fn((self.rows, self.dim), |(row, d)| {
            self.o[d * self.padded + row] / self.sum[row]
        });
        (o, lse)
    }
}

impl Lanes {
    /// Takes in at most [`KEYS`] keys, `[keys, dim]`.
    fn take_part(&mut self, first: u32, k: &[f32], v: &[f32], whole: bool) {
        let Self { padded: lanes, dim, .. } = *self;
        let keys = k.len() / dim;
        let scores = &mut self.scores[..keys * lanes];
        let of_keys =
            Product { a: k, rows: keys, depth: dim, row: dim, step: 1, b: &self.q, lanes, add: false };
        of_keys.run(scores);
        if !whole {
            let (position, window, sink) = (&self.position[..], &self.window[..], self.sink);
            vectorized(|| {
                for (j, scores) in (first..).zip(scores.chunks_exact_mut(lanes)) {
                    for ((score, &i), &window) in scores.iter_mut().zip(position).zip(window) {
                        // As `geometry::visible` has it, without a branch.
                        let seen = (j <= i) & ((j < sink) | (i.wrapping_sub(j) < window));
                        *score = if seen { *score } else { f32::NEG_INFINITY };
                    }
                }
            });
        }
        vectorized(Weigh { scores, max: &mut self.max, sum: &mut self.sum, o: &mut self.o, lanes });
        let of_values =
            Product { a: v, rows: dim, depth: keys, row: 1, step: dim, b: scores, lanes, add: true };
        of_values.run(&mut self.o);
    }
}

/// Turns scores into weights relative to the largest score so far, and what was summed up before along with it.
struct Weigh<'a> {
    scores: &'a mut [f32],
    max: &'a mut [f32],
    sum: &'a mut [f32],
    o: &'a mut [f32],
    lanes: usize,
}

impl NullaryFnOnce for Weigh<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { scores, max, sum, o, lanes } = self;
        // A stretch of lanes at a time, in registers.
        for at in (0..lanes).step_by(LANES) {
            let mut new_max = [0.0; LANES];
            new_max.copy_from_slice(&max[at..at + LANES]);
            for scores in scores.chunks_exact(lanes) {
                for (max, &score) in new_max.iter_mut().zip(&scores[at..at + LANES]) {
                    *max = if score > *max { score } else { *max };
                }
            }
            // A row that has seen nothing yet: its weights are exp(-inf - 0) = 0.
            let base = new_max.map(|max| if max == f32::NEG_INFINITY { 0.0 } else { max });
            let mut rescale = [0.0; LANES];
            for ((rescale, &max), base) in rescale.iter_mut().zip(&max[at..at + LANES]).zip(base) {
                *rescale = exp(max - base);
            }
            let mut new_sum = [0.0; LANES];
            for scores in scores.chunks_exact_mut(lanes) {
                for ((score, sum), base) in scores[at..at + LANES].iter_mut().zip(&mut new_sum).zip(base) {
                    *score = exp(*score - base);
                    *sum += *score;
                }
            }
            for ((sum, new), rescale) in sum[at..at + LANES].iter_mut().zip(new_sum).zip(rescale) {
                *sum = *sum * rescale + new;
            }
            if max[at..at + LANES] != new_max {
                for o in o.chunks_exact_mut(lanes) {
                    for (o, rescale) in o[at..at + LANES].iter_mut().zip(rescale) {
                        *o *= rescale;
                    }
                }
                max[at..at + LANES].copy_from_slice(&new_max);
            }
        }
    }
}

/// The product of a matrix with element (m, n) at `a[m * row + n * step]`, `[rows, depth]`, and `b`, `[depth, lanes]`.
#[derive(Debug)]
pub struct Product<'a> {
    /// The matrix.
    pub a: &'a [f32],
    /// Rows of the matrix and of the output.
    pub rows: usize,
    /// Columns of the matrix, rows of `b`.
    pub depth: usize,
    /// From one row of the matrix to the next, in elements.
    pub row: usize,
    /// From one column of the matrix to the next, in elements.
    pub step: usize,
    /// The other operand.
    pub b: &'a [f32],
    /// Columns of `b` and of the output: whole vectors.
    pub lanes: usize,
    /// Whether the output is added to.
    pub add: bool,
}

impl Product<'_> {
    /// Writes `out`, `[rows, lanes]`.
    pub fn run(&self, out: &mut [f32]) {
        struct Run<'a> {
            product: &'a Product<'a>,
            out: &'a mut [f32],
        }
        impl WithSimd for Run<'_> {
            type Output = ();

            #[inline(always)]
            fn with_simd<S: Simd>(self, simd: S) {
                self.product.run_with(simd, self.out);
            }
        }
        Arch::new().dispatch(Run { product: self, out });
    }

    /// Cuts the output into blocks that fit the registers: with 32 of them 4 rows by 4 vectors, with 16 half of that.
    #[inline(always)]
    fn run_with<S: Simd>(&self, simd: S, out: &mut [f32]) {
        let width = S::F32_LANES;
        let mut lane = 0;
        while lane < self.lanes {
            let vectors = (self.lanes - lane) / width;
            let taken = if vectors >= 4 && width == LANES {
                self.columns::<S, 4, 4>(simd, out, lane);
                4
            } else if vectors >= 2 {
                self.columns::<S, 4, 2>(simd, out, lane);
                2
            } else {
                self.columns::<S, 8, 1>(simd, out, lane);
                1
            };
            lane += taken * width;
        }
    }

    #[inline(always)]
    fn columns<S: Simd, const M: usize, const N: usize>(&self, simd: S, out: &mut [f32], lane: usize) {
        let whole = self.rows - self.rows % M;
        for m in (0..whole).step_by(M) {
            self.block::<S, M, N>(simd, out, m, lane);
        }
        for m in whole..self.rows {
            self.block::<S, 1, N>(simd, out, m, lane);
        }
    }

    /// `M` rows of the output, from `m` on, times `N` vectors of lanes, from `lane` on.
    #[inline(always)]
    fn block<S: Simd, const M: usize, const N: usize>(
        &self,
        simd: S,
        out: &mut [f32],
        m: usize,
        lane: usize,
    ) {
        let width = N * S::F32_LANES;
        let mut sums = [[simd.splat_f32s(0.0); N]; M];
        for (i, sums) in sums.iter_mut().enumerate().take(if self.add { M } else { 0 }) {
            let start = (m + i) * self.lanes + lane;
            let (out, _) = S::as_simd_f32s(&out[start..start + width]);
            sums.copy_from_slice(&out[..N]);
        }
        for (n, b) in self.b.chunks_exact(self.lanes).enumerate().take(self.depth) {
            let (b, _) = S::as_simd_f32s(&b[lane..lane + width]);
            let b = &b[..N];
            for (i, sums) in sums.iter_mut().enumerate() {
                let a = simd.splat_f32s(self.a[(m + i) * self.row + n * self.step]);
                for (sum, &b) in sums.iter_mut().zip(b) {
                    *sum = simd.mul_add_f32s(a, b, *sum);
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            let start = (m + i) * self.lanes + lane;
            let (out, _) = S::as_mut_simd_f32s(&mut out[start..start + width]);
            out[..N].copy_from_slice(sums);
        }
    }
}
