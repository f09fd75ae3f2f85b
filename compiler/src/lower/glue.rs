//! The engine's own kernels as specs: every literal of their files.
//!
//! Unlike attention's, they are the same for all layers and architectures: one spec for each operation. An operation's
//! literals are listed in [`GlueSpec::new`] and nowhere else; its algorithm is the header of its name.

use std::f64::consts::TAU;

use moac_runtime::artifact;
use moac_runtime::glue::{After, EngineShape, Op, Sizes};
use moac_runtime::launch::LaunchRule;
use moac_runtime::plan::{DType, Plan};
use serde::Serialize;

use super::{Error, Kernel, Lowered, intern};
use crate::names;

/// A literal and its name in the file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Literal<T> {
    /// The member of `Spec`.
    pub name: &'static str,
    /// Its value.
    pub value: T,
}

/// One kernel of the engine. Equal specs are one kernel, and [`crate::names`] digests every field.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GlueSpec {
    /// Its effect.
    pub op: Op,
    /// Element type of activations and weights.
    pub dtype: DType,
    /// Whole numbers and flags.
    pub integers: Vec<Literal<u32>>,
    /// Numbers.
    pub floats: Vec<Literal<f32>>,
    /// Lists of numbers.
    pub tables: Vec<Literal<Vec<f32>>>,
    /// Threads, shared memory and grid.
    pub launch: LaunchRule,
}

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

impl GlueSpec {
    /// The spec of an operation for a model.
    pub fn new(op: Op, shape: &EngineShape, sizes: &Sizes, dtype: DType) -> Self {
        let Sizes { hidden, intermediate, vocab, heads, kv_heads, head_dim, qkv_bias, qk_norm } = *sizes;
        let epsilon = shape.norm_eps;
        let (integers, floats, tables): (Vec<_>, Vec<_>, Vec<_>) = match op {
            Op::Embed => (vec![("kHidden", hidden), ("kVocab", vocab)], vec![], vec![]),
            Op::Norm => (vec![("kHidden", hidden)], vec![("kEpsilon", epsilon)], vec![]),
            Op::Rotate => {
                let (high, low) = shape.frequencies.iter().map(|&frequency| turns(frequency)).unzip();
                let integers = vec![
                    ("kHeads", heads),
                    ("kKvHeads", kv_heads),
                    ("kHeadDim", head_dim),
                    ("kBias", u32::from(qkv_bias)),
                    ("kNorm", u32::from(qk_norm)),
                ];
                (integers, vec![("kEpsilon", epsilon)], vec![("kTurnsHigh", high), ("kTurnsLow", low)])
            }
            Op::Activate => (vec![("kIntermediate", intermediate)], vec![], vec![]),
            Op::Sample => (vec![("kVocab", vocab)], vec![], vec![]),
            Op::Qkv | Op::Output | Op::GateUp | Op::Down | Op::Head => {
                let layer = sizes.layer(op).expect("a linear layer");
                let after = |what| u32::from(layer.after == what);
                let integers = vec![
                    ("kSharedBytes", sizes.rule(op).shared_bytes),
                    ("kIn", layer.depth),
                    ("kOut", layer.out),
                    ("kNorm", u32::from(layer.norm)),
                    ("kAdd", after(After::Add)),
                    ("kActivate", after(After::Activate)),
                    ("kFloatOut", after(After::StoreFloats)),
                ];
                (integers, vec![("kEpsilon", epsilon)], vec![])
            }
        };
        Self {
            op,
            dtype,
            integers: literals(integers),
            floats: literals(floats),
            tables: literals(tables),
            launch: sizes.rule(op),
        }
    }
}

fn literals<T>(named: Vec<(&'static str, T)>) -> Vec<Literal<T>> {
    named.into_iter().map(|(name, value)| Literal { name, value }).collect()
}

/// Radians per position as turns per position, a sum of two floats: 48 bits, so that position 2^20 loses nothing.
fn turns(frequency: f64) -> (f32, f32) {
    let turns = frequency / TAU;
    let high = turns as f32;
    (high, (turns - f64::from(high)) as f32)
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

#[cfg(test)]
mod tests {
    use super::turns;

    #[test]
    fn turns_are_kept_to_forty_eight_bits() {
        for frequency in [1.0, 0.5, 1e-5, 0.123_456_789_012_345, std::f64::consts::PI] {
            let (high, low) = turns(frequency);
            let lost = f64::from(high) + f64::from(low) - frequency / std::f64::consts::TAU;
            assert!(lost.abs() <= f64::from(high) * 2f64.powi(-48), "{frequency}: {lost}");
        }
    }
}
