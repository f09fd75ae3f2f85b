//! `moac search`: attention influence to the Pareto set of plans.

use std::path::{Path, PathBuf};

use moac_compiler::plan;
use moac_planner::search::influence::Influence;
use moac_planner::search::outcome::{SearchResult, search};
use moac_runtime::file;

use super::space::SpaceArgs;
use super::validate::write_plan;
use super::{Context, ExitStatus};
use crate::error::Error;
use crate::interrupt;
use crate::report::{pareto_chart, pareto_table};

/// Find the plans with the least loss within a density: the Pareto set over the profiled lengths
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Influence files of one model, as `moac profile` writes them
    #[arg(required = true, value_name = "INFLUENCE")]
    influence: Vec<PathBuf>,
    /// Bounded context lengths [default: the profiled ones, and twice the longest within the model's context]
    #[arg(long, value_name = "TOKENS", value_delimiter = ',')]
    lengths: Vec<u32>,
    #[command(flatten)]
    space: SpaceArgs,
    /// Folder for the plans and a picture of them, `pareto.svg`; made if it is not there
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, Error> {
    let parts: Result<Vec<Influence>, _> = args.influence.iter().map(|path| Influence::read(path)).collect();
    let influence = Influence::merge(parts?)?;
    plan::supported(&influence.model, &args.influence[0])?;
    let space = args.space.read()?.space(&influence, &args.lengths);
    let bar = indicatif::ProgressBar::new(0).with_message("solves");
    let found = search(&influence, space, &args.space.options(), &mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
        interrupt::go_on()
    });
    bar.finish_and_clear();
    let found = found?;
    write(&args.out, &found, context)?;
    write_picture(&args.out.join("pareto.svg"), &found)?;
    if args.json {
        context.json(&found)?;
    } else {
        context.print(pareto_table(&found))?;
    }
    context.note(format!(
        "wrote {} plans to `{}`; {} solves, {} answered by earlier ones, {} impossible, {} without an answer",
        found.plans.len(),
        args.out.display(),
        found.solved,
        found.reused,
        found.infeasible,
        found.unanswered
    ));
    Ok(ExitStatus::Done)
}

/// Writes the picture of a Pareto set.
pub(super) fn write_picture(path: &Path, found: &SearchResult) -> Result<(), Error> {
    file::write(path, pareto_chart(found).as_bytes()).map_err(Error::file("write", path))
}

/// Writes the plans as `plan-00.json`, `plan-01.json`, ... in the order of the set, each whole or not at all.
fn write(folder: &Path, found: &SearchResult, context: &Context) -> Result<(), Error> {
    std::fs::create_dir_all(folder).map_err(Error::file("create", folder))?;
    let mut names = Vec::new();
    for (at, found) in found.plans.iter().enumerate() {
        let name = format!("plan-{at:02}.json");
        write_plan(&folder.join(&name), &found.plan)?;
        names.push(name);
    }
    let other = |name: &str| {
        let number = name.strip_prefix("plan-").and_then(|rest| rest.strip_suffix(".json"));
        number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
            && !names.iter().any(|ours| ours == name)
    };
    let entries = folder.read_dir().map_err(Error::file("read", folder))?;
    let left = entries.flatten().filter(|entry| other(&entry.file_name().to_string_lossy())).count();
    if left > 0 {
        context.note(format!("{left} plans of an earlier search are left in `{}`", folder.display()));
    }
    Ok(())
}
