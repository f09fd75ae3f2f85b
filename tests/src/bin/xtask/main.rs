//! `cargo xtask`: the project's own chores.
#![forbid(unsafe_code)]

mod emulate;
mod ledger;
mod nvrtc;
mod shipped;
mod snapshots;
mod test;
mod texts;
mod validate;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The error of a chore: a sentence for its user.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The project's own chores.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Fetch NVRTC unless there is one, and print its path
    Nvrtc(nvrtc::Args),
    /// Fetch NVRTC and the model unless they are there, run every test, and check that no snapshot is stale
    Test(test::Args),
    /// Compile every kernel of the shipped plans, both element types, for every architecture
    Validate(validate::Args),
    /// Run every kernel on the PTX emulator
    Emulate(emulate::Args),
    /// Fetch the real model, and print its path
    Model,
    /// Fetch the texts for calibration and evaluation: the packages are Debian's and PyPI's
    Texts(texts::Args),
    /// Print the shipped kernels that no GPU has run
    Ledger(ledger::Args),
    /// Fail unless every kernel that is said to run on a GPU has done so
    Release,
}

fn main() -> ExitCode {
    let done = match Cli::parse().chore {
        Chore::Nvrtc(args) => nvrtc::run(&args),
        Chore::Test(args) => test::run(&args),
        Chore::Validate(args) => validate::run(&args),
        Chore::Emulate(args) => emulate::run(&args),
        Chore::Model => model(),
        Chore::Texts(args) => texts::run(&args),
        Chore::Ledger(args) => ledger::run(&args),
        Chore::Release => ledger::release(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn model() -> Result<()> {
    println!("{}", moac_compiler::fetch::model()?.display());
    Ok(())
}

/// The repository's root.
fn root() -> PathBuf {
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.pop();
    root
}

/// A bar for a long chore, on stderr.
fn bar(length: usize, what: &'static str) -> indicatif::ProgressBar {
    let style = indicatif::ProgressStyle::with_template("{prefix} {bar:32} {pos}/{len} {elapsed} {wide_msg}");
    let style = style.unwrap_or_else(|_| indicatif::ProgressStyle::default_bar());
    indicatif::ProgressBar::new(length as u64).with_style(style).with_prefix(what)
}
