//! The plan compiler, as a library.
//!
//! One way through: [`plan`] reads and checks a plan, [`lower`] turns it into kernel specs (every decision is made
//! there), [`render`] prints each spec as a thin source file that includes the [`headers`], [`nvrtc`] compiles it through
//! the [`cache`], and [`pack`] makes the artifact. [`build`] is all of that in one call.
#![deny(unsafe_code)] // but in nvrtc/library.rs

pub mod bench;
pub mod build;
pub mod cache;
pub mod calibrate;
pub mod cli;
pub mod commands;
pub mod doctor;
pub mod emit;
pub mod env;
pub mod error;
pub mod eval;
pub mod exec;
pub mod fetch;
pub mod headers;
pub mod interrupt;
pub mod items;
pub mod kept;
pub mod ledger;
pub mod lower;
pub mod names;
pub mod nvrtc;
pub mod pack;
pub mod pipeline;
pub mod plan;
pub mod profile;
pub mod quickstart;
pub mod refine;
pub mod render;
pub mod report;
pub mod search;
pub mod subject;
pub mod tasks;
pub mod validate;
pub mod verify;

/// The README's snippets compile and run.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
