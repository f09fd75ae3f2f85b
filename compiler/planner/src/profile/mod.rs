//! The profile: attention influence of every head, averaged over calibration items.
//!
//! The model's reverse pass ([`moac_model::backward`]) makes the sums of one item. This module chooses items, saves
//! their sums ([`store`]), averages them in float64, task by task in the order of the items, and writes the files
//! that the search reads. The sums of an item hold every [`Measure`] of the same [`Pass`], so a second file of
//! another such measure, or of other tasks, weights or fewer items, needs no computation.

mod ablation;
mod measure;
pub mod store;
pub mod sums;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;

use moac_model::backward::{Reverse, Tape};
use moac_model::{Config, Decoder, ModelError, dense_plan};
use moac_runtime::plan::{MAX_LENGTH, TILE};
use serde::Serialize;

pub use self::ablation::ItemAblation;
pub use self::measure::{Measure, Pass, Targets};
use self::store::{Kept, Store};
use self::sums::ItemInfluence;
use crate::items::{Item, Items, Missing, Task};
use crate::search::influence::{Influence, LengthInfluence};

/// Errors of profiling.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// A length without items.
    #[error("{0}: give other --lengths or --tasks, or make items with `moac calibrate`")]
    NoItems(Missing),
    /// A length that blocks or the model do not allow.
    #[error("--lengths: found {length}, expected a multiple of {TILE} up to {most}")]
    Length {
        /// The length.
        length: u32,
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
    /// An item whose influence is not finite.
    #[error("item `{item}` has an influence that is NaN or infinite; its loss is {loss}")]
    NotFinite {
        /// The item's name.
        item: String,
        /// Its loss in nats.
        loss: f64,
    },
    /// Measures of different passes.
    #[error(
        "the measures {} and {} need different passes over the model: profile them separately",
        measure.name(),
        other.name()
    )]
    Passes {
        /// The first measure asked for.
        measure: Measure,
        /// Another one.
        other: Measure,
    },
    /// A task that has nothing to be weighed by.
    #[error(
        "by the measure {}, hiding every window at {length} tokens costs the {task} items {total} nats, expected more than 0: choose another --measure, or leave --weights out",
        measure.name()
    )]
    Weight {
        /// The task.
        task: Task,
        /// The length.
        length: u32,
        /// The loss of its items.
        total: f64,
        /// The measure.
        measure: Measure,
    },
    /// A result cannot be saved.
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
    #[error("stopped after {done} of {all} items, which are saved: run the same command to resume")]
    Stopped {
        /// Items done.
        done: usize,
        /// Items in all.
        all: usize,
    },
}

/// The choice of items to profile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Length levels; none is all that there are items of.
    pub lengths: Vec<u32>,
    /// Tasks; none is all.
    pub tasks: Vec<Task>,
    /// The most items of a length: the first ones.
    pub most: Option<usize>,
}

/// How far a profile is. Work is in floating-point operations.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// The item at hand.
    pub item: &'a str,
    /// Items done, those of earlier runs included.
    pub items: (usize, usize),
    /// Work done, and in all; items of earlier runs are in neither.
    pub work: (f64, f64),
}

/// The items profiled at one length.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LengthSummary {
    /// The length in tokens.
    pub length: u32,
    /// Items.
    pub items: u32,
    /// Their tokens.
    pub tokens: u64,
    /// Tokens of their answers.
    pub answer_tokens: u64,
    /// The mean over items of the loss in nats of a target: a token of the answer, or one drawn in its place.
    pub loss: f64,
}

/// The items of a choice, by length, ascending, in the file's order.
pub fn choose<'a>(
    items: &'a Items,
    choice: &Choice,
    config: &Config,
) -> Result<Vec<(u32, Vec<&'a Item>)>, ProfileError> {
    let mut lengths = if choice.lengths.is_empty() { items.lengths() } else { choice.lengths.clone() };
    lengths.sort_unstable();
    lengths.dedup();
    let most = MAX_LENGTH.min(config.context as u32);
    let of_length = |length: u32| {
        if length == 0 || !length.is_multiple_of(TILE) || length > most {
            return Err(ProfileError::Length { length, most });
        }
        let fits = |item: &&Item| {
            item.length == length && (choice.tasks.is_empty() || choice.tasks.contains(&item.task))
        };
        let chosen: Vec<&Item> =
            items.items.iter().filter(fits).take(choice.most.unwrap_or(usize::MAX)).collect();
        if chosen.is_empty() {
            return Err(ProfileError::NoItems(Missing::new(&[length], &choice.tasks, &items.items)));
        }
        Ok((length, chosen))
    };
    lengths.into_iter().map(of_length).collect()
}

