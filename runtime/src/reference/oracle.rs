//! The definition of what every kernel computes, in float64: causal softmax attention of one sequence in which each
//! head sees the sink and its window, key by key.
//!
//! It takes the whole sequence and has no cache. Queries may be fewer than keys: they are the last ones. Rows are
//! independent, so a caller may ask for some of them only; that is how long contexts are checked. Matrix products do
//! the work, but every score is masked by [`Spans::visible`] and the softmax is the textbook's.

use std::ops::Range;

use ndarray::{Array1, Array2, Array3, ArrayView2, Axis, s};
use rayon::prelude::*;

use super::Spans;
use crate::backend::{LayerError, Qkv};
use crate::geometry;

/// Rows of one head that share their matrix products.
const ROWS: usize = 32;
/// Keys that are widened to float64 at a time.
const KEYS: u32 = 1024;

/// Attention of every query of a sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// `[queries, heads, head_dim]`
    pub o: Array3<f64>,
    /// Natural log-sum-exp of the scaled visible scores, `[queries, heads]`.
    pub lse: Array2<f64>,
}

/// Attention of the rows asked for, in that order.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionRows {
    /// `[rows, head_dim]`
    pub o: Array2<f64>,
    /// Natural log-sum-exp of the scaled visible scores, `[rows]`.
    pub lse: Array1<f64>,
}

/// Attention of all heads at all queries. `q` may have fewer tokens than `k` and `v`: its stand at the last positions.
///
/// # Errors
/// [`LayerError::Shape`], or [`LayerError::ContextFull`] when there are more tokens than the bucket holds.
pub fn attend<T: Copy + Into<f64> + Send + Sync>(
    spans: &Spans,
    qkv: Qkv<'_, T>,
) -> Result<Attention, LayerError> {
    let first = check(spans, &qkv)?;
    let (queries, heads, dim) = qkv.q.dim();
    let rows: Vec<(u32, u32)> =
        (0..queries).flat_map(|t| (0..heads).map(move |head| (head as u32, (first + t) as u32))).collect();
    let AttentionRows { o, lse } = attend_rows(spans, qkv, &rows)?;
    let shaped = "one row was asked for per query and head";
    Ok(Attention {
        o: o.into_shape_with_order((queries, heads, dim)).expect(shaped),
        lse: lse.into_shape_with_order((queries, heads)).expect(shaped),
    })
}

/// As [`attend`], for the rows `(query head, position)` only.
///
/// # Errors
/// As [`attend`], and [`LayerError::NoSuchRow`].
pub fn attend_rows<T: Copy + Into<f64> + Send + Sync>(
    spans: &Spans,
    qkv: Qkv<'_, T>,
    rows: &[(u32, u32)],
) -> Result<AttentionRows, LayerError> {
    let first = check(spans, &qkv)?;
    let (heads, end, dim) = (spans.heads(), qkv.k.dim().0, spans.head_dim);
    for &(head, position) in rows {
        if head as usize >= heads || !(first..end).contains(&(position as usize)) {
            return Err(LayerError::NoSuchRow { head, position, heads, first, end });
        }
    }
    // Neighbouring rows of one head share keys: they are computed together.
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&row| rows[row]);
    let blocks: Vec<&[usize]> =
        order.chunk_by(|&a, &b| rows[a].0 == rows[b].0).flat_map(|head| head.chunks(ROWS)).collect();
    let done: Vec<AttentionRows> = blocks
        .par_iter()
        .map(|block| {
            let head = rows[block[0]].0 as usize;
            let kv_head = spans.kv_head(head);
            let positions: Vec<u32> = block.iter().map(|&row| rows[row].1).collect();
            let query = Array2::from_shape_fn((block.len(), dim), |(row, d)| {
                qkv.q[(positions[row] as usize - first, head, d)].into()
            });
            let (k, v) = (qkv.k.slice(s![.., kv_head, ..]), qkv.v.slice(s![.., kv_head, ..]));
            attend_block(spans, &[spans.window(head)], &positions, &query, &k, &v).remove(0)
        })
        .collect();
    let mut out = AttentionRows { o: Array2::zeros((rows.len(), dim)), lse: Array1::zeros(rows.len()) };
    for (block, result) in blocks.iter().zip(&done) {
        for (at, &row) in block.iter().enumerate() {
            out.o.row_mut(row).assign(&result.o.row(at));
            out.lse[row] = result.lse[at];
        }
    }
    Ok(out)
}

