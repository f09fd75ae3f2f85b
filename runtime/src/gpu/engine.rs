//! The engine's own kernels on a device: the calls around attention.
//!
//! A call checks that every part of memory it is given is large enough, and launches; it allocates nothing, never waits, and
//! can be captured in a graph, which keeps the number of rows and the addresses. The tables of a step ([`Row`], [`Sample`])
//! are device memory that the caller fills before the calls and before each replay; whatever stands in them, a call stays
//! inside its memory.
//!
//! From `sm_90` on a call may begin while the kernel before it on the stream ends, and waits for it before it touches
//! activations. Tables and weights it may read earlier: nothing on the stream between the copy of a table and the calls of
//! its step may write them.
//!
//! [`Row`]: crate::glue::Row
//! [`Sample`]: crate::glue::Sample

use super::load::{Inner, LoadedEngine};
use super::{Buffer, GpuError, LoadedArtifact, Part, Stream};
use crate::arch::Arch;
use crate::glue::{
    Activate, Block, Embed, EngineShape, Linear, MAX_LINEAR_ROWS, Norm, Op, Outcome, Rotate, Row, Sample,
    SampleParams, Sizes, TOP_LOGPROBS,
};

/// The engine's kernels of a loaded artifact. All activations are rows without gaps, of the artifact's element type.
#[derive(Clone, Copy, Debug)]
pub struct Engine<'a> {
    owner: &'a Inner,
    own: &'a LoadedEngine,
}

/// The arguments of [`Engine::embed`]: the tokens of `rows` rows to activations.
#[derive(Clone, Copy, Debug)]
pub struct EmbedCall<'a> {
    /// Rows.
    pub rows: u32,
    /// `[rows]` [`Row`].
    pub table: Part<'a>,
    /// `[vocab, hidden]`.
    pub embedding: Part<'a>,
    /// `[rows, hidden]`, written.
    pub x: Part<'a>,
    /// `[lanes]` u32: what the lanes' last samples chose. Its length says how many lanes there are.
    pub newest: Part<'a>,
    /// `[lanes, seen_words]` u32, marked: a bit for each token that was in the lane; none where no request has a
    /// repetition penalty.
    pub seen: Option<Part<'a>>,
}

/// The arguments of [`Engine::norm`].
#[derive(Clone, Copy, Debug)]
pub struct NormCall<'a> {
    /// Rows of `y`.
    pub rows: u32,
    /// `[rows, hidden]`; with `samples` any number of rows, of which each sample names one.
    pub x: Part<'a>,
    /// `[hidden]`.
    pub weight: Part<'a>,
    /// `[rows, hidden]`, written. It may be `x` where there are no samples.
    pub y: Part<'a>,
    /// `[rows]` [`Sample`].
    pub samples: Option<Part<'a>>,
}

/// The arguments of [`Engine::rotate`].
#[derive(Clone, Copy, Debug)]
pub struct RotateCall<'a> {
    /// Rows.
    pub rows: u32,
    /// `[rows]` [`Row`].
    pub table: Part<'a>,
    /// `[rows, heads + 2 kv heads, head_dim]`, in place.
    pub qkv: Part<'a>,
    /// `[heads + 2 kv heads, head_dim]`, for a model that has it.
    pub bias: Option<Part<'a>>,
    /// `[head_dim]` each, of q and of k, for a model that has them.
    pub norms: Option<[Part<'a>; 2]>,
}

/// The arguments of [`Engine::activate`].
#[derive(Clone, Copy, Debug)]
pub struct ActivateCall<'a> {
    /// Rows.
    pub rows: u32,
    /// `[rows, 2 intermediate]`: gate, then up.
    pub gate_up: Part<'a>,
    /// `[rows, intermediate]`, written.
    pub y: Part<'a>,
}

/// The arguments of [`Engine::linear`].
#[derive(Clone, Copy, Debug)]
pub struct LinearCall<'a> {
    /// The layer: one of [`Op::LINEAR`].
    pub op: Op,
    /// Rows, at most [`MAX_LINEAR_ROWS`].
    pub rows: u32,
    /// `[rows, depth]`.
    pub x: Part<'a>,
    /// `[out, depth]`; of [`Op::GateUp`] gate rows, then up rows.
    pub weights: Part<'a>,
    /// `[depth]`, for [`Op::Qkv`] and [`Op::GateUp`].
    pub norm: Option<Part<'a>>,
    /// `[rows, results]`: what is added to, or written.
    pub y: Part<'a>,
}

