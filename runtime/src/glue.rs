//! The engine's own kernels, those around attention: what each does, what it takes, and the tables of a step.
//!
//! [`Row`], [`Sample`] and [`Outcome`] are one layout with `templates/include/moac/glue/params.cuh`, asserted on both
//! sides. Activations are rows without gaps, in the artifact's element type; weights are `[out, in]` in it too; sums are
//! float32.

use serde::{Deserialize, Serialize};

/// What the kernels of a model need to know of it beside the plan: every literal of theirs comes from here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EngineShape {
    /// Elements of a row between layers.
    pub hidden: u32,
    /// Elements of the MLP's inner row.
    pub intermediate: u32,
    /// Rows of the embedding and of the output head.
    pub vocab: u32,
    /// What is added to the mean square in every norm.
    pub norm_eps: f32,
    /// Radians per position of each pair of a head, `head_dim / 2` of them, scaling included.
    pub frequencies: Vec<f64>,
    /// Whether q, k and v have a bias (Qwen2).
    pub qkv_bias: bool,
    /// Whether the heads of q and k have a norm of their own (Qwen3).
    pub qk_norm: bool,
}

/// What a kernel of the engine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// `x[row] = embedding[token of the row]`; marks the token as seen in the row's lane.
    Embed,
    /// `y[i] = rms_norm(x[i]) * weight`; with samples given, `y[i]` is made of `x[samples[i].row]`.
    Norm,
    /// In place on `[rows, heads + 2 kv heads, head_dim]`: the bias, the norm of each head of q and k, then `RoPE` of q and k at
    /// the row's position. The two halves of a head are the pairs.
    Rotate,
    /// `y = silu(gate) * up`, where a row of the input is gate, then up.
    Activate,
    /// Chooses a token for each sample from its float32 logits.
    Sample,
}

/// A row of a step's activations, in the order of the attention call: decodes first, then prefills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Row {
    /// The token; [`Row::NEWEST`] for the one that the lane's last sample chose.
    pub token: u32,
    /// Its position in the context.
    pub position: u32,
    /// The request's place among the running ones; [`Row::IDLE`] for a row that nobody reads.
    pub lane: u32,
    /// 0.
    pub reserved: u32,
}

impl Row {
    /// The token is the lane's newest, which is on the device only.
    pub const NEWEST: u32 = u32::MAX;
    /// The row is padding.
    pub const IDLE: u32 = u32::MAX;
}

/// How a token is chosen from a row of logits, in this order: repetition penalty, temperature, top-k, top-p, min-p. Tokens that
/// are as likely as the last one kept are kept too.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct Sample {
    /// The row of the step whose last hidden state the logits come from.
    pub row: u32,
    /// The lane that takes the token; [`Row::IDLE`] for a sample that nobody reads.
    pub lane: u32,
    /// Keep this many of the likeliest tokens; 0 for all.
    pub top_k: u32,
    /// Divides the logits; 0 takes the likeliest token, of equally likely ones the first.
    pub temperature: f32,
    /// Keep the likeliest tokens that together have this probability; 1 for all.
    pub top_p: f32,
    /// Keep tokens at least this many times as likely as the likeliest; 0 for all.
    pub min_p: f32,
    /// Divides positive logits of tokens already in the lane, multiplies negative ones; 1 changes nothing.
    pub penalty: f32,
    /// The token's number in the answer, from 0.
    pub counter: u32,
    /// The request's seed.
    pub seed: u64,
}

/// The token that was chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct Outcome {
    /// The token.
    pub token: u32,
    /// The natural logarithm of its probability before any of temperature, penalties and cuts.
    pub logprob: f32,
}

/// The number in [0, 1) that chooses a sample's token: the first token in the order of the vocabulary at which the kept
/// probability up to and with it exceeds this part of the whole. `SplitMix64` of the seed at place `counter`, its top 24
/// bits, so that float32 holds it.
pub fn uniform(seed: u64, counter: u32) -> f32 {
    let mut z = seed.wrapping_add((u64::from(counter) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    (z >> 40) as f32 / 16_777_216.0
}

const _: () = assert!(size_of::<Row>() == 16 && size_of::<Sample>() == 40 && size_of::<Outcome>() == 8);
