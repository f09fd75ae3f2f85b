//! The plan compiler: from a plan file to an artifact, and what proves and measures its kernels.
//!
//! One way through: [`plan`] reads and checks a plan, [`lower`] turns it into kernel specs (every decision is made
//! there), [`render`] prints each spec as a thin source file that includes the [`headers`], [`nvrtc`] compiles it through
//! the [`cache`], and [`pack`] makes the artifact. [`build`] is all of that in one call.
//!
//! [`verify`] holds kernels against the reference, [`bench`](mod@bench) against what a device can do, [`exec`] runs one layer.
#![deny(unsafe_code)] // but in nvrtc/library.rs

pub mod bench;
pub mod build;
pub mod cache;
pub mod emit;
pub mod env;
pub mod exec;
pub mod fetch;
pub mod headers;
pub mod hint;
pub mod ledger;
pub mod lower;
pub mod names;
pub mod nvrtc;
pub mod pack;
pub mod plan;
pub mod render;
pub mod verify;

/// The README's snippets compile and run.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
