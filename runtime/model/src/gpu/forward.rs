//! The forward pass of a step on a device: from the tables of its rows to the tokens that it chose.
//!
//! It only launches: nothing is allocated, nothing waits, and a step of the same numbers of rows and samples can be replayed
//! from a graph. Rows after those of the step are padding, whose values are not read.

use moac_runtime::glue::{After, Layer, Op, Sizes};
use moac_runtime::gpu::blas::{Product, Products, ResultType};
use moac_runtime::gpu::{
    ActivateCall, Buffer, Device, EmbedCall, Engine, GpuError, LinearCall, LoadedArtifact, NormCall, Order,
    RotateCall, SampleCall, SampleScratch, Shape, Step, Stream, Tensors,
};
use moac_runtime::plan::DType;
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
    pub(super) most: Most,
    pub(super) memory: Memory,
    pub(super) products: Products,
}

impl Forward {
    /// Launches a step. `done` is called behind each piece of work, with its kind.
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
            self.logits(stream, extent.samples, done)?;
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
        let Self { model, weights, sizes, memory, products, .. } = self;
        let engine = model.engine()?;
        let LayerOnGpu { attention_norm, qkv, bias, q_norm, k_norm, output, mlp_norm, gate_up, down } =
            &weights.layers[layer];
        let dtype = weights.dtype;
        let mut linear = Linears { engine, products, sizes, dtype, stream, done };

        let Memory { x, y, wide, gate_up: inner, rows: table, .. } = memory;
        linear.normed(Op::Qkv, rows, (&*x, attention_norm), qkv, y, wide)?;
        let norms = q_norm.as_ref().zip(k_norm.as_ref()).map(|(q, k)| [q.all(), k.all()]);
        let bias = bias.as_ref().map(Buffer::all);
        engine.rotate(stream, &RotateCall { rows, table: table.all(), qkv: wide.all(), bias, norms })?;
        (linear.done)(Work::Rotate)?;

        // Attention takes the step's own rows: behind them is padding of the products.
        let shape = |heads| Shape::new(step.rows(), heads, sizes.head_dim);
        let (h, g) = (sizes.heads, sizes.kv_heads);
        let fused = wide.tensor(dtype, shape(h + 2 * g))?;
        let tensors = Tensors {
            q: fused.heads(0..h)?,
            k: fused.heads(h..h + g)?,
            v: fused.heads(h + g..h + 2 * g)?,
            o: y.tensor_mut(dtype, shape(h), Order::Rows)?,
            lse: None,
        };
        model.layer(layer)?.attend(stream, step, &tensors)?;
        (linear.done)(Work::Attention)?;
        linear.plain(Op::Output, rows, y, output, x)?;

        if engine.streams(Op::GateUp, rows) {
            linear.normed(Op::GateUp, rows, (&*x, mlp_norm), gate_up, y, wide)?;
        } else {
            linear.normed(Op::GateUp, rows, (&*x, mlp_norm), gate_up, y, inner)?;
            engine.activate(stream, &ActivateCall { rows, gate_up: inner.all(), y: wide.all() })?;
            (linear.done)(Work::Activate)?;
        }
        linear.plain(Op::Down, rows, wide, down, x)
    }

    /// The logits of the samples' rows.
    pub(super) fn logits(
        &mut self,
        stream: &Stream,
        samples: u32,
        done: &mut dyn FnMut(Work) -> Result<(), GpuError>,
    ) -> Result<(), GpuError> {
        let Self { model, weights, sizes, memory, products, .. } = self;
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
        done(Work::Norm)?;
        let (engine, dtype) = (model.engine()?, weights.dtype);
        let mut linear = Linears { engine, products, sizes, dtype, stream, done };
        let Memory { y, logits, .. } = memory;
        linear.plain(Op::Head, samples, y, weights.head(), logits)
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

    /// Chooses the algorithms of a step of `rows` rows, each over the weights of the first `layers` layers: as many as no
    /// cache holds. What the buffers of activations held is gone then.
    pub(super) fn tune(&mut self, stream: &Stream, rows: u32, layers: usize) -> Result<(), GpuError> {
        let Self { model, weights, sizes, most, memory, products } = self;
        let engine = model.engine()?;
        let Memory { x, y, wide, gate_up, logits, .. } = memory;
        let of = |pick: fn(&LayerOnGpu) -> &Buffer| {
            weights.layers.iter().take(layers).map(pick).collect::<Vec<_>>()
        };
        let mut tune = |op: Op, x: &Buffer, weights_of: &[&Buffer], y: &mut Buffer| {
            if engine.streams(op, rows) {
                return Ok(());
            }
            products.tune(stream, &product(sizes, op, weights.dtype, rows), x, weights_of, y)
        };
        tune(Op::Qkv, y, &of(|layer| &layer.qkv), wide)?;
        tune(Op::Output, y, &of(|layer| &layer.output), x)?;
        tune(Op::GateUp, y, &of(|layer| &layer.gate_up), gate_up)?;
        tune(Op::Down, wide, &of(|layer| &layer.down), x)?;
        if rows <= most.samples {
            tune(Op::Head, y, &[weights.head()], logits)?;
        }
        products.save();
        Ok(())
    }
}

