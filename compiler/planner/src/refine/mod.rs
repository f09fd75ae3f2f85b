//! Refinement: moves the spans of KV heads in small steps to where the model loses least under the plan.
//!
//! A search weighs the effect of hiding a window on the dense model, head by head. When many heads are short at once,
//! their losses no longer add up. So refinement runs the model under the plan, and the reverse pass gives, for every
//! KV head, the effect of a slightly wider or narrower window on the loss of the items' answers
//! ([`moac_model::backward`]): the slope of the loss by the logarithm of the span. `descent` follows it at constant
//! KV bytes. Every step takes the next items, so that a plan is not fitted to a few of them.
//!
//! The gradient of each item is saved in a folder by content, so an interrupted run resumes where it stopped.

mod descent;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use moac_model::backward::windows::WindowSums;
use moac_model::backward::{Reverse, Tape};
use moac_model::{Decoder, ModelError};
use moac_runtime::digest::Digest;
use moac_runtime::plan::{MAX_LENGTH, Plan, TILE};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::descent::Descent;
use crate::eval::Spans;
use crate::items::{Header, Item, Items, Missing};
use crate::kept::{self, Folder};
use crate::profile::operations;
use crate::search::tables::Bound;

/// The version of the computation. Raised when it changes: older slopes are then ignored.
const FORMAT: &str = "moac.refine-slopes/1";

/// How far spans move in the first step, unless it is said: a power of two.
pub const RATE: f64 = 0.2;

/// How far to both sides of a span its slope is taken, as a power of two.
const REACH: f64 = 0.25;

/// Errors of refining a plan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RefineError {
    /// Not enough lengths for a rule, which is a line through two spans.
    #[error(
        "--lengths: found {asked:?}, expected at least two, each a multiple of {TILE} from {least} to {most}"
    )]
    Lengths {
        /// The lengths asked for.
        asked: Vec<u32>,
        /// The plan's minimum span.
        least: u32,
        /// The model's context.
        most: u32,
    },
    /// A length without items.
    #[error("{0}: give other --lengths, or make items with `moac calibrate`")]
    NoItems(Missing),
    /// A density below what the smallest spans take.
    #[error(
        "--density {density} is too low: at {length} tokens, the smallest spans of {min_span} tokens already take {least:.4} of the dense KV bytes; give a higher --density or longer --lengths"
    )]
    Density {
        /// The value given.
        density: f64,
        /// The plan's minimum span.
        min_span: u32,
        /// The length.
        length: u32,
        /// The share that they take.
        least: f64,
    },
    /// A bound that the smallest spans alone exceed.
    #[error(
        "the refined plan takes {found:.4} of the dense KV bytes at {length} tokens, more than its bound of {fraction}: raise that --bound"
    )]
    Bound {
        /// The length.
        length: u32,
        /// The bound.
        fraction: f64,
        /// The share that the plan takes.
        found: f64,
    },
    /// The model failed on an item.
    #[error("item `{item}`: {source}")]
    Item {
        /// The item's name.
        item: String,
        /// The underlying error.
        source: Box<ModelError>,
    },
    /// An item whose loss is not finite.
    #[error("item `{item}` has an invalid loss under the plan: {loss}")]
    NotFinite {
        /// The item's name.
        item: String,
        /// Its loss in nats.
        loss: f64,
    },
    /// Slopes cannot be kept.
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
    #[error("stopped after {done} of {all} steps, which are saved: run the same command to resume")]
    Stopped {
        /// Steps done.
        done: usize,
        /// Steps in all.
        all: usize,
    },
}

/// How to refine.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Lengths, ascending: the first and the last are where a rule's two spans are moved.
    pub lengths: Vec<u32>,
    /// KV bytes at every length over those of dense attention; without, the plan's own.
    pub density: Option<f64>,
    /// Lengths, within those or not, where they are others.
    pub bounds: Vec<Bound>,
    /// Steps.
    pub steps: usize,
    /// Items of each length in a step.
    pub batch: usize,
    /// The first step's move in powers of two of a span; later ones are shorter.
    pub rate: f64,
    /// Items at work at the same time: each takes about two hidden states a layer.
    pub parallel: usize,
}

/// The loss of an item under a plan, and its derivative by the spans.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Found {
    /// The mean loss in nats of its answer.
    loss: f64,
    /// The slope of that by the binary logarithm of the span, of the KV heads of all layers.
    slopes: Vec<f64>,
}

/// The mean over the items of a step.
struct Step {
    /// The mean loss at each length.
    losses: Vec<f64>,
    /// The mean slopes, `[length][KV heads of all layers]`.
    slopes: Vec<Vec<f64>>,
}

/// The outcome.
#[derive(Clone, Debug, Serialize)]
pub struct Refined {
    /// The plan.
    pub plan: Plan,
    /// The lengths.
    pub lengths: Vec<u32>,
    /// The mean losses of the steps' items, before each step, `[step][length]`. Every step has other items.
    pub losses: Vec<Vec<f64>>,
    /// The KV bytes at each length over those of dense attention.
    pub kv_bytes: Vec<f64>,
}

