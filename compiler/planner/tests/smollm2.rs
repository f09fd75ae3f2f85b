//! The real model on the synthetic tasks and on several turns: few items, short contexts.
//!
//! All are ignored, since the model is not in the repository. `cargo xtask test` fetches it and runs those whose names
//! start with `quick`, or:
//!
//! ```text
//! MOAC_MODEL=$(cargo xtask model) cargo test --workspace --test smollm2 -- --ignored --nocapture quick_synthetic
//! ```

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use moac_model::Model;
use moac_planner::eval::cells::Store;
use moac_planner::eval::report::{Accuracy, of_runs};
use moac_planner::eval::{Evaluation, Run, Shard, Task, fingerprint};
use moac_planner::tasks::{Corpus, Set, Synthetic};

#[test]
#[ignore = "needs the real model"]
#[allow(clippy::disallowed_methods)] // the list in the compiler is of what moac reads, not its tests
fn quick_synthetic_tasks_and_turns_are_answered() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = root.join(std::env::var_os("MOAC_MODEL").expect("set MOAC_MODEL"));
    let model = Model::open(&path).unwrap();
    let novel = root.join("runtime/model/tests/data/northanger-abbey.txt");
    let filler = Corpus::read(&[novel]).unwrap();
    let cells = tempfile::tempdir().unwrap();
    let run = |task: Task| Run {
        name: task.name().to_owned(),
        title: task.title().to_owned(),
        task,
        lengths: vec![1024],
        plans: Vec::new(),
        items: Some(1),
        long_items: None,
        questions: 1,
        facts: None,
        seed: 0,
        plain: false,
        set: Set::Report,
    };
    let evaluation = Evaluation {
        model: &model,
        fingerprint: fingerprint::of_model(&path).unwrap(),
        plans: &[],
        texts: &[],
        filler: Some(&filler),
        store: &Store::at(cells.path()),
        stop: &AtomicBool::new(false),
    };
    let start = Instant::now();
    let tasks = [Task::Synthetic(Synthetic::NeedleNoise), Task::Synthetic(Synthetic::Frequent), Task::Turns];
    let measured = evaluation.run(&tasks.map(run), Shard::ALL, &mut |_| ()).unwrap();
    println!("{:.1} s", start.elapsed().as_secs_f64());
    let reports = of_runs(&measured, &[]);
    let [needle, frequent, turns]: [&Accuracy; 3] =
        std::array::from_fn(|at| reports[at].by_length[0].rows[0].accuracy.as_ref().unwrap());
    for said in [needle, frequent, turns].iter().flat_map(|of| &of.contexts).flat_map(|context| &context.said)
    {
        println!("{:.2}: {:?} of {:?}", said.recall, said.text, said.expected);
    }
    // One needle among repeated sentences is what even this model finds.
    assert_eq!(needle.right, 1);
    assert_eq!(frequent.contexts[0].said[0].expected.len(), 3);
    assert_eq!((turns.parts.len(), turns.score.questions), (5, 5));
}
