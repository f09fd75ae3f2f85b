//! From tensors and a batch of requests to the parameter block of a launch: every check that a call gets, and no
//! device. Whoever launches a kernel, on a GPU or in an emulator, builds its [`Params`] here.

use thiserror::Error;

use crate::abi::{MAX_BUCKETS, Params, Task};
use crate::geometry::Geometry;

/// The bytes that kernels read and write at once: rows and heads start at multiples of it.
const VECTOR_BYTES: u64 = 16;
/// Bytes of an element of q, k, v and o, and of lse.
const ELEMENT_BYTES: u64 = 2;
const LSE_BYTES: u64 = 4;
/// The most requests of one launch: they are a grid's third dimension.
pub const MAX_BATCH: u32 = 65_535;

/// Where a tensor `[rows, heads, head_dim]` lies in device memory; the last dimension is contiguous. The log-sum-exp is
/// one with a `head_dim` of 1. A view of a fused QKV product is one too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Device address of the first element; a multiple of 16 (log-sum-exp: of 4).
    pub address: u64,
    /// Rows, one per token.
    pub rows: u64,
    /// Heads.
    pub heads: u32,
    /// Elements from one row to the next; a multiple of 8 (log-sum-exp: any).
    pub token_stride: u64,
    /// Elements from one head to the next; a multiple of 8 (log-sum-exp: any).
    pub head_stride: u64,
}

impl View {
    /// A tensor without gaps.
    pub fn packed(address: u64, rows: u64, heads: u32, head_dim: u32) -> Self {
        let head_stride = u64::from(head_dim);
        Self { address, rows, heads, token_stride: u64::from(heads) * head_stride, head_stride }
    }

    /// Elements from the first to behind the last one, or `None` where that is no 63-bit number.
    pub fn extent(&self, head_dim: u32) -> Option<u64> {
        if self.rows == 0 || self.heads == 0 {
            return Some(0);
        }
        let rows = (self.rows - 1).checked_mul(self.token_stride)?;
        let heads = u64::from(self.heads - 1).checked_mul(self.head_stride)?;
        let elements = rows.checked_add(heads)?.checked_add(u64::from(head_dim))?;
        (elements <= i64::MAX as u64 / LSE_BYTES).then_some(elements)
    }

    /// Whether two (row, head) pairs share an element.
    fn overlaps(&self, head_dim: u32) -> bool {
        let mut dims = [(self.rows, self.token_stride), (u64::from(self.heads), self.head_stride)];
        dims.sort_by_key(|&(_, stride)| stride);
        let mut extent = u64::from(head_dim);
        for (count, stride) in dims.into_iter().filter(|&(count, _)| count > 1) {
            if stride < extent {
                return true;
            }
            extent = (count - 1).saturating_mul(stride).saturating_add(extent);
        }
        false
    }
}

/// The tensors of one call; all have the same rows.
#[derive(Clone, Copy, Debug)]
pub struct Tensors {
    /// Queries after `RoPE`, `[rows, heads, head_dim]`.
    pub q: View,
    /// Keys after `RoPE`, `[rows, kv heads, head_dim]`.
    pub k: View,
    /// Values, `[rows, kv heads, head_dim]`.
    pub v: View,
    /// Written: `[rows, heads, head_dim]`.
    pub o: View,
    /// Written, if wanted: the natural log-sum-exp in f32, `[rows, heads]`.
    pub lse: Option<View>,
}

/// One request of a batch, as the kernels see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Device address of its slab.
    pub slab: u64,
    /// Its bucket, by index.
    pub bucket: u32,
    /// Tokens in the slab.
    pub cached: u32,
    /// New tokens of this call. 0 skips the request, whose slab is not touched then.
    pub chunk: u32,
    /// Rows of the tensors that are the request's, at least `chunk`; those behind its new tokens are not touched.
    pub rows: u32,
}

/// The requests of one call: the rows of request 0, then those of request 1, and so on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    requests: Vec<Request>,
}

