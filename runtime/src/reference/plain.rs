//! The online softmax as one writes it down, for any element type.

use ndarray::linalg::{general_mat_mul, general_mat_vec_mul};
use ndarray::{Array1, Array2, ArrayViewMut2, Axis, NdFloat, s};

use super::softmax::{KEYS, Row, Softmax, Tile};
use crate::geometry;

/// Up to this many rows a matrix product does not pay: the heads of a small group in decode.
const FEW: usize = 4;

/// The state of some rows.
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

impl<F: NdFloat> Softmax<F> for Plain<F> {
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
