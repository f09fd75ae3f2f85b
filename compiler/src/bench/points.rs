//! The points measured: a phase, a batch size, a context length.

use moac_runtime::geometry::Geometry;
use moac_runtime::gpu::GpuError;
use moac_runtime::launch::Phase;
use serde::Serialize;

/// Batch sizes where none are asked for.
pub const BATCHES: [u32; 3] = [1, 8, 32];

/// One phase of one batch: all requests are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Point {
    /// Prefill of the whole context from the first token; decode of its last token.
    pub phase: Phase,
    /// Requests.
    pub batch: u32,
    /// Tokens of a request when the phase is done.
    pub context: u32,
}

impl Point {
    /// Every phase of every batch size at every context.
    pub fn all(batches: &[u32], contexts: &[u32]) -> Vec<Self> {
        let mut points = Vec::new();
        for phase in [Phase::Prefill, Phase::Decode] {
            for &batch in batches {
                points.extend(contexts.iter().map(|&context| Self { phase, batch, context }));
            }
        }
        points
    }

    /// New tokens of a request.
    pub fn chunk(&self) -> u32 {
        match self.phase {
            Phase::Prefill => self.context,
            Phase::Decode => 1,
        }
    }

    /// Rows of q, k, v and o.
    pub fn rows(&self) -> u64 {
        u64::from(self.batch) * u64::from(self.chunk())
    }
}

/// The contexts asked for, or the smallest and the largest bucket.
///
/// # Errors
/// [`GpuError::NoBucket`] for a context that no bucket holds.
pub fn contexts(asked: &[u32], geometry: &Geometry) -> Result<Vec<u32>, GpuError> {
    let lengths = &geometry.lengths;
    let largest = lengths.last().copied().unwrap_or(0);
    let mut contexts = asked.to_vec();
    if contexts.is_empty() {
        contexts.extend(lengths.first().into_iter().chain(lengths.last()));
    }
    contexts.sort_unstable();
    contexts.dedup();
    match contexts.iter().find(|&&context| geometry.bucket_for(context).is_none()) {
        Some(&max_len) => Err(GpuError::NoBucket { max_len, largest }),
        None => Ok(contexts),
    }
}