impl Batch {
    /// A batch of requests.
    ///
    /// # Errors
    /// [`CallError::BatchSize`] or [`CallError::FewRows`].
    pub fn new(requests: Vec<Request>) -> Result<Self, CallError> {
        if requests.is_empty() || requests.len() > MAX_BATCH as usize {
            return Err(CallError::BatchSize { found: requests.len(), most: MAX_BATCH });
        }
        if let Some(request) = requests.iter().position(|request| request.rows < request.chunk) {
            let Request { rows, chunk, .. } = requests[request];
            return Err(CallError::FewRows { request, rows, chunk });
        }
        Ok(Self { requests })
    }

    /// Requests.
    pub fn len(&self) -> u32 {
        self.requests.len() as u32
    }

    /// Never: a batch has a request.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Rows of the tensors that the requests take.
    pub fn rows(&self) -> u64 {
        self.requests.iter().map(|request| u64::from(request.rows)).sum()
    }

    /// The longest chunk.
    pub fn longest_chunk(&self) -> u32 {
        self.requests.iter().map(|request| request.chunk).max().unwrap_or(0)
    }

    /// The per-request arrays, as [`Table::addresses`] finds them: `u64` slabs, `i64` starts, `i32` buckets, cached
    /// and chunks, each `capacity` long.
    ///
    /// # Panics
    /// If there are more requests than `capacity`.
    pub fn table(&self, capacity: u32) -> Vec<u8> {
        assert!(self.len() <= capacity, "{} requests in a table of {capacity}", self.len());
        let mut bytes = vec![0; Table::bytes(capacity) as usize];
        let Table { slabs, starts, buckets, cached, chunk } = Table::addresses(0, capacity);
        let mut start = 0_i64;
        for (at, request) in self.requests.iter().enumerate() {
            let mut put = |array: u64, value: &[u8]| {
                let to = array as usize + at * value.len();
                bytes[to..to + value.len()].copy_from_slice(value);
            };
            put(slabs, &request.slab.to_le_bytes());
            put(starts, &start.to_le_bytes());
            put(buckets, &request.bucket.to_le_bytes());
            put(cached, &request.cached.to_le_bytes());
            put(chunk, &request.chunk.to_le_bytes());
            start += i64::from(request.rows);
        }
        bytes
    }
}

/// Where the per-request arrays of a batch lie in device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    slabs: u64,
    starts: u64,
    buckets: u64,
    cached: u64,
    chunk: u64,
}

impl Table {
    /// Bytes of the arrays for `capacity` requests.
    pub const fn bytes(capacity: u32) -> u64 {
        capacity as u64 * (8 + 8 + 4 + 4 + 4)
    }

    /// The arrays of [`Batch::table`] once its bytes are at `address`, a multiple of 8.
    pub const fn addresses(address: u64, capacity: u32) -> Self {
        let n = capacity as u64;
        Self {
            slabs: address,
            starts: address + 8 * n,
            buckets: address + 16 * n,
            cached: address + 20 * n,
            chunk: address + 24 * n,
        }
    }
}

/// The decode workspace of a launch; 0 for prefill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scratch {
    /// [`partials_bytes`](crate::launch::partials_bytes) of device memory.
    pub partials: u64,
    /// [`counters_bytes`](crate::launch::counters_bytes) of device memory, zero.
    pub counters: u64,
}

/// What all calls of one layer share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerCall {
    /// Query heads.
    pub heads: u32,
    /// KV heads.
    pub kv_heads: u32,
    /// Elements of a head.
    pub head_dim: u32,
    layer_base: [u64; MAX_BUCKETS],
}

impl LayerCall {
    /// The calls of `layer`.
    ///
    /// # Panics
    /// If there is no such layer.
    pub fn new(geometry: &Geometry, layer: usize, head_dim: u32) -> Self {
        let own = &geometry.layers[layer];
        let mut layer_base = [0; MAX_BUCKETS];
        layer_base[..geometry.lengths.len()].copy_from_slice(&geometry.layer_base[layer]);
        Self {
            heads: own.group_of_head.len() as u32,
            kv_heads: own.buckets[0].kv_span.len() as u32,
            head_dim,
            layer_base,
        }
    }

