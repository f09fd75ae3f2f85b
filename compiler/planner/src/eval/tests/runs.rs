//! Whole evaluations of a tiny random model.

use std::cell::Cell;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use moac_model::{Cache, Model, dense_plan};
use moac_runtime::digest::Digest;
use moac_runtime::plan::Plan;
use tempfile::TempDir;

use super::super::cells::{Outcome, Store};
use super::super::items::{self, Input};
use super::super::measure::measure;
use super::super::report::{Kind, RunReport, of_runs};
use super::super::{EvalError, Evaluation, Method, NamedPlan, Progress, Run, Shard, Task, fingerprint};
use super::tiny;
use crate::tasks::{Corpus, Set};

pub(super) struct Bench {
    folder: TempDir,
    model: Model,
    plans: Vec<NamedPlan>,
    texts: Vec<items::Text>,
    filler: Corpus,
}

const LENGTH: u32 = 256;
/// A token is a byte here, so a context with all its facts is long.
const RETRIEVAL: u32 = 2048;

impl Bench {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (at, data) = (folder.path().join("model"), folder.path().join("data"));
        std::fs::create_dir(&at).unwrap();
        std::fs::create_dir(&data).unwrap();
        tiny::write_model(&at, 5);
        std::fs::write(data.join("a.txt"), tiny::text(1, 900)).unwrap();
        std::fs::write(data.join("b.txt"), tiny::text(2, 400)).unwrap();
        let model = Model::open(&at).unwrap();
        let dense = dense_plan(&model.decoder.config().shape());
        let with = |f: &dyn Fn(usize) -> (f64, f64)| {
            let mut plan = dense.clone();
            for (alphas, betas) in plan.alphas.iter_mut().zip(&mut plan.betas) {
                for head in 0..tiny::HEADS {
                    (alphas[head], betas[head]) = f(head);
                }
            }
            plan
        };
        let plans = vec![
            NamedPlan { name: "sparse".into(), plan: with(&|head| (128.0 + 64.0 * (head / 2) as f64, 0.0)) },
            NamedPlan {
                name: "covering".into(),
                plan: Plan { sink: 128, min_span: 192, ..with(&|_| (9.0, 1.0)) },
            },
        ];
        let texts = items::texts(&data, &model.tokenizer).unwrap();
        let filler = Corpus::read(&[data]).unwrap();
        Self { folder, model, plans, texts, filler }
    }

    pub(super) fn run_of(task: Task, plans: &[usize]) -> Run {
        Run {
            name: task.name().into(),
            title: task.title().into(),
            task,
            lengths: vec![if task == Task::Nll { LENGTH } else { RETRIEVAL }],
            plans: plans.to_vec(),
            items: Some(if task == Task::Nll { 3 } else { 2 }),
            long_items: None,
            questions: 4,
            facts: None,
            seed: 0,
            plain: false,
            set: Set::Report,
        }
    }

    /// Evaluates; `cut` stops after that many cells. Gives the cells measured, too.
    pub(super) fn evaluate(
        &self,
        store: &str,
        runs: &[Run],
        shard: Shard,
        cut: Option<usize>,
    ) -> (usize, Result<Vec<RunReport>, EvalError>) {
        let stop = AtomicBool::new(cut == Some(0));
        let store = Store::at(&self.folder.path().join(store));
        let evaluation = Evaluation {
            model: &self.model,
            fingerprint: Digest::of(b"tiny"),
            plans: &self.plans,
            texts: &self.texts,
            filler: Some(&self.filler),
            store: &store,
            stop: &stop,
        };
        let cells = Cell::new(0);
        let measured = evaluation.run(runs, shard, &mut |progress: &Progress| {
            cells.set(progress.cells);
            if cut.is_some_and(|cut| progress.cells + 1 >= cut) {
                stop.store(true, Ordering::Relaxed);
            }
        });
        (cells.get(), measured.map(|measured| of_runs(&measured, &self.plans)))
    }
}

fn json(report: &[RunReport]) -> String {
    serde_json::to_string(report).unwrap()
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let folders = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = folders
        .flat_map(|folder| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()))
        .collect();
    files.sort();
    files
}