/// The arguments of [`Engine::sample`].
#[derive(Debug)]
pub struct SampleCall<'a> {
    /// Samples.
    pub rows: u32,
    /// `[rows]` [`Sample`].
    pub samples: Part<'a>,
    /// `[rows, vocab]` f32.
    pub logits: Part<'a>,
    /// `[rows]` [`Outcome`], written.
    pub outcomes: Part<'a>,
    /// `[rows, TOP_LOGPROBS]` [`Outcome`], written as far as each sample asks for them, the likeliest first.
    pub top: Option<Part<'a>>,
    /// `[lanes]` u32, written. Its length says how many lanes there are.
    pub newest: Part<'a>,
    /// As [`EmbedCall::seen`].
    pub seen: Option<Part<'a>>,
    /// For at least so many samples.
    pub scratch: &'a SampleScratch,
}

/// The communication between the CTAs of a sample. It belongs to one stream at a time.
#[derive(Debug)]
pub struct SampleScratch {
    counters: Buffer,
    found: Buffer,
}

impl LoadedArtifact {
    /// The engine's kernels.
    ///
    /// # Errors
    /// [`GpuError::NoEngine`] for an artifact of attention only.
    pub fn engine(&self) -> Result<Engine<'_>, GpuError> {
        let own = self.inner.engine.as_ref().ok_or(GpuError::NoEngine)?;
        Ok(Engine { owner: &self.inner, own })
    }
}

