//! A Hugging Face `config.json` to a model's shape. What attention cannot do as the configuration asks is refused by
//! name; everything that is not about attention is left alone. What a missing field means depends on the architecture, as in
//! transformers, and is what `moac_model::Config` takes it for.

use std::path::Path;

use moac_runtime::plan::{MAX_HEADS, MAX_LAYERS, ModelShape, is_name};
use serde_json::value::RawValue;

use super::Error;
use super::json;
use super::object::Object;
use super::problem::Problems;
use super::stated::{MAX_HEAD_DIM, Stated};

const EXPECTED: &str = "model configuration";

/// Fields that ask for attention that moac does not compute, and what they ask for.
const REFUSED: [(&str, &str); 12] = [
    ("attn_logit_softcapping", "soft-capped scores"),
    ("attention_logit_softcapping", "soft-capped scores"),
    ("attn_logit_softcap", "soft-capped scores"),
    ("max_attn_value", "soft-capped scores"),
    ("alibi", "ALiBi"),
    ("use_alibi", "ALiBi"),
    ("attention_sinks", "learned sinks"),
    ("add_full_attention_sink_bias", "learned sinks"),
    ("add_swa_attention_sink_bias", "learned sinks"),
    ("kv_lora_rank", "latent attention"),
    ("attention_chunk_size", "chunked attention"),
    ("index_topk", "attention to selected tokens"),
];

/// Architectures that ask for it without a field.
const REFUSED_TYPES: [(&str, &str); 4] =
    [("gpt_oss", "learned sinks"), ("bloom", "ALiBi"), ("mpt", "ALiBi"), ("grok-1", "soft-capped scores")];

/// The shape that the configuration at `path` states.
pub(super) fn read(path: &Path) -> Result<ModelShape, Error> {
    let text = json::read_text(path, EXPECTED)?;
    let document = json::document(&text, path)?;
    let mut problems = Problems::default();
    let shape = Object::new("$", document.fields(), &mut problems)
        .and_then(|config| shape(config, path, &mut problems));
    problems.or(shape).map_err(|problems| Error::Invalid {
        path: path.to_owned(),
        expected: EXPECTED,
        problems,
    })
}

fn shape(mut config: Object<'_>, path: &Path, problems: &mut Problems) -> Option<ModelShape> {
    refuse(&mut config, problems);
    let model_type = config.text("model_type", problems).unwrap_or_default();
    let name = name(&mut config, &model_type, path, problems);
    let num_layers = config.require_whole("num_hidden_layers", 1..=MAX_LAYERS, problems);
    let num_heads = config.require_whole("num_attention_heads", 1..=MAX_HEADS, problems);
    let num_kv_heads = if config.has("num_key_value_heads") {
        config.whole("num_key_value_heads", 1..=MAX_HEADS, problems)
    } else {
        match model_type.as_str() {
            "mistral" if !config.states("num_key_value_heads") => Some(8),
            "qwen2" | "qwen3" if !config.states("num_key_value_heads") => Some(32),
            _ => num_heads, // left out, it means attention without groups
        }
    };
    let (head_dim, head_dim_at) = head_dim(&mut config, &model_type, num_heads, problems);
    let (softmax_scale, scale_at) = softmax_scale(&mut config, problems);
    let rope_theta = rope_theta(&mut config, problems);
    let context = context(&mut config, &model_type, num_layers, problems);
    let name = Some(name);
    let stated =
        Stated { name, num_layers, num_heads, num_kv_heads, head_dim, rope_theta, context, softmax_scale };
    stated.supported(["$.num_attention_heads", head_dim_at, scale_at], problems);
    stated.shape()
}

fn refuse(config: &mut Object<'_>, problems: &mut Problems) {
    let asked = |value: &RawValue| !matches!(value.get(), "false" | "0" | "0.0");
    for (field, what) in REFUSED {
        if let Some(value) = config.take(field).filter(|value| asked(value)) {
            problems.add(
                config.place(field),
                json::describe(value),
                format!("no {what}, which kernels do not have"),
            );
        }
    }
    if let Some(value) = config.take("position_embedding_type")
        && value.get().eq_ignore_ascii_case("\"alibi\"")
    {
        problems.add(
            "$.position_embedding_type",
            json::describe(value),
            "no ALiBi, which kernels do not have",
        );
    }
    if let Some(value) = config.take("is_causal").filter(|value| value.get() == "false") {
        problems.add("$.is_causal", json::describe(value), "causal attention");
    }
}