/// The rows at `positions` of a layer with one query head, under each of several windows, ascending: for callers that
/// compare many spans on the same tensors. A window costs what it adds to the one before it.
///
/// # Errors
/// As [`attend_rows`].
pub fn attend_windows<T: Copy + Into<f64> + Send + Sync>(
    spans: &Spans,
    qkv: Qkv<'_, T>,
    positions: &[u32],
    windows: &[u32],
) -> Result<Vec<AttentionRows>, LayerError> {
    let first = check(spans, &qkv)?;
    let (end, dim) = (qkv.k.dim().0, spans.head_dim);
    if let Some(&position) = positions.iter().find(|&&position| !(first..end).contains(&(position as usize)))
    {
        return Err(LayerError::NoSuchRow { head: 0, position, heads: 1, first, end });
    }
    let mut order: Vec<usize> = (0..positions.len()).collect();
    order.sort_by_key(|&row| positions[row]);
    let blocks: Vec<&[usize]> = order.chunks(ROWS).collect();
    let (k, v) = (qkv.k.slice(s![.., 0, ..]), qkv.v.slice(s![.., 0, ..]));
    let done: Vec<Vec<AttentionRows>> = blocks
        .par_iter()
        .map(|block| {
            let positions: Vec<u32> = block.iter().map(|&row| positions[row]).collect();
            let query = Array2::from_shape_fn((block.len(), dim), |(row, d)| {
                qkv.q[(positions[row] as usize - first, 0, d)].into()
            });
            attend_block(spans, windows, &positions, &query, &k, &v)
        })
        .collect();
    let empty =
        AttentionRows { o: Array2::zeros((positions.len(), dim)), lse: Array1::zeros(positions.len()) };
    let mut out = vec![empty; windows.len()];
    for (block, windows) in blocks.iter().zip(&done) {
        for (out, result) in out.iter_mut().zip(windows) {
            for (at, &row) in block.iter().enumerate() {
                out.o.row_mut(row).assign(&result.o.row(at));
                out.lse[row] = result.lse[at];
            }
        }
    }
    Ok(out)
}

