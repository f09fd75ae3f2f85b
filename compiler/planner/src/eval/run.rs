//! From runs to outcomes: lists the cells, finds those already measured, and measures the others.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};

use moac_model::Model;
use moac_runtime::digest::Digest;
use moac_runtime::plan::Plan;

use super::cells::{About, Cell, FORMAT, Key, Outcome, Store};
use super::items::{self, Input, Item, Text};
use super::{EvalError, Method, NamedPlan, Run, Spans, measure};
use crate::tasks::Corpus;

/// The inputs that all runs share.
#[derive(Debug)]
pub struct Evaluation<'a> {
    /// The model.
    pub model: &'a Model,
    /// Its fingerprint.
    pub fingerprint: Digest,
    /// The plans that runs mean by index.
    pub plans: &'a [NamedPlan],
    /// Texts to take windows of.
    pub texts: &'a [Text],
    /// Texts to hide facts in, if there is a retrieval task.
    pub filler: Option<&'a Corpus>,
    /// Where cells are kept.
    pub store: &'a Store,
    /// Set to stop after the cell at hand.
    pub stop: &'a AtomicBool,
}

/// The part of the work that one of several machines does: every `of`th cell from the `at`th on. All cells count, those
/// measured already too, so that parts stay the same ones however far each machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// The index, from 0.
    pub at: usize,
    /// Of how many; 0 measures nothing.
    pub of: usize,
}

impl Shard {
    /// All of the work.
    pub const ALL: Self = Self { at: 0, of: 1 };
    /// Nothing: only what is measured already counts.
    pub const NONE: Self = Self { at: 0, of: 0 };

    fn has(self, index: usize) -> bool {
        self.of > 0 && index % self.of == self.at
    }
}

/// How far the measuring is.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// Cells measured.
    pub cells: usize,
    /// Cells to measure.
    pub all_cells: usize,
    /// Operations done, roughly.
    pub work: f64,
    /// Operations to do, roughly.
    pub all_work: f64,
    /// The cell that is next.
    pub next: String,
}

/// The outcome of a run.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The run.
    pub run: Run,
    /// At each of its lengths.
    pub lengths: Vec<AtLength>,
}

/// The outcome of a run at one length.
#[derive(Clone, Debug)]
pub struct AtLength {
    /// The length.
    pub length: u32,
    /// The items.
    pub items: Vec<Item>,
    /// The methods: the spans they have, and an outcome for each item that was measured.
    pub methods: Vec<(Method, Spans, Vec<Option<Outcome>>)>,
}

/// A cell to come: where it belongs, and what it takes.
struct Wanted<'a> {
    key: Key,
    plan: Plan,
    item: &'a Item,
    method: String,
    work: f64,
}

