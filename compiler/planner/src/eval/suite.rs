//! The runs to evaluate: one from a command line, or all of those that a suite file lists.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use moac_runtime::plan::{MAX_LENGTH, ModelShape, Plan, TILE};
use serde::{Deserialize, Serialize};

use super::{EvalError, NamedPlan, Task};
use crate::tasks::Set;

/// From this length on an item takes so long that fewer have to do.
const LONG: u32 = 8192;
/// Items of a quick look.
const FEW: usize = 2;

/// One task at some lengths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Run {
    /// A short name, which files are called by.
    pub name: String,
    /// The heading of its tables.
    pub title: String,
    /// The task.
    pub task: Task,
    /// Context lengths, ascending.
    pub lengths: Vec<u32>,
    /// The plans, by index.
    pub plans: Vec<usize>,
    /// How many windows or contexts, if not the default.
    pub items: Option<usize>,
    /// How many from 8192 tokens on, where an item takes long, if not as many.
    pub long_items: Option<usize>,
    /// Questions about a context.
    pub questions: usize,
    /// Facts in a context, if not as many as are usual for the task.
    pub facts: Option<usize>,
    /// The source of retrieval contexts.
    pub seed: u64,
    /// Whether synthetic tasks and turns leave the model's chat template out.
    pub plain: bool,
    /// The formats of facts and turns.
    pub set: Set,
}

/// Questions about a context where nothing else is said.
pub const QUESTIONS: usize = 10;

impl Run {
    /// Windows or contexts at a length; of a task that stands for several, for each.
    pub fn items_at(&self, length: u32) -> usize {
        let long = self.long_items.filter(|_| length >= LONG);
        long.or(self.items).unwrap_or(match self.task {
            Task::Nll => 8,
            _ if length < LONG => 10,
            _ => 4,
        })
    }

    /// The same with little work: the two shortest lengths of those up to 2048, and few items.
    #[must_use]
    pub fn quick(mut self) -> Self {
        self.lengths.retain(|&length| length <= 2048);
        self.lengths.truncate(2);
        if self.lengths.is_empty() {
            self.lengths = vec![1024, 2048];
        }
        self.items = Some(self.items.unwrap_or(FEW).min(FEW));
        self.long_items = None;
        self
    }

    /// Checks the lengths against the model and the plans.
    pub fn check(&self, model: &ModelShape, plans: &[NamedPlan]) -> Result<(), EvalError> {
        let least = self.plans.iter().map(|&at| plans[at].plan.min_span).max().unwrap_or(0);
        let least = least.max(moac_runtime::plan::DEFAULT_MIN_SPAN);
        let most = model.context.unwrap_or(MAX_LENGTH);
        match self.lengths.iter().find(|&&n| !n.is_multiple_of(TILE) || !(least..=most).contains(&n)) {
            None => Ok(()),
            Some(length) => Err(EvalError::Length {
                found: length.to_string(),
                expected: format!("a multiple of {TILE} from {least} to {most}"),
            }),
        }
    }
}

/// Everything that belongs together.
#[derive(Clone, Debug)]
pub struct Suite {
    /// The heading of the whole.
    pub title: Option<String>,
    /// The plans that runs mean by index.
    pub plans: Vec<NamedPlan>,
    /// The runs.
    pub runs: Vec<Run>,
}