/// The linear layers of a step: the artifact's own kernels where they take so few rows, cuBLASLt's products elsewhere.
struct Linears<'a, 'b> {
    engine: Engine<'a>,
    products: &'a mut Products,
    sizes: &'a Sizes,
    dtype: DType,
    stream: &'a Stream,
    done: &'b mut dyn FnMut(Work) -> Result<(), GpuError>,
}

impl Linears<'_, '_> {
    /// A layer behind a norm of `x`. `normed` is for the norm's output, where it is a kernel of its own.
    fn normed(
        &mut self,
        op: Op,
        rows: u32,
        (x, norm): (&Buffer, &Buffer),
        weights: &Buffer,
        normed: &mut Buffer,
        y: &mut Buffer,
    ) -> Result<(), GpuError> {
        if self.engine.streams(op, rows) {
            return self.stream(op, rows, x, (weights, Some(norm)), y);
        }
        let call = NormCall { rows, x: x.all(), weight: norm.all(), y: normed.all(), samples: None };
        self.engine.norm(self.stream, &call)?;
        (self.done)(Work::Norm)?;
        self.product(op, rows, normed, weights, y)
    }

    /// A layer of `x` as it is.
    fn plain(
        &mut self,
        op: Op,
        rows: u32,
        x: &Buffer,
        weights: &Buffer,
        y: &mut Buffer,
    ) -> Result<(), GpuError> {
        if self.engine.streams(op, rows) {
            return self.stream(op, rows, x, (weights, None), y);
        }
        self.product(op, rows, x, weights, y)
    }

    fn stream(
        &mut self,
        op: Op,
        rows: u32,
        x: &Buffer,
        (weights, norm): (&Buffer, Option<&Buffer>),
        y: &mut Buffer,
    ) -> Result<(), GpuError> {
        let (x, weights, norm, y) = (x.all(), weights.all(), norm.map(Buffer::all), y.all());
        self.engine.linear(self.stream, &LinearCall { op, rows, x, weights, norm, y })?;
        (self.done)(work(op))
    }

    fn product(
        &mut self,
        op: Op,
        rows: u32,
        x: &Buffer,
        weights: &Buffer,
        y: &mut Buffer,
    ) -> Result<(), GpuError> {
        self.products.run(self.stream, &product(self.sizes, op, self.dtype, rows), x, weights, y)?;
        (self.done)(work(op))
    }
}

fn work(op: Op) -> Work {
    match op {
        Op::Qkv => Work::Qkv,
        Op::Output => Work::Output,
        Op::GateUp => Work::GateUp,
        Op::Down => Work::Down,
        Op::Head => Work::Head,
        Op::Embed => Work::Embed,
        Op::Norm => Work::Norm,
        Op::Rotate => Work::Rotate,
        Op::Activate => Work::Activate,
        Op::Sample => Work::Sample,
    }
}

/// The product of a linear layer. Both layers that end a branch are added to the residual stream.
fn product(sizes: &Sizes, op: Op, dtype: DType, rows: u32) -> Product {
    let (out, inner, after) = match sizes.layer(op) {
        Some(Layer { out, depth, after, .. }) => (out, depth, after),
        None => (0, 0, After::Store),
    };
    let result = if after == After::StoreFloats { ResultType::F32 } else { ResultType::Elements };
    Product { rows: padded(rows), out, inner, dtype, result, add: after == After::Add }
}
