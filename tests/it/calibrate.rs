//! `moac calibrate` on a tiny random model, as a shell runs it. Such a model solves no retrieval task.

use std::path::Path;

use moac_model::{CpuOptions, EngineOptions, Model, dense_plan};
use moac_planner::calibrate::{Mix, Options, calibrate};
use moac_planner::eval::fingerprint::of_model;
use moac_planner::items::{Items, Task};
use moac_planner::tasks::Corpus;
use moac_runtime::digest::Digest;

use crate::compile::{finish, moac};
use crate::tasks::folder;

fn run(folder: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    finish(&mut moac(folder, &[&["calibrate", "tiny", "-o", "items.jsonl"], args].concat()))
}

/// The error of a run that must fail; it writes nothing.
fn refused(folder: &Path, args: &[&str]) -> String {
    let (code, stdout, stderr) = run(folder, args);
    assert_eq!((code, stdout.as_str()), (Some(2), ""), "{stderr}");
    assert!(!folder.join("items.jsonl").exists());
    stderr
}

const SMALL: [&str; 8] = ["--data", "texts", "--lengths", "512,256", "--items", "4", "--answer-tokens", "12"];

#[test]
fn documents_are_answered_by_the_dense_model_itself() {
    let folder = folder();
    let folder = folder.path();
    let args = [&SMALL[..], &["--mix", "document=1", "--seed", "7"]].concat();
    let (code, stdout, stderr) = run(folder, &args);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.starts_with("items.jsonl: ") && stdout.contains("256, 512 tokens"), "{stdout}");
    let path = folder.join("items.jsonl");
    let items = Items::read(&path).unwrap();
    let model = Model::open(&folder.join("tiny")).unwrap();
    items.belongs_to(&model.tokenizer).unwrap();
    assert_eq!(items.header.seed, 7);
    let names: Vec<&str> = items.header.sources.iter().map(|source| source.name.as_str()).collect();
    assert_eq!(names, ["a.txt", "more/b.rst"]);
    let dense = dense_plan(&model.decoder.config().shape());
    let engine = model.cpu_engine(&dense, &[1024], &CpuOptions::default(), EngineOptions::default()).unwrap();
    for item in &items.items {
        assert_eq!(item.task, Task::Document);
        assert!(item.answer > item.length as usize - 12 - 40, "{} of {}", item.answer, item.length);
        let answer = &item.tokens[item.answer..];
        assert_eq!(model.tokenizer.decode(answer).unwrap(), item.text);
        let request = model.request(item.tokens[..item.answer].to_vec(), answer.len() as u32);
        assert_eq!(engine.submit(request).unwrap().answers().unwrap()[0].tokens, answer);
    }
    // The same call gives the same bytes, another seed does not.
    let first = std::fs::read(&path).unwrap();
    run(folder, &args);
    assert_eq!(std::fs::read(&path).unwrap(), first);
    run(folder, &[&SMALL[..], &["--mix", "document=1"]].concat());
    assert_ne!(std::fs::read(&path).unwrap(), first);
    assert!(!folder.join("items.jsonl.part").exists());
    // A file less is another corpus.
    run(folder, &[&args[..], &["--without", "more/b.rst"]].concat());
    let items = Items::read(&path).unwrap();
    assert!(items.header.sources.len() == 1 && items.items.iter().all(|item| item.source == "a.txt"));
}

#[test]
fn a_question_of_the_data_is_asked() {
    let folder = folder();
    let folder = folder.path();
    let text = "Some words that stand in a line. ".repeat(40);
    let line = serde_json::json!({"document": text, "question": "Who is it?"}).to_string();
    let short = serde_json::json!({"document": "Too short.", "question": "Why?"}).to_string();
    std::fs::write(folder.join("data.jsonl"), format!("{short}\n\n{line}\n")).unwrap();
    let args = [
        "--data",
        "data.jsonl",
        "--lengths",
        "512",
        "--items",
        "2",
        "--mix",
        "document=1",
        "--answer-tokens",
        "8",
    ];
    let (code, _, stderr) = run(folder, &args);
    assert_eq!(code, Some(0), "{stderr}");
    let model = Model::open(&folder.join("tiny")).unwrap();
    for item in Items::read(&folder.join("items.jsonl")).unwrap().items {
        assert_eq!(item.source, "data.jsonl:3");
        let prompt = model.tokenizer.decode(&item.tokens[..item.answer]).unwrap();
        let end = "\n\nWho is it?<|im_end|>\n<|im_start|>assistant\n";
        assert!(prompt.ends_with(end) && prompt.contains("\n\nSome words that"), "{prompt}");
    }
    let too_long = [&args[..2], &["--lengths", "1024", "--mix", "document=1"], &["--without", "x"]].concat();
    std::fs::remove_file(folder.join("items.jsonl")).unwrap();
    assert!(refused(folder, &too_long).contains("there is no text `x`"));
    std::fs::write(folder.join("data.jsonl"), format!("{short}\n")).unwrap();
    assert!(refused(folder, &args).contains("the texts have "));
}

