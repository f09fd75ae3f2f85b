//! Check 3, continued: the values that everything else is computed from lie in their ranges.
//!
//! The compiler's reader reports every problem of a plan at once and in its user's terms; here the first one is
//! enough, for a file that has one was not written by moac.

use std::fmt::Display;
use std::ops::Range;

use super::error::OpenError;
use super::message::{difference, list};
use crate::abi::MAX_BUCKETS;
use crate::arch::Arch;
use crate::plan::{MAX_GROUP, MAX_HEADS, MAX_LAYERS, MAX_LENGTH, ModelShape, PLAN_FORMAT, Plan, TILE};

/// The most (layer, bucket, head) triples that a geometry is computed for: 64 buckets of 128 layers of 512 heads.
const MAX_CELLS: u64 = 1 << 22;

/// An error about one value.
pub(super) fn value(at: &str, found: impl Display, expected: impl Display) -> OpenError {
    OpenError::Value { at: at.to_owned(), found: found.to_string(), expected: expected.to_string() }
}

pub(super) fn ensure(
    holds: bool,
    at: &str,
    found: impl Display,
    expected: impl Display,
) -> Result<(), OpenError> {
    if holds { Ok(()) } else { Err(value(at, found, expected)) }
}

/// The plan is one that the geometry's arithmetic is defined for.
///
/// # Errors
/// [`OpenError::Value`], for the first value that is not.
pub fn plan(plan: &Plan) -> Result<(), OpenError> {
    let Plan {
        format,
        model,
        sink,
        min_span,
        alphas,
        betas,
        provenance: _, // carried, never interpreted
    } = plan;
    ensure(format == PLAN_FORMAT, "plan.format", format!("`{format:.80}`"), format!("`{PLAN_FORMAT}`"))?;
    model_shape(model)?;
    let whole =
        |tokens: u32, least: u32| tokens.is_multiple_of(TILE) && (least..=MAX_LENGTH).contains(&tokens);
    let expected = |least: u32| format!("a multiple of {TILE} from {least} to {MAX_LENGTH}");
    ensure(whole(*sink, TILE), "plan.sink", sink, expected(TILE))?;
    ensure(whole(*min_span, sink + TILE), "plan.min_span", min_span, expected(sink + TILE))?;
    table("plan.alphas", alphas, model, 2f64.powi(31))?;
    table("plan.betas", betas, model, 16.0)
}

fn model_shape(model: &ModelShape) -> Result<(), OpenError> {
    let ModelShape {
        name: _, // for people
        num_layers,
        num_heads,
        num_kv_heads,
        head_dim,
        rope_theta: _, // the model runner's
        context: _,    // the compiler's
        softmax_scale,
    } = model;
    let upto = |found: u32, most: u32, at: &str| {
        ensure((1..=most).contains(&found), at, found, format!("1 to {most}"))
    };
    upto(*num_layers, MAX_LAYERS, "plan.model.num_layers")?;
    upto(*num_heads, MAX_HEADS, "plan.model.num_heads")?;
    upto(*num_kv_heads, *num_heads, "plan.model.num_kv_heads")?;
    ensure(
        num_heads.is_multiple_of(*num_kv_heads) && num_heads / num_kv_heads <= MAX_GROUP,
        "plan.model.num_kv_heads",
        num_kv_heads,
        format!("a divisor of {num_heads} with at most {MAX_GROUP} query heads to a KV head"),
    )?;
    ensure([64, 128].contains(head_dim), "plan.model.head_dim", head_dim, "64 or 128")?;
    if let Some(scale) = *softmax_scale {
        let valid = scale.is_finite() && scale > 0.0;
        ensure(valid, "plan.model.softmax_scale", scale, "a positive number")?;
    }
    Ok(())
}

/// A row of numbers per layer, a number per head, none larger than `most`.
fn table(at: &str, rows: &[Vec<f64>], model: &ModelShape, most: f64) -> Result<(), OpenError> {
    let (layers, heads) = (model.num_layers as usize, model.num_heads as usize);
    ensure(rows.len() == layers, at, format!("{} rows", rows.len()), format!("{layers}"))?;
    for (layer, row) in rows.iter().enumerate() {
        let at = format!("{at}[{layer}]");
        ensure(row.len() == heads, &at, format!("{} numbers", row.len()), format!("{heads}"))?;
        for (head, &number) in row.iter().enumerate() {
            if number.is_nan() || number.abs() > most {
                return Err(value(&format!("{at}[{head}]"), number, format!("-{most} to {most}")));
            }
        }
    }
    Ok(())
}

/// The KV heads are a range of the model's, and the buckets are ascending lengths that a kernel can hold.
pub(super) fn range(plan: &Plan, kv_heads: &Range<u32>, lengths: &[u32]) -> Result<(), OpenError> {
    let all = plan.model.num_kv_heads;
    let valid = kv_heads.start < kv_heads.end && kv_heads.end <= all;
    let found = format!("{}..{}", kv_heads.start, kv_heads.end);
    ensure(valid, "kv_heads", found, format!("a range within 0..{all}"))?;
    let at = "geometry.lengths";
    let count = format!("{} buckets", lengths.len());
    ensure((1..=MAX_BUCKETS).contains(&lengths.len()), at, count, format!("1 to {MAX_BUCKETS}"))?;
    let mut previous = plan.min_span - 1;
    for (index, &length) in lengths.iter().enumerate() {
        let valid = length.is_multiple_of(TILE) && length > previous && length <= MAX_LENGTH;
        let expected = format!("a multiple of {TILE} from {} to {MAX_LENGTH}", previous + 1);
        ensure(valid, &format!("{at}[{index}]"), length, expected)?;
        previous = length;
    }
    let heads = u64::from(kv_heads.end - kv_heads.start) * u64::from(plan.model.group_size());
    let cells = u64::from(plan.model.num_layers) * lengths.len() as u64 * heads;
    let found = format!("{cells} triples of layer, bucket and head");
    ensure(cells <= MAX_CELLS, "geometry", found, format!("at most {MAX_CELLS}"))
}

/// At least one architecture, ascending.
pub(super) fn archs(archs: &[Arch]) -> Result<(), OpenError> {
    let mut sorted = archs.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let wrong = archs.is_empty() || difference(archs, &sorted).is_some();
    ensure(!wrong, "archs", list(archs), "at least one, each once, oldest first")
}
