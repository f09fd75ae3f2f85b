//! Times a model on a GPU: prompts, decode steps, the whole loop of steps; and says how many requests fit.
//!
//! What must hold for the numbers to mean something: a request's cache holds the keys of random tokens, and every request has
//! a cache of its own; a step reads far more than the L2 cache holds, so that no step finds the last one's there; steps are
//! timed by the device in a graph, and the loop by the host's clock, reading tokens one step behind as the engine does.

use std::time::Instant;

use moac_runtime::geometry::Geometry;
use moac_runtime::glue::uniform;
use moac_runtime::gpu::{GpuError, Slab};
use serde::Serialize;

use super::runner::{GpuRunner, Profile};
use crate::engine::runner::{Choice, Decode, Prefill, Runner};
use crate::{ModelError, Sampling};

/// Launches of a step that are timed.
const REPETITIONS: usize = 15;
/// Steps of the loop that is timed.
const STEPS: u32 = 32;
/// Seeds of random tokens.
const SEED: u64 = 11;

/// How a batch size is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchSize {
    /// So many.
    Of(u32),
    /// As many as fit.
    Largest,
}

/// The times at one batch size and context.
#[derive(Clone, Debug, Serialize)]
pub struct DecodePoint {
    /// Requests.
    pub batch: u32,
    /// Tokens of each, the new one included.
    pub context: u32,
    /// Milliseconds of a step in its graph, the median.
    pub step_ms: f64,
    /// Milliseconds of a step in the loop, host included, the mean.
    pub loop_ms: f64,
    /// Bytes of keys and values that are visible in a step.
    pub kv_bytes: u64,
    /// Bytes of weights that a step reads.
    pub weight_bytes: u64,
    /// Where the time goes, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
}

/// The time of a prompt.
#[derive(Clone, Debug, Serialize)]
pub struct PrefillPoint {
    /// Tokens.
    pub tokens: u32,
    /// Tokens of a step.
    pub chunk: u32,
    /// Milliseconds to its first token, host included; the best of some.
    pub ms: f64,
    /// Where the time goes, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
}

/// The least time that a step can take: its keys and values at the rate of reading, and the larger of its weights at that rate and its
/// operations at the rate of products. GB/s and TFLOP/s to milliseconds.
pub fn limit_ms(point: &DecodePoint, flops: u64, read_gb_per_s: f64, tflop_per_s: f64) -> f64 {
    let read = |bytes: u64| bytes as f64 / read_gb_per_s / 1e6;
    read(point.kv_bytes) + read(point.weight_bytes).max(flops as f64 / tflop_per_s / 1e9)
}

/// How many requests fit.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Fits {
    /// Tokens of each.
    pub context: u32,
    /// Bytes of a slab.
    pub slab_bytes: u64,
    /// Requests.
    pub batch: u32,
}

/// How many requests of a context length fit into a runner's slabs and lanes.
///
/// # Errors
/// A context beyond the largest bucket.
pub fn fits(runner: &GpuRunner, context: u32) -> Result<Fits, ModelError> {
    let limits = runner.limits();
    let Some(bucket) = limits.buckets.iter().find(|bucket| bucket.length >= context) else {
        let largest = limits.buckets.last().map_or(0, |bucket| bucket.length);
        return Err(GpuError::NoBucket { max_len: context, largest }.into());
    };
    let most = limits.slab_bytes / bucket.slab_bytes;
    let batch = u32::try_from(most).unwrap_or(u32::MAX).min(limits.lanes);
    Ok(Fits { context, slab_bytes: bucket.slab_bytes, batch })
}

/// Bytes of keys and values that a query at the end of `context` tokens sees, of all layers.
pub fn visible_bytes(geometry: &Geometry, bucket: usize, context: u32, row_bytes: u64) -> u64 {
    let layers = geometry.layers.iter().flat_map(|layer| &layer.buckets[bucket].kv_span);
    layers.map(|&span| 2 * u64::from(span.min(context)) * row_bytes).sum()
}

