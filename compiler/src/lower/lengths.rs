//! `--lengths` to buckets: what is asked for, rounded, checked and sorted.

use moac_runtime::abi::MAX_BUCKETS;
use moac_runtime::plan::{MAX_LENGTH, Plan, TILE};

use super::Error;

/// The step of the default buckets, in tokens.
const DEFAULT_STEP: u32 = 1024;
/// The longest default bucket, in tokens.
const DEFAULT_LONGEST: u32 = 16384;

/// The buckets of an artifact, and what was changed to get them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lengths {
    /// Ascending, distinct, each a multiple of 64 and at least the plan's `min_span`.
    pub buckets: Vec<u32>,
    /// One line per length that is not compiled as asked.
    pub notes: Vec<String>,
}

/// The buckets for `asked`; an empty list asks for the defaults: every multiple of 1024 that the plan's `min_span` and
/// the model's context allow, up to 16384, or where there is none, the context itself.
pub fn buckets(plan: &Plan, asked: &[u32]) -> Result<Lengths, Error> {
    let context = plan.model.context.unwrap_or(MAX_LENGTH);
    let defaults;
    let asked = if asked.is_empty() {
        defaults = default_lengths(plan, context);
        &defaults
    } else {
        asked
    };
    let mut notes = Vec::new();
    let mut buckets = Vec::new();
    for &length in asked {
        if length == 0 {
            return Err(Error::ZeroLength);
        }
        if length > MAX_LENGTH {
            return Err(Error::TooLong { length, max: MAX_LENGTH });
        }
        if length > context {
            return Err(Error::BeyondContext { length, context });
        }
        let bucket = length.next_multiple_of(TILE).max(plan.min_span);
        if bucket != length {
            let why = if bucket == plan.min_span && length.next_multiple_of(TILE) < bucket {
                "the plan's min_span"
            } else {
                "a multiple of 64"
            };
            notes.push(format!("length {length} rounded up to {bucket}, {why}"));
        }
        buckets.push(bucket);
    }
    buckets.sort_unstable();
    buckets.dedup();
    if buckets.len() > MAX_BUCKETS {
        return Err(Error::TooManyBuckets { found: buckets.len(), max: MAX_BUCKETS });
    }
    Ok(Lengths { buckets, notes })
}

fn default_lengths(plan: &Plan, context: u32) -> Vec<u32> {
    let longest = context.min(DEFAULT_LONGEST);
    let steps: Vec<u32> = (1..=longest / DEFAULT_STEP)
        .map(|step| step * DEFAULT_STEP)
        .filter(|&length| length >= plan.min_span)
        .collect();
    if steps.is_empty() { vec![context.min(DEFAULT_LONGEST.max(plan.min_span))] } else { steps }
}
