//! `moac doctor`: the state of this machine, and how to install what is missing.

use moac_compiler::fetch;

use super::{Context, ExitStatus};
use crate::doctor::Findings;
use crate::error::Error;

/// Show the driver, devices, NVRTC and caches of this machine, and how to install what is missing
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Fetch NVRTC and the real model through pip
    #[arg(long)]
    pub fetch: bool,
    /// Print what was found as JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, Error> {
    if args.fetch {
        let folder = fetch::NVRTC.fetch()?;
        context.note(format!("NVRTC {} is in {}", fetch::NVRTC.version, folder.display()));
        context.note(format!("the model is {}", fetch::model()?.display()));
    }
    let findings = Findings::of_this_machine();
    if args.json {
        context.json(&findings)?;
    } else {
        context.print(&findings)?;
    }
    Ok(if findings.can_compile() { ExitStatus::Done } else { ExitStatus::No })
}
