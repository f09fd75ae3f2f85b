//! Attention of a block of query rows over runs of keys, by an online softmax: the inner loop of the CPU path.
//!
//! Memory is one tile of scores, whatever the context. A tile of keys that no row sees is skipped, and only a tile
//! that some row sees in part is masked.

use ndarray::{Array1, Array2, ArrayView2, s};

use super::real::Real;
use super::softmax::{KEYS, Row, Softmax, Tile};
use crate::geometry;

/// Keys and values at neighbouring positions, `[tokens, head_dim]` each.
pub(super) struct Run<'a, F> {
    /// The position of the first.
    pub(super) first: u32,
    pub(super) k: ArrayView2<'a, F>,
    pub(super) v: ArrayView2<'a, F>,
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
