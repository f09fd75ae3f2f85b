//! The compiler's own steps and the reader's: lowering, rendering, opening. `cargo bench -p moac-benches --bench pipeline`.

use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use moac_compiler::lower::{self, Target};
use moac_compiler::render::Renderer;
use moac_runtime::arch::Arch;
use moac_runtime::artifact::Artifact;
use moac_runtime::plan::DType;

fn root(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn pipeline(c: &mut Criterion) {
    let path = root("plans/llama-3-8b.json");
    c.bench_function("read the Llama-3-8B plan", |b| b.iter(|| moac_compiler::plan::read(&path, None)));
    let plan = moac_compiler::plan::read(&path, None).expect("a shipped plan is valid");
    let target = Target {
        kv_heads: 0..plan.model.num_kv_heads,
        lengths: lower::buckets(&plan, &[]).expect("the default lengths are valid").buckets,
        dtype: DType::Bf16,
        archs: vec![Arch::Sm90a],
    };
    c.bench_function("lower it to kernel specs", |b| b.iter(|| lower::lower(&plan, &target)));
    let lowered = lower::lower(&plan, &target).expect("a shipped plan lowers");
    let renderer = Renderer::new().expect("the template parses");
    c.bench_function("render one kernel", |b| b.iter(|| renderer.render(&lowered.specs[0])));
    let artifact = std::fs::read(root("tests/it/artifact/golden/format-1.moac")).expect("it is checked in");
    c.bench_function("open and check a small artifact", |b| {
        b.iter_batched(|| artifact.clone(), Artifact::from_bytes, criterion::BatchSize::SmallInput);
    });
}

criterion_group!(benches, pipeline);
criterion_main!(benches);
