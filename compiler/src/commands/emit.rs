//! `moac emit`: the generated sources of a plan, for review.

use std::path::PathBuf;

use super::Context;
use super::args::{PlanArgs, TargetArgs};
use crate::cli::ExitStatus;
use crate::error::Error;
use crate::lower;
use crate::render::Renderer;

/// Write the generated kernel sources and compile_commands.json
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    plan: PlanArgs,
    #[command(flatten)]
    target: TargetArgs,
    /// Folder to write to, made if it is not there
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, Error> {
    let plan = args.plan.read()?;
    let lowered = lower::lower(&plan, &args.target.target(&plan, context)?)?;
    let renderer = Renderer::new()?;
    std::fs::create_dir_all(&args.out).map_err(Error::file("create", &args.out))?;
    for spec in &lowered.specs {
        let path = args.out.join(format!("{}.cu", crate::names::symbol(spec)));
        std::fs::write(&path, renderer.render(spec)?).map_err(Error::file("write", &path))?;
    }
    Ok(ExitStatus::Done)
}