/// Times a prompt of `tokens` tokens, chunk by chunk as the engine reads it.
///
/// # Errors
/// No room, or what the device says.
pub fn prefill(
    runner: &mut GpuRunner,
    tokens: u32,
    rounds: usize,
    profile: bool,
) -> Result<PrefillPoint, ModelError> {
    let chunk = runner.limits().rows;
    let mut best = f64::INFINITY;
    for round in 0..=rounds {
        let mut slab = slab(runner, tokens)?;
        runner.stream().synchronize()?;
        let start = Instant::now();
        read(runner, &mut slab, tokens, round as u64)?;
        // The first round describes products and loads code.
        if round > 0 {
            best = best.min(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    let mut spent = profile.then(Profile::default);
    if let Some(profile) = &mut spent {
        let mut slab = slab(runner, tokens)?;
        let prompt = prompt(runner, tokens, SEED);
        for tokens in prompt.chunks(chunk as usize) {
            let chunk = Prefill { lane: 0, slab: &mut slab, tokens, choice: None };
            runner.profile(&[], &[chunk], profile)?;
        }
    }
    Ok(PrefillPoint { tokens, chunk, ms: best, profile: spent })
}

/// Times decode steps of `batch` requests whose contexts have `context` tokens.
///
/// # Errors
/// No room, or what the device says.
pub fn decode(
    runner: &mut GpuRunner,
    batch: u32,
    context: u32,
    profile: bool,
) -> Result<DecodePoint, ModelError> {
    if batch == 0 || batch > runner.limits().lanes {
        let (found, expected) = (batch.to_string(), format!("1 to {} that fit", runner.limits().lanes));
        return Err(ModelError::Argument { what: "the batch size", found, expected });
    }
    let mut slabs = (0..batch).map(|_| slab(runner, context)).collect::<Result<Vec<_>, _>>()?;
    // What the loop adds, and the token that gives every lane its newest.
    let prompt = context.saturating_sub(STEPS + 3).max(1);
    let (first, others) = slabs.split_at_mut(1);
    read(runner, &mut first[0], prompt, SEED)?;
    for other in others {
        runner.copy(&first[0], other)?;
    }
    let greedy = Sampling::greedy();
    let choice = |counter| Choice { sampling: &greedy, counter, top_logprobs: 0 };
    let vocab = runner.limits().vocab;
    let tokens: Vec<[u32; 1]> = (0..batch).map(|at| [token(vocab, SEED + 1, at)]).collect();
    let rows = runner.limits().rows as usize;
    for start in (0..batch as usize).step_by(rows) {
        let end = (start + rows).min(batch as usize);
        let mut chunks: Vec<Prefill<'_, Slab>> = (start as u32..)
            .zip(&mut slabs[start..end])
            .zip(&tokens[start..end])
            .map(|((lane, slab), tokens)| Prefill { lane, slab, tokens, choice: Some(choice(0)) })
            .collect();
        runner.start(&mut [], &mut chunks)?;
        runner.finish()?;
    }
    // Once outside of the times: products are tuned and the graph is captured.
    runner.start(&mut decodes(&mut slabs, choice(0)), &mut [])?;
    runner.finish()?;
    runner.stream().synchronize()?;
    let start = Instant::now();
    let steps = STEPS.min(context.saturating_sub(prompt + 2));
    for counter in 0..steps {
        runner.start(&mut decodes(&mut slabs, choice(counter)), &mut [])?;
        if counter > 0 {
            runner.finish()?;
        }
    }
    if steps > 0 {
        runner.finish()?;
    }
    let loop_ms = start.elapsed().as_secs_f64() * 1e3 / f64::from(steps);
    let mut times = runner.time_decode(&decodes(&mut slabs, choice(steps)), REPETITIONS)?;
    times.sort_by(f64::total_cmp);
    let context = slabs[0].len() + 1;
    let mut spent = profile.then(Profile::default);
    if let Some(profile) = &mut spent {
        runner.profile(&decodes(&mut slabs, choice(steps)), &[], profile)?;
    }
    let model = runner.model();
    let row_bytes = u64::from(model.layer(0)?.head_dim()) * u64::from(model.dtype().bytes());
    let visible = visible_bytes(model.geometry(), slabs[0].bucket(), context, row_bytes);
    Ok(DecodePoint {
        batch,
        context,
        step_ms: times[times.len() / 2],
        loop_ms,
        kv_bytes: u64::from(batch) * visible,
        weight_bytes: runner.weight_bytes(),
        profile: spent,
    })
}

/// Every slab in its own lane.
fn decodes<'a>(slabs: &'a mut [Slab], choice: Choice<'a>) -> Vec<Decode<'a, Slab>> {
    (0..).zip(slabs).map(|(lane, slab)| Decode { lane, slab, choice }).collect()
}

fn slab(runner: &mut GpuRunner, max_len: u32) -> Result<Slab, ModelError> {
    if let Some(slab) = runner.slab(max_len)? {
        return Ok(slab);
    }
    let expected = format!("as many as fit: {}", fits(runner, max_len)?.batch);
    Err(ModelError::Argument { what: "the number of slabs", found: "one more".to_owned(), expected })
}

/// Reads a prompt of random tokens and chooses the first token.
fn read(runner: &mut GpuRunner, slab: &mut Slab, tokens: u32, seed: u64) -> Result<(), ModelError> {
    let rows = runner.limits().rows as usize;
    let prompt = prompt(runner, tokens, seed);
    let greedy = Sampling::greedy();
    let chunks = prompt.len().div_ceil(rows);
    for (at, tokens) in prompt.chunks(rows).enumerate() {
        let last = at + 1 == chunks;
        let choice = last.then_some(Choice { sampling: &greedy, counter: 0, top_logprobs: 0 });
        runner.start(&mut [], &mut [Prefill { lane: 0, slab, tokens, choice }])?;
        // Chunks without a token are done when the one with a token is.
        runner.finish()?;
    }
    Ok(())
}

fn prompt(runner: &GpuRunner, tokens: u32, seed: u64) -> Vec<u32> {
    (0..tokens).map(|at| token(runner.limits().vocab, seed, at)).collect()
}

fn token(vocab: u32, seed: u64, at: u32) -> u32 {
    ((f64::from(uniform(seed, at)) * f64::from(vocab)) as u32).min(vocab - 1)
}

#[cfg(test)]
mod tests {
    use moac_runtime::geometry::Geometry;
    use moac_runtime::plan::{DType, Plan};

    use super::{DecodePoint, limit_ms, visible_bytes};

    #[test]
    fn a_step_is_bound_by_reading_or_by_arithmetic() {
        let point = DecodePoint {
            batch: 1,
            context: 1,
            step_ms: 0.0,
            loop_ms: 0.0,
            kv_bytes: 1_000_000_000,
            weight_bytes: 15_000_000_000,
            profile: None,
        };
        let limit = |flops| limit_ms(&point, flops, 1000.0, 500.0);
        assert!((limit(1_000_000_000_000) - 16.0).abs() < 1e-9);
        assert!((limit(10_000_000_000_000) - 21.0).abs() < 1e-9);
    }

    /// Two layers of two KV heads, by hand: spans 128 and 512 in the first, 64 + n / 2 and all in the second.
    #[test]
    fn visible_bytes_are_those_of_kv_spans() {
        let plan: Plan = serde_json::from_str(
            r#"{"format": "moac.plan/1", "alphas": [[128, 512], [64, 0]], "betas": [[0, 0], [0.5, 1]],
                "model": {"name": "tiny", "num_layers": 2, "num_heads": 2, "num_kv_heads": 2, "head_dim": 64}}"#,
        )
        .unwrap();
        let geometry = Geometry::new(&plan, 0..2, &[256, 1024], DType::Bf16);
        let tokens = |bucket, context| visible_bytes(&geometry, bucket, context, 1) / 2;
        assert_eq!(tokens(1, 1024), 128 + 512 + 576 + 1024);
        assert_eq!(tokens(1, 300), 128 + 300 + 300 + 300);
        assert_eq!(tokens(0, 256), 128 + 256 + 192 + 256);
    }
}