/// How far a refinement is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Steps done, those of earlier runs included, and in all.
    pub steps: (usize, usize),
    /// Floating-point operations done and in all, without those of earlier runs.
    pub work: (f64, f64),
}

/// A folder of kept results of items under plans, for one model.
#[derive(Clone, Debug)]
pub struct Slopes {
    folder: Folder,
    model: Digest,
}

impl Slopes {
    /// One in `folder`, which is made when something is stored, for the model whose files have this digest.
    pub fn new(folder: &Path, model: Digest) -> Self {
        Self { folder: Folder::new(folder), model }
    }

    fn key(&self, plan: &Plan, length: u32, item: &Item) -> Digest {
        kept::key(FORMAT, self.model, item, &Spans::new(plan, length))
    }

    fn load(&self, plan: &Plan, length: u32, item: &Item) -> Option<Found> {
        self.folder.load(self.key(plan, length, item))
    }

    fn save(&self, plan: &Plan, length: u32, item: &Item, found: &Found) -> Result<(), RefineError> {
        let key = self.key(plan, length, item);
        let failed = |source| RefineError::File { action: "write", path: self.folder.path(key), source };
        self.folder.save(key, found).map_err(failed)
    }
}

/// Whether plans of the minimum span `least` can be refined at these lengths; gives them in order, each once.
pub fn check(decoder: &Decoder, lengths: &[u32], least: u32) -> Result<Vec<u32>, RefineError> {
    let most = MAX_LENGTH.min(decoder.config().context as u32);
    let mut asked = lengths.to_vec();
    asked.sort_unstable();
    asked.dedup();
    let fits = |&length: &u32| length.is_multiple_of(TILE) && (least..=most).contains(&length);
    if asked.len() < 2 || !asked.iter().all(fits) {
        return Err(RefineError::Lengths { asked, least, most });
    }
    Ok(asked)
}

