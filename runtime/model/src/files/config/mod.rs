//! The configuration of a Llama-family model: its sizes, its rotary embedding and its special tokens, from either kind of file.
//!
//! A [`Config`] is checked: sizes are positive, divide as they must and are small enough that products of a few of
//! them fit 64 bits. A setting that changes what is computed and is not implemented is refused by its name.

mod folder;
mod gguf;
mod name;

use std::path::Path;

use moac_runtime::glue::EngineShape;
use moac_runtime::plan::{ModelShape, is_name};

use crate::ModelError;

/// The tensor with a divisor for each rotary pair.
pub(crate) const ROPE_DIVISORS: &str = "rope_freqs.weight";

/// The largest sizes that are taken for meant: far beyond any model, and their products fit 64 bits.
const MAX_LAYERS: u64 = 1 << 12;
const MAX_WIDTH: u64 = 1 << 20;
const MAX_TOKENS: u64 = 1 << 24;

/// The configuration of a Llama-family model.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// A name for people.
    pub name: String,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Elements of the residual stream.
    pub hidden_size: usize,
    /// Elements between the projections of the feed-forward network.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub num_layers: usize,
    /// Query heads of a layer.
    pub num_heads: usize,
    /// KV heads of a layer; divides `num_heads`.
    pub num_kv_heads: usize,
    /// Elements of a head; even.
    pub head_dim: usize,
    /// Added to the mean square in RMS norms.
    pub norm_eps: f32,
    /// The longest context the model was made for, in tokens.
    pub context: usize,
    /// The rotary embedding.
    pub rope: Rope,
    /// Whether q, k and v have a bias.
    pub qkv_bias: bool,
    /// Whether every head of q and k has an RMS norm, before the rotary embedding.
    pub qk_norm: bool,
    /// Whether the output projection is the embedding.
    pub tied_embeddings: bool,
    /// The token that starts a text.
    pub bos: Option<u32>,
    /// The tokens that end an answer.
    pub eos: Vec<u32>,
}

/// The rotary embedding: pair i of a head turns by `position * frequency(i)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// The base: frequency(i) = theta^(-2i / `head_dim`) before scaling.
    pub theta: f64,
    /// How frequencies are scaled for contexts longer than those of the first training.
    pub scaling: RopeScaling,
}

/// Scalings of the rotary frequencies.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// None.
    None,
    /// Every frequency divided by a factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Llama 3.1: long wavelengths divided by a factor, short ones left, a ramp between.
    Llama3 {
        /// The factor.
        factor: f64,
        /// Wavelengths longer than `original_context / low_freq_factor` are divided.
        low_freq_factor: f64,
        /// Wavelengths shorter than `original_context / high_freq_factor` are left.
        high_freq_factor: f64,
        /// The context length of the first training, in tokens.
        original_context: f64,
    },
    /// A divisor per pair, as GGUF files carry it.
    Divisors(Vec<f32>),
}

impl Rope {
    /// The angle per position of each pair, `head_dim / 2` of them.
    pub fn frequencies(&self, head_dim: usize) -> Vec<f64> {
        let plain = (0..head_dim / 2).map(|i| self.theta.powf(-2.0 * i as f64 / head_dim as f64));
        match &self.scaling {
            RopeScaling::None => plain.collect(),
            RopeScaling::Linear { factor } => plain.map(|f| f / factor).collect(),
            RopeScaling::Divisors(divisors) => plain.zip(divisors).map(|(f, &d)| f / f64::from(d)).collect(),
            &RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => plain
                .map(|f| {
                    // Turns in the original context, from the share that is left alone (1) to the one divided (0).
                    let turns = original_context * f / std::f64::consts::TAU;
                    let keep =
                        ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
                    f * (keep + (1.0 - keep) / factor)
                })
                .collect(),
        }
    }
}

impl Config {
    /// The shape that plans are made for.
    pub fn shape(&self) -> ModelShape {
        ModelShape {
            name: self.name.clone(),
            num_layers: self.num_layers as u32,
            num_heads: self.num_heads as u32,
            num_kv_heads: self.num_kv_heads as u32,
            head_dim: self.head_dim as u32,
            rope_theta: Some(self.rope.theta),
            context: Some(self.context as u32),
            softmax_scale: None,
        }
    }

    /// The shape that the engine's kernels are compiled for.
    pub fn engine_shape(&self) -> EngineShape {
        EngineShape {
            hidden: self.hidden_size as u32,
            intermediate: self.intermediate_size as u32,
            vocab: self.vocab_size as u32,
            norm_eps: self.norm_eps,
            frequencies: self.rope.frequencies(self.head_dim),
            qkv_bias: self.qkv_bias,
            qk_norm: self.qk_norm,
        }
    }

