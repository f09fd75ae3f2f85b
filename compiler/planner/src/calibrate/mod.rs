//! Calibration items, on which the attention influence of a model is measured.
//!
//! Items depend on distant tokens, and their answers are the model's own (a loss on text that the model would never
//! write blames heads for something they do not do): `documents` with questions that the dense model answers, and
//! `retrieval` tasks of the calibration split, and facts of many kinds, that the dense model answers correctly. In addition there is plain
//! `text`, for everyday use: most heads matter a little to every token.
//!
//! What must hold: an item depends only on the seed, its task, its length and its number, besides model and texts, so
//! an interrupted run resumes where it stopped (`part`); and an item needs one prefill at most.

mod documents;
mod mix;
mod part;
mod retrieval;
mod text;

use std::path::{Path, PathBuf};

use moac_model::{Cache, Model, dense_plan};
use moac_runtime::digest::Digest;
use moac_runtime::plan::TILE;

pub use mix::Mix;

use crate::items::{self, Header, ITEMS_FORMAT, Item, Items, ItemsError, Task};
use crate::tasks::{Corpus, Document, TaskError};
use part::Part;

/// Contexts that are tried for one item before it is given up.
const ATTEMPTS: usize = 4;
/// The shortest level of length.
pub const MIN_LENGTH: u32 = 256;

/// Errors of calibration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CalibrateError {
    /// A length that items cannot have.
    #[error(
        "--lengths: found {found}, expected a multiple of {TILE} from {MIN_LENGTH} to the model's context of {max}"
    )]
    Length {
        /// The length asked for.
        found: u32,
        /// The model's context.
        max: usize,
    },
    /// Nothing that could be kept.
    #[error("none of the {asked} items could be made: the model answers no question correctly")]
    Nothing {
        /// Items asked for.
        asked: usize,
    },
    /// A task could not be made from the texts.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The engine did not take a prompt.
    #[error(transparent)]
    Refused(#[from] moac_model::Refused),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] moac_model::EngineError),
    /// The items cannot be kept.
    #[error(transparent)]
    Items(#[from] ItemsError),
    /// The file of an unfinished run cannot be used.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Part {
        /// `read`, `write` or `remove`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The underlying error.
        source: std::io::Error,
    },
}

impl From<moac_model::ModelError> for CalibrateError {
    fn from(error: moac_model::ModelError) -> Self {
        Self::Task(error.into())
    }
}

/// The items to make.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Levels of length in tokens, multiples of 64 within the model's context.
    pub lengths: Vec<u32>,
    /// Items per level.
    pub items: usize,
    /// The seed.
    pub seed: u64,
    /// How the items of a level are divided among tasks.
    pub mix: Mix,
    /// The most tokens of an answer that the model writes itself.
    pub answer_tokens: usize,
}

/// The outcome of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// The items.
    pub items: Items,
    /// How the model did.
    pub tally: Tally,
    /// Items that could not be made.
    pub given_up: usize,
    /// Items taken over from a run that was cut.
    pub resumed: usize,
    /// Where the texts are so short that items repeat them: what they have and what an item takes.
    pub repeated: Option<Repeated>,
}

/// Texts that are shorter than an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeated {
    /// Tokens of all texts together.
    pub tokens: usize,
    /// Tokens of the longest items.
    pub length: u32,
}

impl Options {
    /// Whether the model takes contexts of these lengths.
    pub fn check(&self, model: &Model) -> Result<(), CalibrateError> {
        let max = model.decoder.config().context;
        let wrong =
            |&&length: &&u32| !length.is_multiple_of(TILE) || length < MIN_LENGTH || length as usize > max;
        match self.lengths.iter().find(wrong) {
            None => Ok(()),
            Some(&found) => Err(CalibrateError::Length { found, max }),
        }
    }
}

/// Questions asked and answers right; contexts that were replaced by others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Tally {
    /// Questions of retrieval tasks that the model was asked.
    pub asked: usize,
    /// Those that it got right.
    pub right: usize,
    /// Contexts that gave no item.
    pub replaced: usize,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.asked += other.asked;
        self.right += other.right;
        self.replaced += other.replaced;
    }
}

/// One item that is to be made.
struct Job {
    task: Task,
    length: u32,
    number: usize,
}

