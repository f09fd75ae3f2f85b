//! Errors of a call.

use thiserror::Error;

/// Errors of a call.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallError {
    /// A tensor has another number of heads than the layer.
    #[error("`{tensor}` has {found} heads, expected {expected}")]
    Heads {
        /// The tensor.
        tensor: &'static str,
        /// Its heads.
        found: u32,
        /// The layer's.
        expected: u32,
    },
    /// A tensor has other rows than the batch's requests.
    #[error("`{tensor}` has {found} rows, expected {expected}: those of the batch's requests")]
    Rows {
        /// The tensor.
        tensor: &'static str,
        /// Its rows.
        found: u64,
        /// The batch's.
        expected: u64,
    },
    /// A tensor is at no valid address.
    #[error("`{tensor}` is at device address {found:#x}, expected a multiple of {unit} and not 0")]
    Address {
        /// The tensor.
        tensor: &'static str,
        /// Its address.
        found: u64,
        /// The required alignment in bytes.
        unit: u64,
    },
    /// A stride that would put a row or a head where 16 bytes cannot be read at once.
    #[error("`{tensor}` has a {stride} stride of {found} elements, expected a multiple of {unit}")]
    Stride {
        /// The tensor.
        tensor: &'static str,
        /// `token` or `head`.
        stride: &'static str,
        /// In elements.
        found: u64,
        /// The number of elements that it must be a multiple of.
        unit: u64,
    },
    /// An output in which two rows share memory.
    #[error("the rows or heads of `{tensor}` overlap: an output needs strides that keep them apart")]
    Overlap {
        /// The tensor.
        tensor: &'static str,
    },
    /// A tensor that ends beyond 63-bit addresses.
    #[error("`{tensor}` is larger than the address space")]
    TooLarge {
        /// The tensor.
        tensor: &'static str,
    },
    /// A request whose new tokens have no rows.
    #[error("request {request} has {chunk} new tokens in {rows} rows")]
    FewRows {
        /// The index of the request in the batch.
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
    /// A decode with more than one new token in a request.
    #[error("a decode step takes at most one token per request, but one has {found}: prefill them")]
    NotOneToken {
        /// New tokens of the request that has the most.
        found: u32,
    },
}
