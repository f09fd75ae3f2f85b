//! One file per command: its arguments and `run(&Args, &Context) -> Result<ExitStatus, Error>`.
//!
//! All output goes through [`Context`]: data to stdout, messages and progress to stderr. Commands hold no logic: they
//! call the library and print.

// Doc comments here are what --help shows, where backticks are noise and brackets are defaults and shapes.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links)]

pub mod args;
pub mod bench;
pub mod bench_model;
pub mod calibrate;
pub mod compile;
pub mod completions;
pub mod diff;
pub mod doctor;
pub mod emit;
pub mod eval;
pub mod exec;
pub mod generate;
pub mod gpu;
pub mod inspect;
pub mod man;
pub mod plan;
pub mod profile;
pub mod quickstart;
pub mod refine;
pub mod search;
pub mod serve;
pub mod space;
pub mod validate;
pub mod verify;
pub mod view;

use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;

use moac_runtime::file;

pub use crate::context::Context;
use crate::error::Error;

/// The exit status of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// Done: 0.
    Done,
    /// The answer is no: 1.
    No,
    /// An error: 2, as for a command line that does not parse.
    Error,
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(match status {
            ExitStatus::Done => 0,
            ExitStatus::No => 1,
            ExitStatus::Error => 2,
        })
    }
}

/// Whether an output is standard output.
fn is_stdout(path: &Path) -> bool {
    path == Path::new(args::STREAM)
}

/// Says now that an output cannot be written, instead of after the work.
fn check_out(path: &Path) -> Result<(), Error> {
    if is_stdout(path) { Ok(()) } else { file::target(path).map(drop).map_err(Error::file("write", path)) }
}

/// As [`check_out`], where `--json` may ask for standard output too.
fn check_out_beside_json(path: &Path, json: bool) -> Result<(), Error> {
    if is_stdout(path) && json { Err(Error::StdoutTwice) } else { check_out(path) }
}

/// Writes an output: a file whole or not at all, or standard output.
fn write_out(path: &Path, bytes: &[u8], context: &Context) -> Result<(), Error> {
    if is_stdout(path) {
        context.print_bytes(bytes)
    } else {
        file::write(path, bytes).map_err(Error::file("write", path))
    }
}

/// Prints a table beside an output: to stderr where that is standard output.
fn print_beside(path: &Path, table: impl Display, context: &Context) -> Result<(), Error> {
    if is_stdout(path) {
        context.aside(table);
        Ok(())
    } else {
        context.print(table)
    }
}
