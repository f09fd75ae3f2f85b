//! The shapes of well-known models, as their public `config.json` files state them.

use moac_runtime::plan::ModelShape;

struct Preset {
    name: &'static str,
    num_layers: u32,
    num_heads: u32,
    num_kv_heads: u32,
    head_dim: u32,
    rope_theta: f64,
    context: u32,
}

/// The published plans are for the long-context checkpoints, so those are what the short names mean:
/// Llama-3-{8B,70B}-Instruct-262k and Vicuna-{7B,13B}-v1.5-16k. Their heads are those of the originals. Mistral is the v0.3,
/// without a sliding window; Qwen2.5 the instructed ones.
const PRESETS: [Preset; 14] = [
    preset("llama-3-8b", [32, 32, 8, 128], 283_461_213.0, 262_144),
    preset("llama-3-70b", [80, 64, 8, 128], 207_112_184.0, 262_144),
    preset("llama-3.2-1b", [16, 32, 8, 64], 500_000.0, 131_072),
    preset("llama-3.2-3b", [28, 24, 8, 128], 500_000.0, 131_072),
    preset("vicuna-7b", [32, 32, 32, 128], 10_000.0, 16_384),
    preset("vicuna-13b", [40, 40, 40, 128], 10_000.0, 16_384),
    preset("mistral-7b", [32, 32, 8, 128], 1_000_000.0, 32_768),
    preset("qwen2.5-0.5b", [24, 14, 2, 64], 1_000_000.0, 32_768),
    preset("qwen2.5-1.5b", [28, 12, 2, 128], 1_000_000.0, 32_768),
    preset("qwen2.5-7b", [28, 28, 4, 128], 1_000_000.0, 32_768),
    preset("qwen3-0.6b", [28, 16, 8, 128], 1_000_000.0, 40_960),
    preset("qwen3-8b", [36, 32, 8, 128], 1_000_000.0, 40_960),
    preset("qwen3-32b", [64, 64, 8, 128], 1_000_000.0, 40_960),
    preset("smollm2-135m", [30, 9, 3, 64], 100_000.0, 8_192),
];

const fn preset(name: &'static str, shape: [u32; 4], rope_theta: f64, context: u32) -> Preset {
    let [num_layers, num_heads, num_kv_heads, head_dim] = shape;
    Preset { name, num_layers, num_heads, num_kv_heads, head_dim, rope_theta, context }
}

/// The presets' names.
pub fn names() -> Vec<&'static str> {
    PRESETS.iter().map(|preset| preset.name).collect()
}

/// The shape that a preset stands for.
pub fn get(name: &str) -> Option<ModelShape> {
    PRESETS.iter().find(|preset| preset.name == name).map(|preset| ModelShape {
        name: preset.name.to_owned(),
        num_layers: preset.num_layers,
        num_heads: preset.num_heads,
        num_kv_heads: preset.num_kv_heads,
        head_dim: preset.head_dim,
        rope_theta: Some(preset.rope_theta),
        context: Some(preset.context),
        softmax_scale: None,
    })
}
