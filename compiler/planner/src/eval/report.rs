//! From outcomes to numbers: means, gaps to dense attention, and confidence intervals.

use std::collections::BTreeMap;

use moac_runtime::digest::Digest;
use serde::Serialize;

use super::cells::{Answer, Outcome};
use super::items::{Input, Item};
use super::run::AtLength;
use super::stats::{accuracy, bootstrap, effective_length, mean, ratio};
use super::{Measured, Method, NamedPlan, Run, Spans, Task};
use crate::tasks::{Turn, recall};

/// Retrieval counts as working where at least this much of it is right.
pub const BAR: f64 = 0.9;
/// Dense attention passes a task where at least this much of it is right.
pub const PASS: f64 = 0.8;

/// Everything that was found out.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The heading of the whole.
    pub title: Option<String>,
    /// The model's name.
    pub model: String,
    /// Its fingerprint.
    pub fingerprint: Digest,
    /// The runs.
    pub runs: Vec<RunReport>,
}

/// One task at some lengths.
#[derive(Clone, Debug, Serialize)]
pub struct RunReport {
    /// The run.
    #[serde(flatten)]
    pub run: Run,
    /// By length.
    pub by_length: Vec<LengthReport>,
    /// The longest inputs that work, for retrieval.
    pub effective: Vec<Effective>,
}

/// One length.
#[derive(Clone, Debug, Serialize)]
pub struct LengthReport {
    /// The context length.
    pub length: u32,
    /// A row for each method.
    pub rows: Vec<Row>,
}

/// One method at one length.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its name.
    pub method: String,
    /// The kind.
    pub kind: Kind,
    /// The plan that it is, or whose KV bytes it has.
    pub plan: Option<String>,
    /// KV bytes over dense.
    pub density: f64,
    /// Tokens that a KV head holds, on average.
    pub mean_kv_span: f64,
    /// Items measured: windows or contexts.
    pub items: usize,
    /// Items of the run.
    pub all_items: usize,
    /// The shares of right answers, of retrieval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<Accuracy>,
    /// The losses, of text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nll: Option<Nll>,
}

/// The kind of a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Everything is seen.
    Dense,
    /// A plan.
    Plan,
    /// One span for all heads.
    Uniform,
}

/// Retrieval under a method.
#[derive(Clone, Debug, Serialize)]
pub struct Accuracy {
    /// Answers that are wholly right.
    pub right: usize,
    /// The score of all questions.
    #[serde(flatten)]
    pub score: Score,
    /// The mean loss in nats of the answers' tokens, where answers are given to the model and not its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// By part of the items: of a run of several tasks or kinds, each; of several turns, each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
    /// Of the parts of which dense attention has at least [`PASS`] right, all together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passed: Option<Part>,
    /// By context.
    pub contexts: Vec<ContextAnswers>,
}

/// What is right of some questions.
#[derive(Clone, Debug, Serialize)]
pub struct Score {
    /// Questions.
    pub questions: usize,
    /// The share that is right: the mean over questions; of an answer that must have several texts, the share of them.
    pub share: f64,
    /// Its 95% interval, contexts being what is drawn.
    pub interval: Option<[f64; 2]>,
    /// The share over that of dense, on the same questions.
    pub of_dense: Option<f64>,
    /// Its 95% interval.
    pub of_dense_interval: Option<[f64; 2]>,
}

/// A part of the questions.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// Its score.
    #[serde(flatten)]
    pub score: Score,
}

/// The answers about one context.
#[derive(Clone, Debug, Serialize)]
pub struct ContextAnswers {
    /// The context's name.
    pub name: String,
    /// Each question.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<Answer>,
    /// What the model says, turn by turn.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub said: Vec<Said>,
}

/// An answer in the model's own words.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Said {
    /// Where in the context the first expected text begins to be told, from 0 to 1.
    pub depth: f64,
    /// The answer.
    pub text: String,
    /// The texts that it must have.
    pub expected: Vec<String>,
    /// The share of them that it has.
    pub recall: f64,
}

