//! The reverse pass of attention, as in `FlashAttention`: weights are made anew from the log-sum-exp, block by block, so
//! memory is linear in the context. Beside the gradients it sums up what other masks would do ([`influence`]).
//!
//! The work is cut into tasks, each some blocks of rows of one query head with partial sums for keys and values of its
//! own. The cut depends on the shape alone and partial sums are added in order, so the same input gives the same bits
//! with any number of threads.
//!
//! [`influence`]: super::influence

use moac_runtime::backend::Qkv;
use moac_runtime::reference::lanes::Product;
use ndarray::{ArrayView2, ArrayView3, Axis};
use rayon::prelude::*;

use super::influence::{BLOCK, BlockSums, HeadSums, RowBlock, squares};
use super::mask::Mask;
use super::windows::WindowSums;

/// Tasks per query head: enough for 16 threads, few enough that their partial sums stay small.
const PARTS: usize = 4;
/// Rows of keys and of queries are padded to whole vectors.
const LANES: usize = 16;

/// The saved state of the forward pass, and the incoming gradient, of one item from its first token on.
pub(super) struct Attended<'a> {
    /// Rotated.
    pub(super) qkv: Qkv<'a, f32>,
    pub(super) scale: f32,
    /// The outputs, `[rows, heads, head_dim]`.
    pub(super) o: ArrayView3<'a, f32>,
    /// The log-sum-exp of the scaled scores, `[rows, heads]`.
    pub(super) lse: ArrayView2<'a, f32>,
    /// The gradient of the outputs, `[rows, heads, head_dim]`.
    pub(super) d_o: ArrayView3<'a, f32>,
    /// The visible keys of each query head.
    pub(super) masks: &'a [Mask],
}

/// The results of the reverse pass.
pub(super) struct Reversed {
    /// The gradients of q, k and v, `[rows, heads + 2 kv heads, head_dim]`.
    pub(super) gradients: Vec<f32>,
    /// Of every query head, in parts.
    done: Vec<Done>,
    heads: usize,
    kv_heads: usize,
    blocks: usize,
}

/// Keys or values of one KV head, `[rows, dim]` padded, and partial sums for both.
struct Head {
    k: Vec<f32>,
    v: Vec<f32>,
}

/// The results of a task: the gradients of its rows, partial sums of those of keys and values, and the influence by block.
struct Done {
    /// `[blocks of the task][BLOCK][dim]`
    dq: Vec<f32>,
    /// `[keys, dim]`
    dk: Vec<f32>,
    dv: Vec<f32>,
    /// By block of the task.
    sums: Vec<BlockSums>,
}

/// Goes back through attention.
pub(super) fn reverse(of: &Attended<'_>) -> Reversed {
    let (rows, heads, dim) = of.qkv.q.dim();
    let kv_heads = of.qkv.k.dim().1;
    let group = heads / kv_heads;
    let padded = dim.next_multiple_of(LANES);
    let keys: Vec<Head> = (0..kv_heads)
        .into_par_iter()
        .map(|g| Head {
            k: padded_rows(&of.qkv.k.index_axis(Axis(1), g), padded),
            v: padded_rows(&of.qkv.v.index_axis(Axis(1), g), padded),
        })
        .collect();
    let blocks = rows.div_ceil(BLOCK);
    let parts = PARTS.min(blocks);
    // Later blocks see more keys: every part gets some of each.
    let done: Vec<Done> = (0..heads * parts)
        .into_par_iter()
        .map(|task| {
            let (head, part) = (task / parts, task % parts);
            of.task(head, &keys[head / group], (part..blocks).step_by(parts), padded)
        })
        .collect();
    let mut gradients = vec![0.0; rows * (heads + 2 * kv_heads) * dim];
    let per_row = (heads + 2 * kv_heads) * dim;
    gradients.par_chunks_mut(BLOCK * per_row).enumerate().for_each(|(block, out)| {
        for (row, out) in out.chunks_exact_mut(per_row).enumerate() {
            let (queries, keys_values) = out.split_at_mut(heads * dim);
            for (head, out) in queries.chunks_exact_mut(dim).enumerate() {
                let from = (block / parts * BLOCK + row) * padded;
                out.copy_from_slice(&done[head * parts + block % parts].dq[from..from + dim]);
            }
            let from = (block * BLOCK + row) * padded;
            for (g, out) in keys_values.chunks_exact_mut(dim).enumerate() {
                let values = g >= kv_heads;
                let g = g % kv_heads;
                for done in &done[g * group * parts..(g + 1) * group * parts] {
                    // A part has no sums for keys behind its last row.
                    let partial = if values { &done.dv } else { &done.dk };
                    let partial = partial.get(from..from + dim).unwrap_or_default();
                    for (out, partial) in out.iter_mut().zip(partial) {
                        *out += partial;
                    }
                }
            }
        }
    });
    Reversed { gradients, done, heads, kv_heads, blocks }
}

impl Reversed {
    /// A block of rows, of the query heads that share KV head `g`.
    fn rows(&self, g: usize, block: usize) -> Vec<&BlockSums> {
        let (group, parts) = (self.heads / self.kv_heads, self.done.len() / self.heads);
        let of = |head: usize| &self.done[head * parts + block % parts].sums[block / parts];
        (g * group..(g + 1) * group).map(of).collect()
    }

