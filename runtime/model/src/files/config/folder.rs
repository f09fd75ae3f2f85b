//! The configuration in a Hugging Face folder's `config.json`.
//!
//! A missing setting has the default that transformers gives it, by architecture. Most settings that may stand
//! there are of training or of other programs, so what changes the computation is refused from a list.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::{
    Config, Family, MAX_LAYERS, MAX_TOKENS, MAX_WIDTH, Rope, RopeScaling, missing, name, scales, unsupported,
    within,
};
use crate::ModelError;
use crate::files::json;

/// Settings that change what is computed when they are set to anything but null, false, 0 or an empty list.
const REFUSED: [&str; 31] = [
    "add_full_attention_sink_bias",
    "add_swa_attention_sink_bias",
    "alibi",
    "attention_chunk_size",
    "attention_logit_softcapping",
    "attention_multiplier",
    "attention_sinks",
    "attn_logit_softcap",
    "attn_logit_softcapping",
    "attn_output_gate",
    "clip_qkv",
    "compression_config",
    "dual_chunk_attention_config",
    "final_logit_softcapping",
    "index_topk",
    "kv_lora_rank",
    "max_attn_value",
    "mlp_bias",
    "n_routed_experts",
    "no_rope_layers",
    "num_experts",
    "num_local_experts",
    "q_lora_rank",
    "qk_layernorm",
    "quantization_config",
    "query_pre_attn_scalar",
    "text_config",
    "use_alibi",
    "use_parallel_residual",
    "use_qk_norm",
    "vision_config",
];

/// Factors, which may also be 1.
const REFUSED_FACTORS: [&str; 7] = [
    "embedding_multiplier",
    "logit_scale",
    "logits_scaling",
    "partial_rotary_factor",
    "residual_multiplier",
    "rotary_pct",
    "scale_emb",
];

