//! One launch (or a prefill and its append) of one kernel: who is in the batch, how the tensors lie, which CTAs run.

use moac_runtime::attention::View;
use serde::Serialize;

use super::inputs::Tensor;
use super::layer::Layer;
use crate::lower::family::Tile;

/// The work a kernel is given in a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Attend whole chunks, then append them in a second launch.
    Prefill,
    /// Attend some tiles of query rows only, and append nothing. For devices that can choose CTAs.
    Tiles(Vec<Tile>),
    /// Append chunks, without attention.
    Fill,
    /// Attend and append one token per request, with so many CTAs; 0 is the launch rule's number.
    Decode {
        /// The grid.
        ctas: u32,
    },
}

/// How q, k, v, o and lse lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// `[row][head][head_dim]`, a tensor each.
    Packed,
    /// q, k and v are views of one `[row][heads + 2 kv heads][head_dim]`; o has padded rows, lse is `[head][row]`.
    Fused,
    /// `[head][row][head_dim]`, a tensor each; lse too. The heads of v lie a row further apart than those of k.
    HeadMajor,
}

/// One request of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    /// The sequence of the inputs that it is a part of.
    pub sequence: u32,
    /// The bucket, by index.
    pub bucket: usize,
    /// Tokens in the slab.
    pub cached: u32,
    /// New tokens; 0 leaves the request out.
    pub chunk: u32,
}

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    /// The purpose.
    pub name: String,
    /// The batch.
    pub requests: Vec<Request>,
    /// The launch.
    pub work: Work,
    /// How the tensors lie.
    pub layout: Layout,
    /// Whether the log-sum-exp is asked for.
    pub lse: bool,
}

impl Case {
    /// The first row of each request in q, k, v, o and lse. No two requests are neighbours: a row that a kernel
    /// writes too much belongs to no request.
    pub fn starts(&self) -> Vec<u64> {
        let mut row = 1;
        self.requests
            .iter()
            .map(|request| {
                let start = row;
                row += u64::from(request.chunk) + 1;
                start
            })
            .collect()
    }

    /// Rows of the tensors.
    pub fn rows(&self) -> u64 {
        1 + self.requests.iter().map(|request| u64::from(request.chunk) + 1).sum::<u64>()
    }

    /// Tokens of the longest chunk.
    pub fn longest_chunk(&self) -> u32 {
        self.requests.iter().map(|request| request.chunk).max().unwrap_or(0)
    }

    /// The query rows of a CTA's tile: head, and first and last token of the chunk.
    pub fn tile_rows(&self, tile: &Tile, tile_m: u32) -> std::ops::Range<u32> {
        let chunk = self.requests[tile.request as usize].chunk;
        (tile.index * tile_m).min(chunk)..((tile.index + 1) * tile_m).min(chunk)
    }
}

/// A buffer that holds a tensor, or several: its label, and its size in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// The label that devices count and report by.
    pub label: &'static str,
    /// Elements.
    pub elements: u64,
}

/// Where the tensors of a case lie. The addresses of the views are offsets in elements until the buffers have theirs.
#[derive(Clone, Debug)]
pub struct Placement {
    /// The buffers of q, k and v.
    pub inputs: Vec<Buffer>,
    /// Buffer and view of q, k and v.
    pub q: (usize, View),
    /// As `q`.
    pub k: (usize, View),
    /// As `q`.
    pub v: (usize, View),
    /// The buffer of o and its view.
    pub o: (Buffer, View),
    /// The buffer of lse and its view; elements are f32.
    pub lse: (Buffer, View),
}

/// Elements of padding between the rows of o in a fused layout.
const PADDING: u64 = 8;

impl Placement {
    /// The tensors of `layer` with `rows` rows.
    pub fn new(layout: Layout, layer: &Layer, rows: u64) -> Self {
        let (heads, kv_heads, dim) =
            (u64::from(layer.heads()), u64::from(layer.kv_heads()), u64::from(layer.head_dim));
        let view = |address, heads: u64, token_stride, head_stride| View {
            address,
            rows,
            heads: heads as u32,
            token_stride,
            head_stride,
        };
        let alone = |label, heads: u64, head_major: bool| {
            let strides = if head_major { (dim, rows * dim) } else { (heads * dim, dim) };
            (Buffer { label, elements: rows * heads * dim }, view(0, heads, strides.0, strides.1))
        };
        let lse_head_major = layout != Layout::Packed;
        let lse_strides = if lse_head_major { (1, rows) } else { (heads, 1) };
        let lse =
            (Buffer { label: "lse", elements: rows * heads }, view(0, heads, lse_strides.0, lse_strides.1));
        match layout {
            Layout::Packed | Layout::HeadMajor => {
                let head_major = layout == Layout::HeadMajor;
                let [q, k, o] = [("q", heads), ("k", kv_heads), ("o", heads)]
                    .map(|(label, heads)| alone(label, heads, head_major));
                // In a head-major layout the heads of v lie a row further apart than those of k.
                let mut v = alone("v", kv_heads, head_major);
                if head_major {
                    v.0.elements += kv_heads * dim;
                    v.1.head_stride += dim;
                }
                Self { inputs: vec![q.0, k.0, v.0], q: (0, q.1), k: (1, k.1), v: (2, v.1), o, lse }
            }
            Layout::Fused => {
                let token = (heads + 2 * kv_heads) * dim;
                let o_token = heads * dim + PADDING;
                Self {
                    inputs: vec![Buffer { label: "qkv", elements: rows * token }],
                    q: (0, view(0, heads, token, dim)),
                    k: (0, view(heads * dim, kv_heads, token, dim)),
                    v: (0, view((heads + kv_heads) * dim, kv_heads, token, dim)),
                    o: (Buffer { label: "o", elements: rows * o_token }, view(0, heads, o_token, dim)),
                    lse,
                }
            }
        }
    }

    /// Buffer and view of an input.
    pub fn input(&self, tensor: Tensor) -> &(usize, View) {
        match tensor {
            Tensor::Q => &self.q,
            Tensor::K => &self.k,
            Tensor::V => &self.v,
        }
    }
}

/// The element of a view's buffer where a row of a head starts.
pub fn element(view: &View, row: u64, head: u32) -> u64 {
    view.address + row * view.token_stride + u64::from(head) * view.head_stride
}
