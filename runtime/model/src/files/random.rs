//! Weights out of nothing, for measurements of a model's shape: every element follows from a seed, its tensor and its
//! place, so that any part can be made by itself and the CPU and a GPU have the same model.
//!
//! Scales are those of a freshly initialised model: a matrix's elements have variance 1 / in, the embedding's too, so that what
//! layers add outweighs it and a model whose embedding is its head does not just repeat its last token; norms are near 1,
//! biases small.

use rayon::prelude::*;

use super::config::Config;
use super::element::Element;
use super::parts::Weight;

/// Elements that are handed on at a time.
const PIECE: usize = 1 << 20;
/// Elements that are made at a time.
const STEP: usize = 1 << 12;

/// Hands on the elements of a weight in order.
pub(super) fn stream<T: Element, E>(
    config: &Config,
    seed: u64,
    weight: Weight,
    mut sink: impl FnMut(&[T]) -> Result<(), E>,
) -> Result<(), E> {
    let shape = weight.shape(config);
    let count: u64 = shape.iter().map(|&d| d as u64).product();
    let (centre, scale) = match (weight, shape.as_slice()) {
        (Weight::QkvBias(_), _) => (0.0, 0.1),
        (_, [_]) => (1.0, 0.1),
        (_, shape) => (0.0, (1.0 / shape[1] as f64).sqrt()),
    };
    // Uniform numbers of that deviation.
    let scale = (scale * 3f64.sqrt()) as f32;
    let stream = mix(seed ^ mix(number(weight)));
    let mut piece = vec![T::default(); PIECE.min(count as usize)];
    let mut start = 0;
    while start < count {
        let piece = &mut piece[..(count - start).min(PIECE as u64) as usize];
        piece.par_chunks_mut(STEP).enumerate().for_each(|(chunk, out)| {
            let first = start + (chunk * STEP) as u64;
            let mut values = [0.0; STEP];
            let values = &mut values[..out.len()];
            for (value, place) in values.iter_mut().zip(first..) {
                let bits = mix(stream.wrapping_add(place.wrapping_mul(GOLDEN))) >> 40;
                *value = centre + scale * (bits as f32 / (1u64 << 23) as f32 - 1.0);
            }
            T::round(values, out);
        });
        sink(piece)?;
        start += piece.len() as u64;
    }
    Ok(())
}

/// A number that no other weight has.
fn number(weight: Weight) -> u64 {
    let (kind, layer) = match weight {
        Weight::Embedding => (0, 0),
        Weight::AttentionNorm(l) => (1, l),
        Weight::Qkv(l) => (2, l),
        Weight::QkvBias(l) => (3, l),
        Weight::QNorm(l) => (4, l),
        Weight::KNorm(l) => (5, l),
        Weight::Output(l) => (6, l),
        Weight::MlpNorm(l) => (7, l),
        Weight::GateUp(l) => (8, l),
        Weight::Down(l) => (9, l),
        Weight::Norm => (10, 0),
        Weight::Head => (11, 0),
    };
    kind << 32 | layer as u64
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finaliser of `SplitMix64`.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