impl Config {
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
#[allow(clippy::option_option)] // what is missing is not what is null: architectures have defaults of their own
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
    #[serde(default, deserialize_with = "stated")]
    num_key_value_heads: Option<Option<u64>>,
    #[serde(default, deserialize_with = "stated")]
    head_dim: Option<Option<u64>>,
    rms_norm_eps: f64,
    max_position_embeddings: u64,
    /// Beside a scaled rotary embedding, the context that the scaling is for.
    max_sequence_length: Option<u64>,
    rope_theta: Option<f64>,
    rope_scaling: Option<HfRope>,
    rope_parameters: Option<HfRope>,
    #[serde(default)]
    tie_word_embeddings: bool,
    bos_token_id: Option<u32>,
    eos_token_id: Option<Ids>,
    hidden_act: Option<String>,
    #[serde(default, deserialize_with = "stated")]
    sliding_window: Option<Option<u64>>,
    use_sliding_window: Option<bool>,
    max_window_layers: Option<u64>,
    layer_types: Option<Vec<String>>,
    attention_bias: Option<bool>,
    is_causal: Option<bool>,
    /// Whatever else there is, to refuse what would change the result.
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

/// A value that is there, if only as null.
#[allow(clippy::option_option)]
fn stated<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl HfConfig {
    fn check(self, path: &Path) -> Result<Config, ModelError> {
        let family = Family::of(&self.model_type)
            .ok_or_else(|| unsupported(path, format!("`model_type` {:?}", self.model_type)))?;
        self.refuse(family, path)?;
        let (theta, scaling) = self.rope(path)?;
        let size = |key: &str, value: u64| within(path, key, value, MAX_WIDTH);
        let num_heads = size("num_attention_heads", self.num_attention_heads)?;
        let hidden_size = size("hidden_size", self.hidden_size)?;
        let num_kv_heads = match (self.num_key_value_heads, family) {
            (Some(Some(stated)), _) => stated,
            (Some(None), _) | (None, Family::Llama) => num_heads as u64,
            (None, Family::Mistral) => 8,
            (None, Family::Qwen2 | Family::Qwen3) => 32,
        };
        let head_dim = match (self.head_dim, family) {
            (Some(Some(stated)), _) => size("head_dim", stated)?,
            (None, Family::Qwen3) => 128,
            _ => hidden_size / num_heads,
        };
        let (key, context) = match self.max_sequence_length {
            Some(longer) if longer > self.max_position_embeddings => ("max_sequence_length", longer),
            _ => ("max_position_embeddings", self.max_position_embeddings),
        };
        let context = within(path, key, context, MAX_TOKENS)?;
        self.refuse_window(family, context as u64, path)?;
        let config = Config {
            name: name(&self.name, &self.model_type),
            vocab_size: within(path, "vocab_size", self.vocab_size, MAX_TOKENS)?,
            hidden_size,
            intermediate_size: size("intermediate_size", self.intermediate_size)?,
            num_layers: within(path, "num_hidden_layers", self.num_hidden_layers, MAX_LAYERS)?,
            num_heads,
            num_kv_heads: size("num_key_value_heads", num_kv_heads)?,
            head_dim,
            norm_eps: self.rms_norm_eps as f32,
            context,
            rope: Rope { theta, scaling },
            qkv_bias: family == Family::Qwen2,
            qk_norm: family == Family::Qwen3,
            tied_embeddings: self.tie_word_embeddings,
            bos: self.bos_token_id,
            eos: self.eos_token_id.map(Ids::into_vec).unwrap_or_default(),
        };
        config.check(path)
    }

    fn refuse(&self, family: Family, path: &Path) -> Result<(), ModelError> {
        for (key, value) in &self.other {
            let factor = REFUSED_FACTORS.contains(&key.as_str());
            let harmless = match value {
                Value::Null | Value::Bool(false) => true,
                Value::Number(n) => n.as_f64() == Some(if factor { 1.0 } else { 0.0 }),
                Value::Array(list) => list.is_empty(),
                _ => false,
            };
            if !harmless && (factor || REFUSED.contains(&key.as_str())) {
                return Err(unsupported(path, format!("`{key}`")));
            }
        }
        // Qwen2's bias does not depend on it.
        if self.attention_bias == Some(true) && family != Family::Qwen2 {
            return Err(unsupported(path, "`attention_bias`".into()));
        }
        if self.is_causal == Some(false) {
            return Err(unsupported(path, "`is_causal` false".into()));
        }
        if let Some(act) = self.hidden_act.as_ref().filter(|act| *act != "silu") {
            return Err(unsupported(path, format!("`hidden_act` {act}")));
        }
        Ok(())
    }

    /// Refuses a sliding window in use: one that is shorter than the context, on some layer.
    fn refuse_window(&self, family: Family, context: u64, path: &Path) -> Result<(), ModelError> {
        if let Some(kind) = self.layer_types.iter().flatten().find(|kind| *kind != "full_attention") {
            return Err(unsupported(path, format!("`layer_types` with {kind}")));
        }
        let window = match (self.sliding_window, family) {
            // Qwen's window has a switch, off by default, and leaves the first layers alone.
            (_, Family::Qwen2 | Family::Qwen3) if self.use_sliding_window != Some(true) => None,
            (_, Family::Qwen2 | Family::Qwen3)
                if self.layer_types.is_some()
                    || self.max_window_layers.unwrap_or(28) >= self.num_hidden_layers =>
            {
                None
            }
            (Some(stated), _) => stated,
            (None, Family::Llama) => None,
            (None, _) => Some(4096),
        };
        match window.filter(|&window| (1..context).contains(&window)) {
            Some(window) => {
                Err(unsupported(path, format!("`sliding_window` {window} of a context of {context}")))
            }
            None => Ok(()),
        }
    }

    /// The base of the rotary embedding and how it is scaled. Older files have the base and the scaling apart.
    fn rope(&self, path: &Path) -> Result<(f64, RopeScaling), ModelError> {
        if let (Some(a), Some(b)) = (&self.rope_scaling, &self.rope_parameters)
            && a != b
        {
            return Err(unsupported(path, "a `rope_scaling` that is not its `rope_parameters`".into()));
        }
        let (at, stated) = match (&self.rope_parameters, &self.rope_scaling) {
            (Some(stated), _) => ("rope_parameters", stated),
            (None, Some(stated)) => ("rope_scaling", stated),
            (None, None) => return Ok((self.rope_theta.unwrap_or(10_000.0), RopeScaling::None)),
        };
        let theta = stated.rope_theta.or(self.rope_theta).unwrap_or(10_000.0);
        Ok((theta, stated.check(at, path)?))
    }
}

/// How the rotary embedding is scaled.
#[derive(Deserialize, PartialEq)]
struct HfRope {
    rope_type: Option<String>,
    /// The older name of the same.
    r#type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
    partial_rotary_factor: Option<f64>,
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

impl HfRope {
    fn check(&self, at: &str, path: &Path) -> Result<RopeScaling, ModelError> {
        let need = |key: &str, value: Option<f64>| value.ok_or_else(|| missing(path, &format!("{at}.{key}")));
        if let (Some(new), Some(old)) = (&self.rope_type, &self.r#type)
            && new != old
        {
            return Err(unsupported(path, format!("`{at}.rope_type` {new} and `{at}.type` {old} at once")));
        }
        let kind = self.rope_type.as_deref().or(self.r#type.as_deref());
        let scaling = match kind {
            None | Some("default") => {
                // A factor that nothing says how to use.
                if let Some(factor) = self.factor.filter(|&factor| scales(Some(factor))) {
                    let kind = kind.map_or("without a type".to_owned(), |kind| format!("of type {kind}"));
                    return Err(unsupported(path, format!("`{at}.factor` {factor} {kind}")));
                }
                RopeScaling::None
            }
            Some("linear") => RopeScaling::Linear { factor: need("factor", self.factor)? },
            Some("llama3") => RopeScaling::Llama3 {
                factor: need("factor", self.factor)?,
                low_freq_factor: need("low_freq_factor", self.low_freq_factor)?,
                high_freq_factor: need("high_freq_factor", self.high_freq_factor)?,
                original_context: need(
                    "original_max_position_embeddings",
                    self.original_max_position_embeddings,
                )?,
            },
            Some(other) => return Err(unsupported(path, format!("`{at}` of type {other}"))),
        };
        if let Some((key, _)) = self.other.iter().find(|(_, value)| !value.is_null()) {
            return Err(unsupported(path, format!("`{at}.{key}`")));
        }
        if scales(self.partial_rotary_factor) {
            return Err(unsupported(path, format!("`{at}.partial_rotary_factor`")));
        }
        Ok(scaling)
    }
}
