//! The expected results: the float64 oracle on the same inputs, computed once for every row that several kernels,
//! layers or buckets ask for.

use std::collections::{BTreeSet, HashMap};

use moac_runtime::backend::{LayerError, Qkv};
use moac_runtime::reference::oracle;
use ndarray::Array3;
use rayon::prelude::*;

use super::inputs::{At, Inputs, Tensor};
use super::layer::Layer;

/// A query row, named by all that its result depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Query {
    /// The sequence.
    pub sequence: u32,
    /// The KV head that it reads.
    pub kv_head: u32,
    /// The query head.
    pub head: u32,
    /// The window of that head, or what of it there is: at most the position and one.
    pub window: u32,
    /// The position.
    pub position: u32,
}

impl Query {
    /// The row of `head` at `position`, seen through `window`.
    pub fn new(sequence: u32, (kv_head, head): (u32, u32), window: u32, position: u32) -> Self {
        // Wider windows than the past see no more of it: their answers are the same.
        Self { sequence, kv_head, head, window: window.min(position + 1), position }
    }
}

/// The right answer for a row.
#[derive(Clone, Debug)]
pub struct Answer {
    /// `[head_dim]`
    pub o: Box<[f32]>,
    /// Natural log-sum-exp.
    pub lse: f64,
}

/// Right answers, kept for the next kernel that needs them.
#[derive(Debug, Default)]
pub struct Expectations {
    known: HashMap<Query, Answer>,
}

/// Answers that are kept: a gigabyte of them at `head_dim` 128. A plan of 32 layers has about as many.
const MOST: usize = 1 << 21;

impl Expectations {
    /// The answers to `queries`, in their order. All are of one layer shape and of one source of inputs, for life.
    ///
    /// # Errors
    /// The errors of the oracle, which a sound geometry does not raise.
    pub fn answers(
        &mut self,
        layer: &Layer,
        inputs: &Inputs,
        queries: &[Query],
    ) -> Result<Vec<&Answer>, LayerError> {
        let mut missing: BTreeSet<Query> =
            queries.iter().filter(|query| !self.known.contains_key(query)).copied().collect();
        if self.known.len() + missing.len() > MOST {
            self.known.clear();
            missing = queries.iter().copied().collect();
        }
        self.learn(layer, inputs, missing)?;
        Ok(queries.iter().map(|query| &self.known[query]).collect())
    }

    /// Computes the answers to `queries` ahead: many windows of a row cost little more than one.
    ///
    /// # Errors
    /// As [`answers`](Self::answers).
    pub fn prepare(
        &mut self,
        layer: &Layer,
        inputs: &Inputs,
        queries: BTreeSet<Query>,
    ) -> Result<(), LayerError> {
        let missing: BTreeSet<Query> =
            queries.into_iter().filter(|query| !self.known.contains_key(query)).collect();
        // What would be forgotten before it is asked for is not worth computing.
        if self.known.len() + missing.len() > MOST { Ok(()) } else { self.learn(layer, inputs, missing) }
    }

    fn learn(&mut self, layer: &Layer, inputs: &Inputs, missing: BTreeSet<Query>) -> Result<(), LayerError> {
        let missing: Vec<Query> = missing.into_iter().collect();
        let kv_heads: Vec<&[Query]> =
            missing.chunk_by(|a, b| (a.sequence, a.kv_head) == (b.sequence, b.kv_head)).collect();
        let learnt: Vec<Vec<(Query, Answer)>> = kv_heads
            .par_iter()
            .map(|queries| answer_kv_head(layer, inputs, queries))
            .collect::<Result<_, _>>()?;
        self.known.extend(learnt.into_iter().flatten());
        Ok(())
    }
}

/// The answers of one KV head of one sequence: its keys and values are made once, a row's scores for all its windows.
fn answer_kv_head(
    layer: &Layer,
    inputs: &Inputs,
    queries: &[Query],
) -> Result<Vec<(Query, Answer)>, LayerError> {
    let Query { sequence, kv_head, .. } = queries[0];
    let tokens = queries.iter().map(|query| query.position).max().unwrap_or(0) + 1;
    let all = |tensor, head| rows(inputs, 0..tokens, |position| At { tensor, sequence, position, head });
    let (k, v) = (all(Tensor::K, kv_head), all(Tensor::V, kv_head));
    let mut queries = queries.to_vec();
    queries.sort_by_key(|query| (query.head, query.position));
    let blocks: Vec<&[Query]> =
        queries.chunk_by(|a, b| a.head == b.head).flat_map(|head| head.chunks(BLOCK)).collect();
    let answers: Vec<Vec<(Query, Answer)>> = blocks
        .par_iter()
        .map(|queries| {
            let (head, first) = (queries[0].head, queries[0].position);
            let q =
                rows(inputs, first..tokens, |position| At { tensor: Tensor::Q, sequence, position, head });
            let positions: Vec<u32> = distinct(queries.iter().map(|query| query.position));
            // A window that is wide enough for one row of all its past is so for the others.
            let wide = |query: &Query| if query.window > query.position { tokens } else { query.window };
            let windows: Vec<u32> = distinct(queries.iter().map(wide));
            let spans = layer.lone_head(windows.last().copied().unwrap_or(0), tokens);
            let qkv = Qkv { q: q.view(), k: k.view(), v: v.view() };
            let found = oracle::attend_windows(&spans, qkv, &positions, &windows)?;
            let answer = |query: &Query| {
                let of_window = &found[windows.partition_point(|&window| window < wide(query))];
                let row = positions.partition_point(|&position| position < query.position);
                let o = of_window.o.row(row).iter().map(|&x| x as f32).collect();
                (*query, Answer { o, lse: of_window.lse[row] })
            };
            Ok(queries.iter().map(answer).collect())
        })
        .collect::<Result<_, LayerError>>()?;
    Ok(answers.into_iter().flatten().collect())
}

/// Rows and windows whose scores are held at once: some dozens of rows, mostly.
const BLOCK: usize = 256;

/// The distinct numbers, ascending.
fn distinct(numbers: impl Iterator<Item = u32>) -> Vec<u32> {
    numbers.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Rows of one head, `[positions, 1, head_dim]`.
fn rows(inputs: &Inputs, positions: std::ops::Range<u32>, at: impl Fn(u32) -> At) -> Array3<f32> {
    let mut values = Vec::with_capacity(positions.len() * inputs.head_dim());
    let shape = (positions.len(), 1, inputs.head_dim());
    positions.for_each(|position| inputs.values(at(position), &mut values));
    Array3::from_shape_vec(shape, values).expect("a row per position was made")
}
