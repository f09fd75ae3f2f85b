//! What a Llama-family model is: its sizes, its rotary embedding and its special tokens, from either kind of file.
//!
//! A [`Config`] is checked: sizes are positive, divide as they must and are small enough that products of a few of
//! them fit 64 bits. A setting that changes what is computed and is not implemented is refused by its name.

use std::path::Path;

use moac_runtime::plan::{ModelShape, is_name};
use serde::Deserialize;
use serde_json::Value;

use super::gguf::Gguf;
use super::json;
use crate::ModelError;

/// The tensor with a divisor for each rotary pair.
pub(crate) const ROPE_DIVISORS: &str = "rope_freqs.weight";

/// Keys of GGUF files that, when not 0, change what is computed.
const REFUSED_GGUF: [&str; 11] = [
    "expert_count",
    "attention.sliding_window",
    "attention.scale",
    "attention.clamp_kqv",
    "attention.max_alibi_bias",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "logit_scale",
    "residual_scale",
    "embedding_scale",
    "router_logit_softcapping",
];

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

    /// Query heads per KV head.
    pub fn group_size(&self) -> usize {
        self.num_heads / self.num_kv_heads
    }

    /// Parameters of the model, tied ones once.
    pub fn parameters(&self) -> u64 {
        let attention = 2 * (self.num_heads + self.num_kv_heads) * self.head_dim;
        let layer = (attention + 3 * self.intermediate_size + 2) * self.hidden_size;
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

    /// Reads `config.json` of a Hugging Face folder, and the end-of-text tokens of its `generation_config.json`.
    pub fn from_folder(folder: &Path) -> Result<Self, ModelError> {
        let mut config = Self::from_json(&folder.join("config.json"))?;
        let generation = folder.join("generation_config.json");
        if generation.is_file() {
            #[derive(Deserialize)]
            struct Generation {
                eos_token_id: Option<Ids>,
            }
            let Generation { eos_token_id } = json::read(&generation)?;
            config.eos.extend(eos_token_id.map(Ids::into_vec).unwrap_or_default());
            config.eos.sort_unstable();
            config.eos.dedup();
        }
        Ok(config)
    }

    /// Reads a Hugging Face `config.json`.
    pub fn from_json(path: &Path) -> Result<Self, ModelError> {
        json::read::<HfConfig>(path)?.check(path)
    }

    /// Reads the metadata of a GGUF file.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, ModelError> {
        let path = gguf.path();
        let arch = gguf.text("general.architecture")?.unwrap_or("missing");
        if arch != "llama" {
            return Err(unsupported(path, format!("`general.architecture` {arch}")));
        }
        for key in REFUSED_GGUF {
            let key = format!("llama.{key}");
            if gguf.number(&key)?.is_some_and(|value| value != 0.0) {
                return Err(unsupported(path, format!("`{key}`")));
            }
        }
        let size = |key: &str| -> Result<Option<usize>, ModelError> {
            let key = format!("llama.{key}");
            let Some(value) = gguf.unsigned(&key)? else { return Ok(None) };
            let max = match key.as_str() {
                "llama.block_count" => MAX_LAYERS,
                "llama.vocab_size" | "llama.context_length" => MAX_TOKENS,
                _ => MAX_WIDTH,
            };
            within(path, &key, value, max).map(Some)
        };
        let need = |key: &str| size(key)?.ok_or_else(|| missing(path, &format!("llama.{key}")));
        let number = |key: &str, default: f64| Ok::<_, ModelError>(gguf.number(key)?.unwrap_or(default));
        let num_heads = need("attention.head_count")?;
        let hidden_size = need("embedding_length")?;
        let head_dim = match size("attention.key_length")? {
            Some(dim) => dim,
            None => hidden_size / num_heads,
        };
        if let Some(rotated) = size("rope.dimension_count")?.filter(|&rotated| rotated != head_dim) {
            return Err(unsupported(path, format!("`llama.rope.dimension_count` {rotated} of {head_dim}")));
        }
        let vocab_size = match size("vocab_size")? {
            Some(size) => size,
            None => gguf
                .texts("tokenizer.ggml.tokens")?
                .ok_or_else(|| missing(path, "llama.vocab_size"))
                .and_then(|tokens| within(path, "tokenizer.ggml.tokens", tokens.len() as u64, MAX_TOKENS))?,
        };
        let id = |key: &str| gguf.unsigned(&format!("tokenizer.ggml.{key}_token_id"));
        let mut eos: Vec<u32> = Vec::new();
        for key in ["eos", "eot"] {
            eos.extend(id(key)?.and_then(|id| u32::try_from(id).ok()));
        }
        // Files of before the type had a key say only by how much, and mean the linear one.
        let old =
            gguf.number("llama.rope.scale_linear")?.filter(|&factor| (factor - 1.0).abs() > f64::EPSILON);
        let kind = gguf.text("llama.rope.scaling.type")?;
        let divisors = gguf.has_tensor(ROPE_DIVISORS);
        let scaling = match kind.unwrap_or(if old.is_some() { "linear" } else { "none" }) {
            "none" if divisors => {
                RopeScaling::Divisors(gguf.tensor(ROPE_DIVISORS, &[head_dim / 2])?.to_vec1()?)
            }
            "none" => RopeScaling::None,
            "linear" if !divisors => {
                let factor = number("llama.rope.scaling.factor", old.unwrap_or(1.0))?;
                RopeScaling::Linear { factor }
            }
            "linear" => {
                let what = format!("`llama.rope.scaling.type` linear beside the tensor `{ROPE_DIVISORS}`");
                return Err(unsupported(path, what));
            }
            other => return Err(unsupported(path, format!("`llama.rope.scaling.type` {other}"))),
        };
        let config = Self {
            name: name(gguf.text("general.name")?.unwrap_or_default()),
            vocab_size,
            hidden_size,
            intermediate_size: need("feed_forward_length")?,
            num_layers: need("block_count")?,
            num_heads,
            num_kv_heads: size("attention.head_count_kv")?.unwrap_or(num_heads),
            head_dim,
            norm_eps: gguf
                .number("llama.attention.layer_norm_rms_epsilon")?
                .ok_or_else(|| missing(path, "llama.attention.layer_norm_rms_epsilon"))?
                as f32,
            context: need("context_length")?,
            rope: Rope { theta: number("llama.rope.freq_base", 10_000.0)?, scaling },
            tied_embeddings: !gguf.has_tensor("output.weight"),
            bos: id("bos")?.and_then(|id| u32::try_from(id).ok()),
            eos,
        };
        config.check(path)
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

/// The name for people; a file's own may be unfit to be shown.
fn name(stated: &str) -> String {
    if is_name(stated) { stated } else { "llama" }.to_owned()
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

/// One token id or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Ids {
    One(u32),
    Many(Vec<u32>),
}

impl Ids {
    fn into_vec(self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![id],
            Self::Many(ids) => ids,
        }
    }
}

