//! The loss of a text under a model on a GPU.

use moac_runtime::element::f32_from_bytes;
use moac_runtime::glue::Sample;
use rayon::prelude::*;

use super::runner::GpuRunner;
use super::sizes::padded;
use crate::ModelError;
use crate::engine::runner::Runner;

impl GpuRunner {
    /// The losses of a text in nats, of its tokens from the second on, in an empty slab.
    ///
    /// # Errors
    /// A text longer than the largest bucket, no room for a slab, or what the device says.
    pub fn losses(&mut self, tokens: &[u32]) -> Result<Vec<f32>, ModelError> {
        let (rows, samples, vocab) = {
            let limits = self.limits();
            (limits.rows as usize, limits.lanes, limits.vocab as usize)
        };
        let length = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocab) {
            let (found, expected) = (token.to_string(), format!("below the vocabulary's {vocab}"));
            return Err(ModelError::Argument { what: "a token", found, expected });
        }
        let Some(mut slab) = self.slab(length.max(1))? else {
            let expected = "room for a slab of its length".to_owned();
            return Err(ModelError::Argument {
                what: "the text's length",
                found: length.to_string(),
                expected,
            });
        };
        let mut losses = Vec::with_capacity(tokens.len().saturating_sub(1));
        for (chunk, start) in tokens.chunks(rows).zip((0..).step_by(rows)) {
            self.hidden(&mut slab, chunk)?;
            // The last token of the text predicts nothing that is known.
            let targets = &tokens[start + 1..(start + chunk.len() + 1).min(tokens.len())];
            let mut row = 0;
            while row < targets.len() as u32 {
                let count = samples.min(targets.len() as u32 - row);
                let mut table: Vec<u8> =
                    (row..row + count).flat_map(|row| Sample::greedy(row, 0).to_bytes()).collect();
                for _ in count..padded(count) {
                    table.extend(Sample::PADDING.to_bytes());
                }
                let logits = self.logits(&table, count)?;
                let of_row = |(row, target): (&[u8], &u32)| loss(&f32_from_bytes(row), *target);
                let part = &targets[row as usize..(row + count) as usize];
                losses.par_extend(logits.par_chunks(4 * vocab).zip(part).map(of_row));
                row += count;
            }
        }
        Ok(losses)
    }
}

/// The negative log-probability of a token.
fn loss(logits: &[f32], target: u32) -> f32 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - largest).exp()).sum();
    (sum.ln() - f64::from(logits[target as usize] - largest)) as f32
}

#[cfg(test)]
mod tests {
    use super::loss;

    #[test]
    fn a_loss_is_the_negative_logarithm_of_a_softmax() {
        let logits = [1.0_f32, 3.0, -2.0, 1000.0];
        assert!((loss(&logits, 3)).abs() < 1e-6);
        assert!((loss(&logits, 1) - 997.0).abs() < 1e-3);
        assert!((loss(&[0.0; 8], 5) - 8_f32.ln()).abs() < 1e-6);
    }
}
