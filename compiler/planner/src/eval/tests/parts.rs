//! Runs of several tasks and of several turns: what is told of each part, against sums done by hand, and whole runs of a tiny
//! random model.

use moac_model::dense_plan;
use moac_runtime::plan::ModelShape;

use super::super::cells::{Answer, Outcome};
use super::super::items::{Input, Item};
use super::super::report::{Accuracy, of_runs};
use super::super::run::AtLength;
use super::super::{Measured, Method, NamedPlan, Run, Shard, Spans, Task};
use super::runs::Bench;
use crate::tasks::{Dialog, FactKind, Prompt, Set, Synthetic, Turn};

fn run(task: Task, plans: &[usize]) -> Run {
    Run { task, items: Some(1), ..Bench::run_of(Task::Kv, plans) }
}

fn dialog(expected: &[&[&str]]) -> Input {
    let turn = |texts: &&[&str]| Turn {
        tokens: vec![1],
        limit: 4,
        expected: texts.iter().map(|&text| text.to_owned()).collect(),
        depth: 0.25,
    };
    let turns = expected.iter().map(turn).collect();
    Input::Dialog(Dialog { id: "d".into(), context: vec![1, 2], turns, stop: None, source: "s".into() })
}

fn item(task: Task, part: Option<&'static str>, input: Input) -> Item {
    Item { name: "i".into(), task, part, text: "t".into(), input }
}

#[expect(clippy::unnecessary_wraps, reason = "an item without an outcome is `None`")]
fn said(texts: &[&str]) -> Option<Outcome> {
    Some(Outcome::Said(texts.iter().map(|&text| text.to_owned()).collect()))
}

/// The rows of a run at one length: of dense attention, and of a plan.
fn accuracies(items: Vec<Item>, dense: Vec<Option<Outcome>>, plan: Vec<Option<Outcome>>) -> [Accuracy; 2] {
    let shape = ModelShape {
        name: "m".into(),
        num_layers: 1,
        num_heads: 1,
        num_kv_heads: 1,
        head_dim: 64,
        rope_theta: None,
        context: None,
        softmax_scale: None,
    };
    let plans = [NamedPlan { name: "p".into(), plan: dense_plan(&shape) }];
    let spans = || Spans::new(&plans[0].plan, 256);
    let methods = vec![(Method::Dense, spans(), dense), (Method::Plan(0), spans(), plan)];
    let at = AtLength { length: 256, items, methods };
    let measured = Measured { run: run(Task::Ruler, &[]), lengths: vec![at] };
    let rows = of_runs(&[measured], &plans)[0].by_length[0].rows.clone();
    let mut accuracies = rows.into_iter().map(|row| row.accuracy.unwrap());
    std::array::from_fn(|_| accuracies.next().unwrap())
}

fn near(found: Option<f64>, expected: f64) {
    assert!(found.is_some_and(|found| (found - expected).abs() < 1e-12), "{found:?}, expected {expected}");
}

#[test]
fn each_task_is_told_and_those_that_dense_passes_together() {
    let of = |name, expected: &[&str]| item(Task::Ruler, Some(name), dialog(&[expected]));
    let items = || {
        vec![
            of("a", &["11", "22"]),
            of("a", &["33", "44"]),
            of("b", &["55"]),
            of("b", &["66"]),
            of("c", &["77"]),
        ]
    };
    let dense = || vec![said(&["11 22"]), said(&["44, 33"]), said(&["55"]), said(&["no"]), said(&["77"])];
    let plan = vec![said(&["22"]), said(&["33 44"]), said(&["55"]), said(&["66"]), said(&["x"])];
    let [dense_row, plan_row] = accuracies(items(), dense(), plan);
    near(Some(dense_row.score.share), 4.0 / 5.0);
    near(Some(plan_row.score.share), 3.5 / 5.0);
    near(plan_row.score.of_dense, 3.5 / 4.0);
    assert_eq!((dense_row.right, plan_row.right, plan_row.score.questions), (4, 3, 5));
    let parts: Vec<(&str, f64, usize)> =
        plan_row.parts.iter().map(|p| (p.name.as_str(), p.score.share, p.score.questions)).collect();
    assert_eq!(parts, [("a", 0.75, 2), ("b", 1.0, 2), ("c", 0.0, 1)]);
    near(plan_row.parts[1].score.of_dense, 2.0);
    // Dense attention has half of b right, and passes the others.
    let passed = plan_row.passed.unwrap();
    assert_eq!((passed.name.as_str(), passed.score.questions), ("the 2 that dense passes", 3));
    near(Some(passed.score.share), 0.5);
    near(passed.score.of_dense, 0.5);
    assert_eq!(plan_row.contexts[0].said[0].recall.to_bits(), 0.5_f64.to_bits());
    assert!(plan_row.loss.is_none());
    // Nothing was measured of a task under dense attention: it is not known to be passed.
    let [_, row] = accuracies(items(), vec![said(&["11 22"]), None, None, None, None], dense());
    assert!(row.passed.is_none());
}

