//! The real model: what it computes, against numbers that another implementation gave.
//!
//! All are ignored, since the model is not in the repository. `cargo xtask test` fetches it and runs those whose names
//! start with `quick`. The others take minutes each; one of them also needs a text that is not in the repository:
//!
//! ```text
//! cargo xtask texts target/texts
//! MOAC_MODEL=$(cargo xtask model) MOAC_TEXTS=target/texts \
//!     cargo test --workspace --test smollm2 -- --ignored --nocapture --test-threads 1
//! ```

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Instant;

use moac_model::{Answer, Batch, Cache, CpuOptions, EngineOptions, Finish, Message, Model, dense_plan};
use moac_runtime::plan::Plan;

/// The first chapters of Northanger Abbey, by Jane Austen: some 9000 tokens.
const NOVEL: &str = include_str!("data/northanger-abbey.txt");

#[allow(clippy::disallowed_methods)] // the compiler lists the variables that moac reads, not those of its tests
fn path(variable: &str) -> PathBuf {
    let value = std::env::var_os(variable);
    // A path from the root of the repository, which is where the command above is typed.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.join(value.unwrap_or_else(|| panic!("set {variable}: this file's first lines say to what")))
}

fn model() -> Model {
    Model::open(&path("MOAC_MODEL")).unwrap()
}

/// The first tokens of a text.
fn tokens(model: &Model, text: &str, count: usize) -> Vec<u32> {
    let tokens = model.tokenizer.encode(text).unwrap();
    assert_eq!(model.tokenizer.decode(&tokens).unwrap(), text);
    tokens[..count].to_vec()
}

/// Different spans for the heads of a KV head, a quarter of the context in all.
fn quarter_plan(model: &Model) -> Plan {
    let mut plan = dense_plan(&model.decoder.config().shape());
    for (layer, betas) in plan.betas.iter_mut().enumerate() {
        for (head, beta) in betas.iter_mut().enumerate() {
            // Per KV head the longest is one of 1/8, 1/4, 3/8: a quarter on average.
            *beta = [0.0625, 0.125, [0.125, 0.25, 0.375][(layer + head / 3) % 3]][head % 3];
        }
    }
    plan
}

fn mean(losses: &[f32]) -> f64 {
    losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() / losses.len() as f64
}

/// Operations of the projections and of dense attention over `tokens` tokens from the start.
fn flops(model: &Model, tokens: usize, logits: bool) -> (f64, f64) {
    let config = model.decoder.config();
    let keys = (tokens * (tokens + 1) / 2 * config.num_layers * config.num_heads) as f64;
    (config.flops_per_token(logits) as f64 * tokens as f64, 4.0 * config.head_dim as f64 * keys)
}

/// The likeliest answer under dense attention.
fn answer(model: &Model, prompt: Vec<u32>, length: u32, limit: u32) -> Answer {
    let plan = dense_plan(&model.decoder.config().shape());
    let engine =
        model.cpu_engine(&plan, &[length], &CpuOptions::default(), EngineOptions::default()).unwrap();
    engine.submit(model.request(prompt, limit)).unwrap().answers().unwrap().remove(0)
}

/// The mean loss over a text's first tokens under dense attention, and what it took.
fn loss(model: &Model, name: &str, tokens: &[u32]) -> f64 {
    let plan = dense_plan(&model.decoder.config().shape());
    let start = Instant::now();
    let mut cache = Cache::new(&plan, tokens.len() as u32).unwrap();
    let loss = mean(&model.decoder.losses(tokens, &mut cache).unwrap());
    let seconds = start.elapsed().as_secs_f64();
    let (linear, attention) = flops(model, tokens.len(), true);
    println!(
        "{name}, {} tokens: loss {loss:.4}; {seconds:.1} s, {:.2} TFLOP in projections, {:.2} in attention, {:.0} GFLOP/s",
        tokens.len(),
        linear / 1e12,
        attention / 1e12,
        (linear + attention) / seconds / 1e9,
    );
    loss
}

