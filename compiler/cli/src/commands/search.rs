//! `moac search`: attention influence to the Pareto set of plans.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use moac_compiler::plan;
use moac_planner::search::influence::Influence;
use moac_planner::search::outcome::{METHOD, SearchResult, search};
use moac_runtime::file;

use super::args::on_disk;
use super::space::SpaceArgs;
use super::validate::write_plan;
use super::{Context, ExitStatus};
use crate::context::Bar;
use crate::error::Error;
use crate::interrupt;
use crate::report::{pareto_chart, pareto_table};

/// Find the plans with the least loss at a density: the Pareto set over the profiled lengths
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Influence files of one model, as `moac profile` writes them
    #[arg(required = true, value_name = "INFLUENCE")]
    influence: Vec<PathBuf>,
    /// Bounded context lengths [default: the profiled ones, and twice the longest within the model's context]
    #[arg(long, value_name = "TOKENS,..", value_delimiter = ',')]
    lengths: Vec<u32>,
    #[command(flatten)]
    space: SpaceArgs,
    /// Folder for the plans and a picture of them, `pareto.svg`; created if needed
    #[arg(short, long, value_name = "DIR", value_parser = on_disk())]
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
    let bar = context.steps(SOLVING, 0);
    let found = search(&influence, space, &args.space.options(), &mut |done, all| show(&bar, done, all));
    drop(bar);
    let found = found?;
    write(&args.out, &found, context)?;
    write_picture(&args.out.join("pareto.svg"), &found)?;
    if args.json {
        context.json(&found)?;
    } else {
        context.print(pareto_table(&found))?;
    }
    context.note(format!(
        "wrote {} plans to `{}`; {} solves, {} reused, {} infeasible, {} without a result",
        found.plans.len(),
        args.out.display(),
        found.solved,
        found.reused,
        found.infeasible,
        found.unanswered
    ));
    Ok(ExitStatus::Done)
}

/// The label of the progress bar.
pub(super) const SOLVING: &str = "solving";

/// Shows how far the search is; stops it where an interrupt asked for that.
pub(super) fn show(bar: &Bar, done: usize, all: usize) -> ControlFlow<()> {
    bar.show(done, all);
    interrupt::go_on()
}

/// Writes the picture of a Pareto set.
pub(super) fn write_picture(path: &Path, found: &SearchResult) -> Result<(), Error> {
    file::write(path, pareto_chart(found).as_bytes()).map_err(Error::file("write", path))
}

/// Writes the plans as `plan-00.json`, `plan-01.json`, ... in the order of the set, each whole or not at all. The folder
/// holds those of one search, since it is what other commands take for the set: plans of an earlier search go first.
fn write(folder: &Path, found: &SearchResult, context: &Context) -> Result<(), Error> {
    std::fs::create_dir_all(folder).map_err(Error::file("create", folder))?;
    let (mut removed, mut others) = (0, 0);
    for entry in folder.read_dir().map_err(Error::file("read", folder))? {
        let path = entry.map_err(Error::file("read", folder))?.path();
        if !is_plan_of_search(&path) {
            others += usize::from(path.extension().is_some_and(|extension| extension == "json"));
            continue;
        }
        std::fs::remove_file(&path).map_err(Error::file("remove", &path))?;
        removed += 1;
    }
    for (at, found) in found.plans.iter().enumerate() {
        write_plan(&folder.join(format!("plan-{at:02}.json")), &found.plan, context)?;
    }
    if removed > 0 {
        context.note(format!("replaced the {removed} plans of an earlier search in `{}`", folder.display()));
    }
    if others > 0 {
        context.note(format!(
            "`{}` also holds {others} .json files that no search wrote, which `moac validate` takes for plans",
            folder.display()
        ));
    }
    Ok(())
}

/// Whether a search wrote this file: by its name, and by the plan's provenance.
fn is_plan_of_search(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let number = name.strip_prefix("plan-").and_then(|rest| rest.strip_suffix(".json"));
    let numbered =
        number.is_some_and(|number| number.len() >= 2 && number.bytes().all(|byte| byte.is_ascii_digit()));
    let provenance = || plan::read(path, None).ok()?.provenance;
    numbered && provenance().is_some_and(|provenance| provenance["method"] == METHOD)
}
