//! Times of a whole model, as `--json` tells them and as tables for a terminal.

use moac_compiler::bench::Ceilings;
use moac_model::Config;
use moac_model::gpu::bench::{DecodePoint, Fits, PrefillPoint, limit_ms};
use moac_model::gpu::{MemoryByKind, Profile, Work};
use moac_runtime::arch::Arch;
use moac_runtime::artifact::Artifact;
use moac_runtime::gpu::{Device, LoadedArtifact};
use moac_runtime::plan::DType;
use serde::Serialize;

use super::{bytes_text, table};

/// A bench of a model on a GPU.
#[derive(Debug, Serialize)]
pub struct ModelTimes {
    /// The device's name.
    pub device: String,
    /// The architecture whose kernels ran.
    pub arch: Arch,
    /// Element type.
    pub dtype: DType,
    /// The model's name.
    pub model: String,
    /// Parameters of the model.
    pub parameters: u64,
    /// The ceilings of the device, measured in the same run.
    pub ceilings: Ceilings,
    /// Device memory, by purpose.
    pub memory: MemoryByKind,
    /// All of the device's memory.
    pub memory_of_device: u64,
    /// The memory free at the end.
    pub memory_free_at_the_end: u64,
    /// Bytes of a slab over those of every head seeing everything, at each bucket.
    pub density: Vec<(u32, f64)>,
    /// How many requests fit.
    pub fits: Vec<Fits>,
    /// Prompts.
    pub prompts: Vec<Prompt>,
    /// Steps.
    pub points: Vec<Point>,
}

/// A prompt's time.
#[derive(Debug, Serialize)]
pub struct Prompt {
    /// The points timed.
    #[serde(flatten)]
    pub of: PrefillPoint,
    /// Tokens a second.
    pub tokens_per_s: f64,
    /// Floating-point operations of the products.
    pub flops: u64,
    /// Milliseconds that those take at the measured rate of products.
    pub products_at_ceiling_ms: Option<f64>,
    /// Milliseconds that attention took, if there is a profile.
    pub attention_ms: Option<f64>,
}

/// A step's time.
#[derive(Debug, Serialize)]
pub struct Point {
    /// The points timed.
    #[serde(flatten)]
    pub of: DecodePoint,
    /// Tokens a second of all requests, in the loop.
    pub tokens_per_s: f64,
    /// Floating-point operations of the products.
    pub flops: u64,
    /// The lower bound of the step's time, by the ceilings of the run.
    pub limit_ms: Option<f64>,
    /// That over the step's time in its graph.
    pub share: Option<f64>,
}

impl Prompt {
    /// A prompt's time beside the ceilings.
    pub fn new(of: PrefillPoint, config: &Config, ceilings: &Ceilings) -> Self {
        // One row of logits: beside those of the layers not worth counting.
        let flops = config.flops_per_token(false) * u64::from(of.tokens);
        Self {
            tokens_per_s: f64::from(of.tokens) / of.ms * 1e3,
            flops,
            products_at_ceiling_ms: ceilings.matrix_tflop_per_s.map(|rate| flops as f64 / rate / 1e9),
            attention_ms: of
                .profile
                .as_ref()
                .and_then(|profile| Some(profile.0.get(&Work::Attention)?.us / 1e3)),
            of,
        }
    }

    /// In a line.
    pub fn line(&self) -> String {
        let Self { of: PrefillPoint { tokens, ms, .. }, tokens_per_s, .. } = self;
        format!("a prompt of {tokens} tokens in {ms:.1} ms, {tokens_per_s:.0} tokens/s")
    }
}

impl Point {
    /// A step's time beside the ceilings.
    pub fn new(of: DecodePoint, config: &Config, ceilings: &Ceilings) -> Self {
        let flops = config.flops_per_token(true) * u64::from(of.batch);
        let rates = ceilings.read_gb_per_s.zip(ceilings.matrix_tflop_per_s);
        let limit = rates.map(|(read, product)| limit_ms(&of, flops, read, product));
        Self {
            tokens_per_s: f64::from(of.batch) / of.loop_ms * 1e3,
            flops,
            limit_ms: limit,
            share: limit.map(|limit| limit / of.step_ms),
            of,
        }
    }

    /// In a line.
    pub fn line(&self) -> String {
        let Self { of: DecodePoint { batch, context, step_ms, loop_ms, .. }, tokens_per_s, .. } = self;
        let share =
            self.share.map_or_else(String::new, |share| format!(", {:.1}% of the limit", 100.0 * share));
        format!(
            "{batch} x {context}: {step_ms:.3} ms a step{share}; in the loop {loop_ms:.3} ms, {tokens_per_s:.0} tokens/s"
        )
    }
}