impl Engine<'_> {
    /// The shape that the kernels were compiled for.
    pub fn shape(&self) -> &EngineShape {
        &self.own.shape
    }

    /// Sizes of rows and tables.
    pub fn sizes(&self) -> &Sizes {
        &self.own.sizes
    }

    /// Scratch for at most `samples` samples, cleared in the order of `stream`.
    ///
    /// # Errors
    /// [`GpuError::OutOfMemory`], or what the driver says.
    pub fn sample_scratch(&self, stream: &Stream, samples: u32) -> Result<SampleScratch, GpuError> {
        let device = &self.owner.device;
        let mut counters = device.alloc(u64::from(samples) * 4, "the counters of samples")?;
        counters.fill(stream, 0)?;
        let found = device.alloc(self.own.sizes.scratch_bytes(samples), "the scratch of samples")?;
        Ok(SampleScratch { counters, found })
    }

    /// `x[row] = embedding[token of the row]`, zeros for idle rows; marks the tokens as seen in their lanes.
    ///
    /// # Errors
    /// [`GpuError::Part`], or what the driver says.
    pub fn embed(&self, stream: &Stream, call: &EmbedCall<'_>) -> Result<(), GpuError> {
        let EmbedCall { rows, table, embedding, x, newest, seen } = *call;
        let lanes = lanes(newest);
        self.launch(
            stream,
            Block::Embed(Embed {
                table: need("table", table, u64::from(rows) * Row::BYTES as u64)?,
                embedding: need("embedding", embedding, self.elements(self.own.sizes.vocab, self.hidden()))?,
                x: need("x", x, self.elements(rows, self.hidden()))?,
                newest: newest.address,
                seen: self.seen(seen, lanes)?,
                lanes,
                rows,
            }),
        )
    }

    /// `y[i] = rms_norm(x[i]) * weight`, or of `x[samples[i].row]`.
    ///
    /// # Errors
    /// [`GpuError::Part`], or what the driver says.
    pub fn norm(&self, stream: &Stream, call: &NormCall<'_>) -> Result<(), GpuError> {
        let NormCall { rows, x, weight, y, samples } = *call;
        let row = self.elements(1, self.hidden());
        let of_rows = match samples {
            Some(_) => u32::try_from(x.bytes / row).unwrap_or(u32::MAX),
            None => rows,
        };
        let table = u64::from(rows) * Sample::BYTES as u64;
        self.launch(
            stream,
            Block::Norm(Norm {
                // At least one row, for a sample to fall back on.
                x: need("x", x, self.elements(of_rows.max(1), self.hidden()))?,
                weight: need("weight", weight, row)?,
                y: need("y", y, self.elements(rows, self.hidden()))?,
                samples: samples.map_or(Ok(0), |samples| need("samples", samples, table))?,
                of_rows,
                rows,
            }),
        )
    }

    /// Adds the bias, normalises the heads of q and k and turns them by the rows' positions, in place.
    ///
    /// # Errors
    /// [`GpuError::Part`], [`GpuError::Optional`], or what the driver says.
    pub fn rotate(&self, stream: &Stream, call: &RotateCall<'_>) -> Result<(), GpuError> {
        let RotateCall { rows, table, qkv, bias, norms } = *call;
        let sizes = self.sizes();
        optional("bias", bias.is_some(), sizes.qkv_bias)?;
        optional("norms of q and k", norms.is_some(), sizes.qk_norm)?;
        let head = self.elements(1, sizes.head_dim);
        let norm = |at: usize, what| norms.map_or(Ok(0), |norms| need(what, norms[at], head));
        self.launch(
            stream,
            Block::Rotate(Rotate {
                table: need("table", table, u64::from(rows) * Row::BYTES as u64)?,
                qkv: need("qkv", qkv, self.elements(rows, sizes.qkv()))?,
                bias: bias.map_or(Ok(0), |bias| need("bias", bias, self.elements(1, sizes.qkv())))?,
                q_norm: norm(0, "norm of q")?,
                k_norm: norm(1, "norm of k")?,
                rows,
                reserved: 0,
            }),
        )
    }

    /// `y = silu(gate) * up`.
    ///
    /// # Errors
    /// [`GpuError::Part`], or what the driver says.
    pub fn activate(&self, stream: &Stream, call: &ActivateCall<'_>) -> Result<(), GpuError> {
        let ActivateCall { rows, gate_up, y } = *call;
        let inner = self.elements(rows, self.own.sizes.intermediate);
        self.launch(
            stream,
            Block::Activate(Activate {
                gate_up: need("gate_up", gate_up, 2 * inner)?,
                y: need("y", y, inner)?,
                rows,
                reserved: 0,
            }),
        )
    }

    /// Chooses a token for each sample, as [`Sample`] says, and makes it its lane's newest.
    ///
    /// # Errors
    /// [`GpuError::Part`], or what the driver says.
    pub fn sample(&self, stream: &Stream, call: &SampleCall<'_>) -> Result<(), GpuError> {
        let SampleCall { rows, samples, logits, outcomes, top, newest, seen, scratch } = *call;
        let of_rows = |bytes: usize| u64::from(rows) * bytes as u64;
        let lanes = lanes(newest);
        let sizes = self.sizes();
        let top_bytes = of_rows(Outcome::BYTES) * u64::from(TOP_LOGPROBS);
        self.launch(
            stream,
            Block::Sample(SampleParams {
                samples: need("samples", samples, of_rows(Sample::BYTES))?,
                logits: need("logits", logits, of_rows(4) * u64::from(sizes.vocab))?,
                outcomes: need("outcomes", outcomes, of_rows(Outcome::BYTES))?,
                top: top.map_or(Ok(0), |top| need("top", top, top_bytes))?,
                newest: newest.address,
                seen: self.seen(seen, lanes)?,
                counters: need("scratch", scratch.counters.all(), of_rows(4))?,
                scratch: need("scratch", scratch.found.all(), sizes.scratch_bytes(rows))?,
                lanes,
                rows,
            }),
        )
    }

    /// Whether [`linear`](Self::linear) takes a layer of so many rows; where it does not, the product is the caller's.
    pub fn streams(&self, op: Op, rows: u32) -> bool {
        rows <= MAX_LINEAR_ROWS && Op::LINEAR.contains(&op) && self.own.kernels.contains_key(&op)
    }

    /// A linear layer with what its [`Op`] says before and after the product, in the time of reading its weights. A row's
    /// result does not depend on the others.
    ///
    /// # Errors
    /// [`GpuError::NoLinear`] where [`streams`](Self::streams) is false, [`GpuError::Part`], [`GpuError::Optional`], or what
    /// the driver says.
    pub fn linear(&self, stream: &Stream, call: &LinearCall<'_>) -> Result<(), GpuError> {
        let LinearCall { op, rows, x, weights, norm, y } = *call;
        let Some(layer) = self.own.sizes.layer(op).filter(|_| self.streams(op, rows)) else {
            return Err(GpuError::NoLinear { op, rows, most: MAX_LINEAR_ROWS });
        };
        optional("norm", norm.is_some(), layer.norm)?;
        let result_bytes = u64::from(layer.results()) * u64::from(layer.result_bytes());
        self.launch(
            stream,
            Block::Linear(
                op,
                Linear {
                    x: need("x", x, self.elements(rows, layer.depth))?,
                    weights: need("weights", weights, self.elements(layer.out, layer.depth))?,
                    norm: norm.map_or(Ok(0), |norm| need("norm", norm, self.elements(1, layer.depth)))?,
                    y: need("y", y, u64::from(rows) * result_bytes)?,
                    rows,
                    reserved: 0,
                },
            ),
        )
    }

    fn hidden(&self) -> u32 {
        self.own.sizes.hidden
    }

    /// Bytes of rows of the artifact's elements.
    fn elements(&self, rows: u32, width: u32) -> u64 {
        u64::from(rows) * u64::from(width) * u64::from(self.owner.dtype.bytes())
    }

    fn seen(&self, seen: Option<Part<'_>>, lanes: u32) -> Result<u64, GpuError> {
        let bytes = u64::from(lanes) * u64::from(self.own.sizes.seen_words()) * 4;
        seen.map_or(Ok(0), |seen| need("seen", seen, bytes))
    }

    /// Launches a block whose addresses were checked. No rows are nothing to do.
    fn launch(&self, stream: &Stream, block: Block) -> Result<(), GpuError> {
        if block.rows() == 0 {
            return Ok(());
        }
        let kernel = self.own.kernels.get(&block.op()).ok_or(GpuError::NoEngine)?;
        let launch = self.own.sizes.launch(block, self.overlaps(), self.owner.device.info().sms);
        // SAFETY: every part was checked against the bytes that `Sizes::ranges` names, and lives by its type's promise.
        unsafe { kernel.launch_glue(stream, &launch) }
    }

    /// Whether the kernels wait by themselves for the kernel before them.
    fn overlaps(&self) -> bool {
        self.owner.arch >= Arch::Sm90
    }
}