/// A suite as a file has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    title: Option<String>,
    #[serde(default)]
    plans: Vec<FilePlan>,
    runs: Vec<FileRun>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FilePlan {
    name: String,
    /// Relative to the suite's folder.
    file: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRun {
    name: String,
    title: Option<String>,
    task: Task,
    lengths: Lengths,
    plans: Option<Vec<String>>,
    items: Option<usize>,
    long_items: Option<usize>,
    questions: Option<usize>,
    facts: Option<usize>,
    #[serde(default)]
    seed: u64,
    #[serde(default)]
    plain: bool,
    #[serde(default)]
    set: Set,
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Lengths(Vec<u32>);

impl TryFrom<String> for Lengths {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parts: Result<Vec<Vec<u32>>, String> = text.split(',').map(parse_lengths).collect();
        Ok(Self(ascending(parts?)))
    }
}

/// Lengths in order, each once.
pub fn ascending(parts: Vec<Vec<u32>>) -> Vec<u32> {
    parts.into_iter().flatten().collect::<BTreeSet<u32>>().into_iter().collect()
}

/// A length, or `FIRST..LAST:STEP`, both ends included.
pub fn parse_lengths(text: &str) -> Result<Vec<u32>, String> {
    let parse = || {
        let text = text.trim();
        let Some((first, rest)) = text.split_once("..") else { return Some(vec![text.parse().ok()?]) };
        let (last, step) = rest.split_once(':')?;
        let (first, last, step): (u32, u32, usize) =
            (first.parse().ok()?, last.parse().ok()?, step.parse().ok()?);
        // A step is whole tiles, so a range of lengths that a model can have is short.
        (step >= TILE as usize && first <= last && last <= MAX_LENGTH)
            .then(|| (first..=last).step_by(step).collect())
    };
    parse().ok_or_else(|| {
        format!("`{text}` is not a length: expected a number of tokens, or a range with a step as in 1024..8192:512")
    })
}

/// Reads a suite. `plan` reads a plan file for the model at hand.
pub fn read<E: From<EvalError>>(path: &Path, plan: impl Fn(&Path) -> Result<Plan, E>) -> Result<Suite, E> {
    let text = moac_runtime::file::read_text(path).map_err(EvalError::file("read", path))?;
    let file: File =
        serde_json::from_str(&text).map_err(|source| EvalError::Suite { path: path.to_owned(), source })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut plans = Vec::new();
    for FilePlan { name, file } in file.plans {
        plans.push(NamedPlan { plan: plan(&folder.join(file))?, name });
    }
    // What every run has anyway.
    once("plans", std::iter::once("dense").chain(plans.iter().map(|plan| plan.name.as_str())))?;
    if file.runs.is_empty() {
        return Err(EvalError::NoRuns { path: path.to_owned() }.into());
    }
    once("runs", file.runs.iter().map(|run| run.name.as_str()))?;
    for FileRun { name, .. } in &file.runs {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(fits) {
            return Err(EvalError::Name { name: name.clone() }.into());
        }
    }
    let runs: Result<Vec<Run>, EvalError> = file.runs.into_iter().map(|run| run.resolve(&plans)).collect();
    Ok(Suite { title: file.title, runs: runs?, plans })
}

/// Checks that no name comes twice.
pub fn once<'a>(what: &'static str, names: impl Iterator<Item = &'a str>) -> Result<(), EvalError> {
    let mut known = BTreeSet::new();
    for name in names {
        if !known.insert(name) {
            return Err(EvalError::Twice { what, name: name.to_owned() });
        }
    }
    Ok(())
}

impl FileRun {
    fn resolve(self, plans: &[NamedPlan]) -> Result<Run, EvalError> {
        let Self { name, title, task, lengths, plans: asked, items, long_items, .. } = self;
        let Self { questions, facts, seed, plain, set, .. } = self;
        let index = |wanted: &String| {
            plans.iter().position(|plan| plan.name == *wanted).ok_or_else(|| EvalError::UnknownPlan {
                run: name.clone(),
                name: wanted.clone(),
                known: plans.iter().map(|plan| plan.name.clone()).collect(),
            })
        };
        let plans = match &asked {
            Some(names) => names.iter().map(index).collect::<Result<_, _>>()?,
            None => (0..plans.len()).collect(),
        };
        let title = title.unwrap_or_else(|| task.title().to_owned());
        let questions = questions.unwrap_or(QUESTIONS);
        let lengths = lengths.0;
        Ok(Run { name, title, task, lengths, plans, items, long_items, questions, facts, seed, plain, set })
    }
}