impl ModelTimes {
    /// Without any times so far.
    pub fn new(
        device: &Device,
        artifact: &Artifact,
        loaded: &LoadedArtifact,
        config: &Config,
        ceilings: Ceilings,
        memory: MemoryByKind,
    ) -> Self {
        let geometry = &artifact.manifest().geometry;
        let row = 2 * (config.num_kv_heads * config.head_dim) as u64 * u64::from(loaded.dtype().bytes());
        let dense = |length: u32| config.num_layers as u64 * row * u64::from(length);
        let density = geometry.lengths.iter().zip(&geometry.slab_bytes);
        Self {
            device: device.info().name.clone(),
            arch: loaded.arch(),
            dtype: loaded.dtype(),
            model: config.name.clone(),
            parameters: config.parameters(),
            ceilings,
            memory,
            memory_of_device: device.info().memory_bytes,
            memory_free_at_the_end: 0,
            density: density.map(|(&length, &bytes)| (length, bytes as f64 / dense(length) as f64)).collect(),
            fits: Vec::new(),
            prompts: Vec::new(),
            points: Vec::new(),
        }
    }

    /// Tables: memory, prompts, steps, and where their time goes.
    pub fn text(&self) -> String {
        let known = |value: Option<f64>, unit: &str| {
            value.map_or_else(|| "unknown".to_owned(), |value| format!("{value:.0} {unit}"))
        };
        let percent = |share: Option<f64>| {
            share.map_or_else(|| "unknown".to_owned(), |share| format!("{:.1}%", 100.0 * share))
        };
        let ms = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.3} ms"));
        let Ceilings { read_gb_per_s, matrix_tflop_per_s, .. } = self.ceilings;
        let MemoryByKind { weights, activations, workspaces, slabs } = self.memory;
        let mut text = format!(
            "{}, {}, {}: {} parameters\nceilings: reading {}, bf16 matrix product {}\nmemory: weights {}, activations {}, workspaces {}, slabs {}\n\n",
            self.device,
            self.arch,
            self.dtype,
            self.parameters,
            known(read_gb_per_s, "GB/s"),
            known(matrix_tflop_per_s, "TFLOP/s"),
            bytes_text(weights),
            bytes_text(activations),
            bytes_text(workspaces),
            bytes_text(slabs),
        );
        let mut rows = table(&["context", "slab", "fit"], 0);
        for fits in &self.fits {
            rows.add_row([fits.context.to_string(), bytes_text(fits.slab_bytes), fits.batch.to_string()]);
        }
        text += &rows.trim_fmt();
        text += "\n\n";
        let mut rows = table(&["prompt", "time", "tokens/s", "products at the ceiling", "attention"], 0);
        for prompt in &self.prompts {
            rows.add_row([
                prompt.of.tokens.to_string(),
                format!("{:.1} ms", prompt.of.ms),
                format!("{:.0}", prompt.tokens_per_s),
                ms(prompt.products_at_ceiling_ms),
                ms(prompt.attention_ms),
            ]);
        }
        text += &rows.trim_fmt();
        text += "\n\n";
        let header = ["batch", "context", "step", "limit", "of limit", "in the loop", "tokens/s", "K, V"];
        let mut rows = table(&header, 0);
        for point in &self.points {
            rows.add_row([
                point.of.batch.to_string(),
                point.of.context.to_string(),
                format!("{:.3} ms", point.of.step_ms),
                ms(point.limit_ms),
                percent(point.share),
                format!("{:.3} ms", point.of.loop_ms),
                format!("{:.0}", point.tokens_per_s),
                bytes_text(point.of.kv_bytes),
            ]);
        }
        text += &rows.trim_fmt();
        let prompts = self.prompts.iter().map(|it| (format!("prompt {}", it.of.tokens), &it.of.profile));
        let points =
            self.points.iter().map(|it| (format!("{} x {}", it.of.batch, it.of.context), &it.of.profile));
        for (name, profile) in prompts.chain(points) {
            if let Some(profile) = profile {
                text += &["\n\n", &name, ", piece by piece\n", &profile_text(profile)].concat();
            }
        }
        text
    }
}

fn profile_text(Profile(parts): &Profile) -> String {
    let total: f64 = parts.values().map(|part| part.us).sum();
    let mut rows = table(&["work", "pieces", "us", "us each", "share"], 1);
    for (work, part) in parts {
        rows.add_row([
            format!("{work:?}"),
            part.pieces.to_string(),
            format!("{:.1}", part.us),
            format!("{:.2}", part.us / part.pieces as f64),
            format!("{:.1}%", 100.0 * part.us / total),
        ]);
    }
    rows.trim_fmt()
}