/// Loss under a method, in nats a token.
#[derive(Clone, Debug, Serialize)]
pub struct Nll {
    /// Over all windows, which have the same number of tokens.
    pub mean: f64,
    /// Less that of dense, on the same tokens.
    pub gap: Option<f64>,
    /// Its 95% interval, windows being what is drawn.
    pub gap_interval: Option<[f64; 2]>,
    /// A plan's gap over that of its uniform partner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap_of_uniform: Option<f64>,
    /// Its 95% interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap_of_uniform_interval: Option<[f64; 2]>,
    /// The share of tokens whose loss grew, of those whose loss changed.
    pub worse: Option<f64>,
    /// By text.
    pub texts: BTreeMap<String, TextNll>,
    /// By window.
    pub windows: Vec<WindowNll>,
}

/// The losses of one text.
#[derive(Clone, Debug, Serialize)]
pub struct TextNll {
    /// Windows of it.
    pub windows: usize,
    /// Their mean.
    pub mean: f64,
    /// Less that of dense.
    pub gap: Option<f64>,
}

/// The loss of one window.
#[derive(Clone, Debug, Serialize)]
pub struct WindowNll {
    /// The window's name.
    pub name: String,
    /// Its mean.
    pub mean: f64,
    /// Less that of dense.
    pub gap: Option<f64>,
}

/// How long an input a method can use.
#[derive(Clone, Debug, Serialize)]
pub struct Effective {
    /// The method.
    pub method: String,
    /// The longest length at which, as at every shorter one of the run, at least [`BAR`] is right.
    pub length: Option<u32>,
    /// The mean KV span there.
    pub mean_kv_span: Option<f64>,
    /// The one over the other.
    pub ratio: Option<f64>,
    /// Whether it is the longest that was tried.
    pub at_least: bool,
}

/// The numbers of measured runs.
pub fn of_runs(measured: &[Measured], plans: &[NamedPlan]) -> Vec<RunReport> {
    measured.iter().map(|measured| of_run(measured, plans)).collect()
}

fn of_run(measured: &Measured, plans: &[NamedPlan]) -> RunReport {
    let by_length: Vec<LengthReport> = measured.lengths.iter().map(|at| of_length(at, plans)).collect();
    let methods = Method::of_plans(&measured.run.plans);
    let effective = methods.iter().enumerate().filter_map(|(row, method)| {
        let points: Vec<(u32, f64)> = by_length
            .iter()
            .map_while(|at| Some((at.length, at.rows[row].accuracy.as_ref()?.score.share)))
            .collect();
        let longest = points.last()?.0;
        let length = effective_length(&points, BAR);
        let span =
            |length| by_length.iter().find(|at| at.length == length).map(|at| at.rows[row].mean_kv_span);
        let mean_kv_span = length.and_then(span);
        Some(Effective {
            method: method.name(plans),
            length,
            mean_kv_span,
            ratio: length.zip(mean_kv_span).map(|(length, span)| f64::from(length) / span),
            at_least: length == Some(longest),
        })
    });
    RunReport { run: measured.run.clone(), effective: effective.collect(), by_length }
}

fn of_length(at: &AtLength, plans: &[NamedPlan]) -> LengthReport {
    let outcomes = |wanted: Method| {
        at.methods.iter().find(|(method, ..)| *method == wanted).map(|(.., outcomes)| outcomes.as_slice())
    };
    let rows = at.methods.iter().map(|(method, spans, own)| {
        let partner = match *method {
            Method::Plan(plan) => outcomes(Method::Uniform(plan)),
            Method::Dense | Method::Uniform(_) => None,
        };
        let dense = outcomes(Method::Dense).unwrap_or_default();
        row(*method, spans, plans, &Columns { at, own, dense, partner: partner.unwrap_or_default() })
    });
    LengthReport { length: at.length, rows: rows.collect() }
}

/// The outcomes that a row is made from, item by item.
struct Columns<'a> {
    at: &'a AtLength,
    own: &'a [Option<Outcome>],
    dense: &'a [Option<Outcome>],
    partner: &'a [Option<Outcome>],
}

