//! Validation: finds the plan that answers best at a length that none of the plans was made for.
//!
//! Every plan and dense attention answer the same items; the loss is the mean over items of the mean loss in nats of an
//! answer's tokens. Losses are saved by content in a folder, one small file each, so an interrupted validation
//! resumes where it stopped, and plans whose queries see the same keys share them.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use moac_model::{Batch, CHUNK, Cache, Decoder, ModelError, dense_plan};
use moac_runtime::digest::Digest;
use moac_runtime::plan::{MAX_LENGTH, Plan, TILE};
use serde::Serialize;
use serde_json::{Value, json};

use crate::eval::Spans;
use crate::items::{Header, Item, Missing};
use crate::kept::{self, Folder};

/// The version of the computation. Raised when it changes: older losses are then ignored.
const FORMAT: &str = "moac.answer-loss/1";

/// Errors of validation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ValidateError {
    /// No item fits the request.
    #[error("{0}: give another --length or other --tasks, or make items with `moac calibrate`")]
    NoItems(Missing),
    /// No plan was given.
    #[error("found no plan to validate: give plan files, or folders with plans as .json files")]
    NoPlans,
    /// A loss that is not finite: plans cannot be compared by it.
    #[error("item `{item}` has an invalid loss under {plan}: {loss}")]
    NotFinite {
        /// The item's name.
        item: String,
        /// The plan's name.
        plan: String,
        /// The loss in nats.
        loss: f64,
    },
    /// A length that caches or the model do not allow.
    #[error("--length: found {length}, expected a multiple of {TILE} from {least} to {most}")]
    Length {
        /// The length.
        length: u32,
        /// The shortest: the plans' minimum span.
        least: u32,
        /// The longest.
        most: u32,
    },
    /// The model failed on an item.
    #[error("item `{item}`: {source}")]
    Item {
        /// The item's name.
        item: String,
        /// The underlying error.
        source: Box<ModelError>,
    },
    /// A loss cannot be kept.
    #[error("cannot {action} `{}`: {source}", path.display())]
    File {
        /// The action that failed.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The underlying error.
        source: std::io::Error,
    },
    /// It was told to stop.
    #[error("stopped after {done} of {all} losses, which are saved: run the same command to resume")]
    Stopped {
        /// Losses that are there.
        done: usize,
        /// Losses in all.
        all: usize,
    },
}

/// A plan that may be chosen.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its name in tables.
    pub name: String,
    /// The plan, for the model at hand.
    pub plan: Plan,
}

/// How one plan did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Validated {
    /// The plan's name.
    pub name: String,
    /// Its KV bytes at this length over those of dense attention.
    pub kv_bytes: f64,
    /// The mean loss over items.
    pub loss: f64,
    /// That over dense attention's.
    pub over_dense: f64,
    /// The mean loss by task.
    pub by_task: BTreeMap<&'static str, f64>,
}

/// How all did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Validation {
    /// The context length in tokens.
    pub length: u32,
    /// Items.
    pub items: usize,
    /// Dense attention.
    pub dense: Validated,
    /// The plans, in the order given.
    pub plans: Vec<Validated>,
    /// The plan with the lowest loss, by index; of equals the first.
    pub best: usize,
}

/// Losses done and in all, and what is at hand.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// The item.
    pub item: &'a str,
    /// The plan.
    pub plan: &'a str,
    /// Losses done.
    pub done: usize,
    /// Losses in all.
    pub all: usize,
}

/// A folder of losses for one model.
#[derive(Clone, Debug)]
pub struct Losses {
    folder: Folder,
    model: Digest,
}

impl Losses {
    /// One in `folder`, which is made when something is stored, for the model whose files have this digest.
    pub fn new(folder: &Path, model: Digest) -> Self {
        Self { folder: Folder::new(folder), model }
    }

    fn key(&self, item: &Item, spans: &Spans) -> Digest {
        kept::key(FORMAT, self.model, item, spans)
    }
}

/// The mean loss in nats of an item's answer under a plan in the bucket `length`.
pub fn answer_loss(decoder: &Decoder, item: &Item, plan: &Plan, length: u32) -> Result<f64, ModelError> {
    let mut cache = Cache::new(plan, length)?;
    // The last token predicts nothing, and row t predicts token t + 1.
    let inputs = &item.tokens[..item.tokens.len() - 1];
    let mut losses: Vec<f32> = Vec::new();
    for (start, chunk) in (0..).step_by(CHUNK).zip(inputs.chunks(CHUNK)) {
        let hidden = decoder.forward(chunk, &mut Batch::one(&mut cache, chunk.len()))?;
        let first = (item.answer - 1).clamp(start, start + chunk.len());
        let rows = start + chunk.len() - first;
        if rows > 0 {
            let hidden = hidden.narrow(0, first - start, rows)?;
            losses.extend(decoder.cross_entropy(&hidden, &item.tokens[first + 1..=first + rows])?);
        }
    }
    Ok(losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() / losses.len() as f64)
}