/// Rows of one head at ascending `positions`: softmax(scale * q k^T) v over what each of them sees, for each of some
/// windows, ascending. The scores are those of the widest; each window then adds the keys that the one before it lacks.
fn attend_block<T: Copy + Into<f64>>(
    spans: &Spans,
    windows: &[u32],
    positions: &[u32],
    q: &Array2<f64>,
    k: &ArrayView2<'_, T>,
    v: &ArrayView2<'_, T>,
) -> Vec<AttentionRows> {
    let widest = windows.last().copied().unwrap_or(0);
    let queries = positions[0]..positions[positions.len() - 1] + 1;
    let pieces: Vec<Range<u32>> =
        spans.key_ranges(queries.clone(), widest).into_iter().flat_map(split).collect();
    let wide = |keys: &Range<u32>, of: &ArrayView2<'_, T>| {
        of.slice(s![keys.start as usize..keys.end as usize, ..]).mapv(Into::into)
    };
    let visible = |i, j, window| geometry::visible(i, j, spans.sink, window);
    let mut weights: Vec<Array2<f64>> = pieces
        .iter()
        .map(|keys| {
            let mut scores = q.dot(&wide(keys, k).t()) * spans.scale;
            for ((row, key), score) in scores.indexed_iter_mut() {
                if !visible(positions[row], keys.start + key as u32, widest) {
                    *score = f64::NEG_INFINITY;
                }
            }
            scores
        })
        .collect();
    let mut max = Array1::from_elem(positions.len(), f64::NEG_INFINITY);
    for scores in &weights {
        max.zip_mut_with(&scores.fold_axis(Axis(1), f64::NEG_INFINITY, |a, &b| a.max(b)), |a, &b| {
            *a = a.max(b);
        });
    }
    for scores in &mut weights {
        for (mut row, &max) in scores.rows_mut().into_iter().zip(&max) {
            row.mapv_inplace(|score| (score - max).exp());
        }
    }
    let mut sum: Array1<f64> = Array1::zeros(positions.len());
    let mut o: Array2<f64> = Array2::zeros(q.dim());
    let mut narrower = None;
    windows
        .iter()
        .map(|&window| {
            // Of the keys behind the sink, only these can be in some row's window and not in its narrower one.
            let oldest = (queries.start + 1).saturating_sub(window);
            let newest = queries.end - 1 - narrower.unwrap_or(0).min(queries.end - 1);
            for (keys, weights) in pieces.iter().zip(&weights) {
                let new = match narrower {
                    Some(_) => keys.start.max(oldest).max(spans.sink)..keys.end.min(newest + 1),
                    None => keys.clone(),
                };
                if new.is_empty() {
                    continue;
                }
                let columns = (new.start - keys.start) as usize..(new.end - keys.start) as usize;
                let mut own = weights.slice(s![.., columns]).to_owned();
                for ((row, key), weight) in own.indexed_iter_mut() {
                    let (i, j) = (positions[row], new.start + key as u32);
                    if !visible(i, j, window) || narrower.is_some_and(|narrower| visible(i, j, narrower)) {
                        *weight = 0.0;
                    }
                }
                sum += &own.sum_axis(Axis(1));
                o += &own.dot(&wide(&new, v));
            }
            narrower = Some(window);
            AttentionRows { o: &o / &sum.view().insert_axis(Axis(1)), lse: &max + &sum.mapv(f64::ln) }
        })
        .collect()
}

/// A range of positions in pieces of at most [`KEYS`].
fn split(range: Range<u32>) -> impl Iterator<Item = Range<u32>> {
    let end = range.end;
    range.step_by(KEYS as usize).map(move |start| start..end.min(start + KEYS))
}

/// Checks the shapes; returns the position of the first query.
fn check<T>(spans: &Spans, qkv: &Qkv<'_, T>) -> Result<usize, LayerError> {
    let tokens = qkv.k.dim().0;
    let queries = qkv.q.dim().0.min(tokens);
    qkv.check(spans.shape(), queries, tokens)?;
    LayerError::check_room(0, tokens, spans.length)?;
    Ok(tokens - queries)
}

#[cfg(test)]
mod tests {
    use super::{attend, attend_rows, attend_windows};
    use crate::backend::{LayerError, Qkv};
    use crate::reference::Spans;
    use ndarray::{Array3, ShapeBuilder};

    fn spans() -> Spans {
        Spans { head_dim: 3, scale: 0.7, sink: 2, length: 40, span: vec![5, 9, 40, 3], kv_span: vec![9, 40] }
    }

