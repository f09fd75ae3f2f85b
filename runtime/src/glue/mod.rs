//! The engine's own kernels, those around attention: what each does, what it takes, and how it is launched.
//!
//! [`Op`] names them, [`EngineShape`] and [`Sizes`] hold every number that they are compiled for, `block.rs` has the
//! parameter blocks and the tables of a step, `rule.rs` grids and scratch. Activations are rows without gaps, in the
//! artifact's element type; weights are `[out, in]` in it too; sums are float32, and a stored value is rounded once.
//! Pure data and arithmetic, shared by the compiler, the artifact and every device.

mod block;
mod linear;
mod rule;

use serde::{Deserialize, Serialize};

pub use self::block::{
    ABI_VERSION, Activate, Block, Embed, Linear, Norm, Outcome, Rotate, Row, Sample, SampleParams,
    TOP_LOGPROBS,
};
pub use self::linear::{After, Layer, MAX_LINEAR_ROWS};
pub use self::rule::{Launch, MAX_HIDDEN, MAX_VOCAB, Sizes};

/// The properties of a model, besides the plan, that its kernels need: all of their literals come from here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EngineShape {
    /// Elements of a row between layers.
    pub hidden: u32,
    /// Elements of the MLP's inner row.
    pub intermediate: u32,
    /// Rows of the embedding and of the output head.
    pub vocab: u32,
    /// The epsilon added to the mean square in every norm.
    pub norm_eps: f32,
    /// Radians per position of each pair of a head, `head_dim / 2` of them, scaling included.
    pub frequencies: Vec<f64>,
    /// Whether q, k and v have a bias (Qwen2).
    pub qkv_bias: bool,
    /// Whether the heads of q and k have a norm of their own (Qwen3).
    pub qk_norm: bool,
}

/// The operation of an engine kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// `x[row] = embedding[token of the row]`, zeros for an idle row; marks the token as seen in the row's lane.
    Embed,
    /// `y[i] = rms_norm(x[i]) * weight`; with samples given, `y[i]` is made of `x[samples[i].row]`.
    Norm,
    /// In place on `[rows, heads + 2 kv heads, head_dim]`: the bias, the norm of each head of q and k, then `RoPE` of q and k at
    /// the row's position. The two halves of a head are the pairs.
    Rotate,
    /// `y = silu(gate) * up`, where a row of the input is gate, then up.
    Activate,
    /// Chooses a token for each sample from its float32 logits, as [`Sample`] says.
    Sample,
    /// `y = rms_norm(x) Wqkv^T`, the norm's weights included. This one and those below are for at most [`MAX_LINEAR_ROWS`]
    /// rows, in the time of reading the weights.
    Qkv,
    /// `y += x Wo^T`.
    Output,
    /// `y = silu(gate) * up`, where `rms_norm(x) Wgu^T` has the two.
    #[serde(rename = "gate_up")]
    GateUp,
    /// `y += x Wdown^T`.
    Down,
    /// `y = x Whead^T`, in float32.
    Head,
}

impl Op {
    /// Those that every architecture has a kernel for.
    pub const ALL: [Self; 5] = [Self::Embed, Self::Norm, Self::Rotate, Self::Activate, Self::Sample];
    /// The linear layers, which [`Sizes::ops`] says where there is a kernel for.
    pub const LINEAR: [Self; 5] = [Self::Qkv, Self::Output, Self::GateUp, Self::Down, Self::Head];

    /// The name in symbols, headers and manifests.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Embed => "embed",
            Self::Norm => "norm",
            Self::Rotate => "rotate",
            Self::Activate => "activate",
            Self::Sample => "sample",
            Self::Qkv => "qkv",
            Self::Output => "output",
            Self::GateUp => "gate_up",
            Self::Down => "down",
            Self::Head => "head",
        }
    }
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
