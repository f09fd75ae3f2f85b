//! The cache of one layer of one request, and attention over it: prefill in chunks and decode, as SPEC.md section 1
//! has them.

use std::ops::Range;

use ndarray::{Array1, Array2, Array3, s};
use rayon::prelude::*;

use super::block::{Block, Run};
use super::softmax::Row;
use super::{Real, Ring, Spans};
use crate::backend::{LayerError, Qkv};

/// Query rows of a block in prefill.
const ROWS: usize = 64;
/// Keys that one thread takes of a KV head in decode: enough to pay for it, and few enough for many threads.
const SPLIT: u32 = 512;

/// The result of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Attended<F> {
    /// `[tokens, heads, head_dim]`
    pub o: Array3<F>,
    /// Natural log-sum-exp of the scaled visible scores, `[tokens, heads]`.
    pub lse: Array2<F>,
}

/// One layer of one request: a ring per KV head, filled up to a position.
#[derive(Clone, Debug)]
pub struct LayerCache<F> {
    spans: Spans,
    rings: Vec<Ring<F>>,
    len: u32,
}

impl<F: Real> LayerCache<F> {
    /// An empty cache.
    pub fn new(spans: &Spans) -> Self {
        let ring = |&kv_span: &u32| Ring::new(spans.sink, kv_span, spans.head_dim);
        Self { rings: spans.kv_span.iter().map(ring).collect(), spans: spans.clone(), len: 0 }
    }

    /// Tokens appended so far, evicted ones included: the position of the next.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether no token was appended yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The spans of the layer.
    pub fn spans(&self) -> &Spans {
        &self.spans
    }

    /// Forgets all but the first `tokens` tokens; false, and nothing is done, if there are fewer or one was overwritten.
    #[must_use]
    pub fn rewind(&mut self, tokens: u32) -> bool {
        let shortest = self.spans.kv_span.iter().copied().min().unwrap_or(0);
        if tokens > self.len || tokens < self.len && self.len > shortest {
            return false;
        }
        if tokens < self.len {
            self.rings.iter_mut().for_each(|ring| ring.rewind(tokens));
            self.len = tokens;
        }
        true
    }

    /// The ring of each KV head.
    pub fn rings(&self) -> &[Ring<F>] {
        &self.rings
    }

    /// Attends the tokens at the next positions and then appends them. They see the rings as they were before
    /// the call, and each other from the argument.
    ///
    /// # Errors
    /// [`LayerError::Shape`] or [`LayerError::ContextFull`]; the cache is as before then.
    pub fn prefill(&mut self, qkv: Qkv<'_, F>) -> Result<Attended<F>, LayerError> {
        let attended = self.peek(qkv)?;
        self.append(&qkv);
        Ok(attended)
    }

    /// As [`prefill`](Self::prefill), but appends nothing: several continuations of one context can be looked at one
    /// after the other.
    ///
    /// # Errors
    /// [`LayerError::Shape`] or [`LayerError::ContextFull`].
    pub fn peek(&self, qkv: Qkv<'_, F>) -> Result<Attended<F>, LayerError> {
        self.peek_within(&self.spans, qkv)
    }

    /// As [`peek`](Self::peek), through other spans of the same shape, none of which is larger than the cache's own.
    ///
    /// # Errors
    /// As for [`peek`](Self::peek).
    pub fn peek_within(&self, spans: &Spans, qkv: Qkv<'_, F>) -> Result<Attended<F>, LayerError> {
        debug_assert!(spans.span.iter().zip(&self.spans.span).all(|(narrow, own)| narrow <= own));
        self.check(&qkv)?;
        let (tokens, r) = (qkv.q.dim().0, spans.group_size());
        // Causal and windowed blocks differ in length: the long ones, the last of each head, go first.
        let blocks: Vec<Vec<(usize, usize)>> = (0..tokens)
            .step_by(ROWS)
            .rev()
            .flat_map(|t| {
                (0..spans.heads()).map(move |head| (t..tokens.min(t + ROWS)).map(|t| (head, t)).collect())
            })
            .collect();
        let chunk = |kv_head: usize, positions: Range<u32>| {
            let rows = (positions.start - self.len) as usize..(positions.end - self.len) as usize;
            Run {
                first: positions.start,
                k: qkv.k.slice_move(s![rows.clone(), kv_head, ..]),
                v: qkv.v.slice_move(s![rows, kv_head, ..]),
            }
        };
        Ok(Self::attend(spans, &qkv, self.len, &blocks, u32::MAX, |head, positions| {
            let kv_head = head / r;
            let old = positions.start.min(self.len)..positions.end.min(self.len);
            let new = positions.start.max(self.len)..positions.end.max(self.len);
            let new = (!new.is_empty()).then(|| chunk(kv_head, new));
            self.rings[kv_head].runs(old).chain(new).collect()
        }))
    }

    /// Appends one token and attends it, reading nothing but the rings.
    ///
    /// # Errors
    /// [`LayerError::Shape`] or [`LayerError::ContextFull`]; the cache is as before then.
    pub fn decode(&mut self, qkv: Qkv<'_, F>) -> Result<Attended<F>, LayerError> {
        qkv.check(self.spans.shape(), 1, 1)?;
        self.check(&qkv)?;
        self.append(&qkv);
        // The heads of a group share a block: their keys are read once.
        let r = self.spans.group_size();
        let blocks: Vec<Vec<(usize, usize)>> = (0..self.spans.kv_heads())
            .map(|kv_head| (kv_head * r..(kv_head + 1) * r).map(|head| (head, 0)).collect())
            .collect();
        Ok(Self::attend(&self.spans, &qkv, self.len - 1, &blocks, SPLIT, |head, positions| {
            self.rings[head / r].runs(positions).collect()
        }))
    }

