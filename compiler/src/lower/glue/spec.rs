//! The spec of a kernel of the engine: an operation's literals are listed in [`GlueSpec::new`] and nowhere else.

use std::f64::consts::TAU;

use moac_runtime::glue::{After, EngineShape, Op, Sizes};
use moac_runtime::launch::LaunchRule;
use moac_runtime::plan::DType;
use serde::Serialize;

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