impl Job {
    fn id(&self) -> String {
        format!("{}-{}-{}", self.task, self.length, self.number)
    }
}

/// The inputs of every item.
struct Maker<'a> {
    model: &'a Model,
    corpus: &'a Corpus,
    options: &'a Options,
}

/// Makes calibration items and writes them to `out`.
///
/// While it runs, what is done stands in a file beside `out`, whose name ends in `.part`. The same options, texts and
/// model, whose files' digest is `fingerprint`, go on from there. `progress` is called for every item: how many are done, of how
/// many, and the newest.
pub fn calibrate(
    model: &Model,
    fingerprint: Digest,
    corpus: &Corpus,
    options: &Options,
    out: &Path,
    mut progress: impl FnMut(usize, usize, &str),
) -> Result<Calibration, CalibrateError> {
    options.check(model)?;
    let header = Header {
        format: ITEMS_FORMAT.to_owned(),
        model: model.decoder.config().shape().name,
        tokenizer: items::vocabulary(&model.tokenizer),
        seed: options.seed,
        sources: corpus.sources.clone(),
    };
    let maker = Maker { model, corpus, options };
    let jobs = jobs(options);
    let repeated = maker.repeated()?;
    let (mut part, mut done) = Part::open(out, fingerprint, &header, options)?;
    let (mut made, mut tally, mut resumed) = (Vec::new(), Tally::default(), 0);
    for (at, job) in jobs.iter().enumerate() {
        let id = job.id();
        progress(at, jobs.len(), &id);
        let result = if let Some(result) = done.remove(&id) {
            resumed += 1;
            result
        } else {
            let (item, tally) = maker.item(job)?;
            let result = part::Done { id, item, tally };
            part.add(&result)?;
            result
        };
        tally.add(result.tally);
        made.extend(result.item);
    }
    progress(jobs.len(), jobs.len(), "");
    if made.is_empty() {
        return Err(CalibrateError::Nothing { asked: jobs.len() });
    }
    let given_up = jobs.len() - made.len();
    let items = Items { header, items: made };
    items.write(out)?;
    part.remove()?;
    Ok(Calibration { items, tally, given_up, resumed, repeated })
}

/// The items to make, level by level.
fn jobs(options: &Options) -> Vec<Job> {
    let mut lengths = options.lengths.clone();
    lengths.sort_unstable();
    lengths.dedup();
    let counts = options.mix.counts(options.items);
    let level = |length: u32| {
        let of =
            move |(task, count): (Task, usize)| (0..count).map(move |number| Job { task, length, number });
        counts.into_iter().flat_map(of)
    };
    lengths.into_iter().flat_map(level).collect()
}

impl Maker<'_> {
    /// Makes an item, or finds that the model gets nothing right.
    fn item(&self, job: &Job) -> Result<(Option<Item>, Tally), CalibrateError> {
        let mut tally = Tally::default();
        for attempt in 0..ATTEMPTS {
            let item = match job.task {
                Task::Document => self.document(job, attempt)?,
                Task::Text => Some(self.text(job)?),
                Task::Passkey | Task::Kv | Task::Fact(_) => self.retrieval(job, attempt, &mut tally)?,
            };
            if item.is_some() {
                return Ok((item, tally));
            }
            tally.replaced += 1;
        }
        Ok((None, tally))
    }

    /// Whether the longest items have to repeat the texts.
    fn repeated(&self) -> Result<Option<Repeated>, CalibrateError> {
        let Some(length) = self.options.lengths.iter().copied().max() else { return Ok(None) };
        let units = self.corpus.documents.iter().flat_map(Document::units);
        let tokens = self.enough(units, length as usize)?.err();
        Ok(tokens.map(|tokens| Repeated { tokens, length }))
    }

    /// An empty cache of the dense model.
    fn cache(&self, length: u32) -> Result<Cache, CalibrateError> {
        Ok(Cache::new(&dense_plan(&self.model.decoder.config().shape()), length)?)
    }

    fn finish(
        &self,
        job: &Job,
        prompt: &[u32],
        answer: &[u32],
        source: String,
    ) -> Result<Item, CalibrateError> {
        Ok(Item {
            id: job.id(),
            task: job.task,
            length: job.length,
            tokens: [prompt, answer].concat(),
            answer: prompt.len(),
            source,
            text: self.model.tokenizer.decode(answer)?,
        })
    }
}
