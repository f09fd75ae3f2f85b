//! Keys change with every input that matters; cells are whole, or measured again.

use moac_runtime::digest::Digest;

use super::super::Task;
use super::super::cells::{About, Answer, Cell, FORMAT, Key, Outcome, Store};
use super::super::items::{Input, Text, windows};
use crate::tasks::{Prompt, Question};

fn key() -> Key {
    Key {
        format: FORMAT.to_owned(),
        model: Digest::of(b"model"),
        task: Task::Nll,
        length: 1024,
        spans: Digest::of(b"spans"),
        input: Digest::of(b"input"),
    }
}

fn cell(outcome: Outcome) -> Cell {
    let about = About { model: "m".into(), item: "i".into(), method: "dense".into() };
    Cell { key: key(), about, outcome }
}

#[test]
fn every_field_of_a_key_makes_another() {
    let others = [
        Key { format: "moac.cell/0".into(), ..key() },
        Key { model: Digest::of(b"another"), ..key() },
        Key { task: Task::Kv, ..key() },
        Key { length: 1088, ..key() },
        Key { spans: Digest::of(b"another"), ..key() },
        Key { input: Digest::of(b"another"), ..key() },
    ];
    let mut digests: Vec<Digest> = others.iter().map(Key::digest).collect();
    digests.push(key().digest());
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), others.len() + 1);
    assert_eq!(key().digest(), key().digest());
}

#[test]
fn inputs_differ_by_their_tokens_and_by_nothing_else() {
    let question = |tokens: &[u32], answer: &[u32]| Question {
        tokens: tokens.to_vec(),
        answer: answer.to_vec(),
        depth: 0.5,
        key: "k".into(),
        value: "v".into(),
    };
    let prompt = |context: &[u32], questions: Vec<Question>| {
        Input::Prompt(Prompt { id: "p".into(), context: context.to_vec(), questions, source: "s".into() })
    };
    let base = prompt(&[1, 2, 3], vec![question(&[4, 5], &[6])]);
    let others = [
        prompt(&[1, 2], vec![question(&[3, 4, 5], &[6])]),
        prompt(&[1, 2, 3], vec![question(&[4], &[5, 6])]),
        prompt(&[1, 2, 3], vec![question(&[4, 5], &[7])]),
        prompt(&[1, 2, 3], vec![question(&[4, 5], &[6]), question(&[4, 5], &[6])]),
        prompt(&[1, 2, 3], Vec::new()),
        Input::Window(vec![1, 2, 3]),
    ];
    for (at, other) in others.iter().enumerate() {
        assert_ne!(other.digest(), base.digest(), "{at}");
    }
    let Input::Prompt(mut same) = base.clone() else { unreachable!() };
    same.id = "another".into();
    same.source = "another".into();
    same.questions[0].key = "another".into();
    same.questions[0].depth = 0.25;
    assert_eq!(Input::Prompt(same).digest(), base.digest());
}

#[test]
fn cells_come_back_to_the_last_bit_and_damage_is_no_cell() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::at(&folder.path().join("cells"));
    assert_eq!(store.load(&key()), None);
    for outcome in [
        Outcome::Losses(vec![0.1, f32::MIN_POSITIVE, 3.456_789, 16_777_217.0]),
        Outcome::Answers(vec![Answer { depth: 0.1 + 0.2, right: true, loss: 1.0 / 3.0 }]),
    ] {
        store.save(&cell(outcome.clone())).unwrap();
        assert_eq!(store.load(&key()), Some(outcome));
    }
    let path = store.path(&key());
    let other = Key { length: 2048, ..key() };
    std::fs::create_dir_all(store.path(&other).parent().unwrap()).unwrap();
    std::fs::copy(&path, store.path(&other)).unwrap();
    assert_eq!(store.load(&other), None, "a cell under another's name");
    let bytes = std::fs::read(&path).unwrap();
    for cut in [0, 1, bytes.len() / 2, bytes.len() - 2] {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        assert_eq!(store.load(&key()), None, "cut at {cut}");
    }
    // Nothing but cells is left lying about.
    let files = std::fs::read_dir(path.parent().unwrap()).unwrap().count();
    assert_eq!(files, 1);
}

#[test]
fn windows_go_around_the_texts_and_more_begin_with_the_same() {
    let text = |name: &str, from: u32, count: u32| Text {
        name: name.into(),
        tokens: (from..from + count).collect(),
    };
    let texts = [text("a", 0, 250), text("b", 1000, 80), text("c", 2000, 128)];
    let found = windows(&texts, 64, 99).unwrap();
    let names: Vec<&str> = found.iter().map(|item| item.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "a from token 0",
            "b from token 0",
            "c from token 0",
            "a from token 64",
            "c from token 64",
            "a from token 128"
        ]
    );
    assert_eq!(found[3].input, Input::Window((64..128).collect()));
    assert_eq!(windows(&texts, 64, 4).unwrap(), found[..4]);
    let error = windows(&texts, 256, 4).unwrap_err().to_string();
    assert!(error.contains("256") && error.contains("250"), "{error}");
}
