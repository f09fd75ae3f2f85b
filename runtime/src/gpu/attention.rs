//! A step of one layer.

use std::sync::Arc;

use super::load::{Attention, Inner, LoadedLayer};
use super::tensor::Placed;
use super::{GpuError, LoadedArtifact, LseMut, Step, Stream, Tensor, TensorMut};
use crate::attention::{self, StepTable};

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
    /// Written, if wanted.
    pub lse: Option<LseMut<'a>>,
}

/// One layer of a loaded artifact. Its calls only launch: they allocate nothing, never wait, and can be captured in a
/// graph. A graph holds what the step had when it was captured: the workspace's memory, the numbers of requests that decode
/// and that prefill, the longest chunk, and the tensors.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a> {
    owner: &'a Arc<Inner>,
    own: &'a LoadedLayer,
}

impl LoadedArtifact {
    /// One layer, to run.
    ///
    /// # Errors
    /// [`GpuError::NoLayer`].
    pub fn layer(&self, layer: usize) -> Result<Layer<'_>, GpuError> {
        let own = self.inner.layers.get(layer);
        let own = own.ok_or(GpuError::NoLayer { layer, layers: self.inner.layers.len() })?;
        Ok(Layer::new(&self.inner, own))
    }
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
    /// Any error of the driver.
    pub fn ctas_per_sm(&self) -> Result<[u32; 2], GpuError> {
        Ok([self.own.prefill.kernel.ctas_per_sm()?, self.own.decode.kernel.ctas_per_sm()?])
    }

    /// Attends the step's new tokens and appends them to the rings: of the requests that decode in one launch; of those
    /// that prefill in two, the second after every reader of the old keys is done.
    ///
    /// # Errors
    /// An unfit tensor, [`GpuError::Foreign`], [`GpuError::StepOver`], or an error of the driver. Nothing was
    /// launched then, unless the driver failed between two launches.
    pub fn attend(&self, stream: &Stream, step: &Step, tensors: &Tensors<'_>) -> Result<(), GpuError> {
        step.check(self.owner)?;
        let views = self.views(tensors)?;
        let sms = self.owner.device.info().sms;
        let launches = |kernel: &Attention, part: &Option<StepTable>| match part {
            Some(part) => self.own.call.launches(&kernel.facts, &views, part, step.scratch(), sms),
            None => Ok(Vec::new()),
        };
        let (decode, prefill) = (&self.own.decode, &self.own.prefill);
        let lists = [(decode, launches(decode, &step.decode)?), (prefill, launches(prefill, &step.prefill)?)];
        for (Attention { kernel, .. }, launches) in &lists {
            for launch in launches {
                // SAFETY: `launches` checked the tensors, which live by their types' promise; the table and the slabs in
                // it were checked when the step began, and the step keeps them. The scratch is the workspace's, sized for
                // the largest grid and its capacity.
                unsafe { kernel.launch(stream, launch) }?;
            }
        }
        Ok(())
    }

    /// Where the tensors lie, if their elements are the artifact's.
    fn views(&self, tensors: &Tensors<'_>) -> Result<attention::Tensors, GpuError> {
        let Tensors { q, k, v, o, lse } = tensors;
        let (expected, expected_dim) = (self.owner.dtype, self.head_dim());
        let view = |tensor, placed: &Placed| {
            let Placed { view, head_dim: found_dim, dtype: found } = *placed;
            if (found, found_dim) == (expected, expected_dim) {
                Ok(view)
            } else {
                Err(GpuError::Elements { tensor, found, found_dim, expected, expected_dim })
            }
        };
        Ok(attention::Tensors {
            q: view("q", &q.placed)?,
            k: view("k", &k.placed)?,
            v: view("v", &v.placed)?,
            o: view("o", &o.placed)?,
            lse: lse.as_ref().map(|lse| lse.view),
        })
    }
}
