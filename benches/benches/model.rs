//! The model on the CPU beside what the machine can do: dense prefill of a context beside a plain matrix product, in
//! floating-point operations, those of the visible pairs alone, and a decode step behind it beside a pass that only
//! reads, in bytes of weights, keys and values. `MOAC_MODEL=FILE cargo bench -p moac-benches --bench model`; without a
//! model there is nothing to run.

use std::path::Path;

use candle_core::{Device, Tensor};
use criterion::{BatchSize, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use moac_model::{Cache, Model, dense_plan};
use rayon::prelude::*;

#[allow(clippy::disallowed_methods)] // the list in the compiler is of what moac reads, not its benchmarks
fn model(c: &mut Criterion) {
    let Some(path) = std::env::var_os("MOAC_MODEL") else {
        eprintln!("MOAC_MODEL names no model: nothing is measured");
        return;
    };
    let decoder = Model::open(Path::new(&path)).expect("a model").decoder;
    let mut group = c.benchmark_group("model");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);

    let side = 2048;
    let a = Tensor::rand(-1f32, 1.0, (side, side), &Device::Cpu).expect("a matrix");
    group.throughput(Throughput::Elements(2 * (side as u64).pow(3)));
    group.bench_function("ceiling: matrix product of 2048", |b| b.iter(|| a.matmul(&a)));

    let memory = vec![1f32; 1 << 27];
    group.throughput(Throughput::Bytes(4 * memory.len() as u64));
    let sum = |part: &[f32]| {
        // Side by side, so that the sums vectorise.
        let mut sums = [0f32; 64];
        for x in part.chunks_exact(64) {
            for (sum, x) in sums.iter_mut().zip(x) {
                *sum += x;
            }
        }
        sums.iter().sum::<f32>()
    };
    group.bench_function("ceiling: reading of 512 MiB", |b| {
        b.iter(|| memory.par_chunks(1 << 16).map(sum).sum::<f32>());
    });

    let config = decoder.config();
    let pair = 4 * (config.num_layers * config.num_heads * config.head_dim) as u64;
    let plan = dense_plan(&config.shape());
    for length in [1024u32, 8192] {
        let tokens: Vec<u32> = (0..length).map(|at| 1000 + at * 7919 % 40_000).collect();
        let empty = || Cache::new(&plan, length + 64).expect("a dense plan takes any length");
        let n = u64::from(length);
        group.throughput(Throughput::Elements(n * config.flops_per_token(false) + pair * n * (n + 1) / 2));
        group.bench_function(format!("prefill of {length}"), |b| {
            b.iter_batched_ref(empty, |cache| decoder.prefill(&tokens, cache), BatchSize::PerIteration);
        });
        let mut context = empty();
        decoder.prefill(&tokens, &mut context).expect("the cache has room");
        // Two operations for each weight of four bytes.
        let kv = 8 * (config.num_layers * config.num_kv_heads * config.head_dim) as u64;
        group.throughput(Throughput::Bytes(2 * config.flops_per_token(false) + kv * (n + 1)));
        group.bench_function(format!("decode behind {length}"), |b| {
            let step = |cache: &mut Cache| decoder.prefill(&tokens[..1], cache);
            b.iter_batched_ref(|| context.clone(), step, BatchSize::PerIteration);
        });
    }
}

criterion_group!(benches, model);
criterion_main!(benches);
