//! How many bytes a model takes on a device, kind by kind, before any of them is allocated.

use moac_runtime::glue::{Outcome, Row, Sample, Sizes, TOP_LOGPROBS};
use serde::Serialize;

/// Rows of a product are padded to multiples of this, once there are that many: each number of rows costs a description and
/// an algorithm.
const FEW: u32 = 8;
/// The same for chunks of prompts.
const MANY: u32 = 64;
/// Where chunks begin: more rows than decodes have, as a rule.
const MOST_FEW: u32 = 256;

/// The rows that a step with `rows` of them is computed with: 1, 2, 4, 8, then steps of 8, then steps of 64.
pub(super) fn padded(rows: u32) -> u32 {
    match rows {
        0..=FEW => rows.next_power_of_two(),
        _ if rows <= MOST_FEW => rows.next_multiple_of(FEW),
        _ => rows.next_multiple_of(MANY),
    }
}

/// The limits of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Most {
    /// Rows, padding included.
    pub(super) rows: u32,
    /// Samples, padding included.
    pub(super) samples: u32,
    /// Requests that run at once.
    pub(super) lanes: u32,
}

impl Most {
    /// For `lanes` requests and `rows` rows of a step.
    pub(super) fn new(lanes: u32, rows: u32) -> Self {
        Self { rows: padded(rows), samples: padded(lanes), lanes }
    }
}

/// Bytes of the buffers that a step computes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StepBytes {
    /// The residual stream.
    pub(super) x: u64,
    /// Normed rows, or attention's output.
    pub(super) y: u64,
    /// q, k and v, or the activated rows of the feed-forward network.
    pub(super) wide: u64,
    /// Gate and up.
    pub(super) gate_up: u64,
    /// Logits, float32.
    pub(super) logits: u64,
    /// The table of rows.
    pub(super) rows: u64,
    /// The table of samples.
    pub(super) samples: u64,
    /// The tokens sampled.
    pub(super) outcomes: u64,
    /// The likeliest tokens of each sample.
    pub(super) top: u64,
    /// Each lane's newest token.
    pub(super) newest: u64,
    /// A bit for each token that was in a lane.
    pub(super) seen: u64,
    /// The communication between the parts of a sample.
    pub(super) scratch: u64,
}

impl StepBytes {
    /// For a model of `sizes`.
    pub(super) fn new(sizes: &Sizes, most: &Most) -> Self {
        let Most { rows, samples, lanes } = *most;
        let elements = |width: u32| u64::from(rows) * u64::from(width) * 2;
        let table = |rows: u32, bytes: usize| u64::from(rows) * bytes as u64;
        Self {
            x: elements(sizes.hidden),
            y: elements(sizes.hidden.max(sizes.heads * sizes.head_dim)),
            wide: elements(sizes.qkv().max(sizes.intermediate)),
            gate_up: elements(2 * sizes.intermediate),
            logits: u64::from(samples) * u64::from(sizes.vocab) * 4,
            rows: table(rows, Row::BYTES),
            samples: table(samples, Sample::BYTES),
            outcomes: table(samples, Outcome::BYTES),
            top: table(samples, Outcome::BYTES) * u64::from(TOP_LOGPROBS),
            newest: u64::from(lanes) * 4,
            seen: u64::from(lanes) * u64::from(sizes.seen_words()) * 4,
            scratch: sizes.scratch_bytes(samples) + u64::from(samples) * 4,
        }
    }

    /// All of them.
    pub(super) fn total(&self) -> u64 {
        let Self { x, y, wide, gate_up, logits, rows, samples, outcomes, top, newest, seen, scratch } = *self;
        x + y + wide + gate_up + logits + rows + samples + outcomes + top + newest + seen + scratch
    }
}

/// Bytes of device memory by purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MemoryByKind {
    /// The model's weights.
    pub weights: u64,
    /// The buffers of a step, its tables and the state of its lanes.
    pub activations: u64,
    /// Attention's workspace, and the scratch of matrix products.
    pub workspaces: u64,
    /// The reservation that slabs come from.
    pub slabs: u64,
}

impl MemoryByKind {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.weights + self.activations + self.workspaces + self.slabs
    }
}

#[cfg(test)]
mod tests {
    use moac_runtime::glue::Sizes;

    use super::{Most, StepBytes, padded};

    #[test]
    fn rows_are_padded_by_little() {
        let of = [0, 1, 2, 3, 4, 5, 8, 9, 16, 17, 255, 256, 257, 2048, 2049].map(padded);
        assert_eq!(of, [1, 1, 2, 4, 4, 8, 8, 16, 16, 24, 256, 256, 320, 2048, 2112]);
        assert!((1..5000).all(|rows| padded(rows) >= rows && padded(padded(rows)) == padded(rows)));
        assert!((1..5000).all(|rows| padded(rows) <= padded(rows + 1)));
    }

    /// Llama-3-8B's shape, by hand.
    #[test]
    fn a_step_takes_what_its_widths_say() {
        let sizes = Sizes {
            hidden: 4096,
            intermediate: 14336,
            vocab: 128_256,
            heads: 32,
            kv_heads: 8,
            head_dim: 128,
            qkv_bias: false,
            qk_norm: false,
        };
        let bytes = StepBytes::new(&sizes, &Most::new(100, 2048));
        assert_eq!([bytes.x, bytes.y, bytes.wide, bytes.gate_up].map(|n| n >> 20), [16, 16, 56, 112]);
        assert_eq!(bytes.logits, 104 * 128_256 * 4);
        assert_eq!(bytes.seen, 100 * 128_256 / 8);
        // 104 samples, each looked at by 16 CTAs that leave 176 bytes of scratch and one counter.
        assert_eq!(bytes.scratch, 104 * (16 * 176 + 4));
        let activations = (2 * 4096 + 14336 + 28672) * 2048 * 2;
        let tables = 2048 * 16 + 104 * (48 + 8 + 20 * 8) + 100 * 4;
        assert_eq!(bytes.total(), activations + tables + bytes.logits + bytes.seen + bytes.scratch);
    }
}
