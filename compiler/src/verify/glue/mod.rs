//! The engine's own kernels against float64: tables and activations with every edge in them, outputs element by element,
//! guards behind each output, and, where the device counts, every byte.
//!
//! `rows` has the operations on rows of activations, `linear` the linear layers, `sample` the choice of tokens.

pub mod candidate;
mod linear;
mod noise;
mod rows;
mod sample;
mod stage;

use moac_runtime::glue::Op;

pub use self::candidate::GlueCandidate;
use self::stage::Stage;
use super::device::{Device, DeviceError};
use super::verdict::Outcome;

/// A launch of a kernel of the engine, whose data follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GlueCase {
    /// For people.
    pub name: &'static str,
    /// Rows of activations, or samples.
    pub rows: u32,
    /// Its special property.
    pub kind: Kind,
}

/// The special property of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Plain,
    /// Embed: no bits of tokens seen. Norm: the rows that samples name. Sample: the likeliest tokens.
    Other,
    /// Sample: penalties, cuts and chance.
    Cuts,
    /// Sample: the likeliest tokens' log-probabilities.
    Top,
    /// Sample: logits that are all equal, hardly differ, or are NaN.
    Odd,
}

/// The cases of a kernel.
pub fn cases(op: Op) -> Vec<GlueCase> {
    let case = |name, rows, kind| GlueCase { name, rows, kind };
    let plain = |name, rows| case(name, rows, Kind::Plain);
    match op {
        Op::Embed => vec![plain("one row", 1), plain("11 rows", 11), case("no bits", 5, Kind::Other)],
        Op::Norm => vec![plain("one row", 1), plain("5 rows", 5), case("rows of samples", 6, Kind::Other)],
        Op::Rotate => vec![plain("one row", 1), plain("7 rows", 7)],
        Op::Activate => vec![plain("one row", 1), plain("5 rows", 5)],
        Op::Sample => vec![
            plain("the likeliest", 3),
            case("cuts", 16, Kind::Cuts),
            case("log-probabilities", 4, Kind::Top),
            case("odd logits", 6, Kind::Odd),
        ],
        Op::Qkv | Op::Output | Op::GateUp | Op::Down | Op::Head => {
            vec![plain("one row", 1), plain("7 rows", 7), plain("16 rows", 16)]
        }
    }
}

/// Runs a case of the candidate that the device has loaded.
///
/// # Errors
/// If it could not be run.
pub fn run(
    device: &mut impl Device,
    candidate: &GlueCandidate,
    case: &GlueCase,
) -> Result<Outcome, DeviceError> {
    device.clear();
    let stage = Stage::new(device, candidate, case);
    if let Some(layer) = candidate.sizes.layer(candidate.op) {
        return linear::linear(stage, &layer);
    }
    match candidate.op {
        Op::Embed => rows::embed(stage),
        Op::Norm => rows::norm(stage),
        Op::Rotate => rows::rotate(stage),
        Op::Activate => rows::activate(stage),
        Op::Sample => sample::sample(stage),
        Op::Qkv | Op::Output | Op::GateUp | Op::Down | Op::Head => unreachable!("a linear layer"),
    }
}
