//! One layer of attention over a batch of requests, on host tensors: the face that the CPU path, a GPU and any other
//! device share, for commands and tests that compare them.
//!
//! It is about the same numbers coming out of every device, not about speed: it copies in and out on every call. The
//! fast way on a GPU takes device pointers (`gpu`).

use std::ops::Range;

use ndarray::{Array2, Array3, ArrayView3, s};
use thiserror::Error;

/// The queries, keys and values of some tokens, in any strides. `RoPE` has been applied.
#[derive(Clone, Copy, Debug)]
pub struct Qkv<'a, T> {
    /// `[tokens, heads, head_dim]`
    pub q: ArrayView3<'a, T>,
    /// `[tokens, kv heads, head_dim]`
    pub k: ArrayView3<'a, T>,
    /// `[tokens, kv heads, head_dim]`
    pub v: ArrayView3<'a, T>,
}

impl<'a, T> Qkv<'a, T> {
    /// The views of three arrays.
    pub fn new(q: &'a Array3<T>, k: &'a Array3<T>, v: &'a Array3<T>) -> Self {
        Self { q: q.view(), k: k.view(), v: v.view() }
    }

    /// Some of the tokens, which all three must have.
    pub fn tokens(&self, range: Range<usize>) -> Qkv<'_, T> {
        let rows = s![range, .., ..];
        Qkv { q: self.q.slice(rows), k: self.k.slice(rows), v: self.v.slice(rows) }
    }

    /// Checks the shapes against a layer's, for `queries` tokens of q and `tokens` of k and v.
    pub(crate) fn check(&self, layer: [usize; 3], queries: usize, tokens: usize) -> Result<(), LayerError> {
        let [heads, kv_heads, dim] = layer;
        let check = |tensor, found: &[usize], expected: [usize; 3]| {
            if found == expected {
                return Ok(());
            }
            Err(LayerError::Shape { tensor, found: found.to_vec(), expected: expected.to_vec() })
        };
        check("q", self.q.shape(), [queries, heads, dim])?;
        check("k", self.k.shape(), [tokens, kv_heads, dim])?;
        check("v", self.v.shape(), [tokens, kv_heads, dim])
    }
}

/// The new tokens of a batch, packed: first all rows of request 0, then those of request 1, and so on. The
/// values are whatever the device's element type can hold, widened.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// New tokens of each request, in order; 0 leaves a request as it is.
    pub chunk: &'a [u32],
    /// The tensors, a row per token.
    pub qkv: Qkv<'a, f32>,
}

/// The outputs, row by row in the order of the [`Rows`].
#[derive(Clone, Debug, PartialEq)]
pub struct Outputs {
    /// `[rows, heads, head_dim]`
    pub o: Array3<f32>,
    /// Natural log-sum-exp of the scaled scores, `[rows, heads]`.
    pub lse: Array2<f32>,
}

/// One layer and its caches, one per request of a batch. Buckets are fixed when it is made.
pub trait LayerBackend {
    /// Tokens in each request's cache.
    fn cached(&self) -> Vec<u32>;

    /// Attends a chunk of any length per request, then appends it.
    ///
    /// # Errors
    /// Shapes that do not fit, a request whose context is full (none is changed then), or a failure of the device.
    fn prefill(&mut self, rows: &Rows<'_>) -> Result<Outputs, LayerError>;

    /// Attends and appends at most one token per request.
    ///
    /// # Errors
    /// As [`prefill`](Self::prefill), and [`LayerError::NotOneToken`].
    fn decode(&mut self, rows: &Rows<'_>) -> Result<Outputs, LayerError>;
}

/// Errors of computing a layer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LayerError {
    /// A tensor does not have the shape that the layer and the other tensors ask for.
    #[error("`{tensor}` has shape {found:?}, expected {expected:?}")]
    Shape {
        /// Its name or index.
        tensor: &'static str,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that fits.
        expected: Vec<usize>,
    },
    /// A row to compute that is not there.
    #[error(
        "no query head {head} at position {position}: the call has {heads} heads at positions {first}..{end}"
    )]
    NoSuchRow {
        /// The head asked for.
        head: u32,
        /// The position asked for.
        position: u32,
        /// Heads there are.
        heads: usize,
        /// The first position with a query.
        first: usize,
        /// The position after the last.
        end: usize,
    },
    /// The number of chunk lengths is not the number of requests.
    #[error("{found} chunk lengths for a batch of {expected} requests")]
    Batch {
        /// Chunk lengths given.
        found: usize,
        /// Requests of the layer.
        expected: usize,
    },
    /// A decode step with more than one token for a request.
    #[error(
        "a decode step takes at most one token per request, but request {request} has {found}: prefill them"
    )]
    NotOneToken {
        /// The index of the request.
        request: usize,
        /// Its new tokens.
        found: u32,
    },
    /// The request's bucket has no room left for the new tokens.
    #[error(
        "context full: {cached} tokens are cached and {new} more were given, but the bucket ends at {length}; \
         going on takes a larger bucket and a new prefill from the tokens"
    )]
    ContextFull {
        /// Tokens in the cache.
        cached: u32,
        /// Tokens given.
        new: u64,
        /// The bucket's length.
        length: u32,
    },
    /// The device failed.
    #[error(transparent)]
    Device(#[from] Box<dyn std::error::Error + Send + Sync>),
}

impl LayerError {
    /// Checks that `new` tokens fit behind `cached` ones in a bucket of `length`.
    ///
    /// # Errors
    /// [`LayerError::ContextFull`].
    pub fn check_room(cached: u32, new: usize, length: u32) -> Result<(), Self> {
        if u64::from(cached) + new as u64 <= u64::from(length) {
            return Ok(());
        }
        Err(Self::ContextFull { cached, new: new as u64, length })
    }
}

impl Rows<'_> {
    /// Checks the shapes against a layer of `[query heads, KV heads, head_dim]` and a batch, and returns the first row
    /// of each request.
    ///
    /// # Errors
    /// [`LayerError::Batch`] or [`LayerError::Shape`].
    pub fn starts(&self, layer: [usize; 3], batch: usize) -> Result<Vec<usize>, LayerError> {
        if self.chunk.len() != batch {
            return Err(LayerError::Batch { found: self.chunk.len(), expected: batch });
        }
        let mut rows = 0;
        let starts = self
            .chunk
            .iter()
            .map(|&tokens| {
                let start = rows;
                rows += tokens as usize;
                start
            })
            .collect();
        self.qkv.check(layer, rows, rows)?;
        Ok(starts)
    }

    /// Checks that no request has more than one token.
    ///
    /// # Errors
    /// [`LayerError::NotOneToken`].
    pub fn check_decode(&self) -> Result<(), LayerError> {
        match self.chunk.iter().enumerate().find(|&(_, &tokens)| tokens > 1) {
            Some((request, &found)) => Err(LayerError::NotOneToken { request, found }),
            None => Ok(()),
        }
    }
}
