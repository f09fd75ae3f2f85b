//! The parts of `moac quickstart` that no other command has: its plan, and one layer of it run on the CPU.

use std::time::{Duration, Instant};

use moac_compiler::verify::Inputs;
use moac_compiler::verify::inputs::{At, Tensor};
use moac_runtime::artifact::Artifact;
use moac_runtime::backend::{LayerBackend as _, LayerError, Qkv, Rows};
use moac_runtime::geometry::LayerGeometry;
use moac_runtime::reference::{CpuLayer, Spans, oracle};
use ndarray::{Array3, s};

/// The one place that names the plan: a macro, since `include_str` takes no constant.
macro_rules! plan_name {
    () => {
        "smollm2-135m-0.5.json"
    };
}

/// The plan that is compiled into the binary, for the model of [`moac_compiler::fetch::model`].
pub const PLAN: &str = include_str!(concat!("../../../plans/", plan_name!()));
/// Its file name.
pub const PLAN_NAME: &str = plan_name!();
/// The question that the model is asked.
pub const QUESTION: &str = "What is the capital of France?";

/// Tokens that the layer decodes one by one, at the end of the bucket.
const DECODED: u32 = 24;

/// The result of a layer on the CPU.
#[derive(Clone, Copy, Debug)]
pub struct CpuRun {
    /// The layer: of those with most head groups the first.
    pub layer: usize,
    /// Tokens that were prefilled.
    pub prefilled: u32,
    /// Tokens that were then decoded from the rings.
    pub decoded: u32,
    /// Largest difference from the float64 oracle over the decoded tokens, relative to the largest output.
    pub error: f64,
    /// Time of the prefill and of all decode steps.
    pub took: [Duration; 2],
}

/// Fills the smallest bucket of one layer with random tokens in float32, the last of them by decoding, and compares
/// those with the float64 oracle, which has no cache.
///
/// # Errors
/// The errors of the reference; an artifact that opened causes none.
pub fn cpu_layer(artifact: &Artifact) -> Result<CpuRun, LayerError> {
    let manifest = artifact.manifest();
    let groups = |layer: &LayerGeometry| layer.rules.len();
    let layers = &manifest.geometry.layers;
    let most = layers.iter().map(groups).max().unwrap_or(0);
    let layer = layers.iter().position(|layer| groups(layer) == most).unwrap_or(0);
    let spans = Spans::new(&manifest.plan, &layers[layer], 0);
    let (length, prefilled) = (spans.length, spans.length - DECODED);
    let inputs = Inputs::new(manifest.dtype, manifest.plan.model.head_dim, 1);
    let tensor = |tensor, heads: usize| {
        let mut values = Vec::new();
        for position in 0..length {
            for head in 0..heads as u32 {
                inputs.values(At { tensor, sequence: 0, position, head }, &mut values);
            }
        }
        let shape = (length as usize, heads, spans.head_dim);
        Array3::from_shape_vec(shape, values).expect("a row for every token and head")
    };
    let (q, k, v) = (
        tensor(Tensor::Q, spans.heads()),
        tensor(Tensor::K, spans.kv_heads()),
        tensor(Tensor::V, spans.kv_heads()),
    );
    let all = Qkv::new(&q, &k, &v);

    let mut cpu = CpuLayer::new([&spans]);
    let start = Instant::now();
    cpu.prefill(&Rows { chunk: &[prefilled], qkv: all.tokens(0..prefilled as usize) })?;
    let prefill = start.elapsed();
    let start = Instant::now();
    let mut found = Vec::new();
    for token in prefilled as usize..length as usize {
        found.push(cpu.decode(&Rows { chunk: &[1], qkv: all.tokens(token..token + 1) })?.o);
    }
    let decode = start.elapsed();

    let last = Qkv { q: q.slice(s![prefilled as usize.., .., ..]), ..all };
    let expected = oracle::attend(&spans, last)?.o;
    let largest = expected.iter().fold(0.0, |a: f64, b| a.max(b.abs()));
    let difference = found
        .iter()
        .enumerate()
        .flat_map(|(token, o)| o.iter().zip(expected.slice(s![token, .., ..])))
        .fold(0.0, |worst: f64, (a, b)| worst.max((f64::from(*a) - b).abs()));
    Ok(CpuRun { layer, prefilled, decoded: DECODED, error: difference / largest, took: [prefill, decode] })
}
