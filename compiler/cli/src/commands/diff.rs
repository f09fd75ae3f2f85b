//! `moac diff`: the differences between two plans or artifacts.

use std::path::PathBuf;

use super::args::{ModelArg, TargetArgs, input};
use super::view::view;
use super::{Context, ExitStatus};
use crate::error::Error;
use crate::report::Diff;
use crate::subject::Subject;

/// Show the differences between two plans or artifacts: spans, sources, resources
///
/// A plan is compared with an artifact as if compiled for that artifact's target.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A plan or an artifact, or - for standard input
    #[arg(value_parser = input())]
    a: PathBuf,
    /// Another
    #[arg(value_parser = input())]
    b: PathBuf,
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    target: TargetArgs,
    /// Exit with 1 where anything differs
    #[arg(long)]
    exit_code: bool,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, Error> {
    let a = Subject::open(&args.a, args.model.name())?;
    let b = Subject::open(&args.b, args.model.name())?;
    let view_a = view(&a, &args.a, &args.target, &args.model, Some(&b), context)?;
    let view_b = view(&b, &args.b, &args.target, &args.model, Some(&a), context)?;
    let diff = Diff::new(&view_a, &view_b);
    if args.json {
        context.json(&diff)?;
    } else {
        context.print(&diff)?;
    }
    Ok(if args.exit_code && !diff.same() { ExitStatus::No } else { ExitStatus::Done })
}