/// The name for people: where the weights come from, else the folder, else the architecture.
fn name(config: &mut Object<'_>, model_type: &str, path: &Path, problems: &mut Problems) -> String {
    if let Some((_, what)) = REFUSED_TYPES.iter().find(|(name, _)| *name == model_type) {
        let found = format!("{model_type:?}");
        problems.add("$.model_type", found, format!("a model without {what}, which kernels do not have"));
    }
    let folder = || Some(path.parent()?.file_name()?.to_str()?.to_owned()).filter(|name| is_name(name));
    let origin = config.text("_name_or_path", problems).filter(|name| is_name(name));
    origin
        .or_else(folder)
        .unwrap_or_else(|| if is_name(model_type) { model_type } else { "model" }.to_owned())
}

/// The head dimension and the field that decides it.
fn head_dim(
    config: &mut Object<'_>,
    model_type: &str,
    num_heads: Option<u32>,
    problems: &mut Problems,
) -> (Option<u32>, &'static str) {
    if config.has("head_dim") {
        return (config.whole("head_dim", 1..=MAX_HEAD_DIM, problems), "$.head_dim");
    }
    if model_type == "qwen3" && !config.states("head_dim") {
        return (Some(128), "$.head_dim");
    }
    let at = "$.hidden_size";
    let hidden = config.require_whole("hidden_size", 1..=MAX_HEADS * MAX_HEAD_DIM, problems);
    let (Some(hidden), Some(heads)) = (hidden, num_heads) else { return (None, at) };
    if !hidden.is_multiple_of(heads) {
        problems.add(at, hidden.to_string(), format!("a multiple of the {heads} attention heads"));
        return (None, at);
    }
    (Some(hidden / heads), at)
}

/// Older configurations state it themselves, newer ones among the rotary embedding's parameters.
fn rope_theta(config: &mut Object<'_>, problems: &mut Problems) -> Option<f64> {
    let nested = config.take("rope_parameters").and_then(|value| json::fields(value).ok());
    let theta = config.positive("rope_theta", problems);
    let nested = nested.and_then(|fields| {
        Object::new("$.rope_parameters", Ok(fields), problems)?.positive("rope_theta", problems)
    });
    nested.or(theta)
}

/// The longest context. A model with a sliding window is only itself up to that window: a plan of longer spans would
/// show its heads keys that they were never shown.
fn context(
    config: &mut Object<'_>,
    model_type: &str,
    num_layers: Option<u32>,
    problems: &mut Problems,
) -> Option<u32> {
    let positions = config.whole("max_position_embeddings", 1..=u32::MAX, problems);
    // Beside a scaled rotary embedding, the context that the scaling is for.
    let context = positions.max(config.whole("max_sequence_length", 1..=u32::MAX, problems));
    let stated = config.states("sliding_window");
    let window = config.whole("sliding_window", 1..=u32::MAX, problems);
    let switch = config.take("use_sliding_window").map(|value| value.get() != "false");
    let window = match model_type {
        // Qwen's window has a switch, off by default, and leaves the first layers alone.
        "qwen2" | "qwen3" => {
            let first = config.whole("max_window_layers", 0..=u32::MAX, problems).unwrap_or(28);
            window.filter(|_| switch == Some(true) && num_layers.is_none_or(|layers| first < layers))
        }
        "mistral" if !stated => Some(4096),
        _ => window.filter(|_| switch != Some(false)),
    };
    match (context, window) {
        (Some(context), Some(window)) => Some(context.min(window)),
        (context, window) => context.or(window),
    }
}

/// The factor on q.k where the model names one, and the field that does.
fn softmax_scale(config: &mut Object<'_>, problems: &mut Problems) -> (Option<f64>, &'static str) {
    if let Some(scale) = config.positive("attention_multiplier", problems) {
        return (Some(scale), "$.attention_multiplier");
    }
    let scalar = config.positive("query_pre_attn_scalar", problems);
    (scalar.map(|scalar| 1.0 / scalar.sqrt()), "$.query_pre_attn_scalar")
}
