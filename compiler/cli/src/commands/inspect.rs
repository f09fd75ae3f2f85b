//! `moac inspect`: the contents of a plan or an artifact.

use std::path::PathBuf;

use super::args::{ModelArg, TargetArgs, input};
use super::view::view;
use super::{Context, ExitStatus, check_out_beside_json, is_stdout, write_out};
use crate::error::Error;
use crate::report::{Inspection, page};
use crate::subject::Subject;

/// Show the spans, groups, density, KV bytes and kernels of a plan or an artifact
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A plan, shown as it would be compiled, or an artifact; - for standard input
    #[arg(value_parser = input())]
    file: PathBuf,
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    target: TargetArgs,
    /// Write a page with the span map of every head, to a file or to - for standard output
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
    args.html.as_deref().map_or(Ok(()), |path| check_out_beside_json(path, args.json))?;
    let subject = Subject::open(&args.file, args.model.name())?;
    let view = view(&subject, &args.file, &args.target, &args.model, None, context)?;
    let inspection = Inspection::new(&view);
    if let Some(path) = &args.html {
        write_out(path, page(&inspection).as_bytes(), context)?;
        if !is_stdout(path) {
            context.note(format!("wrote `{}`", path.display()));
        }
    }
    if args.json {
        context.json(&inspection)?;
    } else if args.html.is_none() {
        context.print(&inspection)?;
    }
    Ok(ExitStatus::Done)
}