    fn tensor(shape: (usize, usize, usize), seed: u64) -> Array3<f64> {
        let mut state = seed;
        Array3::from_shape_simple_fn(shape.f(), || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        })
    }

    /// The definition once more, with scalar loops and nothing shared but the visibility rule of the specification.
    #[test]
    fn agrees_with_scalar_loops() {
        let (spans, tokens, queries) = (spans(), 37_usize, 37_usize);
        let (q, k, v) = (tensor((queries, 4, 3), 1), tensor((tokens, 2, 3), 2), tensor((tokens, 2, 3), 3));
        let out = attend(&spans, Qkv::new(&q, &k, &v)).unwrap();
        for i in 0..tokens {
            for h in 0..4 {
                let (g, window) = (h / 2, [3, 7, 38, 1][h]);
                let keys: Vec<usize> = (0..=i).filter(|&j| j < 2 || i - j < window).collect();
                let score = |j: usize| (0..3).map(|d| q[(i, h, d)] * k[(j, g, d)]).sum::<f64>() * spans.scale;
                let sum: f64 = keys.iter().map(|&j| score(j).exp()).sum();
                assert!((out.lse[(i, h)] - sum.ln()).abs() < 1e-12, "lse of head {h} at {i}");
                for d in 0..3 {
                    let o: f64 = keys.iter().map(|&j| score(j).exp() / sum * v[(j, g, d)]).sum();
                    assert!((out.o[(i, h, d)] - o).abs() < 1e-12, "head {h} at {i}");
                }
            }
        }
    }

    #[test]
    fn selected_rows_are_the_rows_of_the_whole() {
        let spans = spans();
        let (q, k, v) = (tensor((33, 4, 3), 1), tensor((33, 2, 3), 2), tensor((33, 2, 3), 3));
        let whole = attend(&spans, Qkv::new(&q, &k, &v)).unwrap();
        let rows = [(3, 32), (0, 0), (2, 17), (0, 31), (0, 0)];
        let some = attend_rows(&spans, Qkv::new(&q, &k, &v), &rows).unwrap();
        for (at, (head, position)) in rows.into_iter().enumerate() {
            let (t, h) = (position as usize, head as usize);
            assert!((some.lse[at] - whole.lse[(t, h)]).abs() < 1e-13);
            assert!((0..3).all(|d| (some.o[(at, d)] - whole.o[(t, h, d)]).abs() < 1e-13));
        }
        // Fewer queries than keys stand at the end.
        let last =
            attend(&spans, Qkv { q: q.slice(ndarray::s![20.., .., ..]), ..Qkv::new(&q, &k, &v) }).unwrap();
        assert!((&last.o - &whole.o.slice(ndarray::s![20.., .., ..])).iter().all(|e| e.abs() < 1e-13));
    }

    #[test]
    fn several_windows_at_once_are_each_of_them_alone() {
        let (k, v) = (tensor((40, 1, 3), 2), tensor((40, 1, 3), 3));
        let q = tensor((40, 1, 3), 1);
        let alone = |span| Spans {
            head_dim: 3,
            scale: 0.7,
            sink: 2,
            length: 40,
            span: vec![span],
            kv_span: vec![span],
        };
        let (windows, positions) = ([1, 2, 9, 30, 38], [39, 0, 1, 7, 20, 2, 38]);
        let all = attend_windows(&alone(40), Qkv::new(&q, &k, &v), &positions, &windows).unwrap();
        for (window, found) in windows.into_iter().zip(&all) {
            let rows = positions.map(|position| (0, position));
            let expected = attend_rows(&alone(window + 2), Qkv::new(&q, &k, &v), &rows).unwrap();
            assert!((&found.o - &expected.o).iter().all(|e| e.abs() < 1e-12), "window {window}");
            assert!((&found.lse - &expected.lse).iter().all(|e| e.abs() < 1e-12), "window {window}");
        }
        let error = attend_windows(&alone(40), Qkv::new(&q, &k, &v), &[40], &[38]).unwrap_err();
        assert!(matches!(error, LayerError::NoSuchRow { position: 40, end: 40, .. }));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let spans = spans();
        let (q, k, v) = (tensor((9, 4, 3), 1), tensor((9, 2, 3), 2), tensor((8, 2, 3), 3));
        let error = attend(&spans, Qkv::new(&q, &k, &v)).unwrap_err().to_string();
        assert_eq!(error, "`v` has shape [8, 2, 3], expected [9, 2, 3]");
        let error = attend_rows(&spans, Qkv::new(&q, &k, &k), &[(4, 0)]).unwrap_err();
        assert!(matches!(error, LayerError::NoSuchRow { head: 4, position: 0, heads: 4, first: 0, end: 9 }));
        let (q, k) = (tensor((41, 4, 3), 1), tensor((41, 2, 3), 2));
        let error = attend(&spans, Qkv::new(&q, &k, &k)).unwrap_err();
        assert!(matches!(error, LayerError::ContextFull { cached: 0, new: 41, length: 40 }));
    }
}
