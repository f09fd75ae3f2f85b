//! `moac completions`: shell completions.

use clap::Command;
use clap_complete::Shell;

use super::{Context, ExitStatus};
use crate::error::Error;

/// Print completions for a shell
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell
    shell: Shell,
}

/// Runs the command. `moac` is the whole command line.
pub fn run(args: &Args, moac: &mut Command, context: &Context) -> Result<ExitStatus, Error> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, moac, "moac", &mut script);
    context.print_bytes(&script)?;
    Ok(ExitStatus::Done)
}
