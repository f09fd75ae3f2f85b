//! One layer on the caller's tensors: whole rows prefilled in chunks, or a prompt prefilled and the rest decoded.

pub mod emulator;
pub mod tensors;

use std::ops::Range;

use moac_runtime::artifact::Artifact;
use moac_runtime::backend::{LayerBackend, LayerError, Outputs, Qkv, Rows};
use moac_runtime::launch::Phase;
use moac_runtime::reference::{CpuLayer, Spans};
use ndarray::{Array3, Array4};
use thiserror::Error;

use self::tensors::{Inputs, Results};

/// Errors of running a layer on given inputs.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ExecError {
    /// A layer that the artifact does not have.
    #[error("--layer {layer} is out of range: the artifact has {layers} layers, counted from 0")]
    Layer {
        /// The one asked for.
        layer: u32,
        /// How many there are.
        layers: usize,
    },
    /// A bucket that the artifact does not have.
    #[error("the artifact has no --bucket {bucket}, only {}", found.iter().map(u32::to_string).collect::<Vec<_>>().join(", "))]
    Bucket {
        /// The one asked for.
        bucket: u32,
        /// Those there are.
        found: Vec<u32>,
    },
    /// A row that no bucket, or not the one asked for, holds.
    #[error("row {row} has {length} tokens, more than the bucket of {bucket}")]
    TooLong {
        /// The row.
        row: usize,
        /// Its length.
        length: u32,
        /// The bucket asked for, or the largest.
        bucket: u32,
    },
    /// A prompt longer than a row.
    #[error("--prompt {prompt}: row {row} has only {length} tokens")]
    Prompt {
        /// The prompt asked for.
        prompt: u32,
        /// The row.
        row: usize,
        /// Its length.
        length: u32,
    },
    /// `--prompt` without decode.
    #[error("--prompt needs --phase decode; prefill takes all tokens")]
    PromptOfPrefill,
    /// The layer could not compute.
    #[error(transparent)]
    Compute(#[from] LayerError),
}

/// The steps to compute.
#[derive(Clone, Copy, Debug)]
pub struct Steps {
    /// Prefill everything, or decode what follows the prompt.
    pub phase: Phase,
    /// Decode: tokens to prefill first.
    pub prompt: Option<u32>,
    /// Prefill in chunks of so many tokens; `None` is all at once.
    pub chunk: Option<u32>,
}

/// The bucket of each row, by index: that of its length, or the one asked for.
///
/// # Errors
/// A bucket that is not there, or a row that does not fit.
pub fn buckets(artifact: &Artifact, lengths: &[u32], asked: Option<u32>) -> Result<Vec<usize>, ExecError> {
    let geometry = artifact.geometry();
    let all = &geometry.lengths;
    let fixed = match asked {
        Some(bucket) => match all.iter().position(|&length| length == bucket) {
            Some(index) => Some(index),
            None => return Err(ExecError::Bucket { bucket, found: all.clone() }),
        },
        None => None,
    };
    let of_row = |(row, &length): (usize, &u32)| {
        let index = fixed.filter(|&index| length <= all[index]);
        let index = if fixed.is_none() { geometry.bucket_for(length) } else { index };
        index.ok_or_else(|| {
            let bucket = fixed.map_or(all.last().copied().unwrap_or(0), |index| all[index]);
            ExecError::TooLong { row, length, bucket }
        })
    };
    lengths.iter().enumerate().map(of_row).collect()
}

/// The layer on the CPU, in float32.
pub fn cpu(artifact: &Artifact, layer: u32, buckets: &[usize]) -> CpuLayer {
    let (plan, own) = (&artifact.manifest().plan, &artifact.geometry().layers[layer as usize]);
    let spans: Vec<Spans> = buckets.iter().map(|&bucket| Spans::new(plan, own, bucket)).collect();
    CpuLayer::new(&spans)
}

/// Runs the layer over the inputs, step by step; `step` is called after each with the tokens done and in all.
///
/// # Errors
/// A prompt that does not fit, or what the layer says.
pub fn run(
    layer: &mut dyn LayerBackend,
    inputs: &Inputs,
    steps: &Steps,
    step: &dyn Fn(usize, usize),
) -> Result<Results, ExecError> {
    let (rows, tokens, heads, dim) = inputs.q.dim();
    let prompt = match (steps.phase, steps.prompt) {
        (Phase::Prefill, Some(_)) => return Err(ExecError::PromptOfPrefill),
        (Phase::Prefill, None) => tokens,
        (Phase::Decode, prompt) => prompt.unwrap_or(0) as usize,
    };
    if steps.phase == Phase::Decode
        && let Some((row, &length)) =
            inputs.lengths.iter().enumerate().find(|(_, length)| **length < prompt as u32)
    {
        return Err(ExecError::Prompt { prompt: prompt as u32, row, length });
    }
    // Of decode, only what was decoded is handed out.
    let first = if steps.phase == Phase::Decode { prompt } else { 0 };
    let mut results = Results {
        o: Array4::zeros((rows, tokens - first, heads, dim)),
        lse: Array3::zeros((rows, heads, tokens - first)),
    };
    let lengths: Vec<usize> = inputs.lengths.iter().map(|&length| length as usize).collect();
    let chunk = steps.chunk.map_or(prompt.max(1), |chunk| chunk as usize);
    let prefills = (0..prompt).step_by(chunk).map(|at| (Phase::Prefill, at..prompt.min(at + chunk)));
    let decodes = (prompt..tokens).map(|at| (Phase::Decode, at..at + 1));
    for (phase, range) in prefills.chain(decodes) {
        let ranges: Vec<Range<usize>> =
            lengths.iter().map(|&length| range.start.min(length)..range.end.min(length)).collect();
        let chunk: Vec<u32> = ranges.iter().map(|range| range.len() as u32).collect();
        if chunk.iter().any(|&tokens| tokens > 0) {
            let [q, k, v] = inputs.packed(&ranges);
            let packed = Rows { chunk: &chunk, qkv: Qkv::new(&q, &k, &v) };
            let found = match phase {
                Phase::Prefill => layer.prefill(&packed)?,
                Phase::Decode => layer.decode(&packed)?,
            };
            if range.start >= first {
                put(&mut results, &found, &ranges, first);
            }
        }
        step(range.end, tokens);
    }
    Ok(results)
}

/// Puts what came out for `ranges` of each row where it belongs.
fn put(results: &mut Results, found: &Outputs, ranges: &[Range<usize>], first: usize) {
    let mut at = 0;
    for (row, range) in ranges.iter().enumerate() {
        for token in range.clone() {
            let o = found.o.index_axis(ndarray::Axis(0), at);
            let mut to = results.o.index_axis_mut(ndarray::Axis(0), row);
            to.index_axis_mut(ndarray::Axis(0), token - first).assign(&o);
            for (head, &lse) in found.lse.row(at).iter().enumerate() {
                results.lse[(row, head, token - first)] = lse;
            }
            at += 1;
        }
    }
}
