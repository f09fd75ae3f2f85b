//! The weights of a Llama-family model, as the forward pass wants them, from a GGUF file or a Hugging Face folder.
//!
//! Every tensor is `[out, in]` in float32, with the rotary pairs of a head in half-split order (i, i + `head_dim` / 2).
//! Projections that read the same input lie in one matrix: q, k, v, and gate, up.

use std::collections::BTreeSet;
use std::path::Path;

use candle_core::Tensor;
use rayon::prelude::*;

use super::config::{Config, ROPE_DIVISORS};
use super::gguf::Gguf;
use super::shards::Shards;
use crate::ModelError;
use crate::error::TensorProblem;

/// One decoder layer.
#[derive(Clone, Debug)]
pub struct LayerWeights {
    /// The RMS norm before attention, `[hidden]`.
    pub attention_norm: Tensor,
    /// q of every head, then k and then v of every KV head: `[(heads + 2 kv heads) * head_dim, hidden]`.
    pub qkv: Tensor,
    /// `[hidden, heads * head_dim]`
    pub output: Tensor,
    /// The RMS norm before the feed-forward network, `[hidden]`.
    pub mlp_norm: Tensor,
    /// The gate, then the up projection: `[2 * intermediate, hidden]`.
    pub gate_up: Tensor,
    /// `[hidden, intermediate]`
    pub down: Tensor,
}

/// All weights.
#[derive(Clone, Debug)]
pub struct Weights {
    /// `[vocab, hidden]`
    pub embedding: Tensor,
    /// The layers, in order.
    pub layers: Vec<LayerWeights>,
    /// The RMS norm behind the last layer, `[hidden]`.
    pub norm: Tensor,
    /// The output projection, `[vocab, hidden]`: the embedding itself where they are tied.
    pub head: Tensor,
}

/// Where the tensors of a model come from.
#[derive(Debug)]
pub enum Source {
    /// One file; rows of q and k are stored with their rotary pairs interleaved.
    Gguf(Gguf),
    /// A folder of safetensors.
    Folder(Shards),
}

/// A tensor of the checkpoint, by its place in the model.
#[derive(Clone, Copy, Debug)]
enum Part {
    Embedding,
    Norm,
    Head,
    AttentionNorm(usize),
    Q(usize),
    K(usize),
    V(usize),
    Output(usize),
    MlpNorm(usize),
    Gate(usize),
    Up(usize),
    Down(usize),
}

impl Part {
    fn gguf_name(self) -> String {
        match self {
            Self::Embedding => "token_embd.weight".into(),
            Self::Norm => "output_norm.weight".into(),
            Self::Head => "output.weight".into(),
            Self::AttentionNorm(l) => format!("blk.{l}.attn_norm.weight"),
            Self::Q(l) => format!("blk.{l}.attn_q.weight"),
            Self::K(l) => format!("blk.{l}.attn_k.weight"),
            Self::V(l) => format!("blk.{l}.attn_v.weight"),
            Self::Output(l) => format!("blk.{l}.attn_output.weight"),
            Self::MlpNorm(l) => format!("blk.{l}.ffn_norm.weight"),
            Self::Gate(l) => format!("blk.{l}.ffn_gate.weight"),
            Self::Up(l) => format!("blk.{l}.ffn_up.weight"),
            Self::Down(l) => format!("blk.{l}.ffn_down.weight"),
        }
    }

    fn folder_name(self) -> String {
        match self {
            Self::Embedding => "model.embed_tokens.weight".into(),
            Self::Norm => "model.norm.weight".into(),
            Self::Head => "lm_head.weight".into(),
            Self::AttentionNorm(l) => format!("model.layers.{l}.input_layernorm.weight"),
            Self::Q(l) => format!("model.layers.{l}.self_attn.q_proj.weight"),
            Self::K(l) => format!("model.layers.{l}.self_attn.k_proj.weight"),
            Self::V(l) => format!("model.layers.{l}.self_attn.v_proj.weight"),
            Self::Output(l) => format!("model.layers.{l}.self_attn.o_proj.weight"),
            Self::MlpNorm(l) => format!("model.layers.{l}.post_attention_layernorm.weight"),
            Self::Gate(l) => format!("model.layers.{l}.mlp.gate_proj.weight"),
            Self::Up(l) => format!("model.layers.{l}.mlp.up_proj.weight"),
            Self::Down(l) => format!("model.layers.{l}.mlp.down_proj.weight"),
        }
    }

    fn of_layer(l: usize) -> [Self; 9] {
        [
            Self::AttentionNorm(l),
            Self::Q(l),
            Self::K(l),
            Self::V(l),
            Self::Output(l),
            Self::MlpNorm(l),
            Self::Gate(l),
            Self::Up(l),
            Self::Down(l),
        ]
    }