#[test]
fn a_run_that_was_cut_goes_on() {
    let folder = folder();
    let folder = folder.path();
    let model = Model::open(&folder.join("tiny")).unwrap();
    let corpus = Corpus::read(&[folder.join("texts")]).unwrap();
    let options = Options {
        lengths: vec![256],
        items: 5,
        seed: 1,
        mix: "document=4,passkey=1".parse::<Mix>().unwrap(),
        answer_tokens: 10,
    };
    let fingerprint = of_model(&folder.join("tiny")).unwrap();
    let (whole, cut) = (folder.join("whole.jsonl"), folder.join("cut.jsonl"));
    let all = calibrate(&model, fingerprint, &corpus, &options, &whole, |_, _, _| ()).unwrap();
    assert_eq!((all.given_up, all.resumed), (1, 0));
    let part = folder.join("cut.jsonl.part");
    let run = || {
        calibrate(&model, fingerprint, &corpus, &options, &cut, |done, _, _| assert!(done < 3, "interrupted"))
    };
    let interrupted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    assert!(interrupted.is_err() && !cut.exists());
    // The end of the last line is lost, as where the disk was full.
    let bytes = std::fs::read(&part).unwrap();
    std::fs::write(&part, &bytes[..bytes.len() - 5]).unwrap();
    let rest = calibrate(&model, fingerprint, &corpus, &options, &cut, |_, _, _| ()).unwrap();
    assert_eq!((rest.resumed, &rest.items, rest.tally), (2, &all.items, all.tally));
    assert_eq!(std::fs::read(&cut).unwrap(), std::fs::read(&whole).unwrap());
    assert!(!part.exists());
    // What another run left is of no use, nor what another model wrote.
    std::fs::write(&part, &bytes).unwrap();
    let (model, corpus, options) = (&model, &corpus, &options);
    let stranger = Digest::of(b"other weights");
    assert_eq!(calibrate(model, stranger, corpus, options, &cut, |_, _, _| ()).unwrap().resumed, 0);
    std::fs::write(&part, &bytes).unwrap();
    let other = Options { seed: 2, ..options.clone() };
    assert_eq!(calibrate(model, fingerprint, corpus, &other, &cut, |_, _, _| ()).unwrap().resumed, 0);
}

#[test]
fn bad_input_is_refused_and_nothing_is_written() {
    let folder = folder();
    let folder = folder.path();
    let says = |args: &[&str], text: &str| {
        let said = refused(folder, args);
        assert!(said.contains(text), "{said}");
    };
    let expected = "expected a multiple of 64 from 256 to the model's context of 1024";
    for length in ["100", "192", "1088", "0"] {
        says(&["--data", "texts", "--lengths", length], expected);
    }
    says(&["--data", "texts", "--mix", "needle=1"], "expected tasks with shares");
    says(&["--data", "nowhere"], "cannot read `nowhere`");
    std::fs::create_dir(folder.join("empty")).unwrap();
    std::fs::write(folder.join("empty/x.png"), "no text").unwrap();
    says(&["--data", "empty"], "`empty` contains no text");
    std::fs::write(folder.join("latin.txt"), b"caf\xe9").unwrap();
    says(&["--data", "latin.txt"], "`latin.txt` is not UTF-8 text: byte 3");
    std::fs::write(folder.join("x.jsonl"), "{\"text\": \"a\"}\n[]\n").unwrap();
    says(&["--data", "x.jsonl"], "`x.jsonl`, line 2: found no object");
    // A model that solves nothing leaves nothing to profile.
    let args = ["--data", "texts", "--lengths", "256", "--items", "1", "--mix", "passkey=1"];
    says(&args, "none of the 1 items could be made");
    // Text without a word that the vocabulary can spell.
    std::fs::write(folder.join("odd.txt"), "\u{4}\u{4} \u{4}").unwrap();
    says(&["--data", "odd.txt", "--lengths", "256", "--items", "1"], "the texts have ");
}
