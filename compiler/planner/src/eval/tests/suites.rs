//! Suite files, good and bad.

use std::path::Path;

use moac_model::dense_plan;
use moac_runtime::plan::{ModelShape, Plan};

use super::super::suite::{Suite, read};
use super::super::{EvalError, Task};

fn plan() -> Plan {
    dense_plan(&ModelShape {
        name: "m".into(),
        num_layers: 1,
        num_heads: 1,
        num_kv_heads: 1,
        head_dim: 64,
        rope_theta: None,
        context: None,
        softmax_scale: None,
    })
}

fn parse(text: &str) -> Result<Suite, EvalError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("suite.json");
    std::fs::write(&path, text).unwrap();
    read(&path, |file: &Path| {
        // Plans are meant relative to the suite.
        assert_eq!(file.parent(), Some(folder.path()));
        Ok(plan())
    })
}

const PLANS: &str = r#""plans": [{"name": "a", "file": "a.json"}, {"name": "b", "file": "b.json"}]"#;

#[test]
fn runs_have_defaults_and_mean_plans_by_name() {
    let suite = parse(&format!(
        r#"{{"title": "t", {PLANS}, "runs": [
            {{"name": "one", "task": "nll", "lengths": "2048,1024..1536:256"}},
            {{"name": "two", "task": "kv", "lengths": "8192", "plans": ["b"], "items": 3, "questions": 7, "seed": 5}},
            {{"name": "three", "task": "kv", "lengths": "1024", "items": 100, "long_items": 40}}]}}"#
    ))
    .unwrap();
    let [one, two, three] = suite.runs.as_slice() else { panic!("{suite:?}") };
    assert_eq!((one.task, one.lengths.as_slice()), (Task::Nll, &[1024, 1280, 1536, 2048][..]));
    assert_eq!(
        (one.plans.as_slice(), one.items_at(2048), one.title.as_str()),
        (&[0, 1][..], 8, "Loss on text")
    );
    assert_eq!((two.plans.as_slice(), two.items_at(8192), two.questions, two.seed), (&[1][..], 3, 7, 5));
    assert_eq!([1024, 7680, 8192].map(|length| three.items_at(length)), [100, 100, 40]);
    let retrieval = parse(r#"{"runs": [{"name": "r", "task": "passkey", "lengths": "1024,8192"}]}"#).unwrap();
    // At least 100 questions, and 40 where an item takes long.
    let run = &retrieval.runs[0];
    assert_eq!([1024, 7680, 8192].map(|length| run.items_at(length) * run.questions), [100, 100, 40]);
}

#[test]
fn what_is_wrong_is_named() {
    let run = |fields: &str| format!(r#"{{{PLANS}, "runs": [{{{fields}}}]}}"#);
    for (text, expected) in [
        ("{".to_owned(), "EOF"),
        (r#"{"runs": [], "plan": []}"#.to_owned(), "unknown field `plan`"),
        (run(r#""name": "r", "task": "nll", "lengths": "1k""#), "`1k` is not a length"),
        (run(r#""name": "r", "task": "mmlu", "lengths": "1024""#), "unknown variant `mmlu`"),
        (run(r#""name": "../r", "task": "nll", "lengths": "1024""#), "invalid run name `../r`"),
        (run(r#""name": "", "task": "nll", "lengths": "1024""#), "invalid run name ``"),
        (
            run(r#""name": "r", "task": "nll", "lengths": "1024", "plans": ["c"]"#),
            "the run `r` names the plan `c`, but the suite only has a, b",
        ),
        (
            run(
                r#""name": "r", "task": "nll", "lengths": "64"}, {"name": "r", "task": "kv", "lengths": "64""#,
            ),
            "two runs are called `r`",
        ),
        (
            PLANS.replace("\"b\"", "\"a\"").replacen("\"plans\"", "{\"runs\": [], \"plans\"", 1) + "}",
            "two plans are called `a`",
        ),
        (
            PLANS.replace("\"b\"", "\"dense\"").replacen("\"plans\"", "{\"runs\": [], \"plans\"", 1) + "}",
            "two plans are called `dense`",
        ),
        (r#"{"runs": []}"#.to_owned(), "suite.json` contains no runs"),
    ] {
        let error = parse(&text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
    let missing = read(Path::new("/nowhere/suite.json"), |_: &Path| Ok::<_, EvalError>(plan())).unwrap_err();
    assert!(missing.to_string().contains("cannot read `/nowhere/suite.json`"), "{missing}");
}

#[test]
fn the_suite_of_the_tables_is_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../benches/eval/suite.json");
    // Only in the repository: packages do not hold it.
    if path.exists() {
        let suite = read(&path, |_: &Path| Ok::<_, EvalError>(plan())).unwrap();
        let long =
            |task: Task| suite.runs.iter().any(|run| run.task == task && run.lengths.last() == Some(&8192));
        assert!(Task::QUICK.into_iter().all(long));
    }
}
