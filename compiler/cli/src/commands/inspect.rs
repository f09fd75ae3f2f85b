//! `moac inspect`: what is in a plan or an artifact.

use std::path::PathBuf;

use super::args::{ModelArg, TargetArgs};
use super::view::view;
use super::{Context, ExitStatus};
use crate::error::Error;
use crate::report::{Inspection, page};
use crate::subject::Subject;

/// Show spans, groups, density, KV bytes and kernels of a plan or an artifact
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A plan, shown as it would be compiled, or an artifact
    file: PathBuf,
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    target: TargetArgs,
    /// Write a page with the span map of every head
    #[arg(long, value_name = "OUT.html")]
    html: Option<PathBuf>,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Of an artifact: tables, or a page at `html`.
    pub fn of(artifact: PathBuf, html: Option<PathBuf>) -> Self {
        let model = ModelArg { model: None };
        Self { file: artifact, model, target: TargetArgs::default(), html, json: false }
    }
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, Error> {
    let subject = Subject::open(&args.file, args.model.name())?;
    let view = view(&subject, &args.file, &args.target, &args.model, None, context)?;
    let inspection = Inspection::new(&view);
    if let Some(path) = &args.html {
        std::fs::write(path, page(&inspection)).map_err(Error::file("write", path))?;
        context.note(format!("wrote `{}`", path.display()));
    }
    if args.json {
        context.json(&inspection)?;
    } else if args.html.is_none() {
        context.print(&inspection)?;
    }
    Ok(ExitStatus::Done)
}