    /// Attends blocks of (head, token) rows of one KV head each, `split` keys at a time; token 0 of `qkv` stands at
    /// position `first`.
    fn attend<'a>(
        spans: &Spans,
        qkv: &Qkv<'_, F>,
        first: u32,
        blocks: &[Vec<(usize, usize)>],
        split: u32,
        runs: impl Fn(usize, Range<u32>) -> Vec<Run<'a, F>> + Sync,
    ) -> Attended<F> {
        let &Spans { head_dim, scale, sink, .. } = spans;
        let done: Vec<(Array2<F>, Array1<F>)> = blocks
            .par_iter()
            .map(|block| {
                let rows: Vec<Row> = block
                    .iter()
                    .map(|&(head, t)| Row { position: first + t as u32, window: spans.window(head) })
                    .collect();
                let query = Array2::from_shape_fn((block.len(), head_dim), |(row, d)| {
                    let (head, t) = block[row];
                    qkv.q[(t, head, d)]
                });
                let queries = rows[0].position..rows[rows.len() - 1].position + 1;
                let window = rows.iter().map(|row| row.window).max().unwrap_or(0);
                let parts = cut(spans.key_ranges(queries, window), split);
                let attended = parts.into_par_iter().map(|part| {
                    let mut state = Block::new(query.clone(), &rows, sink, scale);
                    for positions in part {
                        for run in runs(block[0].0, positions) {
                            state.take(&run);
                        }
                    }
                    state.finish()
                });
                combine(attended.collect())
            })
            .collect();
        // Where the row of each token and head was computed.
        let (tokens, heads, _) = qkv.q.dim();
        let mut place = vec![(0, 0); tokens * heads];
        for (at, block) in blocks.iter().enumerate() {
            for (row, &(head, t)) in block.iter().enumerate() {
                place[t * heads + head] = (at, row);
            }
        }
        let mut o = vec![F::zero(); tokens * heads * head_dim];
        let rows = o.par_chunks_mut(head_dim).zip(&place).with_min_len(ROWS);
        rows.for_each(|(out, &(block, row))| {
            for (out, &o) in out.iter_mut().zip(done[block].0.row(row)) {
                *out = o;
            }
        });
        let lse = place.iter().map(|&(block, row)| done[block].1[row]).collect();
        let shaped = "a row for every token and head";
        Attended {
            o: Array3::from_shape_vec((tokens, heads, head_dim), o).expect(shaped),
            lse: Array2::from_shape_vec((tokens, heads), lse).expect(shaped),
        }
    }

    fn append(&mut self, qkv: &Qkv<'_, F>) {
        for (kv_head, ring) in self.rings.iter_mut().enumerate() {
            ring.append(&qkv.k.slice(s![.., kv_head, ..]), &qkv.v.slice(s![.., kv_head, ..]));
        }
        self.len += qkv.k.dim().0 as u32;
    }

    /// Checks that the tokens of a call fit the layer and its context.
    ///
    /// # Errors
    /// [`LayerError::Shape`] or [`LayerError::ContextFull`].
    pub fn check(&self, qkv: &Qkv<'_, F>) -> Result<(), LayerError> {
        let tokens = qkv.q.dim().0;
        qkv.check(self.spans.shape(), tokens, tokens)?;
        LayerError::check_room(self.len, tokens, self.spans.length)
    }
}

/// Cuts the keys behind the sink into parts of at most `split`, and gives the sink to the first.
fn cut([sink, rest]: [Range<u32>; 2], split: u32) -> Vec<Vec<Range<u32>>> {
    let parts =
        rest.clone().step_by(split as usize).map(|start| start..rest.end.min(start.saturating_add(split)));
    let mut parts: Vec<_> = parts.map(|part| vec![part]).collect();
    match parts.first_mut() {
        Some(first) => first.insert(0, sink),
        None => parts.push(vec![sink]),
    }
    parts
}

/// Puts together what rows saw of the parts of their keys: outputs, `[rows, head_dim]`, and log-sum-exps.
fn combine<F: Real>(mut parts: Vec<(Array2<F>, Array1<F>)>) -> (Array2<F>, Array1<F>) {
    if parts.len() == 1 {
        return parts.swap_remove(0);
    }
    let (mut o, mut lse) = (Array2::zeros(parts[0].0.dim()), Array1::zeros(parts[0].1.dim()));
    for (row, (mut o, lse)) in o.rows_mut().into_iter().zip(&mut lse).enumerate() {
        let max = parts.iter().fold(F::neg_infinity(), |max, (_, lse)| max.max(lse[row]));
        *lse =
            max + parts.iter().map(|(_, lse)| (lse[row] - max).exp()).fold(F::zero(), |sum, x| sum + x).ln();
        // If a row sees nothing of a part, the part has no output for it.
        for (part, part_lse) in parts.iter().filter(|(_, lse)| lse[row] > F::neg_infinity()) {
            o.scaled_add((part_lse[row] - *lse).exp(), &part.row(row));
        }
    }
    (o, lse)
}