/// Refines a plan on the answers of items. `progress` is called for every item and may stop between them.
pub fn refine(
    decoder: &Decoder,
    plan: &Plan,
    items: &Items,
    options: &Options,
    kept: &Slopes,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Refined, RefineError> {
    let of = |length: u32| items.items.iter().filter(move |item| item.length == length);
    let lengths = check(decoder, &options.lengths, plan.min_span)?;
    let missing: Vec<u32> = lengths.iter().copied().filter(|&length| of(length).next().is_none()).collect();
    if !missing.is_empty() {
        return Err(RefineError::NoItems(Missing::new(&missing, &[], &items.items)));
    }
    let mut descent = Descent::new(plan, &lengths, options)?;
    let mut losses = Vec::new();
    let mut done = 0.0;
    for step in 0..options.steps {
        let at = descent.plan();
        // The next items of every length, and the first ones again behind the last.
        let batches: Vec<(u32, Vec<&Item>)> = lengths
            .iter()
            .map(|&length| {
                (length, of(length).cycle().skip(step * options.batch).take(options.batch).collect())
            })
            .collect();
        let of_step = batches.iter().flat_map(|(_, items)| items);
        let of_step: f64 = of_step.map(|item| operations(decoder.config(), item.tokens.len() - 1)).sum();
        let later = (options.steps - step - 1) as f64 * of_step;
        let mut tell = |made: f64, missing: f64| {
            let work = (done + made, done + made + missing + later);
            progress(Progress { steps: (step, options.steps), work })
        };
        let Some((found, made)) = measured(decoder, &at, &batches, (options.parallel, kept), &mut tell)?
        else {
            return Err(RefineError::Stopped { done: step, all: options.steps });
        };
        done += made;
        descent.step(&found.slopes, options.rate * (1.0 - 0.8 * step as f64 / options.steps as f64));
        losses.push(found.losses);
    }
    let refined = descent.plan();
    for &Bound { length, fraction } in &options.bounds {
        let found = Spans::new(&refined, length).density();
        if found > fraction + 1e-9 {
            return Err(RefineError::Bound { length, fraction, found });
        }
    }
    let kv_bytes = lengths.iter().map(|&length| Spans::new(&refined, length).density()).collect();
    let plan = with_provenance(refined, plan, (&items.header, options, &lengths, &losses));
    Ok(Refined { plan, lengths, losses, kv_bytes })
}

/// The result of a step's items, and the operations that it took; `None` if `tell` stopped it, which is given those done and
/// those to do.
fn measured(
    decoder: &Decoder,
    plan: &Plan,
    batches: &[(u32, Vec<&Item>)],
    (parallel, kept): (usize, &Slopes),
    tell: &mut dyn FnMut(f64, f64) -> ControlFlow<()>,
) -> Result<Option<(Step, f64)>, RefineError> {
    let work = |item: &Item| operations(decoder.config(), item.tokens.len() - 1);
    // The longest first, so that those at work together end together.
    let all: Vec<(usize, u32, &Item)> = batches
        .iter()
        .enumerate()
        .rev()
        .flat_map(|(at, (length, items))| items.iter().map(move |item| (at, *length, *item)))
        .collect();
    let mut found: Vec<Option<Found>> =
        all.iter().map(|&(_, length, item)| kept.load(plan, length, item)).collect();
    let missing: Vec<usize> = (0..all.len()).filter(|&at| found[at].is_none()).collect();
    let mut made = 0.0;
    let mut left: f64 = missing.iter().map(|&at| work(all[at].2)).sum();
    for group in missing.chunks(parallel.max(1)) {
        if tell(made, left).is_break() {
            return Ok(None);
        }
        let of_group: Vec<Found> = group
            .par_iter()
            .map(|&at| {
                let (_, length, item) = all[at];
                let found = of_item(decoder, plan, length, item)?;
                kept.save(plan, length, item, &found).map(|()| found)
            })
            .collect::<Result<_, _>>()?;
        for (&at, of_item) in group.iter().zip(of_group) {
            found[at] = Some(of_item);
            made += work(all[at].2);
            left -= work(all[at].2);
        }
    }
    // In the order of the items, so that threads change no bit.
    let mut step = Step { losses: vec![0.0; batches.len()], slopes: vec![Vec::new(); batches.len()] };
    for (&(at, _, _), Found { loss, slopes }) in all.iter().zip(found.iter().flatten()) {
        let share = 1.0 / batches[at].1.len() as f64;
        step.losses[at] += share * loss;
        step.slopes[at].resize(slopes.len(), 0.0);
        step.slopes[at].iter_mut().zip(slopes).for_each(|(sum, slope)| *sum += share * slope);
    }
    Ok(Some((step, made)))
}

/// An item's loss under a plan, and the slope by every KV head's span.
fn of_item(decoder: &Decoder, plan: &Plan, length: u32, item: &Item) -> Result<Found, RefineError> {
    let failed = |source| RefineError::Item { item: item.id.clone(), source: Box::new(source) };
    // The last token predicts nothing.
    let inputs = &item.tokens[..item.tokens.len() - 1];
    let tape = Tape::record(decoder, inputs, (plan, length), &mut |_| ()).map_err(failed)?;
    let reverse =
        Reverse::new(decoder, tape, item.answer - 1, &item.tokens[item.answer..]).map_err(failed)?;
    let mut reverse = reverse.within(2f64.powf(REACH));
    let spans = Spans::new(plan, length);
    let mut slopes = Vec::new();
    while let Some((layer, heads)) = reverse.step_windows().map_err(failed)? {
        let of_layer: Vec<f64> = heads
            .iter()
            .zip(spans.kv_spans(layer))
            .map(|(sums, &span)| slope(sums, span, plan.sink, length))
            .collect();
        slopes.push(of_layer);
    }
    let slopes: Vec<f64> = slopes.into_iter().rev().flatten().collect();
    let loss = reverse.loss();
    if !loss.is_finite() || slopes.iter().any(|slope| !slope.is_finite()) {
        return Err(RefineError::NotFinite { item: item.id.clone(), loss });
    }
    Ok(Found { loss, slopes })
}

/// The slope of the loss by the binary logarithm of a span, between spans a little to both sides: at least a tile, within
/// what windows there are.
fn slope(sums: &WindowSums, span: u32, sink: u32, length: u32) -> f64 {
    let tiles = |times: f64| (f64::from(span) * times / f64::from(TILE)).round() as u32 * TILE;
    let narrow = tiles(2f64.powf(-REACH)).min(span - TILE).max(sink + TILE);
    let wide = tiles(2f64.powf(REACH)).max(span + TILE).min(length);
    if narrow >= wide {
        return 0.0;
    }
    // An item may have fewer tokens than its length: windows that show all of it are alike.
    let effect = |span: u32| sums.effect[(((span - sink) / TILE) as usize).min(sums.effect.len() - 1)];
    (effect(wide) - effect(narrow)) / (f64::from(wide) / f64::from(narrow)).log2()
}

/// The refined plan, with its inputs and settings as provenance.
fn with_provenance(
    mut refined: Plan,
    from: &Plan,
    (items, options, lengths, losses): (&Header, &Options, &[u32], &[Vec<f64>]),
) -> Plan {
    refined.provenance = Some(json!({
        "method": "moac refine",
        "version": env!("CARGO_PKG_VERSION"),
        "from": from.provenance.clone().unwrap_or(Value::Null),
        "lengths": lengths,
        "density": options.density,
        "bounds": options.bounds.iter().map(|bound| (bound.length, bound.fraction)).collect::<BTreeMap<_, _>>(),
        "steps": options.steps,
        "items_per_length_and_step": options.batch,
        "rate": options.rate,
        "seed": items.seed,
        "texts": items.sources.len(),
        "texts_sha256": items.texts().to_string(),
        "losses_before_steps": losses,
    }));
    refined
}
