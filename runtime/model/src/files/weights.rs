//! The weights of a model in float32, as the forward pass on the CPU wants them.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::checkpoint::Checkpoint;
use super::parts::Weight;
use crate::ModelError;

/// One decoder layer. Shapes are those of [`Weight`].
#[derive(Clone, Debug)]
pub struct LayerWeights {
    /// The RMS norm before attention.
    pub attention_norm: Tensor,
    /// q of every head, then k and then v of every KV head.
    pub qkv: Tensor,
    /// Their bias, of models that have one.
    pub qkv_bias: Option<Tensor>,
    /// The RMS norms of every query and every key head, of models that have them.
    pub qk_norm: Option<[Tensor; 2]>,
    /// The output projection of attention.
    pub output: Tensor,
    /// The RMS norm before the feed-forward network.
    pub mlp_norm: Tensor,
    /// The gate, then the up projection.
    pub gate_up: Tensor,
    /// The down projection.
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

impl Weights {
    /// Reads all weights. `progress` is called with how many bytes of the checkpoint are done, and of how many.
    pub fn read(checkpoint: &Checkpoint, progress: &mut dyn FnMut(u64, u64)) -> Result<Self, ModelError> {
        let config = checkpoint.config();
        let mut data: BTreeMap<Weight, Vec<f32>> = BTreeMap::new();
        checkpoint.stream_all(progress, |weight, piece: &[f32]| {
            let count = || weight.shape(config).iter().product();
            data.entry(weight).or_insert_with(|| Vec::with_capacity(count())).extend_from_slice(piece);
            Ok::<_, ModelError>(())
        })?;
        let mut take = |weight: Weight| -> Result<Tensor, ModelError> {
            let data = data.remove(&weight).unwrap_or_default();
            Ok(Tensor::from_vec(data, weight.shape(config), &Device::Cpu)?)
        };
        let embedding = take(Weight::Embedding)?;
        let mut layers = Vec::with_capacity(config.num_layers);
        for l in 0..config.num_layers {
            layers.push(LayerWeights {
                attention_norm: take(Weight::AttentionNorm(l))?,
                qkv: take(Weight::Qkv(l))?,
                qkv_bias: config.qkv_bias.then(|| take(Weight::QkvBias(l))).transpose()?,
                qk_norm: if config.qk_norm {
                    Some([take(Weight::QNorm(l))?, take(Weight::KNorm(l))?])
                } else {
                    None
                },
                output: take(Weight::Output(l))?,
                mlp_norm: take(Weight::MlpNorm(l))?,
                gate_up: take(Weight::GateUp(l))?,
                down: take(Weight::Down(l))?,
            });
        }
        let norm = take(Weight::Norm)?;
        let head = if config.tied_embeddings { embedding.clone() } else { take(Weight::Head)? };
        Ok(Self { embedding, layers, norm, head })
    }
}
