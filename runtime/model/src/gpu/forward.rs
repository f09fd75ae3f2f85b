//! The forward pass of a step on a device: from the tables of its rows to the tokens that it chose.
//!
//! It only launches: nothing is allocated, nothing waits, and a step of the same numbers of rows and samples can be replayed
//! from a graph. Rows behind those of the step are padding, whose values nobody reads.

use moac_runtime::glue::Sizes;
use moac_runtime::gpu::blas::{Product, Products, ResultType};
use moac_runtime::gpu::{
    ActivateCall, Buffer, Device, EmbedCall, GpuError, LoadedArtifact, NormCall, Order, RotateCall,
    SampleCall, SampleScratch, Shape, Step, Stream, Tensors,
};
use serde::Serialize;

use super::sizes::{Most, StepBytes, padded};
use super::weights::{GpuWeights, LayerOnGpu};

/// A kind of work of a step, in the order in which it comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// The embedding of tokens.
    Embed,
    /// Norms.
    Norm,
    /// The product of q, k and v.
    Qkv,
    /// The rotary embedding.
    Rotate,
    /// Attention.
    Attention,
    /// The product behind attention.
    Output,
    /// The product of gate and up.
    GateUp,
    /// The activation.
    Activate,
    /// The product behind the activation.
    Down,
    /// The product of logits.
    Head,
    /// The choice of tokens.
    Sample,
}

/// How many rows and samples a step has, padding included: what a graph of it depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) rows: u32,
    pub(super) samples: u32,
}

/// The memory that a step computes in, and what lanes remember from step to step.
#[derive(Debug)]
pub(super) struct Memory {
    x: Buffer,
    y: Buffer,
    wide: Buffer,
    gate_up: Buffer,
    pub(super) logits: Buffer,
    pub(super) rows: Buffer,
    pub(super) samples: Buffer,
    pub(super) outcomes: Buffer,
    pub(super) top: Buffer,
    newest: Buffer,
    pub(super) seen: Buffer,
    scratch: SampleScratch,
}

impl Memory {
    pub(super) fn new(
        model: &LoadedArtifact,
        stream: &Stream,
        bytes: &StepBytes,
        most: &Most,
    ) -> Result<Self, GpuError> {
        let device: &Device = model.device();
        // Zeros, for padding to hold numbers.
        let zeros = |bytes: u64| -> Result<Buffer, GpuError> {
            let mut buffer = device.alloc(bytes, "the activations of a step")?;
            buffer.fill(stream, 0)?;
            Ok(buffer)
        };
        let &StepBytes {
            x,
            y,
            wide,
            gate_up,
            logits,
            rows,
            samples,
            outcomes,
            top,
            newest,
            seen,
            scratch: _,
        } = bytes;
        Ok(Self {
            x: zeros(x)?,
            y: zeros(y)?,
            wide: zeros(wide)?,
            gate_up: zeros(gate_up)?,
            logits: zeros(logits)?,
            rows: zeros(rows)?,
            samples: zeros(samples)?,
            outcomes: zeros(outcomes)?,
            top: zeros(top)?,
            newest: zeros(newest)?,
            seen: zeros(seen)?,
            scratch: model.engine()?.sample_scratch(stream, most.samples)?,
        })
    }
}

/// A model on a device, for steps on one stream.
#[derive(Debug)]
pub(super) struct Forward {
    pub(super) model: LoadedArtifact,
    pub(super) weights: GpuWeights,
    pub(super) sizes: Sizes,
    pub(super) memory: Memory,
    pub(super) products: Products,
}

impl Forward {
    /// Launches a step. `done` is called behind each piece of work, with what it was.
    pub(super) fn run(
        &mut self,
        stream: &Stream,
        step: &Step,
        extent: Extent,
        done: &mut dyn FnMut(Work) -> Result<(), GpuError>,
    ) -> Result<(), GpuError> {
        self.embed(stream, extent)?;
        done(Work::Embed)?;
        for layer in 0..self.weights.layers.len() {
            self.layer(stream, step, layer, extent.rows, done)?;
        }
        if extent.samples > 0 {
            self.logits(stream, extent.samples)?;
            done(Work::Head)?;
            self.sample(stream, extent.samples)?;
            done(Work::Sample)?;
        }
        Ok(())
    }

    fn embed(&self, stream: &Stream, extent: Extent) -> Result<(), GpuError> {
        let memory = &self.memory;
        self.model.engine()?.embed(
            stream,
            &EmbedCall {
                rows: extent.rows,
                table: memory.rows.all(),
                embedding: self.weights.embedding.all(),
                x: memory.x.all(),
                newest: memory.newest.all(),
                seen: Some(memory.seen.all()),
            },
        )
    }