fn row(method: Method, spans: &Spans, plans: &[NamedPlan], columns: &Columns<'_>) -> Row {
    let (kind, plan) = match method {
        Method::Dense => (Kind::Dense, None),
        Method::Plan(at) => (Kind::Plan, Some(at)),
        Method::Uniform(at) => (Kind::Uniform, Some(at)),
    };
    Row {
        method: method.name(plans),
        kind,
        plan: plan.map(|at| plans[at].name.clone()),
        density: spans.density(),
        mean_kv_span: spans.mean_kv(),
        items: columns.own.iter().flatten().count(),
        all_items: columns.own.len(),
        accuracy: columns.accuracy(),
        nll: columns.nll(),
    }
}

fn losses(outcome: Option<&Option<Outcome>>) -> Option<&[f32]> {
    match outcome?.as_ref()? {
        Outcome::Losses(losses) => Some(losses),
        Outcome::Answers(_) | Outcome::Said(_) => None,
    }
}

/// The scores of an item's questions, from 0 to 1, and what was answered.
fn answers(item: &Item, outcome: Option<&Option<Outcome>>) -> Option<(Vec<f64>, ContextAnswers)> {
    let name = item.name.clone();
    match (outcome?.as_ref()?, &item.input) {
        (Outcome::Answers(answers), _) => {
            let scores = answers.iter().map(|answer| f64::from(u8::from(answer.right)));
            Some((scores.collect(), ContextAnswers { name, answers: answers.clone(), said: Vec::new() }))
        }
        (Outcome::Said(texts), Input::Dialog(dialog)) => {
            let said = |(text, turn): (&String, &Turn)| Said {
                depth: turn.depth,
                recall: recall(text, &turn.expected),
                text: text.clone(),
                expected: turn.expected.clone(),
            };
            let said: Vec<Said> = texts.iter().zip(&dialog.turns).map(said).collect();
            let scores = said.iter().map(|said| said.recall);
            Some((scores.collect(), ContextAnswers { name, answers: Vec::new(), said }))
        }
        _ => None,
    }
}

/// The questions of an item under a method and under dense attention.
struct Scored {
    own: Vec<f64>,
    dense: Option<Vec<f64>>,
    part: Option<&'static str>,
}

/// The score of some questions of each item: those that `of` gives.
fn score<'a>(scored: impl Iterator<Item = &'a Scored>, of: impl Fn(&[f64]) -> &[f64]) -> Score {
    let (mut counts, mut against_dense) = (Vec::new(), Vec::new());
    for Scored { own, dense, .. } in scored {
        let sum = |scores: &[f64]| of(scores).iter().sum::<f64>();
        counts.push((sum(own), of(own).len()));
        if let Some(dense) = dense {
            against_dense.push((sum(own), sum(dense)));
        }
    }
    let (share, interval) = accuracy(&counts);
    let (of_dense, of_dense_interval) = ratio(&against_dense);
    let questions = counts.iter().map(|(_, questions)| questions).sum();
    Score { questions, share, interval, of_dense, of_dense_interval }
}

/// The scores by part of the items, or by turn where all items have as many of them.
fn parts(scored: &[Scored], by_turn: bool) -> Vec<Part> {
    if by_turn {
        let turns = scored.iter().map(|scored| scored.own.len()).min().unwrap_or(0);
        let turn = |at: usize| Part {
            name: format!("question {}", at + 1),
            score: score(scored.iter(), |scores| &scores[at..=at]),
        };
        return (0..turns).map(turn).collect();
    }
    let mut names: Vec<&str> = Vec::new();
    for name in scored.iter().filter_map(|scored| scored.part) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let part = |name: &str| {
        let own = scored.iter().filter(|scored| scored.part == Some(name));
        Part { name: name.to_owned(), score: score(own, |scores| scores) }
    };
    names.into_iter().map(part).collect()
}

/// The parts that dense attention passes, together.
fn passed(scored: &[Scored], parts: &[Part]) -> Option<Part> {
    let passes = |name: &str| {
        let dense = scored.iter().filter(|scored| scored.part == Some(name));
        let all: Option<Vec<&Vec<f64>>> = dense.map(|scored| scored.dense.as_ref()).collect();
        // Shares of whole items: 4 of 5 are 0.8, however they round.
        all.is_some_and(|all| mean(all.into_iter().flatten().copied()) >= PASS - 1e-9)
    };
    let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).filter(|name| passes(name)).collect();
    if names.is_empty() {
        return None;
    }
    let all = scored.iter().filter(|scored| scored.part.is_some_and(|part| names.contains(&part)));
    Some(Part { name: format!("the {} that dense passes", names.len()), score: score(all, |scores| scores) })
}

