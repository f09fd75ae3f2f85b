//! The kernel template and the CUDA headers, embedded.
//!
//! Text only: nothing here knows what it means. `templates/README.md` states the contract between the rendered file
//! and the headers.
#![forbid(unsafe_code)]

/// The template of the one file that is rendered per kernel.
pub const KERNEL: &str = include_str!("../kernel.cu.tera");

/// Every header as `(the path it is included by, its text)`, sorted by path.
pub const HEADERS: &[(&str, &str)] = &[("moac/params.cuh", include_str!("../include/moac/params.cuh"))];
