//! The tensors of a model: in its files ([`Part`]) and in the forward pass ([`Weight`]), where projections that read
//! the same input lie in one matrix.
//!
//! This is the one description of a model's tensors, for both kinds of file and every architecture.

use super::config::Config;

/// A tensor of the forward pass, all `[out, in]` or `[n]`. Rotary pairs of a head are in half-split order, (i, i +
/// `head_dim` / 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Weight {
    /// `[vocab, hidden]`
    Embedding,
    /// The RMS norm before attention, `[hidden]`.
    AttentionNorm(usize),
    /// q of every head, then k and then v of every KV head: `[(heads + 2 kv heads) * head_dim, hidden]`.
    Qkv(usize),
    /// Added to the product with [`Qkv`](Self::Qkv), `[(heads + 2 kv heads) * head_dim]`; of models with
    /// [`Config::qkv_bias`].
    QkvBias(usize),
    /// The RMS norm of every query head, `[head_dim]`; of models with [`Config::qk_norm`].
    QNorm(usize),
    /// The RMS norm of every key head, `[head_dim]`; of models with [`Config::qk_norm`].
    KNorm(usize),
    /// `[hidden, heads * head_dim]`
    Output(usize),
    /// The RMS norm before the feed-forward network, `[hidden]`.
    MlpNorm(usize),
    /// The gate, then the up projection: `[2 * intermediate, hidden]`.
    GateUp(usize),
    /// `[hidden, intermediate]`
    Down(usize),
    /// The RMS norm behind the last layer, `[hidden]`.
    Norm,
    /// The output projection, `[vocab, hidden]`; of models whose embedding is not that too.
    Head,
}

impl Weight {
    /// All that a model has, in the order of the forward pass.
    pub fn all(config: &Config) -> Vec<Self> {
        let mut all = vec![Self::Embedding];
        for l in 0..config.num_layers {
            all.extend([Self::AttentionNorm(l), Self::Qkv(l)]);
            if config.qkv_bias {
                all.push(Self::QkvBias(l));
            }
            if config.qk_norm {
                all.extend([Self::QNorm(l), Self::KNorm(l)]);
            }
            all.extend([Self::Output(l), Self::MlpNorm(l), Self::GateUp(l), Self::Down(l)]);
        }
        all.push(Self::Norm);
        if !config.tied_embeddings {
            all.push(Self::Head);
        }
        all
    }

    /// Its shape: rows and columns, or elements.
    pub fn shape(self, config: &Config) -> Vec<usize> {
        let parts = self.parts();
        let mut shape = parts[0].shape(config);
        shape[0] = parts.iter().map(|part| part.shape(config)[0]).sum();
        shape
    }

    /// The tensors of the files that lie in it, one after the other.
    pub(super) fn parts(self) -> Vec<Part> {
        match self {
            Self::Embedding => vec![Part::Embedding],
            Self::AttentionNorm(l) => vec![Part::AttentionNorm(l)],
            Self::Qkv(l) => vec![Part::Q(l), Part::K(l), Part::V(l)],
            Self::QkvBias(l) => vec![Part::QBias(l), Part::KBias(l), Part::VBias(l)],
            Self::QNorm(l) => vec![Part::QNorm(l)],
            Self::KNorm(l) => vec![Part::KNorm(l)],
            Self::Output(l) => vec![Part::Output(l)],
            Self::MlpNorm(l) => vec![Part::MlpNorm(l)],
            Self::GateUp(l) => vec![Part::Gate(l), Part::Up(l)],
            Self::Down(l) => vec![Part::Down(l)],
            Self::Norm => vec![Part::Norm],
            Self::Head => vec![Part::Head],
        }
    }
}

/// A tensor of the files, by its place in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Embedding,
    AttentionNorm(usize),
    Q(usize),
    K(usize),
    V(usize),
    QBias(usize),
    KBias(usize),
    VBias(usize),
    QNorm(usize),
    KNorm(usize),
    Output(usize),
    MlpNorm(usize),
    Gate(usize),
    Up(usize),
    Down(usize),
    Norm,
    Head,
}

