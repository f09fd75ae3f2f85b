//! `moac emit`: the generated sources of a plan, for review.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use moac_compiler::emit;

use super::args::{self, PlanArgs, TargetArgs, on_disk};
use super::{Context, ExitStatus};
use crate::error::Error;

/// Write the generated sources, their headers and compile_commands.json
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    plan: PlanArgs,
    #[command(flatten)]
    target: TargetArgs,
    /// Folder to write to, created if needed
    #[arg(short, long, value_name = "DIR", value_parser = on_disk())]
    out: PathBuf,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, Error> {
    let plan = args.plan.read()?;
    let lowered = args::lower(&plan, &args.target, &args.plan.model, context)?;
    let folder = std::path::absolute(&args.out).map_err(Error::file("create", &args.out))?;
    let files = emit::files(&lowered, &folder)?;
    for (name, text) in &files {
        let path = args.out.join(name);
        let parent = path.parent().unwrap_or(&args.out);
        std::fs::create_dir_all(parent).map_err(Error::file("create", parent))?;
        std::fs::write(&path, text).map_err(Error::file("write", &path))?;
    }
    let left = left_over(&args.out, |name| files.contains_key(Path::new(name)));
    if left > 0 {
        context.note(format!("{left} other .cu files are left in `{}`", args.out.display()));
    }
    let kernels = lowered.specs.len() + lowered.engine.as_ref().map_or(0, |engine| engine.specs.len());
    let (files, out) = (files.len(), args.out.display());
    context.note(format!("wrote {files} files, {kernels} of them kernels, to `{out}`"));
    Ok(ExitStatus::Done)
}

/// Sources in the folder that this plan does not have: of another plan, or of an earlier version of it.
fn left_over(folder: &Path, ours: impl Fn(&OsStr) -> bool) -> usize {
    let Ok(entries) = folder.read_dir() else { return 0 };
    let names = entries.filter_map(|entry| Some(entry.ok()?.file_name()));
    names.filter(|name| Path::new(name).extension() == Some(OsStr::new("cu")) && !ours(name)).count()
}