impl Evaluation<'_> {
    /// Measures what is missing and in the `shard`, and gives everything that is measured then.
    pub fn run(
        &self,
        runs: &[Run],
        shard: Shard,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<Vec<Measured>, EvalError> {
        let shape = self.model.decoder.config().shape();
        for run in runs {
            run.check(&shape, self.plans)?;
        }
        let items: Vec<Vec<Vec<Item>>> = runs
            .iter()
            .map(|run| run.lengths.iter().map(|&length| self.items(run, length)).collect())
            .collect::<Result<_, EvalError>>()?;
        let mut wanted: Vec<Wanted<'_>> = Vec::new();
        let mut outcomes: BTreeMap<Key, Option<Outcome>> = BTreeMap::new();
        for (run, items) in runs.iter().zip(&items) {
            for (&length, items) in run.lengths.iter().zip(items) {
                let plans: Vec<(Method, Plan)> = Method::of_plans(&run.plans)
                    .into_iter()
                    .map(|method| (method, method.plan(&shape, self.plans, length)))
                    .collect();
                for item in items {
                    for (method, plan) in &plans {
                        let key = self.key(item, &Spans::new(plan, length));
                        // Plans and runs share what is the same.
                        let number = outcomes.len();
                        let Entry::Vacant(place) = outcomes.entry(key.clone()) else { continue };
                        let known = place.insert(self.store.load(&key));
                        if known.is_none() && shard.has(number) {
                            wanted.push(Wanted {
                                key,
                                plan: plan.clone(),
                                item,
                                method: self.name(*method),
                                work: self.work(&Spans::new(plan, length), &item.input),
                            });
                        }
                    }
                }
            }
        }
        self.measure(wanted, &mut outcomes, progress)?;
        let measured = runs.iter().zip(items).map(|(run, items)| Measured {
            lengths: run
                .lengths
                .iter()
                .zip(items)
                .map(|(&length, items)| {
                    let of = |method: Method| {
                        let spans = Spans::new(&method.plan(&shape, self.plans, length), length);
                        let outcome = |item: &Item| outcomes.get(&self.key(item, &spans)).cloned().flatten();
                        let found = items.iter().map(outcome).collect();
                        (method, spans, found)
                    };
                    let methods = Method::of_plans(&run.plans).into_iter().map(of).collect();
                    AtLength { length, items, methods }
                })
                .collect(),
            run: run.clone(),
        });
        Ok(measured.collect())
    }

    /// The name of a method in tables.
    pub fn name(&self, method: Method) -> String {
        method.name(self.plans)
    }

    fn items(&self, run: &Run, length: u32) -> Result<Vec<Item>, EvalError> {
        if !run.task.asks() {
            return items::windows(self.texts, length, run.items_at(length));
        }
        let filler = self.filler.ok_or(EvalError::NoTexts { path: "filler".into() })?;
        items::contexts(self.model, filler, (run, length), self.stop)
    }

    fn key(&self, item: &Item, spans: &Spans) -> Key {
        Key {
            format: FORMAT.to_owned(),
            model: self.fingerprint,
            task: item.task,
            length: spans.length,
            spans: spans.digest(),
            input: item.input.digest(),
        }
    }

    /// Operations of a cell, roughly: to tell how much time is left.
    fn work(&self, spans: &Spans, input: &Input) -> f64 {
        let config = self.model.decoder.config();
        let logits = matches!(input, Input::Window(_));
        config.flops_per_token(logits) as f64 * input.tokens() as f64
            + 4.0 * config.head_dim as f64 * spans.pairs()
    }

    fn measure(
        &self,
        wanted: Vec<Wanted<'_>>,
        outcomes: &mut BTreeMap<Key, Option<Outcome>>,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<(), EvalError> {
        let mut state = Progress {
            cells: 0,
            all_cells: wanted.len(),
            work: 0.0,
            all_work: wanted.iter().map(|wanted| wanted.work).sum(),
            next: String::new(),
        };
        for Wanted { key, plan, item, method, work } in wanted {
            if self.stop.load(Ordering::Relaxed) {
                return Err(EvalError::Stopped { done: state.cells, all: state.all_cells });
            }
            state.next = format!("{} at {}, {}: {}", key.task, key.length, method, item.name);
            progress(&state);
            let start = std::time::Instant::now();
            let outcome = measure::measure(self.model, &plan, key.length, &item.input)?;
            tracing::info!("{}: {:.1} s", state.next, start.elapsed().as_secs_f64());
            if !measure::finite(&outcome) {
                return Err(EvalError::NotFinite { item: item.name.clone(), length: key.length, method });
            }
            let model = self.model.decoder.config().name.clone();
            let about = About { model, item: item.name.clone(), method };
            let cell = Cell { key, about, outcome };
            let path = self.store.path(&cell.key);
            self.store.save(&cell).map_err(EvalError::file("write", &path))?;
            outcomes.insert(cell.key, Some(cell.outcome));
            state.cells += 1;
            state.work += work;
        }
        progress(&state);
        Ok(())
    }
}
