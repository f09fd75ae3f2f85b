//! The loss of a question's answer when one KV head sees less.
//!
//! The context stays as it is and only the question's rows see less: one prefill serves every head, the rows of the heads
//! of a layer go through the model together, and the layers below the narrowed one are not computed again.

use candle_core::Tensor;

use super::cache::Narrowed;
use crate::{Branches, Cache, Decoder, ModelError};

/// A question on a context, whose answer is known.
#[derive(Debug)]
pub struct Ablation<'a> {
    decoder: &'a Decoder,
    context: &'a Cache,
    rows: usize,
    targets: &'a [u32],
    /// The input of every layer, `[rows, hidden]`.
    inputs: Vec<Tensor>,
    loss: f64,
}

impl<'a> Ablation<'a> {
    /// `rows` follow the context; the last of them predict `targets`, at least one and at most as many as rows.
    pub fn new(
        decoder: &'a Decoder,
        context: &'a Cache,
        rows: &[u32],
        targets: &'a [u32],
    ) -> Result<Self, ModelError> {
        if targets.is_empty() || targets.len() > rows.len() {
            return Err(ModelError::Argument {
                what: "the number of targets",
                found: targets.len().to_string(),
                expected: format!("from 1 to the rows' {}", rows.len()),
            });
        }
        let layers = decoder.config().num_layers;
        let mut x = decoder.embed(rows)?;
        let mut inputs = Vec::with_capacity(layers);
        for layer in 0..layers {
            let branch = &mut Branches::new(context, vec![rows.len()]);
            let next = decoder.layers(layer..layer + 1, x.clone(), branch)?;
            inputs.push(std::mem::replace(&mut x, next));
        }
        let mut made = Self { decoder, context, rows: rows.len(), targets, inputs, loss: 0.0 };
        made.loss = made.losses(&x)?[0];
        Ok(made)
    }

    /// The mean loss in nats of the targets when nothing is narrowed.
    pub fn loss(&self) -> f64 {
        self.loss
    }

    /// The mean loss in nats of the targets with one KV head of a layer narrowed, for each of some (KV head, window in
    /// tokens).
    pub fn narrowed(&self, layer: usize, heads: &[(usize, u32)]) -> Result<Vec<f64>, ModelError> {
        if heads.is_empty() {
            return Ok(Vec::new());
        }
        let of = |&(kv_head, window): &(usize, u32)| Narrowed { layer, kv_head, window };
        let mut branches = Branches::narrowed(self.context, self.rows, heads.iter().map(of).collect());
        let x = Tensor::cat(&vec![&self.inputs[layer]; heads.len()], 0)?;
        self.losses(&self.decoder.layers(layer..self.inputs.len(), x, &mut branches)?)
    }

    /// The mean loss of the targets in each of the packed branches, from the last layer's output.
    fn losses(&self, x: &Tensor) -> Result<Vec<f64>, ModelError> {
        let &Self { decoder, rows, targets, .. } = self;
        let branches = x.dim(0)? / rows;
        let last = (1..=branches).map(|branch| x.narrow(0, branch * rows - targets.len(), targets.len()));
        let hidden = decoder.norm(&Tensor::cat(&last.collect::<Result<Vec<_>, _>>()?, 0)?)?;
        let losses = decoder.cross_entropy(&hidden, &targets.repeat(branches))?;
        let mean = |losses: &[f32]| losses.iter().map(|&loss| f64::from(loss)).sum::<f64>();
        Ok(losses.chunks(targets.len()).map(|of| mean(of) / targets.len() as f64).collect())
    }
}
