//! One file per command: its arguments and `run(&Args, &Context) -> Result<ExitStatus, Error>`.
//!
//! Data goes to stdout through [`Context`], messages to stderr through [`Context::note`] and [`say`]. Commands hold no
//! logic: they call the library and print.

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
pub mod inspect;
pub mod plan;
pub mod profile;
pub mod quickstart;
pub mod refine;
pub mod search;
pub mod space;
pub mod validate;
pub mod verify;
pub mod view;

use std::fmt::Display;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use moac_runtime::file;
use serde::Serialize;

use crate::error::Error;

/// What the process ends with.
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

/// What every command gets.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Context {}

impl Context {
    /// Prints a line of data to stdout.
    pub fn print(&self, text: impl Display) -> Result<(), Error> {
        writeln!(std::io::stdout().lock(), "{text}").map_err(Error::Output)
    }

    /// Prints `--json` output of which there is one object a line.
    pub fn json_line(&self, value: &impl Serialize) -> Result<(), Error> {
        let text = serde_json::to_string(value).map_err(|error| Error::Output(error.into()))?;
        self.print(text)
    }

    /// Prints data to stdout as it is.
    pub fn print_bytes(&self, bytes: &[u8]) -> Result<(), Error> {
        let mut out = std::io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).map_err(Error::Output)
    }

    /// Prints `--json` output.
    pub fn json(&self, value: &impl Serialize) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(value).map_err(|error| Error::Output(error.into()))?;
        self.print(text)
    }

    /// Tells the user something on stderr that is neither data nor an error.
    pub fn note(&self, text: impl Display) {
        say(&format!("note: {text}"));
    }
}

/// Prints a line to stderr; nothing can be done where that fails.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Says now that a file cannot be written, instead of after the work.
fn check_out(path: &Path) -> Result<(), Error> {
    file::target(path).map(drop).map_err(Error::file("write", path))
}
