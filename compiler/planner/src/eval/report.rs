//! From outcomes to numbers: means, gaps to dense attention, and confidence intervals.

use std::collections::BTreeMap;

use moac_runtime::digest::Digest;
use serde::Serialize;

use super::cells::{Answer, Outcome};
use super::run::AtLength;
use super::stats::{accuracy, bootstrap, effective_length, mean, ratio};
use super::{Measured, Method, NamedPlan, Run, Spans};

/// Retrieval counts as working where at least this much of it is right.
pub const BAR: f64 = 0.9;

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
    /// Right answers.
    pub right: usize,
    /// Questions.
    pub questions: usize,
    /// The share that is right.
    pub share: f64,
    /// Its 95% interval, contexts being what is drawn.
    pub interval: Option<[f64; 2]>,
    /// The share over that of dense, on the same questions.
    pub of_dense: Option<f64>,
    /// Its 95% interval.
    pub of_dense_interval: Option<[f64; 2]>,
    /// The mean loss in nats of the answers' tokens.
    pub loss: f64,
    /// By context.
    pub contexts: Vec<ContextAnswers>,
}

/// The answers about one context.
#[derive(Clone, Debug, Serialize)]
pub struct ContextAnswers {
    /// The context's name.
    pub name: String,
    /// Each question.
    pub answers: Vec<Answer>,
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
            .map_while(|at| Some((at.length, at.rows[row].accuracy.as_ref()?.share)))
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
        Outcome::Answers(_) => None,
    }
}

fn answers(outcome: Option<&Option<Outcome>>) -> Option<&[Answer]> {
    match outcome?.as_ref()? {
        Outcome::Answers(answers) => Some(answers),
        Outcome::Losses(_) => None,
    }
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
        let right = |answers: &[Answer]| answers.iter().filter(|answer| answer.right).count();
        let mut contexts = Vec::new();
        let (mut counts, mut against_dense) = (Vec::new(), Vec::new());
        for (at, item) in self.at.items.iter().enumerate() {
            let Some(own) = answers(self.own.get(at)) else { continue };
            counts.push((right(own), own.len()));
            if let Some(dense) = answers(self.dense.get(at)) {
                against_dense.push((right(own) as f64, right(dense) as f64));
            }
            contexts.push(ContextAnswers { name: item.name.clone(), answers: own.to_vec() });
        }
        if contexts.is_empty() {
            return None;
        }
        let (share, interval) = accuracy(&counts);
        let (of_dense, of_dense_interval) = ratio(&against_dense);
        let all = contexts.iter().flat_map(|context| &context.answers);
        Some(Accuracy {
            right: counts.iter().map(|(right, _)| right).sum(),
            questions: counts.iter().map(|(_, questions)| questions).sum(),
            share,
            interval,
            of_dense,
            of_dense_interval,
            loss: mean(all.map(|answer| answer.loss)),
            contexts,
        })
    }
}