    /// The heads whose rotary pairs the rows of a GGUF tensor interleave.
    fn rotary_heads(self, config: &Config) -> Option<usize> {
        match self {
            Self::Q(_) => Some(config.num_heads),
            Self::K(_) => Some(config.num_kv_heads),
            _ => None,
        }
    }
}

impl Source {
    fn name(&self, part: Part) -> String {
        match self {
            Self::Gguf(_) => part.gguf_name(),
            Self::Folder(_) => part.folder_name(),
        }
    }

    /// The names of all tensors, in order.
    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match self {
            Self::Gguf(gguf) => Box::new(gguf.tensor_names()),
            Self::Folder(shards) => Box::new(shards.tensor_names()),
        }
    }

    /// Refuses a tensor that the forward pass would leave out, as a bias: without it the model would be another one.
    fn check_complete(&self, config: &Config) -> Result<(), ModelError> {
        let ends = [Part::Embedding, Part::Norm, Part::Head].into_iter();
        let parts = ends.chain((0..config.num_layers).flat_map(Part::of_layer));
        let used: BTreeSet<String> = parts.map(|part| self.name(part)).collect();
        match self.names().find(|name| !used.contains(*name) && !is_derived(name)) {
            None => Ok(()),
            Some(name) => Err(ModelError::Tensor {
                name: name.to_owned(),
                path: self.path().to_owned(),
                problem: TensorProblem::Unknown,
            }),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Gguf(gguf) => gguf.path(),
            Self::Folder(shards) => shards.folder(),
        }
    }

    /// Reads one tensor; its name in any error is the one in the file.
    fn read(&self, part: Part, config: &Config, shape: &[usize]) -> Result<Tensor, ModelError> {
        let name = self.name(part);
        let tensor = match self {
            Self::Gguf(gguf) => gguf.tensor(&name, shape)?,
            Self::Folder(shards) => shards.tensor(&name, shape)?,
        };
        // One infinity or NaN spreads over every token, so it is found here, where its tensor is known.
        let sum = tensor.sum_all()?.to_scalar::<f32>()?;
        if !sum.is_finite() {
            let path = self.path().to_owned();
            return Err(ModelError::Tensor { name, path, problem: TensorProblem::NotFinite });
        }
        match (self, part.rotary_heads(config)) {
            (Self::Gguf(_), Some(heads)) => Ok(half_split(&tensor, heads)?),
            _ => Ok(tensor),
        }
    }
}

/// Tensors that hold no weights of their own: what they say follows from the configuration, or has been read with it.
fn is_derived(name: &str) -> bool {
    name == ROPE_DIVISORS || name.ends_with(".rotary_emb.inv_freq") || name.ends_with(".attn_rot_embd.weight")
}

/// Rows of heads from interleaved rotary pairs to half-split ones: row 2i + j of a head becomes row
/// j * `head_dim` / 2 + i.
fn half_split(tensor: &Tensor, heads: usize) -> Result<Tensor, candle_core::Error> {
    let (rows, columns) = tensor.dims2()?;
    tensor
        .reshape((heads, rows / heads / 2, 2, columns))?
        .transpose(1, 2)?
        .contiguous()?
        .reshape((rows, columns))
}

impl Weights {
    /// Reads all weights, dequantised to float32.
    pub fn read(source: &Source, config: &Config) -> Result<Self, ModelError> {
        let &Config { vocab_size, hidden_size: hidden, intermediate_size: ffn, head_dim, .. } = config;
        let (q, kv) = (config.num_heads * head_dim, config.num_kv_heads * head_dim);
        source.check_complete(config)?;
        let read = |part: Part, shape: &[usize]| source.read(part, config, shape);
        let layer = |l: usize| -> Result<LayerWeights, ModelError> {
            let qkv = [
                read(Part::Q(l), &[q, hidden])?,
                read(Part::K(l), &[kv, hidden])?,
                read(Part::V(l), &[kv, hidden])?,
            ];
            let gate_up = [read(Part::Gate(l), &[ffn, hidden])?, read(Part::Up(l), &[ffn, hidden])?];
            Ok(LayerWeights {
                attention_norm: read(Part::AttentionNorm(l), &[hidden])?,
                qkv: Tensor::cat(&qkv, 0)?,
                output: read(Part::Output(l), &[hidden, q])?,
                mlp_norm: read(Part::MlpNorm(l), &[hidden])?,
                gate_up: Tensor::cat(&gate_up, 0)?,
                down: read(Part::Down(l), &[hidden, ffn])?,
            })
        };
        let embedding = read(Part::Embedding, &[vocab_size, hidden])?;
        let head =
            if config.tied_embeddings { embedding.clone() } else { read(Part::Head, &[vocab_size, hidden])? };
        // In order, so that a file with several faults always reports the same one.
        let layers: Vec<_> = (0..config.num_layers).into_par_iter().map(layer).collect();
        let layers = layers.into_iter().collect::<Result<_, _>>()?;
        Ok(Self { embedding, layers, norm: read(Part::Norm, &[hidden])?, head })
    }
}