    /// The parameter block of `task` for `rows` rows of `tensors` and the `batch` requests in `table`.
    ///
    /// # Errors
    /// The first thing wrong with a tensor.
    pub fn params(
        &self,
        task: Task,
        tensors: &Tensors,
        (table, batch, rows): (Table, u32, u64),
        scratch: Scratch,
    ) -> Result<Params, CallError> {
        let Tensors { q, k, v, o, lse } = tensors;
        for (tensor, view, heads) in
            [("q", q, self.heads), ("k", k, self.kv_heads), ("v", v, self.kv_heads), ("o", o, self.heads)]
        {
            self.check(tensor, view, heads, rows)?;
        }
        if o.overlaps(self.head_dim) {
            return Err(CallError::Overlap { tensor: "o" });
        }
        if let Some(lse) = lse {
            check_shape("lse", lse, self.heads, rows, 1)?;
            if !lse.address.is_multiple_of(LSE_BYTES) || lse.address == 0 {
                return Err(CallError::Address { tensor: "lse", found: lse.address, unit: LSE_BYTES });
            }
            if lse.overlaps(1) {
                return Err(CallError::Overlap { tensor: "lse" });
            }
        }
        Ok(Params {
            q: q.address,
            k: k.address,
            v: v.address,
            o: o.address,
            lse: lse.map_or(0, |lse| lse.address),
            partials: scratch.partials,
            counters: scratch.counters,
            slabs: table.slabs,
            buckets: table.buckets,
            cached: table.cached,
            chunk: table.chunk,
            starts: table.starts,
            q_token: q.token_stride as i64,
            q_head: q.head_stride as i64,
            k_token: k.token_stride as i64,
            k_head: k.head_stride as i64,
            v_token: v.token_stride as i64,
            v_head: v.head_stride as i64,
            o_token: o.token_stride as i64,
            o_head: o.head_stride as i64,
            lse_token: lse.map_or(0, |lse| lse.token_stride as i64),
            lse_head: lse.map_or(0, |lse| lse.head_stride as i64),
            batch: batch as i32,
            task: task as i32,
            layer_base: self.layer_base,
        })
    }

    fn check(&self, tensor: &'static str, view: &View, heads: u32, rows: u64) -> Result<(), CallError> {
        check_shape(tensor, view, heads, rows, self.head_dim)?;
        if !view.address.is_multiple_of(VECTOR_BYTES) || view.address == 0 {
            return Err(CallError::Address { tensor, found: view.address, unit: VECTOR_BYTES });
        }
        for (stride, found) in [("token", view.token_stride), ("head", view.head_stride)] {
            let unit = VECTOR_BYTES / ELEMENT_BYTES;
            if !found.is_multiple_of(unit) {
                return Err(CallError::Stride { tensor, stride, found, unit });
            }
        }
        Ok(())
    }
}

fn check_shape(
    tensor: &'static str,
    view: &View,
    heads: u32,
    rows: u64,
    head_dim: u32,
) -> Result<(), CallError> {
    if view.heads != heads {
        return Err(CallError::Heads { tensor, found: view.heads, expected: heads });
    }
    if view.rows != rows {
        return Err(CallError::Rows { tensor, found: view.rows, expected: rows });
    }
    // Strides of dimensions of one are never used, but they reach the kernel's 64-bit arithmetic.
    let strides_fit = view.token_stride.max(view.head_stride) <= i64::MAX as u64 / LSE_BYTES;
    if view.extent(head_dim).is_none() || !strides_fit {
        return Err(CallError::TooLarge { tensor });
    }
    Ok(())
}