    fn layer(
        &mut self,
        stream: &Stream,
        step: &Step,
        layer: usize,
        rows: u32,
        done: &mut dyn FnMut(Work) -> Result<(), GpuError>,
    ) -> Result<(), GpuError> {
        let Self { model, weights, sizes, memory, products } = self;
        let engine = model.engine()?;
        let LayerOnGpu { attention_norm, qkv, bias, q_norm, k_norm, output, mlp_norm, gate_up, down } =
            &weights.layers[layer];
        let dtype = weights.dtype;
        let product = |which: Linear| which.product(sizes, dtype, rows);
        let norm = |weight: &Buffer, memory: &Memory| {
            let (x, y) = (memory.x.all(), memory.y.all());
            engine.norm(stream, &NormCall { rows, x, weight: weight.all(), y, samples: None })
        };

        norm(attention_norm, memory)?;
        done(Work::Norm)?;
        products.run(stream, &product(Linear::Qkv), &memory.y, qkv, &mut memory.wide)?;
        done(Work::Qkv)?;
        let norms = q_norm.as_ref().zip(k_norm.as_ref()).map(|(q, k)| [q.all(), k.all()]);
        let (table, bias) = (memory.rows.all(), bias.as_ref().map(Buffer::all));
        engine.rotate(stream, &RotateCall { rows, table, qkv: memory.wide.all(), bias, norms })?;
        done(Work::Rotate)?;

        // Attention takes the step's own rows: behind them is padding of the products.
        let shape = |heads| Shape::new(step.rows(), heads, sizes.head_dim);
        let (h, g) = (sizes.heads, sizes.kv_heads);
        let fused = memory.wide.tensor(dtype, shape(h + 2 * g))?;
        let tensors = Tensors {
            q: fused.heads(0..h)?,
            k: fused.heads(h..h + g)?,
            v: fused.heads(h + g..h + 2 * g)?,
            o: memory.y.tensor_mut(dtype, shape(h), Order::Rows)?,
            lse: None,
        };
        model.layer(layer)?.attend(stream, step, &tensors)?;
        done(Work::Attention)?;
        products.run(stream, &product(Linear::Output), &memory.y, output, &mut memory.x)?;
        done(Work::Output)?;

        norm(mlp_norm, memory)?;
        done(Work::Norm)?;
        products.run(stream, &product(Linear::GateUp), &memory.y, gate_up, &mut memory.gate_up)?;
        done(Work::GateUp)?;
        let (gate_up, y) = (memory.gate_up.all(), memory.wide.all());
        engine.activate(stream, &ActivateCall { rows, gate_up, y })?;
        done(Work::Activate)?;
        products.run(stream, &product(Linear::Down), &memory.wide, down, &mut memory.x)?;
        done(Work::Down)
    }

    /// The logits of the samples' rows.
    pub(super) fn logits(&mut self, stream: &Stream, samples: u32) -> Result<(), GpuError> {
        let Self { model, weights, sizes, memory, products } = self;
        model.engine()?.norm(
            stream,
            &NormCall {
                rows: samples,
                x: memory.x.all(),
                weight: weights.norm.all(),
                y: memory.y.all(),
                samples: Some(memory.samples.all()),
            },
        )?;
        let product = Linear::Head.product(sizes, weights.dtype, samples);
        products.run(stream, &product, &memory.y, weights.head(), &mut memory.logits)
    }

    fn sample(&self, stream: &Stream, samples: u32) -> Result<(), GpuError> {
        let memory = &self.memory;
        self.model.engine()?.sample(
            stream,
            &SampleCall {
                rows: samples,
                samples: memory.samples.all(),
                logits: memory.logits.all(),
                outcomes: memory.outcomes.all(),
                top: Some(memory.top.all()),
                newest: memory.newest.all(),
                seen: Some(memory.seen.all()),
                scratch: &memory.scratch,
            },
        )
    }

    /// Chooses the algorithms of a decode step of `rows` rows, each over the weights of all layers. What the buffers of
    /// activations held is gone then.
    pub(super) fn tune(&mut self, stream: &Stream, rows: u32) -> Result<(), GpuError> {
        let Self { weights, sizes, memory, products, .. } = self;
        let Memory { x, y, wide, gate_up, logits, .. } = memory;
        let of = |pick: fn(&LayerOnGpu) -> &Buffer| weights.layers.iter().map(pick).collect::<Vec<_>>();
        let product = |which: Linear| which.product(sizes, weights.dtype, rows);
        products.tune(stream, &product(Linear::Qkv), y, &of(|layer| &layer.qkv), wide)?;
        products.tune(stream, &product(Linear::Output), y, &of(|layer| &layer.output), x)?;
        products.tune(stream, &product(Linear::GateUp), y, &of(|layer| &layer.gate_up), gate_up)?;
        products.tune(stream, &product(Linear::Down), wide, &of(|layer| &layer.down), x)?;
        products.tune(stream, &product(Linear::Head), y, &[weights.head()], logits)?;
        products.save();
        Ok(())
    }
}

/// The products of a layer, and the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Linear {
    Qkv,
    Output,
    GateUp,
    Down,
    Head,
}

impl Linear {
    fn product(self, sizes: &Sizes, dtype: moac_runtime::plan::DType, rows: u32) -> Product {
        let &Sizes { hidden, intermediate, vocab, heads, head_dim, .. } = sizes;
        let (out, inner) = match self {
            Self::Qkv => (sizes.qkv(), hidden),
            Self::Output => (hidden, heads * head_dim),
            Self::GateUp => (2 * intermediate, hidden),
            Self::Down => (hidden, intermediate),
            Self::Head => (vocab, hidden),
        };
        let result = if self == Self::Head { ResultType::F32 } else { ResultType::Elements };
        // Both products that end a branch are added to the residual stream.
        let add = matches!(self, Self::Output | Self::Down);
        Product { rows: padded(rows), out, inner, dtype, result, add }
    }
}