#[test]
#[ignore = "needs the real model"]
fn quick_loss_at_1024_tokens() {
    let model = model();
    let all = tokens(&model, NOVEL, 3072);
    // The reference of 1024 tokens does not say which: these are the first, and 1024 that have its loss.
    for (first, expected) in [(0, 3.4517), (2048, 3.643)] {
        let loss = loss(&model, "Northanger Abbey", &all[first..first + 1024]);
        assert!((loss - expected).abs() < 0.003, "{loss}, expected {expected}");
    }
}

#[test]
#[ignore = "needs the real model, a text and minutes"]
fn losses_at_8192_tokens() {
    let model = model();
    let page = std::fs::read_to_string(path("MOAC_TEXTS").join("python/library/stdtypes.rst.txt")).unwrap();
    let page: String = page.chars().take(80_000).collect();
    for (name, text, expected) in [("Northanger Abbey", NOVEL, 3.322), ("stdtypes.rst", &page, 1.847)] {
        let loss = loss(&model, name, &tokens(&model, text, 8192));
        assert!((loss - expected).abs() < 0.003, "{loss}, expected {expected}");
    }
}

#[test]
#[ignore = "needs the real model"]
fn quick_a_question_is_answered() {
    let model = model();
    let prompt = model.chat(&[Message::new("user", "What is the capital of France?")]).unwrap();
    assert_eq!(
        model.tokenizer.decode(&prompt).unwrap(),
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n\
         <|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    );
    let answer = answer(&model, prompt, 1024, 64);
    assert_eq!(answer.text, "The capital of France is Paris.");
    assert!(matches!(answer.finish, Some(Finish::StopToken(_))));
}

#[test]
#[ignore = "needs the real model"]
fn quick_greedy_decoding_from_the_rings_is_recomputed_prefill() {
    decoding_is_prefill(4..5);
}

#[test]
#[ignore = "needs the real model and minutes"]
fn greedy_decoding_from_the_rings_is_recomputed_prefill() {
    decoding_is_prefill(0..10);
}

/// The first of the largest.
fn likeliest(logits: &[f32]) -> u32 {
    let larger = |best: usize, at: usize| if logits[at] > logits[best] { at } else { best };
    (0..logits.len()).reduce(larger).unwrap() as u32
}

/// Law 2 on real text, for prompts of 300 to 1200 tokens.
fn decoding_is_prefill(prompts: Range<usize>) {
    let model = model();
    let plan = quarter_plan(&model);
    let all = tokens(&model, NOVEL, 8192);
    for prompt in prompts {
        // The rings of the bucket of 2048 hold 256 to 768 tokens, so most have wrapped.
        let prompt = &all[prompt * 700..prompt * 700 + 300 + 100 * prompt];
        let mut cache = Cache::new(&plan, 2048).unwrap();
        let mut hidden = model.decoder.prefill(prompt, &mut cache).unwrap();
        let mut so_far = prompt.to_vec();
        let mut decoded = Vec::new();
        for _ in 0..64 {
            let logits = model.decoder.logits(&hidden).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            let token = likeliest(&logits);
            decoded.push((token, logits));
            so_far.push(token);
            hidden = model.decoder.forward(&[token], &mut Batch::one(&mut cache, 1)).unwrap();
        }
        // The same positions out of a prefill, whose last rows the logits are of.
        let mut cache = Cache::new(&plan, 2048).unwrap();
        let hidden = model.decoder.forward(&so_far, &mut Batch::one(&mut cache, so_far.len())).unwrap();
        let hidden = hidden.narrow(0, prompt.len() - 1, 64).unwrap();
        let rows: Vec<Vec<f32>> = model.decoder.logits(&hidden).unwrap().to_vec2().unwrap();
        let mut worst = 0f32;
        for (at, ((token, logits), row)) in decoded.iter().zip(&rows).enumerate() {
            worst = logits.iter().zip(row).map(|(a, b)| (a - b).abs()).fold(worst, f32::max);
            let again = likeliest(row);
            if again != *token {
                let gap = row[again as usize] - row[*token as usize];
                println!("prompt of {}, token {at}: a tie within {gap:e}", prompt.len());
                assert!(gap < 1e-3, "token {at}: {token} decoded, {again} recomputed, {gap} apart");
            }
        }
        println!("prompt of {}: largest difference of a logit {worst:e}", prompt.len());
        assert!(worst < 2e-2, "{worst}");
    }
}

