//! A plan as plain data: the model's shape, the rule of every head, and the plan's provenance.
//!
//! A value of [`Plan`] that the compiler's reader returned is valid (SPEC.md section 2); the artifact reader checks
//! the one it finds again, because a file is untrusted. Parsing, presets and validation live in the compiler.

use serde::{Deserialize, Serialize};

/// Tokens in one tile of keys: spans, sinks and rings are whole tiles.
pub const TILE: u32 = 64;
/// The default number of sink tokens.
pub const DEFAULT_SINK: u32 = 64;
/// The default smallest span, in tokens.
pub const DEFAULT_MIN_SPAN: u32 = 128;
/// The longest bucket, in tokens.
pub const MAX_LENGTH: u32 = 1 << 20;
/// The most layers of a model.
pub const MAX_LAYERS: u32 = 1024;
/// The most query heads of a layer.
pub const MAX_HEADS: u32 = 512;
/// The most query heads of a KV head.
pub const MAX_GROUP: u32 = 16;

/// The `format` of moac's own plan files.
pub const PLAN_FORMAT: &str = "moac.plan/1";

/// Whether a text can be a model's name. Names are shown in terminals and pages, so nothing that moves a cursor is one.
pub fn is_name(text: &str) -> bool {
    (1..=200).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

/// The element type of q, k, v, o and of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// bfloat16
    Bf16,
    /// IEEE half
    F16,
}

impl DType {
    /// Bytes of one element.
    pub const fn bytes(self) -> u32 {
        2
    }

    /// The name in files, symbols and flags.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// How a head's span grows with the context length `n`: `alpha + beta * n` tokens.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Rule {
    /// Tokens, |alpha| <= 2^31.
    pub alpha: f64,
    /// Tokens per token of context, in [-16, 16].
    pub beta: f64,
}

/// The shape of the model that a plan is for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ModelShape {
    /// A name for people.
    pub name: String,
    /// Decoder layers.
    pub num_layers: u32,
    /// Query heads of a layer.
    pub num_heads: u32,
    /// KV heads of a layer; divides `num_heads`.
    pub num_kv_heads: u32,
    /// Elements of a head: 64 or 128.
    pub head_dim: u32,
    /// The base of the rotary embedding, if known. Attention itself does not use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_theta: Option<f64>,
    /// The longest context the model was made for, in tokens, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<u32>,
    /// The factor on q.k, if it is not `1/sqrt(head_dim)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub softmax_scale: Option<f64>,
}

impl ModelShape {
    /// Query heads per KV head.
    pub fn group_size(&self) -> u32 {
        self.num_heads / self.num_kv_heads
    }

    /// The reason why no plan file may have this shape, if there is one. Readers of files refuse such a shape.
    pub fn defect(&self) -> Option<String> {
        let Self { name, num_layers, num_heads, num_kv_heads, head_dim, rope_theta, context, softmax_scale } =
            self;
        let positive = |number: &Option<f64>| number.is_none_or(|number| number.is_finite() && number > 0.0);
        let found = |what: &str, found: &dyn std::fmt::Debug, expected: &str| {
            Some(format!("found the {what} {found:?}, expected {expected}"))
        };
        if !is_name(name) {
            return found("model name", name, "1 to 200 characters, none of them a control character");
        }
        for (what, number, most) in [
            ("num_layers", *num_layers, MAX_LAYERS),
            ("num_heads", *num_heads, MAX_HEADS),
            ("num_kv_heads", *num_kv_heads, MAX_HEADS),
            ("head_dim", *head_dim, 1 << 16),
        ] {
            if !(1..=most).contains(&number) {
                return found(what, &number, &format!("1 to {most}"));
            }
        }
        if !num_heads.is_multiple_of(*num_kv_heads) || self.group_size() > MAX_GROUP {
            let expected = format!("a divisor of {num_heads} heads, at most {MAX_GROUP} to a KV head");
            return found("num_kv_heads", num_kv_heads, &expected);
        }
        if !positive(rope_theta) {
            return found("rope_theta", rope_theta, "a positive number");
        }
        if !positive(softmax_scale) {
            return found("softmax_scale", softmax_scale, "a positive number");
        }
        (*context == Some(0)).then(|| "found the context 0, expected a positive number".to_owned())
    }

    /// The factor on q.k.
    pub fn scale(&self) -> f64 {
        self.softmax_scale.unwrap_or_else(|| 1.0 / f64::from(self.head_dim).sqrt())
    }
}

/// A plan: one rule per query head of every layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Plan {
    /// Always [`PLAN_FORMAT`].
    pub format: String,
    /// The model's shape.
    pub model: ModelShape,
    /// Sink tokens: a multiple of 64, at least 64.
    #[serde(default = "default_sink")]
    pub sink: u32,
    /// The smallest span in tokens: a multiple of 64, at least `sink + 64`.
    #[serde(default = "default_min_span")]
    pub min_span: u32,
    /// `alpha` of each head, `[num_layers][num_heads]`.
    pub alphas: Vec<Vec<f64>>,
    /// `beta` of each head, `[num_layers][num_heads]`.
    pub betas: Vec<Vec<f64>>,
    /// How the plan was found: data, lengths, density bounds, solver, gap, losses. Carried, never interpreted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<serde_json::Value>,
}

fn default_sink() -> u32 {
    DEFAULT_SINK
}

fn default_min_span() -> u32 {
    DEFAULT_MIN_SPAN
}

impl Plan {
    /// The rule of a head.
    pub fn rule(&self, layer: u32, head: u32) -> Rule {
        let (l, h) = (layer as usize, head as usize);
        Rule { alpha: self.alphas[l][h], beta: self.betas[l][h] }
    }

    /// The shortest context length of its own that holds so many tokens: a multiple of [`TILE`], at least `min_span`.
    pub fn length_for(&self, tokens: usize) -> u32 {
        (tokens as u32).next_multiple_of(TILE).max(self.min_span)
    }
}
