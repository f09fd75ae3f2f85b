//! Layers of small plans for tests on any device: their kernels, their spans, and the laws that hold on all of them.

use std::sync::atomic::AtomicBool;

use moac_compiler::build::Builder;
use moac_compiler::cache::Cache;
use moac_compiler::lower::{self, Target};
use moac_runtime::arch::Arch;
use moac_runtime::artifact::Artifact;
use moac_runtime::element::{from_bytes, to_bytes};
use moac_runtime::geometry::LayerGeometry;
use moac_runtime::plan::{DType, ModelShape, PLAN_FORMAT, Plan};
use moac_runtime::reference::Spans;
use moac_tests::nvrtc;
use ndarray::Array3;

use super::laws::{self, Make, Sequence, Step};

/// Sink tokens of these plans.
const SINK: u32 = 64;

/// The largest relative error of an output.
pub(crate) fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::Bf16 => 5e-3,
        DType::F16 => 1e-3,
    }
}

/// A plan whose heads have the same span at every length, or the length where that is less: one list per layer.
pub(crate) fn plan(spans: &[Vec<u32>], kv_heads: usize, head_dim: u32) -> Plan {
    Plan {
        format: PLAN_FORMAT.to_owned(),
        model: ModelShape {
            name: "test".to_owned(),
            num_layers: spans.len() as u32,
            num_heads: spans[0].len() as u32,
            num_kv_heads: kv_heads as u32,
            head_dim,
            rope_theta: None,
            context: None,
            softmax_scale: None,
        },
        sink: SINK,
        min_span: SINK + 64,
        alphas: spans.iter().map(|layer| layer.iter().map(|&span| f64::from(span)).collect()).collect(),
        betas: spans.iter().map(|layer| vec![0.0; layer.len()]).collect(),
        provenance: None,
    }
}

/// The plan's kernels.
pub(crate) fn artifact(plan: &Plan, lengths: &[u32], dtype: DType, arch: Arch) -> Artifact {
    let kv_heads = 0..plan.model.num_kv_heads;
    let target = Target { kv_heads, lengths: lengths.to_vec(), dtype, archs: vec![arch] };
    let lowered = lower::lower(plan, &target).unwrap();
    let (cache, stop) = (Cache::of_this_machine(), AtomicBool::new(false));
    let builder = Builder { nvrtc: nvrtc(), cache: &cache, jobs: None, stop: &stop, progress: &|_, _| {} };
    builder.build(plan, &lowered).unwrap().artifact
}

/// The spans of a layer of such a plan in the bucket of `length`.
pub(crate) fn spans(span: &[u32], kv_heads: usize, head_dim: usize, length: u32) -> Spans {
    let span: Vec<u32> = span.iter().map(|&span| span.min(length)).collect();
    Spans {
        head_dim,
        scale: 1.0 / (head_dim as f64).sqrt(),
        sink: SINK,
        length,
        kv_span: span.chunks(span.len() / kv_heads).map(|group| *group.iter().max().unwrap()).collect(),
        span,
    }
}

/// The plan of requests whose spans differ only by their buckets, and those buckets.
pub(crate) fn plan_of(requests: &[Spans]) -> (Plan, Vec<u32>) {
    let widest = requests.iter().max_by_key(|spans| spans.length).unwrap();
    let plan = plan(std::slice::from_ref(&widest.span), widest.kv_heads(), widest.head_dim as u32);
    let mut lengths: Vec<u32> = requests.iter().map(|spans| spans.length).collect();
    lengths.sort_unstable();
    lengths.dedup();
    let geometry = LayerGeometry::new(&plan, 0, 0..plan.model.num_kv_heads, &lengths);
    for spans in requests {
        let bucket = lengths.binary_search(&spans.length).unwrap();
        assert_eq!(&Spans::new(&plan, &geometry, bucket), spans, "the requests are of one plan");
    }
    (plan, lengths)
}

/// A sequence of values that the device's type holds.
pub(crate) fn sequence(spans: &Spans, tokens: usize, seed: u64, dtype: DType) -> Sequence {
    let Sequence { q, k, v } = Sequence::random(spans, tokens, seed);
    let round = |x: Array3<f32>| {
        let shape = x.dim();
        Array3::from_shape_vec(shape, from_bytes(dtype, &to_bytes(dtype, x))).unwrap()
    };
    Sequence { q: round(q), k: round(k), v: round(v) }
}

/// All laws of a layer with `spans`, also beside requests of the shorter bucket `short`; with so many decode steps.
pub(crate) fn laws_hold(make: Make<'_>, spans: &Spans, short: u32, decodes: u32, dtype: DType) {
    // Both sides of a law are off by the rounding of outputs.
    let tolerance = 2.0 * tolerance(dtype);
    let tokens = spans.length - 53;
    let request = sequence(spans, tokens as usize, 7, dtype);
    let out = laws::at_once(make, spans, &request);
    assert!(laws::error(&out.o, &request.oracle(spans)) <= tolerance / 2.0, "{dtype}");
    laws::law_dense(make, spans, &request, tolerance).unwrap();
    let prompt = spans.length / 3 - 13;
    let mut steps = vec![Step::Prefill(vec![prompt])];
    steps.extend((0..decodes).map(|_| Step::Decode(vec![1])));
    steps.extend([Step::Prefill(vec![1]), Step::Prefill(vec![tokens - prompt - decodes - 1])]);
    laws::law_steps(make, spans, &request, &steps, tolerance).unwrap();
    let inside: Vec<usize> = (0..spans.group_size()).rev().collect();
    let groups: Vec<usize> = (0..spans.kv_heads()).rev().collect();
    laws::law_permutation(make, spans, &request, &groups, &inside, tolerance).unwrap();
    laws::law_gqa(make, spans, &request, tolerance).unwrap();
    let smaller = Spans {
        length: short,
        span: spans.span.iter().map(|&span| span.min(short)).collect(),
        kv_span: spans.kv_span.iter().map(|&span| span.min(short)).collect(),
        ..spans.clone()
    };
    let buckets = [smaller.clone(), spans.clone(), smaller];
    let tokens = [short as usize - 55, spans.length as usize, 77];
    let batch: Vec<Sequence> = (0..3).map(|b| sequence(&buckets[b], tokens[b], b as u64, dtype)).collect();
    laws::law_batch(make, &buckets, &batch, 99, tolerance).unwrap();
}