/// Whether plans of the minimum span `least` can be validated at a length.
pub fn check(decoder: &Decoder, length: u32, least: u32) -> Result<(), ValidateError> {
    let most = MAX_LENGTH.min(decoder.config().context as u32);
    if length.is_multiple_of(TILE) && (least..=most).contains(&length) {
        return Ok(());
    }
    Err(ValidateError::Length { length, least, most })
}

/// Validates `candidates` on `items`, all of which have at most `length` tokens. `progress` may stop it.
pub fn validate(
    decoder: &Decoder,
    candidates: &[Candidate],
    items: &[&Item],
    length: u32,
    kept: &Losses,
    progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Validation, ValidateError> {
    let shape = decoder.config().shape();
    if candidates.is_empty() {
        return Err(ValidateError::NoPlans);
    }
    let least = candidates.iter().map(|candidate| candidate.plan.min_span).max().unwrap_or(TILE);
    check(decoder, length, least)?;
    let dense = Candidate { name: "dense".to_owned(), plan: dense_plan(&shape) };
    let all = (candidates.len() + 1) * items.len();
    let mut done = 0;
    let mut tables: Vec<Vec<f64>> = vec![Vec::new(); candidates.len() + 1];
    // Item by item, so that an interrupted run has compared all plans on the items that are done.
    for item in items {
        for (candidate, losses) in std::iter::once(&dense).chain(candidates).zip(&mut tables) {
            let told = Progress { item: &item.id, plan: &candidate.name, done, all };
            let key = kept.key(item, &Spans::new(&candidate.plan, length));
            let loss = if let Some(loss) = kept.folder.load(key) {
                loss
            } else {
                if progress(told).is_break() {
                    return Err(ValidateError::Stopped { done, all });
                }
                let loss = answer_loss(decoder, item, &candidate.plan, length).map_err(|source| {
                    ValidateError::Item { item: item.id.clone(), source: Box::new(source) }
                })?;
                if !loss.is_finite() {
                    let (item, plan) = (item.id.clone(), candidate.name.clone());
                    return Err(ValidateError::NotFinite { item, plan, loss });
                }
                let path = || kept.folder.path(key);
                let failed = |source| ValidateError::File { action: "write", path: path(), source };
                kept.folder.save(key, loss).map_err(failed)?;
                loss
            };
            losses.push(loss);
            done += 1;
        }
    }
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let dense_loss = mean(&tables[0]);
    let row = |candidate: &Candidate, losses: &[f64]| {
        let mut by_task: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
        for (item, &loss) in items.iter().zip(losses) {
            by_task.entry(item.task.name()).or_default().push(loss);
        }
        let loss = mean(losses);
        Validated {
            name: candidate.name.clone(),
            kv_bytes: Spans::new(&candidate.plan, length).density(),
            loss,
            over_dense: loss - dense_loss,
            by_task: by_task.into_iter().map(|(task, losses)| (task, mean(&losses))).collect(),
        }
    };
    let plans: Vec<Validated> =
        candidates.iter().zip(&tables[1..]).map(|(candidate, losses)| row(candidate, losses)).collect();
    let by_loss = |&a: &usize, &b: &usize| plans[a].loss.total_cmp(&plans[b].loss).then(a.cmp(&b));
    let best = (0..plans.len()).min_by(by_loss).unwrap_or(0);
    Ok(Validation { length, items: items.len(), dense: row(&dense, &tables[0]), best, plans })
}

/// The best plan, with the choice recorded in its provenance.
pub fn chosen(candidates: &[Candidate], validation: &Validation, items: &Header) -> Plan {
    let mut plan = candidates[validation.best].plan.clone();
    let best = &validation.plans[validation.best];
    let told = json!({
        "length": validation.length,
        "items": validation.items,
        "seed": items.seed,
        "texts": items.sources.len(),
        "texts_sha256": items.texts().to_string(),
        "loss": best.loss,
        "dense_loss": validation.dense.loss,
        "by_task": best.by_task,
        "dense_by_task": validation.dense.by_task,
        "kv_bytes": best.kv_bytes,
        "losses_of_candidates": validation.plans.iter().map(|plan| plan.loss).collect::<Vec<_>>(),
    });
    plan.provenance = Some(match plan.provenance {
        Some(Value::Object(mut fields)) => {
            fields.insert("validation".to_owned(), told);
            Value::Object(fields)
        }
        None => json!({ "validation": told }),
        // Another tool's, in a form of its own: kept whole.
        Some(other) => json!({ "plan": other, "validation": told }),
    });
    plan
}
