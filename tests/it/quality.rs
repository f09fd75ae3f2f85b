//! `moac profile`, `moac refine`, `moac validate` and `moac plan` on a tiny random model, as a shell runs them.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use moac_model::{Cache, Model, dense_plan};
use moac_planner::eval::fingerprint::of_model;
use moac_planner::items::{self, Header, ITEMS_FORMAT, Item, Items, Task};
use moac_planner::refine::{self, Options, RefineError, Slopes};
use moac_planner::search::influence::Influence;
use moac_runtime::plan::Plan;
use serde_json::{Value, json};

use crate::compile::{finish, moac};
use crate::generate::{folder, narrow};

/// Items of two lengths: a stretch of random tokens, the last of which are the answer.
fn write_items(folder: &Path) -> Items {
    let model = Model::open(&folder.join("tiny")).unwrap();
    let vocab = model.decoder.config().vocab_size as u32;
    let item = |(number, task, length, tokens): (u32, Task, u32, u32)| Item {
        id: format!("{task}-{number}"),
        task,
        length,
        tokens: (0..tokens).map(|at| (at * at * 31 + number * 17 + at * 7) % vocab).collect(),
        answer: tokens as usize - 9,
        source: "none".to_owned(),
        text: String::new(),
    };
    let header = Header {
        format: ITEMS_FORMAT.to_owned(),
        model: "tiny".to_owned(),
        tokenizer: items::vocabulary(&model.tokenizer),
        seed: 3,
        sources: Vec::new(),
    };
    let all = [
        (0, Task::Document, 256, 256),
        (1, Task::Kv, 256, 199),
        (2, Task::Document, 256, 230),
        (3, Task::Document, 320, 318),
    ];
    let items = Items { header, items: all.map(item).to_vec() };
    items.write(&folder.join("items.jsonl")).unwrap();
    items
}

fn run(folder: &Path, args: &[&str]) -> (String, String) {
    let (code, stdout, stderr) = finish(&mut moac(folder, args));
    assert_eq!(code, Some(0), "{stderr}");
    (stdout, stderr)
}

fn refused(folder: &Path, args: &[&str]) -> String {
    let (code, stdout, stderr) = finish(&mut moac(folder, args));
    assert_eq!((code, stdout.as_str()), (Some(2), ""), "{stderr}");
    stderr
}

