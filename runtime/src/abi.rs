//! The parameter block of every attention kernel, and its limits.
//!
//! [`Params`] and `moac::Params` in `templates/include/moac/params.cuh` are one layout, asserted on both sides: here
//! by size and offsets, there by a `static_assert` in every rendered kernel. Change both together and raise
//! [`ABI_VERSION`].

use serde::{Deserialize, Serialize};

/// Raised whenever the meaning or the layout of [`Params`] changes.
pub const ABI_VERSION: u32 = 1;

/// The most buckets an artifact can hold: the layer's base of each is in the block.
pub const MAX_BUCKETS: usize = 64;

/// The parameter block of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abi {
    /// [`ABI_VERSION`].
    pub version: u32,
    /// Bytes of the block.
    pub params_bytes: usize,
}

/// The parameters of one launch of an attention kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Task {
    /// Compute attention. Decode also appends the new token to the ring.
    Attend = 0,
    /// Write a chunk's keys and values into the ring, after every reader of the old ones is done. Prefill only.
    Fill = 1,
}

/// The parameter block. Pointers are device addresses; 0 where optional ones are absent. Strides are in elements.
///
/// Row `starts[b] + t` of q, k, v, o and lse is token `t` of the call's chunk of request `b`, whose position in the
/// context is `cached[b] + t`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Params {
    /// q rows: `[row][head][head_dim]`.
    pub q: u64,
    /// k rows after `RoPE`: `[row][kv head][head_dim]`.
    pub k: u64,
    /// v rows: `[row][kv head][head_dim]`.
    pub v: u64,
    /// o rows, written: `[row][head][head_dim]`.
    pub o: u64,
    /// Natural log-sum-exp, f32, written: `[row][head]`; optional.
    pub lse: u64,
    /// Decode: `[2 * grid][group size][head_dim + 2]` f32 of split results.
    pub partials: u64,
    /// Decode: `[batch][kv heads]` u32, zero before the launch and left zero by it.
    pub counters: u64,
    /// `[batch]` u64: the base of each request's slab.
    pub slabs: u64,
    /// `[batch]` i32: the bucket of each request, by index.
    pub buckets: u64,
    /// `[batch]` i32: tokens already in the slab.
    pub cached: u64,
    /// `[batch]` i32: new tokens of this call (decode: 0 or 1). 0 skips the request.
    pub chunk: u64,
    /// `[batch]` i64: the first row of each request.
    pub starts: u64,
    /// Elements from one row of q to the next.
    pub q_token: i64,
    /// Elements from one head of q to the next.
    pub q_head: i64,
    /// As `q_token`, for k.
    pub k_token: i64,
    /// As `q_head`, for k.
    pub k_head: i64,
    /// As `q_token`, for v.
    pub v_token: i64,
    /// As `q_head`, for v.
    pub v_head: i64,
    /// As `q_token`, for o.
    pub o_token: i64,
    /// As `q_head`, for o.
    pub o_head: i64,
    /// As `q_token`, for lse.
    pub lse_token: i64,
    /// As `q_head`, for lse.
    pub lse_head: i64,
    /// Requests in the launch.
    pub batch: i32,
    /// A [`Task`].
    pub task: i32,
    /// Byte offset of this layer's rings in a slab, by bucket.
    pub layer_base: [u64; MAX_BUCKETS],
}

/// The size of [`Params`], which an artifact records.
pub const PARAMS_BYTES: usize = 12 * 8 + 10 * 8 + 2 * 4 + MAX_BUCKETS * 8;

const _: () = assert!(size_of::<Params>() == PARAMS_BYTES && PARAMS_BYTES == 696);
const _: () = assert!(std::mem::offset_of!(Params, starts) == 88);
const _: () = assert!(std::mem::offset_of!(Params, q_token) == 96);
const _: () = assert!(std::mem::offset_of!(Params, batch) == 176);
const _: () = assert!(std::mem::offset_of!(Params, layer_base) == 184);

impl Params {
    /// The block as the bytes a launch takes.
    pub fn to_bytes(&self) -> [u8; PARAMS_BYTES] {
        // Exhaustive on purpose: a new field does not compile until it has its place here.
        let Self {
            q,
            k,
            v,
            o,
            lse,
            partials,
            counters,
            slabs,
            buckets,
            cached,
            chunk,
            starts,
            q_token,
            q_head,
            k_token,
            k_head,
            v_token,
            v_head,
            o_token,
            o_head,
            lse_token,
            lse_head,
            batch,
            task,
            layer_base,
        } = *self;
        let mut bytes = [0; PARAMS_BYTES];
        let mut at = 0;
        let mut put = |value: &[u8]| {
            bytes[at..at + value.len()].copy_from_slice(value);
            at += value.len();
        };
        for pointer in [q, k, v, o, lse, partials, counters, slabs, buckets, cached, chunk, starts] {
            put(&pointer.to_le_bytes());
        }
        for stride in
            [q_token, q_head, k_token, k_head, v_token, v_head, o_token, o_head, lse_token, lse_head]
        {
            put(&stride.to_le_bytes());
        }
        put(&batch.to_le_bytes());
        put(&task.to_le_bytes());
        for base in layer_base {
            put(&base.to_le_bytes());
        }
        bytes
    }
}
