//! The weights of a model on a device, in an artifact's element type.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use half::{bf16, f16};
use moac_runtime::element::to_bytes;
use moac_runtime::gpu::{Buffer, Device, GpuError, Stream};
use moac_runtime::plan::DType;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::{Checkpoint, Config, Element, ModelError, Weight};

/// Bytes of the random values that random weights repeat, from another place on for each matrix. It is not a multiple of a
/// row, so that rows differ.
const PATTERN: usize = (32 << 20) + 34;
/// The standard deviation of random weights, as models are initialised with.
const DEVIATION: f32 = 0.02;

/// One layer.
#[derive(Debug)]
pub(super) struct LayerOnGpu {
    pub(super) attention_norm: Buffer,
    pub(super) qkv: Buffer,
    pub(super) bias: Option<Buffer>,
    pub(super) q_norm: Option<Buffer>,
    pub(super) k_norm: Option<Buffer>,
    pub(super) output: Buffer,
    pub(super) mlp_norm: Buffer,
    pub(super) gate_up: Buffer,
    pub(super) down: Buffer,
}

/// All weights of a model.
#[derive(Debug)]
pub struct GpuWeights {
    pub(super) dtype: DType,
    pub(super) embedding: Buffer,
    pub(super) layers: Vec<LayerOnGpu>,
    pub(super) norm: Buffer,
    /// None where it is the embedding.
    pub(super) head: Option<Buffer>,
}

impl GpuWeights {
    /// Reads the weights of a checkpoint to a device, rounded to `dtype`. The host holds some megabytes of them at a time.
    /// `progress` is called with how many bytes of the checkpoint are done, and of how many.
    ///
    /// # Errors
    /// Errors of the files, [`GpuError::OutOfMemory`], or any error of the driver.
    pub fn read(
        device: &Device,
        stream: &Stream,
        dtype: DType,
        checkpoint: &Checkpoint,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, ModelError> {
        match dtype {
            DType::Bf16 => Self::read_as::<bf16>(device, stream, dtype, checkpoint, progress),
            DType::F16 => Self::read_as::<f16>(device, stream, dtype, checkpoint, progress),
        }
    }

    fn read_as<T: Element + Half>(
        device: &Device,
        stream: &Stream,
        dtype: DType,
        checkpoint: &Checkpoint,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, ModelError> {
        let config = checkpoint.config();
        let mut buffers: BTreeMap<Weight, (Buffer, u64)> = BTreeMap::new();
        let mut bytes = Vec::new();
        checkpoint.stream_all(progress, |weight, piece: &[T]| {
            // Element by element into place, which becomes one wide copy.
            bytes.resize(2 * piece.len(), 0);
            for (out, x) in bytes.as_chunks_mut().0.iter_mut().zip(piece) {
                *out = x.bytes();
            }
            let (buffer, filled) = match buffers.entry(weight) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert((alloc(device, dtype, weight, config)?, 0)),
            };
            let end = *filled + bytes.len() as u64;
            buffer.part(*filled..end)?.upload(stream, &bytes)?;
            *filled = end;
            Ok::<(), ModelError>(())
        })?;
        Self::assemble(dtype, config, |weight| match buffers.remove(&weight) {
            Some((buffer, _)) => Ok(buffer),
            // A matrix without elements, which no model has.
            None => Ok(alloc(device, dtype, weight, config)?),
        })
    }

    /// Random weights of a model's shape, for measurements: the same for the same seed. Only a pattern of them is made on
    /// the host; the device repeats it.
    ///
    /// # Errors
    /// [`GpuError::OutOfMemory`], or what the driver says.
    pub fn random(
        device: &Device,
        stream: &Stream,
        dtype: DType,
        config: &Config,
        seed: u64,
    ) -> Result<Self, ModelError> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let values = (0..PATTERN / 2).map(|_| DEVIATION * normal(&mut rng));
        let pattern_bytes = to_bytes(dtype, values);
        let mut pattern = device.alloc(PATTERN as u64, "random values")?;
        pattern.upload(stream, &pattern_bytes)?;
        let weights = Self::assemble(dtype, config, |weight| {
            let mut buffer = alloc(device, dtype, weight, config)?;
            match (weight, weight.shape(config).as_slice()) {
                (Weight::QkvBias(_), _) | (_, [_, _]) => {
                    // Elements are 2 bytes: an odd start would tear them.
                    let start = rng.next_u64() % (PATTERN as u64 / 4) * 2;
                    buffer.all().repeat(stream, pattern.part(start..PATTERN as u64)?)?;
                }
                (_, shape) => {
                    let ones = std::iter::repeat_n(1.0, shape.iter().product());
                    buffer.upload(stream, &to_bytes(dtype, ones))?;
                }
            }
            Ok(buffer)
        })?;
        // The pattern goes when its copies are made.
        stream.synchronize()?;
        Ok(weights)
    }