fn kept(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn a_profile_goes_on_where_it_was_and_is_the_same_on_any_number_of_threads() {
    let folder = folder();
    let folder = folder.path();
    let items = write_items(folder);
    let profile = ["profile", "tiny", "items.jsonl", "--measure", "signed", "-o"];
    let also = ["--also", "absolute=absolute.safetensors"];
    let (stdout, stderr) = run(folder, &[&profile[..], &["a.safetensors", "--json"], &also].concat());
    assert!(stderr.contains("GFLOP/s"), "{stderr}");
    let told: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((told[0]["length"].as_u64(), told[0]["items"].as_u64()), (Some(256), Some(3)));
    assert_eq!(told[0]["tokens"].as_u64(), Some(256 + 199 + 230));
    // The loss that it tells is that of the forward pass.
    let model = Model::open(&folder.join("tiny")).unwrap();
    let dense = dense_plan(&model.decoder.config().shape());
    let loss = |item: &Item, plan: &Plan, length| {
        let losses = model.decoder.losses(&item.tokens, &mut Cache::new(plan, length).unwrap()).unwrap();
        let answer = &losses[item.answer - 1..];
        answer.iter().map(|&loss| f64::from(loss)).sum::<f64>() / answer.len() as f64
    };
    let expected = items.items[..3].iter().map(|item| loss(item, &dense, 256)).sum::<f64>() / 3.0;
    assert!((told[0]["loss"].as_f64().unwrap() - expected).abs() < 1e-5);

    let influence = Influence::read(&folder.join("a.safetensors")).unwrap();
    assert_eq!(
        influence.lengths.iter().map(|at| (at.length, at.items)).collect::<Vec<_>>(),
        [(256, 3), (320, 1)]
    );
    assert!((influence.seed, influence.absolute, influence.windows) == (3, false, false));
    let absolute = Influence::read(&folder.join("absolute.safetensors")).unwrap();
    assert!(absolute.absolute);
    for (signed, magnitude) in influence.lengths[0].far.iter().zip(&absolute.lengths[0].far) {
        assert!(signed.abs() <= magnitude * 1.000_01, "{signed} {magnitude}");
    }
    assert!(influence.lengths[0].far.iter().any(|&sum| sum < 0.0));

    // A file that is gone and one that is damaged are made again; nothing else is. With one thread, the same bytes.
    let files = kept(&folder.join("a.safetensors.items"));
    assert_eq!(files.len(), 4);
    let whole = fs::read(&files[0]).unwrap();
    fs::write(&files[0], &whole[..whole.len() / 2]).unwrap();
    fs::remove_file(&files[1]).unwrap();
    fs::write(folder.join("a.safetensors.items/other"), "not ours").unwrap();
    let untouched = fs::metadata(&files[2]).unwrap().modified().unwrap();
    let first = fs::read(folder.join("a.safetensors")).unwrap();
    let mut again =
        moac(folder, &[&profile[..], &["b.safetensors", "--work", "a.safetensors.items"]].concat());
    assert_eq!(finish(again.env("RAYON_NUM_THREADS", "1")).0, Some(0));
    assert_eq!(fs::read(folder.join("b.safetensors")).unwrap(), first);
    assert_eq!(fs::read(&files[0]).unwrap(), whole);
    assert_eq!(fs::metadata(&files[2]).unwrap().modified().unwrap(), untouched);
    let (_, stderr) =
        run(folder, &[&profile[..], &["b.safetensors", "--work", "a.safetensors.items"]].concat());
    assert!(!stderr.contains("GFLOP/s"), "nothing is left to compute: {stderr}");
}

#[test]
fn a_profile_that_cannot_be_made_says_why() {
    let folder = folder();
    let folder = folder.path();
    write_items(folder);
    let profile = |args: &[&str]| {
        refused(folder, &[&["profile", "tiny", "items.jsonl", "-o", "a.safetensors"], args].concat())
    };
    let error = profile(&["--lengths", "512"]);
    assert!(error.contains("there are no items of 512 tokens, only "), "{error}");
    let error = profile(&["--lengths", "320", "--tasks", "kv"]);
    assert!(error.contains("no kv items of 320 tokens"), "{error}");
    let error = profile(&["--lengths", "100"]);
    assert!(error.contains("--lengths: found 100, expected a multiple of 64 up to 1024"), "{error}");
    let text = fs::read_to_string(folder.join("items.jsonl")).unwrap();
    let (header, rest) = text.split_once('\n').unwrap();
    let digest: Value = serde_json::from_str(header).unwrap();
    let other = header.replace(digest["tokenizer"].as_str().unwrap(), &"0".repeat(64));
    fs::write(folder.join("items.jsonl"), format!("{other}\n{rest}")).unwrap();
    let error = profile(&[]);
    assert!(error.contains("made with another vocabulary") || error.contains("this model's is"), "{error}");
    assert!(!folder.join("a.safetensors").exists());
}

#[test]
fn the_plan_with_the_lowest_loss_is_chosen_and_says_so() {
    let folder = folder();
    let folder = folder.path();
    let items = write_items(folder);
    let model = Model::open(&folder.join("tiny")).unwrap();
    let (narrow_path, narrow) = narrow(folder);
    let mut wide = dense_plan(&model.decoder.config().shape());
    wide.betas.iter_mut().flatten().for_each(|beta| *beta = 0.7);
    wide.provenance = Some(serde_json::json!({"method": "by hand"}));
    fs::create_dir(folder.join("plans")).unwrap();
    fs::rename(&narrow_path, folder.join("plans/narrow.json")).unwrap();
    fs::write(folder.join("plans/wide.json"), serde_json::to_string(&wide).unwrap()).unwrap();
    let args = ["validate", "tiny", "plans", "--items", "items.jsonl", "--length", "256", "-o", "best.json"];
    let (stdout, _) = run(folder, &[&args[..], &["--json"]].concat());
    let told: Value = serde_json::from_str(&stdout).unwrap();
    let dense = dense_plan(&model.decoder.config().shape());
    let loss = |plan: &Plan| {
        let of = |item: &Item| {
            let losses = model.decoder.losses(&item.tokens, &mut Cache::new(plan, 256).unwrap()).unwrap();
            let answer = &losses[item.answer - 1..];
            answer.iter().map(|&loss| f64::from(loss)).sum::<f64>() / answer.len() as f64
        };
        items.items[..3].iter().map(of).sum::<f64>() / 3.0
    };
    let expected = [loss(&narrow), loss(&wide)];
    for (at, name) in ["narrow", "wide"].into_iter().enumerate() {
        assert_eq!(told["plans"][at]["name"], name);
        let found = &told["plans"][at];
        assert!((found["loss"].as_f64().unwrap() - expected[at]).abs() < 1e-5, "{found}");
        let over = found["over_dense"].as_f64().unwrap();
        assert!((over - (expected[at] - loss(&dense))).abs() < 1e-5, "{found}");
    }
    let best = usize::from(expected[1] < expected[0]);
    assert_eq!(told["best"].as_u64(), Some(best as u64));
    let chosen: Value = serde_json::from_slice(&fs::read(folder.join("best.json")).unwrap()).unwrap();
    let validation = &chosen["provenance"]["validation"];
    assert_eq!((validation["length"].as_u64(), validation["items"].as_u64()), (Some(256), Some(3)));
    assert!((validation["loss"].as_f64().unwrap() - expected[best]).abs() < 1e-5);
    // The losses were kept: the same answer without the model computing anything.
    assert_eq!(kept(&folder.join(".moac/losses")).len(), 9);
    assert_eq!(run(folder, &[&args[..], &["--json"]].concat()).0, stdout);
    let error = refused(folder, &["validate", "tiny", "plans", "--items", "items.jsonl", "--length", "512"]);
    assert!(error.contains("there are no items of 512 tokens, only "), "{error}");
}

#[test]
fn what_validation_cannot_compare_is_refused() {
    let folder = folder();
    let folder = folder.path();
    let mut items = write_items(folder);
    let (plan, _) = narrow(folder);
    let plan = plan.to_str().unwrap();
    fs::create_dir(folder.join("empty")).unwrap();
    let args = ["validate", "tiny", plan, "--items", "items.jsonl", "--length", "256", "-o", "best.json"];
    let with = |at: usize, what: &'static str| {
        let mut args = args.to_vec();
        args[at] = what;
        refused(folder, &args)
    };
    assert!(with(2, "empty").contains("found no plan to validate: give plan files, or folders"));
    assert!(with(8, "empty").contains("cannot write `empty`: is a directory"));
    assert!(with(8, "missing/best.json").contains("its folder does not exist"));
    assert!(refused(folder, &[&args[..], &["--most", "0"]].concat()).contains("`0` is out of range"));
    // A token that the model does not have, where only its loss would be asked for.
    *items.items[0].tokens.last_mut().unwrap() = u32::MAX;
    items.write(&folder.join("items.jsonl")).unwrap();
    let error = refused(folder, &args);
    assert!(error.contains("item `document-0`: a token is 4294967295, expected below"), "{error}");
    assert!(!folder.join("best.json").exists());
}