#[test]
fn each_turn_is_told() {
    let turns = || item(Task::Turns, None, dialog(&[&["1"], &["2"], &["3"]]));
    let dense = vec![said(&["1", "2", "3"]), said(&["1", "x", "3"])];
    let plan = vec![said(&["1", "2", "x"]), said(&["1", "2", "x"])];
    let [dense, plan] = accuracies(vec![turns(), turns()], dense, plan);
    let shares = |row: &Accuracy| row.parts.iter().map(|part| part.score.share).collect::<Vec<_>>();
    assert_eq!((shares(&dense), shares(&plan)), (vec![1.0, 0.5, 1.0], vec![1.0, 1.0, 0.0]));
    near(plan.parts[1].score.of_dense, 2.0);
    assert_eq!(plan.parts[2].name, "question 3");
    assert!(plan.passed.is_none());
}

#[test]
fn facts_are_told_by_kind_with_their_losses() {
    let prompt = || Prompt { id: "p".into(), context: vec![1], questions: Vec::new(), source: "s".into() };
    let of = |kind: FactKind| item(Task::Facts, Some(kind.name()), Input::Prompt(prompt()));
    let answers = |right: &[bool]| {
        let answer = |&right: &bool| Answer { depth: 0.5, right, loss: if right { 0.0 } else { 3.0 } };
        Some(Outcome::Answers(right.iter().map(answer).collect()))
    };
    let items = vec![of(FactKind::Uuid), of(FactKind::Word)];
    let dense = vec![answers(&[true, true, true]), answers(&[true, false])];
    let plan = vec![answers(&[true, false, true]), answers(&[true, true])];
    let [_, plan] = accuracies(items, dense, plan);
    near(Some(plan.score.share), 0.8);
    near(plan.loss, 0.6);
    near(plan.parts[0].score.of_dense, 2.0 / 3.0);
    assert_eq!((plan.passed.unwrap().score.questions, plan.right), (3, 4));
}

#[test]
fn a_run_of_all_tasks_shares_its_cells_with_each() {
    let bench = Bench::new();
    let (cells, report) = bench.evaluate("cells", &[run(Task::Ruler, &[])], Shard::ALL, None);
    assert_eq!(cells, Synthetic::ALL.len());
    let report = report.unwrap();
    let row = report[0].by_length[0].rows[0].accuracy.as_ref().unwrap();
    let names: Vec<&str> = row.parts.iter().map(|part| part.name.as_str()).collect();
    assert_eq!((names, row.score.questions), (Synthetic::ALL.map(Synthetic::name).to_vec(), 11));
    let one = [run(Task::Synthetic(Synthetic::Tracing), &[])];
    let (none, again) = bench.evaluate("cells", &one, Shard::ALL, None);
    let again = again.unwrap();
    let own = &again[0].by_length[0].rows[0].accuracy.as_ref().unwrap().contexts[0].said;
    assert_eq!((none, own), (0, &row.contexts[8].said));
    // Another seed is another item; without the template that this model lacks, it is the same one.
    let tracing = &one[0];
    for (other, cells) in
        [(Run { plain: true, ..tracing.clone() }, 0), (Run { seed: 1, ..tracing.clone() }, 1)]
    {
        assert_eq!(bench.evaluate("cells", &[other], Shard::ALL, None).0, cells);
    }
    let facts = Run { questions: 1, ..run(Task::Facts, &[]) };
    for run in [facts.clone(), Run { set: Set::Choice, ..facts }] {
        let (cells, report) = bench.evaluate("cells", &[run], Shard::ALL, None);
        let parts = report.unwrap()[0].by_length[0].rows[0].accuracy.as_ref().unwrap().parts.len();
        assert_eq!((cells, parts), (FactKind::ALL.len(), FactKind::ALL.len()));
    }
}
