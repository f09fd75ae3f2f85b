//! The kernel template and the CUDA headers, embedded.
#![forbid(unsafe_code)]
