//! The engine's own kernels as specs: every literal of their files.
//!
//! Unlike attention's, they are the same for all layers and architectures: one spec for each operation. An operation's
//! algorithm is the header of its name.

pub(crate) mod spec;

use moac_runtime::artifact;
use moac_runtime::glue::EngineShape;
use moac_runtime::plan::Plan;

pub use self::spec::{GlueSpec, Literal};
use super::{Error, Kernel, Lowered, intern};
use crate::names;

/// The engine's kernels of a lowered plan.
#[derive(Clone, Debug, PartialEq)]
pub struct LoweredEngine {
    /// The shape that they are compiled for.
    pub shape: EngineShape,
    /// One for each operation that some architecture has a kernel for.
    pub specs: Vec<GlueSpec>,
    /// By architecture and then by operation. `spec` is an index into `specs`.
    pub kernels: Vec<Kernel>,
}

impl Lowered {
    /// Adds the kernels of an engine for a model of `shape`, of which this is the lowered `plan`.
    ///
    /// # Errors
    /// [`Error::Engine`] for a shape that the kernels cannot be compiled for.
    pub fn with_engine(mut self, plan: &Plan, shape: &EngineShape) -> Result<Self, Error> {
        artifact::check_engine_shape(shape, &plan.model)
            .map_err(|error| Error::Engine { reason: error.to_string() })?;
        let kv_heads = self.target.kv_heads.end - self.target.kv_heads.start;
        let sizes = shape.sizes(&plan.model, kv_heads);
        let (mut specs, mut kernels) = (Vec::new(), Vec::new());
        for &arch in &self.target.archs {
            for op in sizes.ops(arch) {
                let spec = GlueSpec::new(op, shape, &sizes, self.target.dtype);
                let symbol = names::glue_symbol(&spec);
                kernels.push(Kernel { arch, spec: intern(&mut specs, spec), symbol });
            }
        }
        self.engine = Some(LoweredEngine { shape: shape.clone(), specs, kernels });
        Ok(self)
    }
}
