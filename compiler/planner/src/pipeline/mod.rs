//! A plan for a model from texts: calibration, profile, search, validation and refinement in one, resumable.
//!
//! Every stage saves its result in one work folder, under a name or key derived from all of its inputs: the model's
//! files, the texts, the settings. So an interrupted run resumes where it stopped, a second run computes nothing, and
//! runs with different settings share the results they have in common.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use moac_model::{Config, Model};
use moac_runtime::artifact::check_plan;
use moac_runtime::digest::Digest;
use moac_runtime::file;
use moac_runtime::plan::{Plan, TILE};
use serde::Serialize;
use thiserror::Error;

use crate::calibrate::{self, CalibrateError, Calibration, Tally, calibrate};
use crate::items::{ITEMS_FORMAT, Item, Items, ItemsError, Missing, Source, Task};
use crate::profile::store::Store;
use crate::profile::{self, Choice, LengthSummary, Measure, ProfileError, Weights};
use crate::refine::{self, RefineError, Refined, Slopes, refine};
use crate::search::influence::{Influence, InfluenceError, LengthInfluence};
use crate::search::outcome::{SearchError, SearchOptions, SearchResult, search, search_tables};
use crate::search::tables::{Cost, Space, Tables};
use crate::tasks::Corpus;
use crate::validate::{self, Candidate, Losses, ValidateError, Validation, validate};