/// What is wrong with a call.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallError {
    /// A tensor has another number of heads than the layer.
    #[error("`{tensor}` has {found} heads, expected {expected}")]
    Heads {
        /// Which one.
        tensor: &'static str,
        /// Its heads.
        found: u32,
        /// The layer's.
        expected: u32,
    },
    /// A tensor has other rows than the batch's requests.
    #[error("`{tensor}` has {found} rows, expected {expected}: those of the batch's requests")]
    Rows {
        /// Which one.
        tensor: &'static str,
        /// Its rows.
        found: u64,
        /// The batch's.
        expected: u64,
    },
    /// A tensor is at no valid address.
    #[error("`{tensor}` is at device address {found:#x}, expected a multiple of {unit} and not 0")]
    Address {
        /// Which one.
        tensor: &'static str,
        /// Its address.
        found: u64,
        /// What the address must be a multiple of, in bytes.
        unit: u64,
    },
    /// A stride that would put a row or a head where 16 bytes cannot be read at once.
    #[error("`{tensor}` has a {stride} stride of {found} elements, expected a multiple of {unit}")]
    Stride {
        /// Which one.
        tensor: &'static str,
        /// `token` or `head`.
        stride: &'static str,
        /// In elements.
        found: u64,
        /// What it must be a multiple of, in elements.
        unit: u64,
    },
    /// An output in which two rows share memory.
    #[error("the rows or heads of `{tensor}` overlap: an output needs strides that keep them apart")]
    Overlap {
        /// Which one.
        tensor: &'static str,
    },
    /// A tensor that ends beyond 63-bit addresses.
    #[error("`{tensor}` is larger than the address space")]
    TooLarge {
        /// Which one.
        tensor: &'static str,
    },
    /// A request whose new tokens have no rows.
    #[error("request {request} has {chunk} new tokens in {rows} rows")]
    FewRows {
        /// Which request of the batch.
        request: usize,
        /// Its rows.
        rows: u32,
        /// Its new tokens.
        chunk: u32,
    },
    /// No request, or more than a launch takes.
    #[error("a batch of {found} requests: a call takes 1 to {most}")]
    BatchSize {
        /// Requests given.
        found: usize,
        /// The most.
        most: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::{Batch, CallError, LayerCall, Request, Scratch, Table, Tensors, View};
    use crate::abi::{MAX_BUCKETS, Task};

    fn layer() -> LayerCall {
        LayerCall { heads: 4, kv_heads: 2, head_dim: 64, layer_base: [7; MAX_BUCKETS] }
    }

    /// Views of one fused product of 3 rows: 4 query heads, 2 of keys, 2 of values.
    fn fused() -> Tensors {
        let view = |head: u64, heads| View {
            address: 0x1000 + head * 128,
            rows: 3,
            heads,
            token_stride: 8 * 64,
            head_stride: 64,
        };
        Tensors {
            q: view(0, 4),
            k: view(4, 2),
            v: view(6, 2),
            o: View::packed(0x9000, 3, 4, 64),
            lse: Some(View { address: 0xa004, rows: 3, heads: 4, token_stride: 1, head_stride: 3 }),
        }
    }

    fn params(tensors: &Tensors) -> Result<crate::abi::Params, CallError> {
        let table = Table::addresses(0x100, 8);
        layer().params(Task::Fill, tensors, (table, 5, 3), Scratch { partials: 16, counters: 32 })
    }

    #[test]
    fn every_field_has_its_place() {
        let p = params(&fused()).unwrap();
        assert_eq!([p.q, p.k, p.v, p.o, p.lse], [0x1000, 0x1200, 0x1300, 0x9000, 0xa004]);
        assert_eq!([p.slabs, p.starts, p.buckets, p.cached, p.chunk], [0x100, 0x140, 0x180, 0x1a0, 0x1c0]);
        assert_eq!([p.q_token, p.k_token, p.v_token, p.o_token, p.lse_token], [512, 512, 512, 256, 1]);
        assert_eq!([p.q_head, p.k_head, p.v_head, p.o_head, p.lse_head], [64, 64, 64, 64, 3]);
        assert_eq!((p.partials, p.counters, p.batch, p.task, p.layer_base[63]), (16, 32, 5, 1, 7));
        let without = params(&Tensors { lse: None, ..fused() }).unwrap();
        assert_eq!([without.lse, without.lse_token as u64], [0, 0]);
    }

    #[test]
    fn each_thing_wrong_with_a_tensor_is_named() {
        let with = |change: fn(&mut Tensors)| {
            let mut tensors = fused();
            change(&mut tensors);
            params(&tensors).unwrap_err().to_string()
        };
        assert_eq!(with(|t| t.k.heads = 4), "`k` has 4 heads, expected 2");
        assert_eq!(with(|t| t.v.rows = 2), "`v` has 2 rows, expected 3: those of the batch's requests");
        assert_eq!(
            with(|t| t.q.address += 8),
            "`q` is at device address 0x1008, expected a multiple of 16 and not 0"
        );
        assert_eq!(
            with(|t| t.o.address = 0),
            "`o` is at device address 0x0, expected a multiple of 16 and not 0"
        );
        assert_eq!(
            with(|t| t.q.token_stride += 4),
            "`q` has a token stride of 516 elements, expected a multiple of 8"
        );
        assert_eq!(
            with(|t| t.k.head_stride = 63),
            "`k` has a head stride of 63 elements, expected a multiple of 8"
        );
        assert_eq!(with(|t| t.k.token_stride = 1 << 62), "`k` is larger than the address space");
        let overlap = "overlap: an output needs strides that keep them apart";
        assert_eq!(with(|t| t.o.head_stride = 56), format!("the rows or heads of `o` {overlap}"));
        assert_eq!(with(|t| t.o.token_stride = 248), format!("the rows or heads of `o` {overlap}"));
        assert_eq!(
            with(|t| t.lse = Some(View::packed(0xa002, 3, 4, 1))),
            "`lse` is at device address 0xa002, expected a multiple of 4 and not 0"
        );
        assert_eq!(
            with(|t| t.lse = Some(View { head_stride: 2, ..t.lse.unwrap() })),
            format!("the rows or heads of `lse` {overlap}")
        );
    }

    /// Inputs may repeat rows, and outputs may have heads outside rows.
    #[test]
    fn unusual_strides_that_work_are_taken() {
        let mut tensors = fused();
        tensors.k.token_stride = 0;
        tensors.o = View { address: 0x9000, rows: 3, heads: 4, token_stride: 64, head_stride: 3 * 64 };
        assert!(params(&tensors).is_ok());
    }

    #[test]
    fn the_table_holds_what_the_kernels_look_up() {
        let request = |slab, chunk, rows| Request { slab, bucket: 3, cached: 11, chunk, rows };
        let batch = Batch::new(vec![request(0xaa00, 5, 5), request(0, 0, 1), request(0xbb00, 2, 4)]).unwrap();
        assert_eq!((batch.len(), batch.rows(), batch.longest_chunk()), (3, 10, 5));
        let bytes = batch.table(4);
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let half = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let at = Table::addresses(0, 4);
        assert_eq!(bytes.len() as u64, Table::bytes(4));
        assert_eq!([0, 1, 2, 3].map(|b| word(at.slabs as usize + 8 * b)), [0xaa00, 0, 0xbb00, 0]);
        assert_eq!([0, 1, 2, 3].map(|b| word(at.starts as usize + 8 * b)), [0, 5, 6, 0]);
        assert_eq!([0, 2].map(|b| half(at.buckets as usize + 4 * b)), [3, 3]);
        assert_eq!([0, 2].map(|b| half(at.cached as usize + 4 * b)), [11, 11]);
        assert_eq!([0, 1, 2, 3].map(|b| half(at.chunk as usize + 4 * b)), [5, 0, 2, 0]);
        assert!(matches!(Batch::new(Vec::new()), Err(CallError::BatchSize { found: 0, .. })));
        let error = Batch::new(vec![request(1, 0, 0), request(1, 3, 2)]).unwrap_err().to_string();
        assert_eq!(error, "request 1 has 3 new tokens in 2 rows");
    }
}