    /// The weights of a model, each as `take` gives it.
    fn assemble(
        dtype: DType,
        config: &Config,
        mut take: impl FnMut(Weight) -> Result<Buffer, ModelError>,
    ) -> Result<Self, ModelError> {
        let embedding = take(Weight::Embedding)?;
        let mut layers = Vec::with_capacity(config.num_layers);
        for l in 0..config.num_layers {
            layers.push(LayerOnGpu {
                attention_norm: take(Weight::AttentionNorm(l))?,
                qkv: take(Weight::Qkv(l))?,
                bias: config.qkv_bias.then(|| take(Weight::QkvBias(l))).transpose()?,
                q_norm: config.qk_norm.then(|| take(Weight::QNorm(l))).transpose()?,
                k_norm: config.qk_norm.then(|| take(Weight::KNorm(l))).transpose()?,
                output: take(Weight::Output(l))?,
                mlp_norm: take(Weight::MlpNorm(l))?,
                gate_up: take(Weight::GateUp(l))?,
                down: take(Weight::Down(l))?,
            });
        }
        let norm = take(Weight::Norm)?;
        let head = if config.tied_embeddings { None } else { Some(take(Weight::Head)?) };
        Ok(Self { dtype, embedding, layers, norm, head })
    }

    /// Bytes of device memory that the weights of a model take.
    pub fn bytes_of(config: &Config, dtype: DType) -> u64 {
        Weight::all(config).into_iter().map(|weight| elements(weight, config)).sum::<u64>()
            * u64::from(dtype.bytes())
    }

    /// Bytes of device memory.
    pub fn bytes(&self) -> u64 {
        self.all().map(Buffer::bytes).sum()
    }

    /// Bytes that a decode step reads: all but the embedding, of which it reads a row for each request, unless that is the
    /// output head too.
    pub fn step_bytes(&self) -> u64 {
        self.bytes() - if self.head.is_some() { self.embedding.bytes() } else { 0 }
    }

    /// The output head.
    pub(super) fn head(&self) -> &Buffer {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    fn all(&self) -> impl Iterator<Item = &Buffer> {
        let ends = [Some(&self.embedding), Some(&self.norm), self.head.as_ref()];
        let layers = self.layers.iter().flat_map(|layer| {
            [
                Some(&layer.attention_norm),
                Some(&layer.qkv),
                layer.bias.as_ref(),
                layer.q_norm.as_ref(),
                layer.k_norm.as_ref(),
                Some(&layer.output),
                Some(&layer.mlp_norm),
                Some(&layer.gate_up),
                Some(&layer.down),
            ]
        });
        ends.into_iter().chain(layers).flatten()
    }
}

/// Memory for a weight.
fn alloc(device: &Device, dtype: DType, weight: Weight, config: &Config) -> Result<Buffer, GpuError> {
    device.alloc(elements(weight, config) * u64::from(dtype.bytes()), "the model's weights")
}

/// Elements of a weight.
fn elements(weight: Weight, config: &Config) -> u64 {
    weight.shape(config).iter().map(|&d| d as u64).product()
}

/// An element type of a device.
trait Half {
    /// As a device has it.
    fn bytes(&self) -> [u8; 2];
}

impl Half for bf16 {
    fn bytes(&self) -> [u8; 2] {
        self.to_le_bytes()
    }
}

impl Half for f16 {
    fn bytes(&self) -> [u8; 2] {
        self.to_le_bytes()
    }
}

/// A normally distributed value, by the sum of four uniform ones.
fn normal(rng: &mut ChaCha8Rng) -> f32 {
    let word = rng.next_u64();
    let sum: u64 = (0..4).map(|part| word >> (16 * part) & 0xffff).sum();
    // Four of variance 1/12 each.
    (sum as f32 / 65_536.0 - 2.0) * 3.0_f32.sqrt()
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::normal;

    #[test]
    fn random_values_have_mean_0_and_variance_1() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let values: Vec<f32> = (0..100_000).map(|_| normal(&mut rng)).collect();
        let mean = values.iter().sum::<f32>() / 1e5;
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / 1e5;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02, "mean {mean}, variance {variance}");
    }
}