    /// The influence of every query head.
    pub(super) fn influence(&self) -> Vec<HeadSums> {
        let mut sums = vec![HeadSums::zeros(self.blocks); self.heads];
        for (g, heads) in sums.chunks_mut(self.heads / self.kv_heads).enumerate() {
            for block in 0..self.blocks {
                let rows = self.rows(g, block);
                let joint = squares(&rows);
                for (head, row) in heads.iter_mut().zip(rows) {
                    head.put(block, row, &joint);
                }
            }
        }
        sums
    }

    /// The effect of moving the window of every KV head.
    pub(super) fn windows(&self) -> Vec<WindowSums> {
        let of = |g| {
            let mut sums = WindowSums::zeros(self.blocks);
            for block in 0..self.blocks {
                sums.add(&self.rows(g, block));
            }
            sums
        };
        (0..self.kv_heads).map(of).collect()
    }
}

impl Attended<'_> {
    fn task(&self, head: usize, kv: &Head, blocks: impl Iterator<Item = usize>, dim: usize) -> Done {
        let rows = self.qkv.q.dim().0;
        let mask = self.masks[head];
        let q = self.qkv.q.index_axis(Axis(1), head);
        let (o, d_o) = (self.o.index_axis(Axis(1), head), self.d_o.index_axis(Axis(1), head));
        let mut done = Done { dq: Vec::new(), dk: Vec::new(), dv: Vec::new(), sums: Vec::new() };
        let mut tile = [vec![0.0; BLOCK * BLOCK], vec![0.0; BLOCK * BLOCK]];
        for block in blocks {
            let first = block * BLOCK;
            let last = rows.min(first + BLOCK);
            let mut query = Rows::new(dim);
            let mut gradient = Rows::new(dim);
            let (mut lse, mut d) = ([f32::INFINITY; BLOCK], [0.0; BLOCK]);
            for (row, t) in (first..last).enumerate() {
                query.put(row, q.row(t).iter().map(|q| q * self.scale));
                gradient.put(row, d_o.row(t).iter().copied());
                lse[row] = self.lse[(t, head)];
                let product =
                    o.row(t).iter().zip(d_o.row(t)).map(|(o, d)| f64::from(*o) * f64::from(*d)).sum::<f64>();
                d[row] = product as f32;
            }
            done.dk.resize(last * dim, 0.0);
            done.dv.resize(last * dim, 0.0);
            let mut influence = RowBlock::new(block, mask, lse, d);
            let mut dq = vec![0.0; dim * BLOCK];
            for (key_block, keys) in kv.k[..last * dim].chunks(BLOCK * dim).enumerate() {
                if mask.skips(key_block, block - key_block) {
                    continue;
                }
                let range = key_block * BLOCK * dim..key_block * BLOCK * dim + keys.len();
                let count = keys.len() / dim;
                let [scores, gains] = tile.each_mut().map(|tile| &mut tile[..count * BLOCK]);
                by_key(keys, dim, &query.columns, scores);
                by_key(&kv.v[range.clone()], dim, &gradient.columns, gains);
                influence.take(key_block, scores, gains);
                // dQ^T += K^T dS^T, dV += A^T dO, dK += dS^T Q
                Product {
                    a: keys,
                    rows: dim,
                    depth: count,
                    row: 1,
                    step: dim,
                    b: gains,
                    lanes: BLOCK,
                    add: true,
                }
                .run(&mut dq);
                by_row(scores, &gradient.plain, dim, &mut done.dv[range.clone()]);
                by_row(gains, &query.plain, dim, &mut done.dk[range]);
            }
            let at = done.dq.len();
            done.dq.resize(at + BLOCK * dim, 0.0);
            for (row, out) in done.dq[at..].chunks_exact_mut(dim).enumerate() {
                for (out, dq) in out.iter_mut().zip(dq.chunks_exact(BLOCK)) {
                    *out = self.scale * dq[row];
                }
            }
            done.sums.push(influence.finish());
        }
        done
    }
}

/// `out[key][row] = sum over d of a[key][d] * columns[d][row]`.
fn by_key(a: &[f32], dim: usize, columns: &[f32], out: &mut [f32]) {
    let rows = a.len() / dim;
    Product { a, rows, depth: dim, row: dim, step: 1, b: columns, lanes: BLOCK, add: false }.run(out);
}

/// `out[key][d] += sum over rows of a[key][row] * rows[row][d]`.
fn by_row(a: &[f32], rows: &[f32], dim: usize, out: &mut [f32]) {
    let keys = a.len() / BLOCK;
    Product { a, rows: keys, depth: BLOCK, row: BLOCK, step: 1, b: rows, lanes: dim, add: true }.run(out);
}

/// A block of rows, both ways round; rows that are not there are zero.
struct Rows {
    /// `[BLOCK, dim]`
    plain: Vec<f32>,
    /// `[dim, BLOCK]`
    columns: Vec<f32>,
    dim: usize,
}

impl Rows {
    fn new(dim: usize) -> Self {
        Self { plain: vec![0.0; BLOCK * dim], columns: vec![0.0; BLOCK * dim], dim }
    }

    fn put(&mut self, row: usize, values: impl Iterator<Item = f32>) {
        for (d, value) in values.enumerate() {
            self.plain[row * self.dim + d] = value;
            self.columns[d * BLOCK + row] = value;
        }
    }
}

/// Rows one after the other, each padded to `dim` elements.
fn padded_rows(of: &ArrayView2<'_, f32>, dim: usize) -> Vec<f32> {
    let mut out = vec![0.0; of.nrows() * dim];
    for (out, row) in out.chunks_exact_mut(dim).zip(of.rows()) {
        for (out, x) in out.iter_mut().zip(row) {
            *out = *x;
        }
    }
    out
}
