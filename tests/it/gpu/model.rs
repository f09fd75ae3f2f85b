//! A whole model on a GPU beside the CPU path: each architecture, chunks of prompts, many requests at once.

use std::sync::atomic::AtomicBool;

use moac_compiler::build::Builder;
use moac_compiler::cache::Cache as KernelCache;
use moac_compiler::lower::{self, Target};
use moac_model::gpu::{GpuRunner, GpuWeights, Options};
use moac_model::{
    Cache, Checkpoint, Config, Decoder, Engine, EngineOptions, Request, Rope, RopeScaling, Weights,
    dense_plan,
};
use moac_runtime::arch::Arch;
use moac_runtime::glue::uniform;
use moac_runtime::plan::{DType, Plan};
use moac_tests::nvrtc;

use super::device;

/// A small model: three query heads a KV head, two layers.
fn config(qkv_bias: bool, qk_norm: bool) -> Config {
    Config {
        name: "tiny".to_owned(),
        vocab_size: 1000,
        hidden_size: 192,
        intermediate_size: 320,
        num_layers: 2,
        num_heads: 6,
        num_kv_heads: 2,
        head_dim: 64,
        norm_eps: 1e-5,
        context: 1024,
        rope: Rope { theta: 1e4, scaling: RopeScaling::None },
        qkv_bias,
        qk_norm,
        // A random embedding is too large for an output head: losses would be of its scale.
        tied_embeddings: false,
        bos: None,
        eos: Vec::new(),
    }
}

/// Spans that differ from head to head, and in the second layer cover all.
fn plan(config: &Config) -> Plan {
    let mut plan = dense_plan(&config.shape());
    plan.alphas[0] = vec![128.0, 192.0, 256.0, 128.0, 128.0, 320.0];
    plan.betas[0] = vec![0.0; 6];
    plan
}

fn tokens(config: &Config, count: u32, seed: u64) -> Vec<u32> {
    (0..count).map(|at| (uniform(seed, at) * config.vocab_size as f32) as u32).collect()
}

/// A runner with `lanes` lanes and `rows` rows of a step.
fn runner(checkpoint: &Checkpoint, plan: &Plan, lanes: u32, rows: u32) -> GpuRunner {
    let device = device();
    let [major, minor] = device.info().capability;
    let arch = Arch::ALL.into_iter().filter(|arch| arch.runs_on(major, minor)).max().expect("a known device");
    let kv_heads = 0..plan.model.num_kv_heads;
    let target = Target { kv_heads, lengths: vec![256, 768], dtype: DType::Bf16, archs: vec![arch] };
    let lowered = lower::lower(plan, &target).unwrap();
    let lowered = lowered.with_engine(plan, &checkpoint.config().engine_shape()).unwrap();
    let (cache, stop) = (KernelCache::of_this_machine(), AtomicBool::new(false));
    let builder = Builder { nvrtc: nvrtc(), cache: &cache, jobs: None, stop: &stop, progress: &|_, _| {} };
    let artifact = builder.build(plan, &lowered).unwrap().artifact;
    let (loaded, stream) = (artifact.load(&device).unwrap(), device.new_stream().unwrap());
    let weights = GpuWeights::read(&device, &stream, DType::Bf16, checkpoint, &mut |_, _| ()).unwrap();
    let options = Options { lanes, rows, slab_bytes: Some(64 << 20), folder: None };
    GpuRunner::new(&loaded, stream, weights, &options).unwrap()
}

/// Losses of a text in chunks that do not divide it, against float32 on the CPU, for models without and with a bias and norms.
#[test]
#[ignore = "needs a GPU and NVRTC"]
fn losses_are_those_of_the_cpu() {
    for (bias, norm) in [(false, false), (true, false), (false, true)] {
        let checkpoint = Checkpoint::random(config(bias, norm), 7);
        let (config, plan) = (checkpoint.config(), plan(checkpoint.config()));
        let text = tokens(config, 700, 3);
        let weights = Weights::read(&checkpoint, &mut |_, _| ()).unwrap();
        let decoder = Decoder::new(config.clone(), weights);
        let expected = decoder.losses(&text, &mut Cache::new(&plan, 768).unwrap()).unwrap();
        for rows in [700, 96, 13] {
            let found = runner(&checkpoint, &plan, 5, rows).losses(&text).unwrap();
            assert_eq!(found.len(), expected.len());
            let off = |a: &f32, b: &f32| f64::from(a - b);
            let mean = found.iter().zip(&expected).map(|(a, b)| off(a, b)).sum::<f64>() / found.len() as f64;
            let square = found.iter().zip(&expected).map(|(a, b)| off(a, b).powi(2)).sum::<f64>();
            let deviation = (square / found.len() as f64).sqrt();
            println!("bias {bias}, norms {norm}, {rows} rows: mean {mean:.5}, deviation {deviation:.5}");
            assert!(mean.abs() < 0.01 && deviation < 0.05, "mean {mean}, deviation {deviation}");
        }
    }
}

/// Requests that join at different times in steps of few rows, each beside itself alone: the same tokens, but where two are
/// as likely within rounding.
#[test]
#[ignore = "needs a GPU and NVRTC"]
fn an_answer_does_not_depend_on_the_others() {
    let checkpoint = Checkpoint::random(config(false, false), 7);
    let (config, plan) = (checkpoint.config(), plan(checkpoint.config()));
    let prompts: Vec<Vec<u32>> =
        (0..20_u32).map(|at| tokens(config, 1 + 37 * at % 300, u64::from(at))).collect();
    let request = |prompt: &Vec<u32>| Request::new(prompt.clone(), 24);
    let options = EngineOptions { chunk: 48, ..EngineOptions::default() };
    let engine = Engine::start(runner(&checkpoint, &plan, 7, 64), None, options).unwrap();
    let together: Vec<_> = prompts.iter().map(|prompt| engine.submit(request(prompt)).unwrap()).collect();
    let together: Vec<_> = together.into_iter().map(|stream| stream.answers().unwrap().remove(0)).collect();
    for (prompt, many) in prompts.iter().zip(&together) {
        let alone = engine.submit(request(prompt)).unwrap().answers().unwrap().remove(0);
        assert_eq!((alone.tokens.len(), many.tokens.len()), (24, 24));
        for at in 0..24 {
            let near = (alone.logprobs[at] - many.logprobs[at]).abs();
            assert!(near < 0.05, "{} tokens, answer {at}: {near}", prompt.len());
            if alone.tokens[at] != many.tokens[at] {
                break;
            }
        }
    }
    assert_eq!(engine.stats().running, 0);
}