#[test]
fn damaged_sums_are_made_again_and_lengths_have_their_own_ablations() {
    let folder = folder();
    let folder = folder.path();
    let mut items = write_items(folder);
    let args = ["profile", "tiny", "items.jsonl", "--measure", "fisher", "-o", "a.safetensors"];
    run(folder, &args);
    let whole = fs::read(folder.join("a.safetensors")).unwrap();
    for file in kept(&folder.join("a.safetensors.items")) {
        let mut bytes = fs::read(&file).unwrap();
        *bytes.last_mut().unwrap() ^= 0x10;
        fs::write(&file, bytes).unwrap();
    }
    run(folder, &args);
    assert_eq!(fs::read(folder.join("a.safetensors")).unwrap(), whole);
    // The same tokens as an item of two lengths, whose windows differ in number.
    let [short, long] = [256, 1024].map(|length| Item { length, ..items.items[1].clone() });
    items.items = vec![short, Item { id: "long".to_owned(), ..long }];
    items.write(&folder.join("items.jsonl")).unwrap();
    run(folder, &["profile", "tiny", "items.jsonl", "--measure", "ablation", "-o", "b.safetensors"]);
    assert_eq!(Influence::read(&folder.join("b.safetensors")).unwrap().lengths.len(), 2);
}

#[test]
fn a_refined_plan_keeps_its_bytes_and_goes_on_where_it_was() {
    let folder = folder();
    let folder = folder.path();
    let items = write_items(folder);
    let model = Model::open(&folder.join("tiny")).unwrap();
    let (path, narrow) = narrow(folder);
    // Spans that can be moved both ways.
    let narrow = Plan { alphas: vec![vec![192.0; narrow.alphas[0].len()]; narrow.alphas.len()], ..narrow };
    fs::write(&path, serde_json::to_string(&narrow).unwrap()).unwrap();
    let path = path.to_str().unwrap();
    let run_refine = |out: &str, more: &[&str]| {
        let args = [
            "refine",
            "tiny",
            path,
            "items.jsonl",
            "--steps",
            "3",
            "--batch",
            "2",
            "--rate",
            "1",
            "--json",
            "-o",
            out,
        ];
        let (stdout, _) = run(folder, &[&args[..], more].concat());
        let plan: Plan = serde_json::from_slice(&fs::read(folder.join(out)).unwrap()).unwrap();
        (serde_json::from_str::<Value>(&stdout).unwrap(), plan)
    };
    let (told, refined) = run_refine("a.json", &[]);
    // The losses of the first step are those of the forward pass under the plan that it began with: the first two items
    // of 256 tokens, and the only one of 320 twice.
    let loss = |item: &Item| {
        let mut cache = Cache::new(&narrow, item.length).unwrap();
        let losses = model.decoder.losses(&item.tokens, &mut cache).unwrap();
        let answer = &losses[item.answer - 1..];
        answer.iter().map(|&loss| f64::from(loss)).sum::<f64>() / answer.len() as f64
    };
    let expected = [f64::midpoint(loss(&items.items[0]), loss(&items.items[1])), loss(&items.items[3])];
    for (found, expected) in told["losses"][0].as_array().unwrap().iter().zip(expected) {
        assert!((found.as_f64().unwrap() - expected).abs() < 1e-5, "{found}, {expected}");
    }
    for length in [256, 320] {
        let spans = |plan: &Plan| moac_planner::eval::Spans::new(plan, length);
        assert_ne!(spans(&refined), spans(&narrow), "nothing moved at {length}");
        assert!(spans(&refined).density() <= spans(&narrow).density(), "{:?}", spans(&refined));
    }
    // Three items a step, some of which may see the same spans again. One that is gone and one that is damaged are made again, by another number of threads, to
    // the same bytes.
    let files = kept(&folder.join("a.json.slopes"));
    assert!((7..=9).contains(&files.len()), "{files:?}");
    fs::remove_file(&files[1]).unwrap();
    fs::write(&files[0], "{").unwrap();
    assert_eq!(
        run_refine("b.json", &["--work", "a.json.slopes", "--parallel", "3"]).0["losses"],
        told["losses"]
    );
    assert_eq!(fs::read(folder.join("a.json")).unwrap(), fs::read(folder.join("b.json")).unwrap());
    assert_eq!(kept(&folder.join("a.json.slopes")), files);
    // Stopped within the first step, it keeps the items that were done.
    let options = Options {
        lengths: vec![256, 320],
        density: None,
        bounds: Vec::new(),
        steps: 3,
        batch: 2,
        rate: 1.0,
        parallel: 1,
    };
    let mut left = 2;
    let mut stop = |_| {
        left -= 1;
        if left < 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let slopes = Slopes::new(&folder.join("cut"), of_model(&folder.join("tiny")).unwrap());
    let stopped = refine::refine(&model.decoder, &narrow, &items, &options, &slopes, &mut stop);
    assert!(matches!(stopped, Err(RefineError::Stopped { done: 0, all: 3 })));
    // The two longest, which are one.
    let cut = kept(&folder.join("cut"));
    assert_eq!(cut.len(), 1);
    assert!(files.iter().any(|file| file.file_name() == cut[0].file_name()));
    // More bytes, where that is asked for.
    let (_, wider) = run_refine("c.json", &["--density", "0.9"]);
    let density = moac_planner::eval::Spans::new(&wider, 320).density();
    assert!(density > 0.7 && density <= 0.9, "{density}");
}

#[test]
fn a_plan_that_cannot_be_refined_says_why() {
    let folder = folder();
    let folder = folder.path();
    write_items(folder);
    let (path, _) = narrow(folder);
    let refine = |args: &[&str]| {
        refused(
            folder,
            &[&["refine", "tiny", path.to_str().unwrap(), "items.jsonl", "-o", "a.json"], args].concat(),
        )
    };
    let error = refine(&["--lengths", "256"]);
    assert!(error.contains("--lengths: found [256], expected at least two"), "{error}");
    let error = refine(&["--lengths", "256,512"]);
    assert!(error.contains("there are no items of 512 tokens, only "), "{error}");
    let error = refine(&["--density", "0.2"]);
    assert!(error.contains("--density 0.2 is too low"), "{error}");
    for (flag, value) in
        [("--density", "0"), ("--density", "1.5"), ("--rate", "0"), ("--rate", "x"), ("--steps", "0")]
    {
        let error = refine(&[flag, value]);
        assert!(error.contains(value), "{error}");
    }
    assert!(!folder.join("a.json").exists() && !folder.join("a.json.slopes").exists());
}

#[test]
fn what_is_wrong_with_a_plan_is_said_before_the_work() {
    let folder = folder();
    let folder = folder.path();
    fs::write(folder.join("text.txt"), "some words ".repeat(2000)).unwrap();
    let args = ["plan", "tiny", "--data", "text.txt", "--lengths", "256,320", "--items", "2"];
    let args = [&args[..], &["--mix", "text=1", "--validate-length", "512", "--work", "work"]].concat();
    let (density, out) = (["--density", "0.6"], ["-o", "plan.json"]);
    let refused_with = |more: &[&str]| {
        let error = refused(folder, &[&args[..], more].concat());
        assert!(!folder.join("work").exists(), "{more:?} was found only after the work");
        error
    };
    for (more, said) in [
        (&["--grid", "nope"][..], "nope"),
        (&["--times", "nope"], "nope"),
        (&["--sink", "128"], "sink of 128"),
        (&["--min-span", "100"], "minimum span 100"),
        (&["--bound", "1000=0.4"], "length 1000"),
        (&["--bound", "256=0.1"], "the bound 0.1"),
        (&["--weights", "kv=1"], "--weights is 0 for every task of the items: the tasks are text"),
        (&["--per", "head"], "per KV head"),
        (&["--intervals", "1000000"], "`1000000` is out of range"),
        (&["--validate-items", "0"], "`0` is out of range"),
        (&["--refine", "1", "--refine-lengths", "256"], "--lengths: found [256], expected at least two"),
        (&["--refine", "1", "--rules-per-layer", "2"], "cannot be used with"),
    ] {
        let more = [more, &density, &out].concat();
        let error = refused_with(&more);
        assert!(error.contains(said), "{more:?}: {error}");
    }
    for (bad, said) in [("NaN", "bound NaN"), ("0.01", "the bound 0.01")] {
        let error = refused_with(&[&["--density", bad][..], &out].concat());
        assert!(error.contains(said), "{error}");
    }
    for (bad, said) in [("tiny", "is a directory"), ("missing/plan.json", "its folder does not exist")] {
        let error = refused_with(&[&density[..], &["-o", bad]].concat());
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn a_plan_from_texts_is_made_once() {
    let folder = folder();
    let folder = folder.path();
    let words: Vec<String> = (0..4000).map(|word| (word * 7919 % 1000).to_string()).collect();
    let text = words.join(" ");
    fs::write(folder.join("text.txt"), text).unwrap();
    let args = [
        "plan",
        "tiny",
        "--data",
        "text.txt",
        "--density",
        "0.6",
        "--lengths",
        "256,320",
        "--items",
        "2",
        "--mix",
        "document=1",
        "--validate-length",
        "512",
        "--validate-items",
        "2",
        "--measure",
        "windows-absolute",
        "-o",
        "plan.json",
    ];
    let (stdout, _) = run(folder, &args);
    let plan = fs::read(folder.join("plan.json")).unwrap();
    let is_search = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("plans-");
    let searches = || -> Vec<_> {
        let files = kept(&folder.join("plan.json.work")).into_iter().filter(is_search);
        files.map(|file| fs::metadata(file).unwrap().modified().unwrap()).collect()
    };
    let searched = searches();
    assert_eq!(searched.len(), 1);
    let (again, stderr) = run(folder, &args);
    assert_eq!(searches(), searched, "the search is kept");
    assert_eq!((again, fs::read(folder.join("plan.json")).unwrap()), (stdout, plan.clone()));
    assert!(!stderr.contains("GFLOP/s") && stderr.contains("from an earlier run"), "{stderr}");
    let picture = fs::read_to_string(folder.join("plan.json.work/pareto.svg")).unwrap();
    assert!(picture.starts_with("<svg") && picture.contains("plan 00: "), "{picture}");
    let plan: Value = serde_json::from_slice(&plan).unwrap();
    let provenance = &plan["provenance"];
    assert_eq!(provenance["validation"]["length"].as_u64(), Some(512));
    assert_eq!(provenance["influence"]["windows"], true);
    let data = &provenance["influence"]["data"];
    assert_eq!((&data["measure"], &data["texts"]), (&json!("windows-absolute"), &json!(1)));
    assert_eq!(data["texts_sha256"].as_str().map(str::len), Some(64));
    // Within the bound, by the report on the plan.
    let inspected = run(folder, &["inspect", "plan.json", "--json", "--lengths", "512"]).0;
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    assert!(inspected.is_object());
    let cost = provenance["costs"]["320"].as_f64().unwrap();
    assert!(cost > 0.0 && cost <= 0.6, "{provenance}");
    // Refined, with everything else from the work folder; and again from it altogether.
    let refined = [&args[..args.len() - 1], &["r.json", "--work", "plan.json.work"]].concat();
    let refined = [&refined[..], &["--refine", "2", "--refine-batch", "1", "--json"]].concat();
    let (stdout, stderr) = run(folder, &refined);
    assert!(!stderr.contains("GFLOP/s") && stderr.contains("refinement: 4 items"), "{stderr}");
    let told: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(told["refined"]["losses"].as_array().map(Vec::len), Some(2));
    let plan: Value = serde_json::from_slice(&fs::read(folder.join("r.json")).unwrap()).unwrap();
    assert_eq!(plan["provenance"]["from"], *provenance);
    assert_eq!(plan["provenance"]["density"], json!(0.6));
    assert_eq!(run(folder, &refined).0, stdout);
}