    /// Query heads per KV head.
    pub fn group_size(&self) -> usize {
        self.num_heads / self.num_kv_heads
    }

    /// Parameters of the model, tied ones once.
    pub fn parameters(&self) -> u64 {
        let attention = 2 * (self.num_heads + self.num_kv_heads) * self.head_dim;
        let bias = if self.qkv_bias { (self.num_heads + 2 * self.num_kv_heads) * self.head_dim } else { 0 };
        let norms = if self.qk_norm { 2 * self.head_dim } else { 0 };
        let layer = (attention + 3 * self.intermediate_size + 2) * self.hidden_size + bias + norms;
        let embeddings = if self.tied_embeddings { 1 } else { 2 } * self.vocab_size * self.hidden_size;
        (self.num_layers * layer + embeddings + self.hidden_size) as u64
    }

    /// Floating-point operations of the projections for one token, a multiply-add being two; with the output
    /// projection or without. Attention comes on top: `4 * head_dim` per head and visible key.
    pub fn flops_per_token(&self, logits: bool) -> u64 {
        let attention = 2 * (self.num_heads + self.num_kv_heads) * self.head_dim;
        let layers = self.num_layers * (attention + 3 * self.intermediate_size);
        2 * ((layers + if logits { self.vocab_size } else { 0 }) * self.hidden_size) as u64
    }

    /// Checks what depends on more than one setting.
    fn check(self, path: &Path) -> Result<Self, ModelError> {
        let wrong = |key: &str, found: String, expected: String| {
            Err(ModelError::Setting { path: path.to_owned(), key: key.to_owned(), found, expected })
        };
        if !self.num_heads.is_multiple_of(self.num_kv_heads) {
            return wrong(
                "KV heads",
                self.num_kv_heads.to_string(),
                format!("a divisor of {} heads", self.num_heads),
            );
        }
        if !self.head_dim.is_multiple_of(2) || self.head_dim == 0 {
            return wrong("head_dim", self.head_dim.to_string(), "an even number".into());
        }
        if !(self.norm_eps > 0.0 && self.norm_eps < 1.0) {
            return wrong("RMS norm epsilon", self.norm_eps.to_string(), "between 0 and 1".into());
        }
        let frequencies = self.rope.frequencies(self.head_dim);
        if frequencies.len() != self.head_dim / 2 || !frequencies.iter().all(|f| f.is_finite() && *f > 0.0) {
            let found = format!("theta {} with {:?}", self.rope.theta, self.rope.scaling);
            return wrong("rotary embedding", found, "finite, positive frequencies".into());
        }
        if self.num_heads as u64 * self.head_dim as u64 > MAX_WIDTH {
            let found = format!("{} x {}", self.num_heads, self.head_dim);
            return wrong("heads x head_dim", found, format!("at most {MAX_WIDTH}"));
        }
        Ok(self)
    }
}

/// The architectures, by the name that both kinds of file give them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
}

impl Family {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "llama" => Self::Llama,
            "mistral" => Self::Mistral,
            "qwen2" => Self::Qwen2,
            "qwen3" => Self::Qwen3,
            _ => return None,
        })
    }
}

/// Whether a factor is there and changes something.
#[allow(clippy::float_cmp)] // a factor of exactly one is the one that changes nothing
fn scales(factor: Option<f64>) -> bool {
    factor.is_some_and(|factor| factor != 1.0)
}

/// The name for people; a file's own may be unfit to be shown.
fn name(stated: &str, family: &str) -> String {
    if is_name(stated) { stated } else { family }.to_owned()
}

fn unsupported(path: &Path, what: String) -> ModelError {
    ModelError::Unsupported { path: path.to_owned(), what }
}

fn missing(path: &Path, key: &str) -> ModelError {
    let (found, expected) = ("missing".to_owned(), "a positive number".to_owned());
    ModelError::Setting { path: path.to_owned(), key: key.to_owned(), found, expected }
}

fn within(path: &Path, key: &str, value: u64, max: u64) -> Result<usize, ModelError> {
    if (1..=max).contains(&value) {
        return Ok(value as usize);
    }
    let expected = format!("1 to {max}");
    Err(ModelError::Setting {
        path: path.to_owned(),
        key: key.to_owned(),
        found: value.to_string(),
        expected,
    })
}