/// Profiles the items that are not done yet. `progress` is called layer by layer and may stop it; items that are done are kept.
pub fn profile(
    decoder: &Decoder,
    chosen: &[(u32, Vec<&Item>)],
    (store, measure): (&Store, Measure),
    progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Vec<LengthSummary>, ProfileError> {
    let all: Vec<&Item> = chosen.iter().flat_map(|(_, items)| items.iter().copied()).collect();
    let pass = |item: &Item| measure.pass(item.task);
    let missing: Vec<&Item> =
        all.iter().copied().filter(|item| store.load(decoder, item, pass(item)).is_none()).collect();
    let work = |item: &Item| match pass(item) {
        Pass::Reverse(_) => operations(decoder.config(), item.tokens.len() - 1),
        Pass::Ablation => ablation::operations(decoder, item),
    };
    let total: f64 = missing.iter().map(|item| work(item)).sum();
    let mut before = 0.0;
    for (at, item) in missing.iter().enumerate() {
        let done = all.len() - missing.len() + at;
        let mut tell = |share: f64| {
            progress(Progress {
                item: &item.id,
                items: (done, all.len()),
                work: (before + share * work(item), total),
            })
        };
        let made = match pass(item) {
            Pass::Reverse(targets) => of_item(decoder, item, (store, targets), &mut tell)?
                .map(|influence| Kept::Influence(Box::new(influence))),
            Pass::Ablation => ablation::ablate(decoder, item, &mut |share| tell(share).is_break())
                .map_err(|source| ProfileError::Item { item: item.id.clone(), source: Box::new(source) })?
                .map(Kept::Ablation),
        };
        let Some(made) = made else {
            return Err(ProfileError::Stopped { done, all: all.len() });
        };
        if !made.is_finite() {
            return Err(ProfileError::NotFinite { item: item.id.clone(), loss: made.loss() });
        }
        store.save(decoder, item, pass(item), &made)?;
        before += work(item);
    }
    chosen.iter().map(|(length, items)| summary(decoder, *length, items, (store, measure))).collect()
}

/// Floating-point operations of one item's forward and reverse pass.
pub fn operations(config: &Config, tokens: usize) -> f64 {
    let n = tokens as f64;
    // Forward; again, but for the down projection and what attention keeps; and back.
    let linear = config.flops_per_token(false) as f64;
    let mlp_down = 2.0 * (config.num_layers * config.hidden_size * config.intermediate_size) as f64;
    // Five products of the reverse pass and two of the forward pass, over the causal half.
    let heads = (config.num_layers * config.num_heads * config.head_dim) as f64;
    (3.0 * linear - mlp_down) * n + 7.0 * heads * n * (n + 1.0)
}

/// The share of an item's work that is its forward pass, about.
const FORWARD: f64 = 0.3;

/// The sums of one item; `None` if `tell` stopped it.
fn of_item(
    decoder: &Decoder,
    item: &Item,
    (store, targets): (&Store, Targets),
    tell: &mut dyn FnMut(f64) -> ControlFlow<()>,
) -> Result<Option<ItemInfluence>, ProfileError> {
    let failed = |source| ProfileError::Item { item: item.id.clone(), source: Box::new(source) };
    let layers = decoder.config().num_layers;
    let share = |done: usize| done as f64 / layers as f64;
    // The last token predicts nothing.
    let inputs = &item.tokens[..item.tokens.len() - 1];
    let mut stopped = tell(0.0).is_break();
    if stopped {
        return Ok(None);
    }
    let plan = dense_plan(&decoder.config().shape());
    let tape = Tape::record(decoder, inputs, (&plan, plan.length_for(inputs.len())), &mut |done| {
        stopped |= tell(FORWARD * share(done)).is_break();
    })
    .map_err(failed)?;
    let first = item.answer - 1;
    let targets = match targets {
        Targets::Answer => item.tokens[item.answer..].to_vec(),
        Targets::Drawn => {
            tape.draw(decoder, first, inputs.len() - first, store.seed(item)).map_err(failed)?
        }
    };
    let mut reverse = Reverse::new(decoder, tape, first, &targets).map_err(failed)?;
    let mut influence = ItemInfluence::new(decoder.config(), item, reverse.loss());
    loop {
        if stopped {
            return Ok(None);
        }
        let Some((layer, heads)) = reverse.step().map_err(failed)? else { break };
        influence.put(layer, &heads);
        stopped |= tell(FORWARD + (1.0 - FORWARD) * share(layers - layer)).is_break();
    }
    Ok(Some(influence))
}

/// A kept item, which must be there by now.
fn kept(decoder: &Decoder, item: &Item, (store, measure): (&Store, Measure)) -> Result<Kept, ProfileError> {
    let pass = measure.pass(item.task);
    store.load(decoder, item, pass).ok_or_else(|| ProfileError::File {
        action: "read back",
        path: store.path(item, pass),
        source: std::io::ErrorKind::InvalidData.into(),
    })
}

fn summary(
    decoder: &Decoder,
    length: u32,
    items: &[&Item],
    of: (&Store, Measure),
) -> Result<LengthSummary, ProfileError> {
    let mut losses = 0.0;
    for item in items {
        losses += kept(decoder, item, of)?.loss();
    }
    Ok(LengthSummary {
        length,
        items: items.len() as u32,
        tokens: items.iter().map(|item| item.tokens.len() as u64).sum(),
        answer_tokens: items.iter().map(|item| (item.tokens.len() - item.answer) as u64).sum(),
        loss: losses / items.len() as f64,
    })
}

/// How much each task counts, whatever its items lose: the influence of a task is divided by what hiding all that the
/// narrowest windows hide costs its items. A task that is not named does not count.
pub type Weights = BTreeMap<Task, f64>;

/// The influence by one measure of items that [`profile`] has done: the mean over items, or with weights the weighted
/// sum over tasks of each one's share of its loss. `data` is for plans' provenance.
pub fn influence(
    decoder: &Decoder,
    chosen: &[(u32, Vec<&Item>)],
    store: &Store,
    (measure, weights): (Measure, Option<&Weights>),
    seed: u64,
    data: Option<serde_json::Value>,
) -> Result<Influence, ProfileError> {
    let model = decoder.config().shape();
    // Those of a task at all lengths.
    let ablations = |task: Task| -> Result<Vec<(u32, ItemAblation)>, ProfileError> {
        let all = chosen.iter().flat_map(|(_, items)| items).filter(|item| item.task == task);
        let ablation = |item: &&Item| match kept(decoder, item, (store, measure))? {
            Kept::Ablation(ablation) => Ok(Some((item.length, ablation))),
            Kept::Influence(_) => Ok(None),
        };
        all.filter_map(|item| ablation(item).transpose()).collect()
    };
    let mut lengths: Vec<LengthInfluence> = Vec::new();
    for (length, items) in chosen {
        let length = *length;
        let mut sums = measure::Average::zeros(&model, length);
        let mut counted = 0;
        for task in Task::ALL {
            let items: Vec<&Item> = items.iter().copied().filter(|item| item.task == task).collect();
            let weight = weights.map_or(1.0, |weights| weights.get(&task).copied().unwrap_or(0.0));
            if items.is_empty() || weight == 0.0 {
                continue;
            }
            counted += items.len() as u32;
            let mut of_task = measure::Average::zeros(&model, length);
            if measure.pass(task) == Pass::Ablation {
                of_task = ablation::mean(&model, length, &ablations(task)?, items.len());
            } else {
                for item in items {
                    if let Kept::Influence(influence) = kept(decoder, item, (store, measure))? {
                        of_task.add(&influence, measure.of(task));
                    }
                }
            }
            let share = if weights.is_some() {
                let total = of_task.clone().finish(&model, 1, 1.0).most();
                if total <= 0.0 || total.is_nan() {
                    return Err(ProfileError::Weight { task, length, total, measure });
                }
                weight / total
            } else {
                1.0
            };
            sums.add_scaled(&of_task, share);
        }
        if counted == 0 {
            let weighed = weights.into_iter().flatten().filter(|(_, weight)| **weight > 0.0);
            let tasks: Vec<Task> = weighed.map(|(task, _)| *task).collect();
            let items = chosen.iter().flat_map(|(_, items)| items.iter().copied());
            return Err(ProfileError::NoItems(Missing::new(&[length], &tasks, items)));
        }
        let scale = if weights.is_some() { 1.0 } else { 1.0 / f64::from(counted) };
        lengths.push(sums.finish(&model, counted, scale));
    }
    Ok(Influence {
        model,
        lengths,
        seed,
        absolute: measure.is_absolute(),
        windows: measure.is_of_windows(),
        joint: measure.is_joint(),
        data,
    })
}

/// The inputs of an influence, for the provenance of plans: the measure, items and weights by task, the number of texts and
/// a digest of all their names and contents.
pub fn provenance(
    items: &Items,
    chosen: &[(u32, Vec<&Item>)],
    (measure, weights): (Measure, Option<&Weights>),
) -> serde_json::Value {
    let mut tasks: BTreeMap<Task, usize> = BTreeMap::new();
    for item in chosen.iter().flat_map(|(_, items)| items) {
        *tasks.entry(item.task).or_default() += 1;
    }
    serde_json::json!({
        "measure": measure.name(),
        "tasks": tasks.iter().map(|(task, count)| (task.name(), count)).collect::<BTreeMap<_, _>>(),
        "weights": weights.map(|weights| {
            weights.iter().map(|(task, weight)| (task.name(), weight)).collect::<BTreeMap<_, _>>()
        }),
        "texts": items.header.sources.len(),
        "texts_sha256": items.header.texts().to_string(),
    })
}