/// The settings of `config.json` that matter here.
#[derive(Deserialize)]
struct HfConfig {
    #[serde(default)]
    model_type: String,
    #[serde(default, rename = "_name_or_path")]
    name: String,
    vocab_size: u64,
    hidden_size: u64,
    intermediate_size: u64,
    num_hidden_layers: u64,
    num_attention_heads: u64,
    num_key_value_heads: Option<u64>,
    head_dim: Option<u64>,
    rms_norm_eps: f64,
    max_position_embeddings: u64,
    rope_theta: Option<f64>,
    rope_scaling: Option<HfRope>,
    rope_parameters: Option<HfRope>,
    #[serde(default)]
    tie_word_embeddings: bool,
    bos_token_id: Option<u32>,
    eos_token_id: Option<Ids>,
    hidden_act: Option<String>,
    /// Whatever else there is, to refuse what would change the result.
    #[serde(flatten)]
    other: std::collections::BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct HfRope {
    rope_type: Option<String>,
    /// The older name of the same.
    r#type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
}

/// Settings that, when set to anything but null, false or 0, change what is computed.
const REFUSED: [&str; 8] = [
    "attention_bias",
    "mlp_bias",
    "sliding_window",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "attention_multiplier",
    "partial_rotary_factor",
    "quantization_config",
];

impl HfConfig {
    fn check(self, path: &Path) -> Result<Config, ModelError> {
        if self.model_type != "llama" {
            return Err(unsupported(path, format!("`model_type` {:?}", self.model_type)));
        }
        for key in REFUSED {
            let harmless = match self.other.get(key) {
                None | Some(Value::Null | Value::Bool(false)) => true,
                Some(Value::Number(n)) => {
                    n.as_f64() == Some(if key == "partial_rotary_factor" { 1.0 } else { 0.0 })
                }
                Some(_) => false,
            };
            if !harmless {
                return Err(unsupported(path, format!("`{key}`")));
            }
        }
        if let Some(act) = self.hidden_act.as_ref().filter(|act| *act != "silu") {
            return Err(unsupported(path, format!("`hidden_act` {act}")));
        }
        let scaling = self.rope_parameters.as_ref().or(self.rope_scaling.as_ref());
        let theta = scaling.and_then(|s| s.rope_theta).or(self.rope_theta).unwrap_or(10_000.0);
        let scaling = scaling.map_or(Ok(RopeScaling::None), |scaling| scaling.check(path))?;
        let size = |key: &str, value: u64| within(path, key, value, MAX_WIDTH);
        let num_heads = size("num_attention_heads", self.num_attention_heads)?;
        let hidden_size = size("hidden_size", self.hidden_size)?;
        let config = Config {
            name: name(&self.name),
            vocab_size: within(path, "vocab_size", self.vocab_size, MAX_TOKENS)?,
            hidden_size,
            intermediate_size: size("intermediate_size", self.intermediate_size)?,
            num_layers: within(path, "num_hidden_layers", self.num_hidden_layers, MAX_LAYERS)?,
            num_heads,
            num_kv_heads: self
                .num_key_value_heads
                .map_or(Ok(num_heads), |n| size("num_key_value_heads", n))?,
            head_dim: self.head_dim.map_or(Ok(hidden_size / num_heads), |dim| size("head_dim", dim))?,
            norm_eps: self.rms_norm_eps as f32,
            context: within(path, "max_position_embeddings", self.max_position_embeddings, MAX_TOKENS)?,
            rope: Rope { theta, scaling },
            tied_embeddings: self.tie_word_embeddings,
            bos: self.bos_token_id,
            eos: self.eos_token_id.map(Ids::into_vec).unwrap_or_default(),
        };
        config.check(path)
    }
}

impl HfRope {
    fn check(&self, path: &Path) -> Result<RopeScaling, ModelError> {
        let need = |key: &str, value: Option<f64>| {
            value.ok_or_else(|| missing(path, &format!("rope_scaling.{key}")))
        };
        match self.rope_type.as_deref().or(self.r#type.as_deref()).unwrap_or("default") {
            "default" => Ok(RopeScaling::None),
            "linear" => Ok(RopeScaling::Linear { factor: need("factor", self.factor)? }),
            "llama3" => Ok(RopeScaling::Llama3 {
                factor: need("factor", self.factor)?,
                low_freq_factor: need("low_freq_factor", self.low_freq_factor)?,
                high_freq_factor: need("high_freq_factor", self.high_freq_factor)?,
                original_context: need(
                    "original_max_position_embeddings",
                    self.original_max_position_embeddings,
                )?,
            }),
            other => Err(unsupported(path, format!("`rope_scaling` of type {other}"))),
        }
    }
}