/// The mean of the differences, token by token.
fn paired(own: &[f32], other: &[f32]) -> f64 {
    mean(own.iter().zip(other).map(|(&own, &other)| f64::from(own) - f64::from(other)))
}

impl Columns<'_> {
    fn nll(&self) -> Option<Nll> {
        let mut windows = Vec::new();
        let mut texts: BTreeMap<String, Vec<(f64, Option<f64>)>> = BTreeMap::new();
        let (mut gaps, mut against_partner) = (Vec::new(), Vec::new());
        let (mut grew, mut changed) = (0u64, 0u64);
        for (at, item) in self.at.items.iter().enumerate() {
            let Some(own) = losses(self.own.get(at)) else { continue };
            let mean = mean(own.iter().map(|&loss| f64::from(loss)));
            let dense = losses(self.dense.get(at));
            let gap = dense.map(|dense| paired(own, dense));
            if let (Some(gap), Some(dense)) = (gap, dense) {
                gaps.push(gap);
                grew += own.iter().zip(dense).filter(|(own, dense)| own > dense).count() as u64;
                changed +=
                    own.iter().zip(dense).filter(|(own, dense)| own.to_bits() != dense.to_bits()).count()
                        as u64;
                if let Some(partner) = losses(self.partner.get(at)) {
                    against_partner.push((gap, paired(partner, dense)));
                }
            }
            texts.entry(item.text.clone()).or_default().push((mean, gap));
            windows.push(WindowNll { name: item.name.clone(), mean, gap });
        }
        if windows.is_empty() {
            return None;
        }
        let complete = gaps.len() == windows.len();
        let gap_of = |gaps: &[f64]| mean(gaps.iter().copied());
        let (gap_of_uniform, gap_of_uniform_interval) = ratio(&against_partner);
        Some(Nll {
            mean: mean(windows.iter().map(|window| window.mean)),
            gap: complete.then(|| gap_of(&gaps)),
            gap_interval: bootstrap(gaps.len(), |drawn| mean(drawn.iter().map(|&at| gaps[at]))),
            gap_of_uniform,
            gap_of_uniform_interval,
            worse: (changed > 0).then(|| grew as f64 / changed as f64),
            texts: texts
                .into_iter()
                .map(|(name, of)| {
                    let gaps: Option<Vec<f64>> = of.iter().map(|(_, gap)| *gap).collect();
                    let mean = mean(of.iter().map(|(mean, _)| *mean));
                    (name, TextNll { windows: of.len(), mean, gap: gaps.map(|gaps| gap_of(&gaps)) })
                })
                .collect(),
            windows,
        })
    }

    fn accuracy(&self) -> Option<Accuracy> {
        let mut contexts = Vec::new();
        let mut scored = Vec::new();
        for (at, item) in self.at.items.iter().enumerate() {
            let Some((own, context)) = answers(item, self.own.get(at)) else { continue };
            let dense = answers(item, self.dense.get(at)).map(|(dense, _)| dense);
            scored.push(Scored { own, dense, part: item.part });
            contexts.push(context);
        }
        if contexts.is_empty() {
            return None;
        }
        let by_turn = self.at.items.iter().all(|item| item.task == Task::Turns);
        let parts = parts(&scored, by_turn);
        let losses: Vec<f64> =
            contexts.iter().flat_map(|context| &context.answers).map(|answer| answer.loss).collect();
        Some(Accuracy {
            right: scored.iter().flat_map(|scored| &scored.own).filter(|&&score| score >= 1.0).count(),
            score: score(scored.iter(), |scores| scores),
            loss: (!losses.is_empty()).then(|| mean(losses)),
            passed: passed(&scored, &parts),
            parts,
            contexts,
        })
    }
}