/// Errors of the pipeline.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// Weights that leave nothing to profile.
    #[error("--weights is 0 for every task of the items: the tasks are {}", tasks.iter().map(|task| task.name()).collect::<Vec<_>>().join(", "))]
    Weights {
        /// Tasks that there will be items of.
        tasks: Vec<Task>,
    },
    /// The items could not be read.
    #[error(transparent)]
    Items(#[from] ItemsError),
    /// The items could not be made.
    #[error(transparent)]
    Calibrate(#[from] CalibrateError),
    /// The profile could not be made.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The influence could not be kept.
    #[error(transparent)]
    Influence(#[from] InfluenceError),
    /// The search found no plan.
    #[error(transparent)]
    Search(#[from] SearchError),
    /// The plans could not be validated.
    #[error(transparent)]
    Validate(#[from] ValidateError),
    /// The plan could not be refined.
    #[error(transparent)]
    Refine(#[from] RefineError),
    /// The result of a stage could not be saved or read back.
    #[error("cannot {action} `{}`: {source}", path.display())]
    File {
        /// The action that failed: `read`, `write` or `create`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The underlying error.
        source: io::Error,
    },
}

impl PipelineError {
    fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }
}

/// The model, texts and folder that a plan is made from.
#[derive(Debug)]
pub struct Subject<'a> {
    /// The model.
    pub model: &'a Model,
    /// The digest of its files.
    pub fingerprint: Digest,
    /// Texts to make items from.
    pub corpus: &'a Corpus,
    /// Where everything is kept. Made if it is not there.
    pub work: &'a Path,
}

/// How plans are made, but for the space that is searched.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The items to profile on.
    pub calibration: calibrate::Options,
    /// The items to choose on: of one length.
    pub validation: calibrate::Options,
    /// How the loss of a mask is estimated.
    pub measure: Measure,
    /// How much the tasks count against one another, if not by their items.
    pub weights: Option<Weights>,
    /// The limits of the search.
    pub search: SearchOptions,
    /// How the chosen plan is refined, if at all, and the items for it.
    pub refine: Option<(refine::Options, calibrate::Options)>,
}

/// The outcome.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The plan, with its provenance.
    pub plan: Plan,
    /// The items profiled, by length.
    pub profile: Vec<LengthSummary>,
    /// The Pareto set that the plan was chosen from.
    pub search: SearchResult,
    /// How its plans did.
    pub validation: Validation,
    /// How the best one was refined, if it was.
    pub refined: Option<Refined>,
}

/// Receives the progress of a run, and may stop it between steps that are saved.
pub trait Watch {
    /// Items made, in all, and the newest; `what` is `calibration`, `validation` or `refinement`.
    fn items(&mut self, what: &'static str, done: usize, all: usize, newest: &str);
    /// Items are there.
    fn made(&mut self, what: &'static str, made: &Calibration);
    /// The profile goes on.
    fn profile(&mut self, progress: profile::Progress<'_>) -> ControlFlow<()>;
    /// Solves done, and in all.
    fn search(&mut self, done: usize, all: usize) -> ControlFlow<()>;
    /// The validation goes on.
    fn validate(&mut self, progress: validate::Progress<'_>) -> ControlFlow<()>;
    /// The refinement goes on.
    fn refine(&mut self, progress: refine::Progress) -> ControlFlow<()>;
}

/// The length to validate at: twice the longest profiled one, or as long as the model's context allows.
pub fn unseen_length(config: &Config, profiled: &[u32]) -> u32 {
    let longest = profiled.iter().copied().max().unwrap_or(TILE);
    let context = config.context as u32 / TILE * TILE;
    longest.saturating_mul(2).min(context)
}

/// Items in the folder `work`, made if they do not exist yet. `progress` is called for every item: how many are done, of
/// how many, and the newest.
pub fn items(
    model: &Model,
    fingerprint: Digest,
    corpus: &Corpus,
    options: &calibrate::Options,
    work: &Path,
    progress: impl FnMut(usize, usize, &str),
) -> Result<Calibration, PipelineError> {
    let path = work.join(items_file(fingerprint, &corpus.sources, options));
    if path.is_file() {
        let items = Items::read(&path)?;
        let resumed = items.items.len();
        return Ok(Calibration { items, tally: Tally::default(), given_up: 0, resumed, repeated: None });
    }
    std::fs::create_dir_all(work).map_err(PipelineError::file("create", work))?;
    Ok(calibrate(model, fingerprint, corpus, options, &path, progress)?)
}

/// Makes a plan. `space` says what is searched, given the influence.
pub fn plan(
    subject: &Subject<'_>,
    settings: &Settings,
    space: &dyn Fn(&Influence) -> Space,
    watch: &mut dyn Watch,
) -> Result<Outcome, PipelineError> {
    let &Subject { model, fingerprint, corpus, work } = subject;
    let decoder = &model.decoder;
    check(model, settings, space)?;
    let mut made = |what: &'static str, options: &calibrate::Options| -> Result<Items, PipelineError> {
        let made = items(model, fingerprint, corpus, options, work, |done, all, newest| {
            watch.items(what, done, all, newest);
        })?;
        watch.made(what, &made);
        Ok(made.items)
    };
    let calibration = made("calibration", &settings.calibration)?;
    let unseen = made("validation", &settings.validation)?;
    let refinement = settings
        .refine
        .as_ref()
        .map(|(how, what)| Ok::<_, PipelineError>((how, made("refinement", what)?)))
        .transpose()?;

    let chosen = profile::choose(&calibration, &Choice::default(), decoder.config())?;
    let store = Store::new(&work.join("profile"), fingerprint);
    let summary = profile::profile(decoder, &chosen, (&store, settings.measure), &mut |progress| {
        watch.profile(progress)
    })?;
    let of = (settings.measure, settings.weights.as_ref());
    let data = Some(profile::provenance(&calibration, &chosen, of));
    let influence = profile::influence(decoder, &chosen, &store, of, calibration.header.seed, data)?;
    let file = work.join(format!("influence-{}.safetensors", settings.measure.name()));
    influence.write(&file)?;

    let space = space(&influence);
    let bounds = if space.cost == Cost::KvBytes { space.bounds.clone() } else { Vec::new() };
    let found = searched(&influence, &file, space, &settings.search, work, watch)?;
    let candidates: Vec<Candidate> = found
        .plans
        .iter()
        .enumerate()
        .map(|(at, found)| Candidate { name: format!("plan-{at:02}"), plan: found.plan.clone() })
        .collect();

    let length = settings.validation.lengths.first().copied().unwrap_or(TILE);
    let asked: Vec<&Item> = unseen.items.iter().filter(|item| item.length == length).collect();
    if asked.is_empty() {
        return Err(ValidateError::NoItems(Missing::new(&[length], &[], &unseen.items)).into());
    }
    let losses = Losses::new(&work.join("losses"), fingerprint);
    let validation =
        validate(decoder, &candidates, &asked, length, &losses, &mut |progress| watch.validate(progress))?;
    let best = validate::chosen(&candidates, &validation, &unseen.header);
    let refined = refinement
        .map(|(how, items)| {
            let slopes = Slopes::new(&work.join("slopes"), fingerprint);
            let how = refine::Options { bounds, ..how.clone() };
            refine(decoder, &best, &items, &how, &slopes, &mut |progress| watch.refine(progress))
        })
        .transpose()?;
    let plan = refined.as_ref().map_or(best, |refined| refined.plan.clone());
    Ok(Outcome { plan, profile: summary, search: found, validation, refined })
}

/// Checks the settings before the work begins, so that an error does not appear hours later.
fn check(
    model: &Model,
    settings: &Settings,
    space: &dyn Fn(&Influence) -> Space,
) -> Result<(), PipelineError> {
    let Settings { calibration, validation, measure, weights, search, refine } = settings;
    calibration.check(model)?;
    validation.check(model)?;
    let tasks: Vec<Task> =
        calibration.mix.counts(calibration.items).iter().filter(|of| of.1 > 0).map(|of| of.0).collect();
    let counts =
        |task: &Task| weights.as_ref().is_none_or(|weights| weights.get(task).is_some_and(|w| *w > 0.0));
    if !tasks.iter().any(counts) {
        return Err(PipelineError::Weights { tasks });
    }
    // An influence of nothing has all that a space and its bounds depend on.
    let mut lengths = calibration.lengths.clone();
    lengths.sort_unstable();
    lengths.dedup();
    let nothing = |&length: &u32| LengthInfluence { length, items: 1, far: Vec::new(), near: Vec::new() };
    let influence = Influence {
        model: model.decoder.config().shape(),
        lengths: lengths.iter().map(nothing).collect(),
        seed: 0,
        absolute: measure.is_absolute(),
        windows: measure.is_of_windows(),
        joint: measure.is_joint(),
        data: None,
    };
    let space = space(&influence);
    space.suits(&influence).map_err(SearchError::from)?;
    let zeros = |at: usize, _head: usize| vec![0.0; (lengths[at] / TILE) as usize + 1];
    let tables = Tables::new(&influence.model, &lengths, space, &zeros).map_err(SearchError::from)?;
    let length = validation.lengths.first().copied().unwrap_or(TILE);
    validate::check(&model.decoder, length, tables.space.min_span)?;
    if let Some((how, items)) = refine {
        items.check(model)?;
        refine::check(&model.decoder, &how.lengths, tables.space.min_span)?;
    }
    let quick = SearchOptions { intervals: 0, ..search.clone() };
    search_tables(&tables, &serde_json::Value::Null, &quick, &mut |_, _| ControlFlow::Continue(()))?;
    Ok(())
}

/// The Pareto set: from the work folder, or searched and kept there.
fn searched(
    influence: &Influence,
    file: &Path,
    space: Space,
    options: &SearchOptions,
    work: &Path,
    watch: &mut dyn Watch,
) -> Result<SearchResult, PipelineError> {
    let digest = Digest::of(&std::fs::read(file).map_err(PipelineError::file("read", file))?);
    let path: PathBuf = work.join(search_file(digest, &format!("{space:?} {options:?}")));
    let kept = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
    // A damaged file is searched for again, as if it were not there.
    if let Some(found) =
        kept.filter(|found: &SearchResult| found.plans.iter().all(|found| is_of(&found.plan, influence)))
    {
        return Ok(found);
    }
    let found = search(influence, space, options, &mut |done, all| watch.search(done, all))?;
    let text =
        serde_json::to_vec(&found).map_err(|error| PipelineError::file("write", &path)(error.into()))?;
    file::write(&path, &text).map_err(PipelineError::file("write", &path))?;
    Ok(found)
}

/// Whether what was kept is a valid plan of the profiled model.
fn is_of(found: &Plan, influence: &Influence) -> bool {
    found.model == influence.model && check_plan(found).is_ok()
}

/// The file of calibration items that are made of a model, given by its digest, and of texts.
fn items_file(model: Digest, sources: &[Source], options: &calibrate::Options) -> String {
    let calibrate::Options { lengths, items, seed, mix, answer_tokens } = options;
    let sources = sources.iter().flat_map(|source| [source.name.clone(), source.sha256.to_string()]);
    let options = [format!("{lengths:?} {items} {seed} {mix} {answer_tokens}")];
    let head = [ITEMS_FORMAT.to_owned(), model.to_string()];
    let fields: Vec<String> = head.into_iter().chain(options).chain(sources).collect();
    format!("items-{}.jsonl", Digest::of_fields(fields.iter().map(String::as_bytes)).short())
}

/// The file of a search's result, given the digest of the influence file and, as text, all that was asked.
fn search_file(influence: Digest, asked: &str) -> String {
    let influence = influence.to_string();
    let fields = [env!("CARGO_PKG_VERSION"), &influence, asked].map(str::as_bytes);
    format!("plans-{}.json", Digest::of_fields(fields).short())
}