#[test]
fn a_covering_plan_is_dense_and_a_sparse_one_is_not() {
    let bench = Bench::new();
    let runs = [Bench::run_of(Task::Nll, &[0, 1])];
    let (cells, report) = bench.evaluate("cells", &runs, Shard::ALL, None);
    let report = report.unwrap();
    // Dense, the sparse plan and its partner; the covering plan and its partner are dense, so their cells are shared.
    assert_eq!(cells, 3 * 3);
    let rows = &report[0].by_length[0].rows;
    let kinds: Vec<Kind> = rows.iter().map(|row| row.kind).collect();
    assert_eq!(kinds, [Kind::Dense, Kind::Plan, Kind::Uniform, Kind::Plan, Kind::Uniform]);
    let nll: Vec<_> = rows.iter().map(|row| row.nll.as_ref().unwrap()).collect();
    assert_eq!(nll[3].gap, Some(0.0));
    assert_eq!((rows[3].density, rows[3].items, rows[3].all_items), (1.0, 3, 3));
    assert!(nll[1].gap.unwrap().abs() > 1e-4, "{:?}", nll[1].gap);
    // KV heads 0 and 1 hold 128 and 192 tokens of 256; both of the partner's hold 192.
    assert!((rows[1].density - 0.625).abs() < 1e-12 && (rows[2].density - 0.75).abs() < 1e-12);
    let gaps = nll[1].windows.iter().map(|window| window.gap.unwrap());
    assert!((gaps.sum::<f64>() / 3.0 - nll[1].gap.unwrap()).abs() < 1e-12);
    assert_eq!(nll[1].texts.values().map(|text| text.windows).sum::<usize>(), 3);

    // Shared by digest, and rightly so: measured on its own, the covering plan has the losses of dense.
    let tokens = &bench.texts[0].tokens[..LENGTH as usize];
    let dense = dense_plan(&bench.model.decoder.config().shape());
    let decoder = &bench.model.decoder;
    let losses =
        |plan: &Plan| match measure(&bench.model, plan, LENGTH, &Input::Window(tokens.to_vec())).unwrap() {
            Outcome::Losses(losses) => losses,
            _ => unreachable!(),
        };
    let (own, other) = (losses(&bench.plans[1].plan), losses(&dense));
    assert!(own.iter().zip(&other).all(|(a, b)| (a - b).abs() < 1e-4));
    let expected = decoder.losses(tokens, &mut Cache::new(&dense, LENGTH).unwrap()).unwrap();
    assert_eq!(other, expected);
}

#[test]
fn questions_are_answered_as_decoding_would() {
    let bench = Bench::new();
    let mut run = Bench::run_of(Task::Passkey, &[0]);
    run.items = Some(1);
    let (_, report) = bench.evaluate("cells", std::slice::from_ref(&run), Shard::ALL, None);
    let report = report.unwrap();
    let items =
        items::contexts(&bench.model, &bench.filler, (&run, RETRIEVAL), &AtomicBool::new(false)).unwrap();
    let Input::Prompt(prompt) = &items[0].input else { unreachable!() };
    assert_eq!(prompt.questions.len(), 4);
    for (row, method) in report[0].by_length[0].rows.iter().zip(Method::of_plans(&[0])) {
        let plan = method.plan(&bench.model.decoder.config().shape(), &bench.plans, RETRIEVAL);
        let accuracy = row.accuracy.as_ref().unwrap();
        for (question, answer) in prompt.questions.iter().zip(&accuracy.contexts[0].answers) {
            // The whole text at once, by the losses of its last tokens.
            let whole = [&prompt.context[..], &question.tokens, &question.answer].concat();
            assert!(whole.len() <= RETRIEVAL as usize);
            let mut cache = Cache::new(&plan, RETRIEVAL).unwrap();
            let losses = bench.model.decoder.losses(&whole, &mut cache).unwrap();
            let of = &losses[losses.len() - question.answer.len()..];
            let loss = of.iter().map(|&loss| f64::from(loss)).sum::<f64>() / of.len() as f64;
            assert!((loss - answer.loss).abs() < 5e-4, "{}: {loss} and {}", row.method, answer.loss);
        }
        assert_eq!((accuracy.score.questions, accuracy.contexts.len()), (4, 1));
    }
}

