//! Attention of a block of query rows over runs of keys, by an online softmax: the inner loop of the CPU path.
//!
//! Memory is one tile of scores, whatever the context. A tile of keys that no row sees is skipped, and only a tile
//! that some row sees in part is masked.

use ndarray::linalg::{general_mat_mul, general_mat_vec_mul};
use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2, Axis, NdFloat, s};

use crate::geometry;

/// Keys in one tile of scores.
const KEYS: usize = 256;
/// Up to this many rows a matrix product does not pay: the heads of a small group in decode.
const FEW: usize = 4;

/// The element types that the CPU path computes in.
pub trait Real: NdFloat {
    /// The online softmax that suits the type.
    #[doc(hidden)]
    type Softmax: Softmax<Self>;

    /// The nearest value.
    fn from_f64(value: f64) -> Self;
}

impl Real for f32 {
    #[cfg(feature = "simd")]
    type Softmax = super::online::Online;
    #[cfg(not(feature = "simd"))]
    type Softmax = Plain<Self>;

    fn from_f64(value: f64) -> Self {
        value as Self
    }
}

impl Real for f64 {
    type Softmax = Plain<Self>;

    fn from_f64(value: f64) -> Self {
        value
    }
}

/// The softmax of some rows over tiles of keys that come one after the other.
pub trait Softmax<F>: Sized {
    /// Starts on scaled queries, `[rows, head_dim]`.
    fn start(q: &Array2<F>, rows: &[Row], sink: u32) -> Self;

    /// Takes in a tile.
    fn take(&mut self, tile: &Tile<'_, F>);

    /// The outputs, `[rows, head_dim]`, and their log-sum-exp. Every row has seen at least its own token.
    fn finish(self) -> (Array2<F>, Array1<F>);
}

/// Keys and values at neighbouring positions, `[keys, head_dim]` each, some of which some row sees.
#[derive(Debug)]
pub struct Tile<'a, F> {
    /// The position of the first.
    pub first: u32,
    /// The keys.
    pub k: ArrayView2<'a, F>,
    /// The values.
    pub v: ArrayView2<'a, F>,
    /// Whether every row sees all of it.
    pub whole: bool,
}

/// Keys and values at neighbouring positions, `[tokens, head_dim]` each.
pub(super) struct Run<'a, F> {
    /// The position of the first.
    pub(super) first: u32,
    pub(super) k: ArrayView2<'a, F>,
    pub(super) v: ArrayView2<'a, F>,
}

/// One query row: where it stands and how far it sees behind the sink.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its position.
    pub position: u32,
    /// Tokens that it sees behind the sink, itself included.
    pub window: u32,
}

/// Rows of query heads that read one KV head, part of the way through their keys.
pub(super) struct Block<'a, F: Real> {
    sink: u32,
    rows: &'a [Row],
    softmax: F::Softmax,
}

impl<'a, F: Real> Block<'a, F> {
    /// Starts on queries `q`, `[rows, head_dim]`.
    pub(super) fn new(q: Array2<F>, rows: &'a [Row], sink: u32, scale: f64) -> Self {
        let q = q * F::from_f64(scale);
        Self { sink, rows, softmax: F::Softmax::start(&q, rows, sink) }
    }

    /// Takes in the keys of one run. Every position may come once.
    pub(super) fn take(&mut self, run: &Run<'_, F>) {
        for start in (0..run.k.nrows()).step_by(KEYS) {
            let end = run.k.nrows().min(start + KEYS);
            let (first, last) = (run.first + start as u32, run.first + end as u32 - 1);
            let sees = |row: &Row, j| geometry::visible(row.position, j, self.sink, row.window);
            // A row sees a stretch of the positions behind the sink, so the ends of the tile tell whether it sees
            // the tile whole; and some of it if it sees the newest key that is not in its future.
            let whole = (last < self.sink || first >= self.sink)
                && self.rows.iter().all(|row| sees(row, first) && sees(row, last));
            let none = self.rows.iter().all(|row| first > row.position || !sees(row, last.min(row.position)))
                && first >= self.sink;
            if !none {
                let keys = s![start..end, ..];
                self.softmax.take(&Tile { first, k: run.k.slice(keys), v: run.v.slice(keys), whole });
            }
        }
    }

    /// The outputs, `[rows, head_dim]`, and their log-sum-exp.
    pub(super) fn finish(self) -> (Array2<F>, Array1<F>) {
        self.softmax.finish()
    }
}

/// The softmax as one writes it down, for any element type.
#[derive(Debug)]
pub struct Plain<F> {
    sink: u32,
    rows: Vec<Row>,
    q: Array2<F>,
    scores: Array2<F>,
    max: Array1<F>,
    sum: Array1<F>,
    o: Array2<F>,
}

impl<F: Real> Softmax<F> for Plain<F> {
    fn start(q: &Array2<F>, rows: &[Row], sink: u32) -> Self {
        Self {
            sink,
            rows: rows.to_vec(),
            scores: Array2::zeros((rows.len(), KEYS)),
            max: Array1::from_elem(rows.len(), F::neg_infinity()),
            sum: Array1::zeros(rows.len()),
            o: Array2::zeros(q.dim()),
            q: q.clone(),
        }
    }

    fn take(&mut self, tile: &Tile<'_, F>) {
        let &Tile { first, k, v, whole } = tile;
        let Self { sink, rows, q, scores, max, sum, o } = self;
        let mut scores: ArrayViewMut2<'_, F> = scores.slice_mut(s![.., ..k.nrows()]);
        // A product of few rows spends its time packing the keys: dot products beat it.
        let few = rows.len() <= FEW;
        if few {
            for (q, mut scores) in q.rows().into_iter().zip(scores.rows_mut()) {
                general_mat_vec_mul(F::one(), &k, &q, F::zero(), &mut scores);
            }
        } else {
            general_mat_mul(F::one(), q, &k.t(), F::zero(), &mut scores);
        }
        for (at, row) in rows.iter().enumerate() {
            let mut scores = scores.row_mut(at);
            if !whole {
                for (j, score) in (first..).zip(&mut scores) {
                    if !geometry::visible(row.position, j, *sink, row.window) {
                        *score = F::neg_infinity();
                    }
                }
            }
            let new_max = scores.iter().fold(max[at], |max, &score| max.max(score));
            if new_max == F::neg_infinity() {
                // Nothing seen yet: the weights are 0, not exp(-inf - -inf).
                scores.fill(F::zero());
                continue;
            }
            let rescale = (max[at] - new_max).exp();
            max[at] = new_max;
            scores.mapv_inplace(|score| (score - new_max).exp());
            sum[at] = sum[at] * rescale + scores.sum();
            o.row_mut(at).mapv_inplace(|o| o * rescale);
        }
        if few {
            for (weights, mut o) in scores.rows().into_iter().zip(o.rows_mut()) {
                for (&weight, v) in weights.iter().zip(v.rows()) {
                    o.scaled_add(weight, &v);
                }
            }
        } else {
            general_mat_mul(F::one(), &scores, &v, F::one(), o);
        }
    }

    fn finish(mut self) -> (Array2<F>, Array1<F>) {
        self.o /= &self.sum.view().insert_axis(Axis(1));
        (self.o, self.max + self.sum.ln())
    }
}