impl Part {
    pub(super) fn shape(self, config: &Config) -> Vec<usize> {
        let &Config { vocab_size, hidden_size: hidden, intermediate_size: ffn, head_dim, .. } = config;
        let (q, kv) = (config.num_heads * head_dim, config.num_kv_heads * head_dim);
        match self {
            Self::Embedding | Self::Head => vec![vocab_size, hidden],
            Self::AttentionNorm(_) | Self::MlpNorm(_) | Self::Norm => vec![hidden],
            Self::Q(_) => vec![q, hidden],
            Self::K(_) | Self::V(_) => vec![kv, hidden],
            Self::QBias(_) => vec![q],
            Self::KBias(_) | Self::VBias(_) => vec![kv],
            Self::QNorm(_) | Self::KNorm(_) => vec![head_dim],
            Self::Output(_) => vec![hidden, q],
            Self::Gate(_) | Self::Up(_) => vec![ffn, hidden],
            Self::Down(_) => vec![hidden, ffn],
        }
    }

    pub(super) fn gguf_name(self) -> String {
        match self {
            Self::Embedding => "token_embd.weight".into(),
            Self::AttentionNorm(l) => format!("blk.{l}.attn_norm.weight"),
            Self::Q(l) => format!("blk.{l}.attn_q.weight"),
            Self::K(l) => format!("blk.{l}.attn_k.weight"),
            Self::V(l) => format!("blk.{l}.attn_v.weight"),
            Self::QBias(l) => format!("blk.{l}.attn_q.bias"),
            Self::KBias(l) => format!("blk.{l}.attn_k.bias"),
            Self::VBias(l) => format!("blk.{l}.attn_v.bias"),
            Self::QNorm(l) => format!("blk.{l}.attn_q_norm.weight"),
            Self::KNorm(l) => format!("blk.{l}.attn_k_norm.weight"),
            Self::Output(l) => format!("blk.{l}.attn_output.weight"),
            Self::MlpNorm(l) => format!("blk.{l}.ffn_norm.weight"),
            Self::Gate(l) => format!("blk.{l}.ffn_gate.weight"),
            Self::Up(l) => format!("blk.{l}.ffn_up.weight"),
            Self::Down(l) => format!("blk.{l}.ffn_down.weight"),
            Self::Norm => "output_norm.weight".into(),
            Self::Head => "output.weight".into(),
        }
    }

    pub(super) fn folder_name(self) -> String {
        match self {
            Self::Embedding => "model.embed_tokens.weight".into(),
            Self::AttentionNorm(l) => format!("model.layers.{l}.input_layernorm.weight"),
            Self::Q(l) => format!("model.layers.{l}.self_attn.q_proj.weight"),
            Self::K(l) => format!("model.layers.{l}.self_attn.k_proj.weight"),
            Self::V(l) => format!("model.layers.{l}.self_attn.v_proj.weight"),
            Self::QBias(l) => format!("model.layers.{l}.self_attn.q_proj.bias"),
            Self::KBias(l) => format!("model.layers.{l}.self_attn.k_proj.bias"),
            Self::VBias(l) => format!("model.layers.{l}.self_attn.v_proj.bias"),
            Self::QNorm(l) => format!("model.layers.{l}.self_attn.q_norm.weight"),
            Self::KNorm(l) => format!("model.layers.{l}.self_attn.k_norm.weight"),
            Self::Output(l) => format!("model.layers.{l}.self_attn.o_proj.weight"),
            Self::MlpNorm(l) => format!("model.layers.{l}.post_attention_layernorm.weight"),
            Self::Gate(l) => format!("model.layers.{l}.mlp.gate_proj.weight"),
            Self::Up(l) => format!("model.layers.{l}.mlp.up_proj.weight"),
            Self::Down(l) => format!("model.layers.{l}.mlp.down_proj.weight"),
            Self::Norm => "model.norm.weight".into(),
            Self::Head => "lm_head.weight".into(),
        }
    }
}