#[test]
fn a_cut_evaluation_goes_on_and_ends_the_same() {
    let bench = Bench::new();
    let runs = [Bench::run_of(Task::Nll, &[0]), Bench::run_of(Task::Passkey, &[0])];
    let (all, whole) = bench.evaluate("whole", &runs, Shard::ALL, None);
    let whole = whole.unwrap();
    assert_eq!(all, 3 * 3 + 3 * 2);
    let (done, stopped) = bench.evaluate("cut", &runs, Shard::ALL, Some(4));
    assert!(matches!(stopped, Err(EvalError::Stopped { done: 4, all: 15 })), "{stopped:?} after {done}");
    assert_eq!(files(&bench.folder.path().join("cut")).len(), 4);
    // Nothing is measured: the table shows the kept cells.
    let (none, part) = bench.evaluate("cut", &runs, Shard::NONE, None);
    let part = part.unwrap();
    let items: usize =
        part.iter().flat_map(|run| &run.by_length).flat_map(|at| &at.rows).map(|row| row.items).sum();
    assert_eq!((none, items), (0, 4));
    // A cell that was damaged meanwhile is measured again.
    let cells = files(&bench.folder.path().join("cut"));
    std::fs::write(&cells[1], "{").unwrap();
    let (rest, report) = bench.evaluate("cut", &runs, Shard::ALL, None);
    assert_eq!((rest, json(&report.unwrap())), (12, json(&whole)));
    let (again, report) = bench.evaluate("cut", &runs, Shard::ALL, None);
    assert_eq!((again, json(&report.unwrap())), (0, json(&whole)));
}

#[test]
fn shards_are_parts_that_make_the_whole_when_copied_together() {
    let bench = Bench::new();
    let runs = [Bench::run_of(Task::Nll, &[0, 1]), Bench::run_of(Task::Kv, &[0])];
    let (all, whole) = bench.evaluate("whole", &runs, Shard::ALL, None);
    let mut counts = Vec::new();
    for at in 0..2 {
        let (folder, shard) = (format!("part{at}"), Shard { at, of: 2 });
        // A part that was cut goes on with the rest of the same part.
        let (_, stopped) = bench.evaluate(&folder, &runs, shard, Some(3));
        assert!(matches!(stopped, Err(EvalError::Stopped { done: 3, .. })));
        let (cells, report) = bench.evaluate(&folder, &runs, shard, None);
        assert!(report.unwrap()[0].by_length[0].rows[0].items < 3);
        counts.push(3 + cells);
    }
    assert_eq!(counts.iter().sum::<usize>(), all);
    assert!(counts[0].abs_diff(counts[1]) <= 1);
    let root = bench.folder.path();
    for path in files(&root.join("part0")) {
        let to = root.join("part1").join(path.strip_prefix(root.join("part0")).unwrap());
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(&path, &to).unwrap();
    }
    let (none, report) = bench.evaluate("part1", &runs, Shard::NONE, None);
    assert_eq!((none, json(&report.unwrap())), (0, json(&whole.unwrap())));
}

#[test]
fn the_fingerprint_is_of_contents() {
    let bench = Bench::new();
    let root = bench.folder.path();
    let (model, copy) = (root.join("model"), root.join("copy"));
    std::fs::create_dir(&copy).unwrap();
    for entry in std::fs::read_dir(&model).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
    }
    std::fs::write(copy.join("README.md"), "says nothing").unwrap();
    let of = |path: &Path| fingerprint::of_model(path).unwrap();
    assert_eq!(of(&model), of(&copy));
    tiny::write_model(&copy, 6);
    assert_ne!(of(&model), of(&copy));
    let file = copy.join("model.safetensors");
    assert_eq!(of(&file), Digest::of(&std::fs::read(&file).unwrap()));
}