#[test]
#[ignore = "needs the real model and minutes"]
fn a_passkey_is_found_anywhere() {
    let model = model();
    let novel = tokens(&model, NOVEL, 8192);
    let mut found = 0;
    for (size, length) in [1000, 3300, 5500, 7800].into_iter().enumerate() {
        for (at, depth) in [0.1, 0.5, 0.9].into_iter().enumerate() {
            let key = (20_011 + 31_337 * (3 * size + at)) % 90_000 + 10_000;
            let cut = (f64::from(length) * depth) as usize;
            let text = |tokens: &[u32]| model.tokenizer.decode(tokens).unwrap();
            let prompt = format!(
                "{}\n\nThe pass key is {key}. Remember it. {key} is the pass key.\n\n{}\n\nThe pass key is",
                text(&novel[..cut]),
                text(&novel[cut..length as usize - 40]),
            );
            let prompt = model.tokenizer.encode(&prompt).unwrap();
            let length = prompt.len();
            let answer = answer(&model, prompt, 8192, 8).text;
            println!("{length} tokens, depth {depth}, {key}: {answer}");
            found += usize::from(answer.contains(&key.to_string()));
        }
    }
    assert_eq!(found, 12);
}

/// The shortest of some runs, in seconds.
fn best(runs: usize, mut f: impl FnMut()) -> f64 {
    f();
    let timed = (0..runs).map(|_| {
        let start = Instant::now();
        f();
        start.elapsed().as_secs_f64()
    });
    timed.fold(f64::INFINITY, f64::min)
}

#[test]
#[ignore = "needs the real model"]
fn speed_against_the_machine() {
    use candle_core::{Device, Tensor};
    let a = Tensor::randn(0f32, 1.0, (1024, 1024), &Device::Cpu).unwrap();
    let peak = 2.0 * 1024f64.powi(3) / best(9, || drop(a.matmul(&a).unwrap())) / 1e9;
    println!(
        "matrix products of 1024: {peak:.0} GFLOP/s with {} threads",
        candle_core::utils::get_num_threads()
    );
    let model = model();
    let config = model.decoder.config();
    let plan = dense_plan(&config.shape());
    let tokens = tokens(&model, NOVEL, 2048);
    for length in [512usize, 2048] {
        let seconds = best(3, || {
            let mut cache = Cache::new(&plan, length as u32).unwrap();
            model.decoder.prefill(&tokens[..length], &mut cache).unwrap();
        });
        let (linear, attention) = flops(&model, length, false);
        let rate = (linear + attention) / seconds / 1e9;
        println!(
            "prefill of {length}: {seconds:.2} s, {rate:.0} GFLOP/s, {:.0}% of that",
            100.0 * rate / peak
        );
    }
    let mut cache = Cache::new(&plan, 2304).unwrap();
    model.decoder.prefill(&tokens, &mut cache).unwrap();
    let seconds = best(20, || {
        let hidden = model.decoder.forward(&[5], &mut Batch::one(&mut cache, 1)).unwrap();
        model.decoder.logits(&hidden).unwrap();
    });
    let bytes = 4.0 * config.parameters() as f64;
    println!("decode at 2048: {:.1} ms a token, {:.1} GB/s of weights", seconds * 1e3, bytes / seconds / 1e9);
}
