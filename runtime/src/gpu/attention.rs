//! Prefill and decode of one layer.

use std::sync::Arc;

use super::load::{Inner, LoadedLayer};
use super::module::LoadedKernel;
use super::{GpuError, Step, Stream, Tensor, TensorMut};
use crate::attention;

/// The tensors of a call, a row per new token of the step. `RoPE` has been applied to q and k.
#[derive(Debug)]
pub struct Tensors<'a> {
    /// `[rows, heads, head_dim]`
    pub q: Tensor<'a>,
    /// `[rows, kv heads, head_dim]`
    pub k: Tensor<'a>,
    /// `[rows, kv heads, head_dim]`
    pub v: Tensor<'a>,
    /// Written: `[rows, heads, head_dim]`.
    pub o: TensorMut<'a>,
    /// Written, if wanted: the natural log-sum-exp of the scaled visible scores, f32 `[rows, heads]`.
    pub lse: Option<TensorMut<'a>>,
}

/// One layer of a loaded artifact. Its calls only launch: they allocate nothing, never wait, and can be captured in a
/// graph. A graph holds what the step had when it was captured: the workspace's memory, the number of requests, for
/// prefill the longest chunk, and the tensors.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a> {
    owner: &'a Arc<Inner>,
    own: &'a LoadedLayer,
}

impl<'a> Layer<'a> {
    pub(super) fn new(owner: &'a Arc<Inner>, own: &'a LoadedLayer) -> Self {
        Self { owner, own }
    }

    /// Query heads.
    pub fn heads(&self) -> u32 {
        self.own.call.shape.heads
    }

    /// KV heads.
    pub fn kv_heads(&self) -> u32 {
        self.own.call.shape.kv_heads
    }

    /// Elements of a head.
    pub fn head_dim(&self) -> u32 {
        self.own.call.shape.head_dim
    }

    /// CTAs of the prefill and of the decode kernel that run on a multiprocessor at once.
    ///
    /// # Errors
    /// What the driver says.
    pub fn ctas_per_sm(&self) -> Result<[u32; 2], GpuError> {
        Ok([self.own.prefill.ctas_per_sm()?, self.own.decode.ctas_per_sm()?])
    }

    /// Attends a chunk of any length per request and then appends it to the rings: two launches, the second after
    /// every reader of the old keys is done.
    ///
    /// # Errors
    /// What is wrong with a tensor, [`GpuError::Foreign`], or what the driver says. Nothing was launched then, unless
    /// the driver failed between the two launches.
    pub fn prefill(&self, stream: &Stream, step: &Step<'_>, tensors: &Tensors<'_>) -> Result<(), GpuError> {
        self.run(&self.own.prefill, stream, step, tensors)
    }

    /// Attends at most one new token per request and appends it to the rings: one launch.
    ///
    /// # Errors
    /// As [`prefill`](Self::prefill), and [`CallError::NotOneToken`](crate::attention::CallError::NotOneToken).
    pub fn decode(&self, stream: &Stream, step: &Step<'_>, tensors: &Tensors<'_>) -> Result<(), GpuError> {
        self.run(&self.own.decode, stream, step, tensors)
    }

    fn run(
        &self,
        kernel: &LoadedKernel,
        stream: &Stream,
        step: &Step<'_>,
        tensors: &Tensors<'_>,
    ) -> Result<(), GpuError> {
        if !Arc::ptr_eq(self.owner, step.owner) {
            return Err(GpuError::Foreign { what: "the step" });
        }
        let Tensors { q, k, v, o, lse } = tensors;
        let lse = lse.as_ref().map(|lse| lse.view);
        let views = attention::Tensors { q: q.view, k: k.view, v: v.view, o: o.view, lse };
        let sms = self.owner.device.info().sms;
        for launch in self.own.call.launches(&kernel.facts, &views, &step.table, step.scratch, sms)? {
            // SAFETY: `launches` checked the tensors, which live by their types' promise; the table and the slabs in
            // it were checked when the step began, and are the step's. The scratch is the workspace's, sized for the
            // largest grid and its capacity.
            unsafe { kernel.launch(stream, &launch) }?;
        }
        Ok(())
    }
}
