//! `moac completions`: shell completions.

use clap::CommandFactory;
use clap_complete::Shell;

use super::Context;
use crate::cli::{Cli, ExitStatus};
use crate::error::Error;

/// Print completions for a shell
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell
    shell: Shell,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, Error> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "moac", &mut script);
    context.print_bytes(&script)?;
    Ok(ExitStatus::Done)
}