/// Lanes that a table of u32 has room for.
fn lanes(newest: Part<'_>) -> u32 {
    u32::try_from(newest.bytes / 4).unwrap_or(u32::MAX)
}

/// The address of a part that is large enough and aligned.
fn need(what: &'static str, part: Part<'_>, bytes: u64) -> Result<u64, GpuError> {
    let Part { address, bytes: found, .. } = part;
    if found >= bytes && address.is_multiple_of(16) && address != 0 {
        return Ok(address);
    }
    Err(GpuError::Part { what, address, found, expected: bytes })
}

fn optional(what: &'static str, given: bool, wanted: bool) -> Result<(), GpuError> {
    if given == wanted { Ok(()) } else { Err(GpuError::Optional { what, given }) }
}

#[cfg(test)]
mod tests {
    use super::{lanes, need, optional};
    use crate::gpu::{GpuError, Part};

    #[test]
    fn a_part_that_is_too_small_or_crooked_is_refused() {
        // SAFETY: nothing is launched with it.
        let part = |address, bytes| unsafe { Part::from_raw(address, bytes) };
        assert_eq!(need("x", part(64, 32), 32).unwrap(), 64);
        let error = |part, bytes| need("x", part, bytes).unwrap_err().to_string();
        assert_eq!(
            error(part(64, 32), 33),
            "`x` is 32 bytes at 0x40, expected at least 33 at a multiple of 16"
        );
        assert!(error(part(72, 64), 32).contains("at 0x48"));
        assert!(error(part(0, 64), 32).contains("at 0x0"));
        assert_eq!(lanes(part(64, 15)), 3);
    }

    #[test]
    fn what_a_model_has_must_be_given_and_nothing_else() {
        optional("bias", true, true).unwrap();
        optional("bias", false, false).unwrap();
        let error = |given, wanted| match optional("bias", given, wanted) {
            Err(error @ GpuError::Optional { .. }) => error.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(error(false, true), "`bias` is missing, but the model has one");
        assert_eq!(error(true, false), "`bias` is given, but the model has none");
    }
}
