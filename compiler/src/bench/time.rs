//! Times a phase of a loaded artifact on a GPU: all its layers, once each, as one captured graph.
//!
//! What must hold for the numbers to mean something: inputs are random and never zero, since zeros cost less power;
//! between two repetitions every layer was run, and where all of a step's keys would still fit a few times into the
//! L2 cache it is overwritten in between; events measure the time, and the median of the repetitions is reported. A step is
//! begun once and never committed, so every repetition sees the same lengths.

use moac_runtime::gpu::{
    Buffer, Device, Event, GpuError, Graph, LoadedArtifact, Order, Request, Shape, Slab, Step, Stream,
    Tensors, Workspace,
};
use moac_runtime::launch::Phase;
use moac_runtime::plan::DType;
use moac_runtime::space::ALIGNMENT;
use serde::Serialize;

use super::points::Point;
use super::work::{self, Useful};
use crate::verify::Inputs;
use crate::verify::inputs::{At, Tensor};

/// Repetitions before those that count.
const WARM_UP: usize = 5;
/// Repetitions that count: the fewest, and the most where they take no longer than [`ENOUGH_MS`] together.
const REPETITIONS: [usize; 2] = [5, 21];
const ENOUGH_MS: f64 = 2000.0;
/// Tokens that a decode's context is prefilled with at once.
const CHUNK: u32 = 4096;
/// Bytes of random values, which longer tensors repeat.
const BLOCK: usize = 8 << 20;
/// Device memory beyond what is counted: workspaces, graphs, the allocator's rounding.
const SPARE: u64 = 512 << 20;

/// The time of a phase.
#[derive(Clone, Debug)]
pub struct Timed {
    /// Milliseconds of all layers together.
    pub ms: f64,
    /// The work of all layers.
    pub useful: Useful,
    /// Each layer's own time and need; empty unless asked for. They are taken from launch to launch without a graph,
    /// and are a little more than their share of the whole.
    pub layers: Vec<(f64, Useful)>,
}

/// The outcome of a point.
#[derive(Debug)]
pub enum Outcome {
    /// Its time.
    Timed(Timed),
    /// It does not fit.
    TooLarge(Missing),
}

/// Device memory that a point lacks, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// The bytes needed.
    pub needed_bytes: u64,
    /// The bytes free.
    pub free_bytes: u64,
}

/// An artifact on a device, to be timed.
#[derive(Debug)]
pub struct Timer<'a> {
    /// The artifact.
    pub model: &'a LoadedArtifact,
    /// Where it runs.
    pub stream: &'a Stream,
}

/// q, k, v and o of a call, the same for every layer.
struct Io {
    q: Buffer,
    k: Buffer,
    v: Buffer,
    o: Buffer,
    dtype: DType,
    queries: Shape,
    keys: Shape,
}

impl Timer<'_> {
    /// Times a point; each layer by itself too, if `per_layer`.
    ///
    /// # Errors
    /// Any error of the runtime or the driver except a lack of memory.
    pub fn time(&self, point: Point, per_layer: bool) -> Result<Outcome, GpuError> {
        let (needed_bytes, free_bytes) = (self.needed(point)?, self.model.device().memory()?.free);
        if needed_bytes > free_bytes {
            return Ok(Outcome::TooLarge(Missing { needed_bytes, free_bytes }));
        }
        match self.run(point, per_layer) {
            Ok(timed) => Ok(Outcome::Timed(timed)),
            // Somebody else may have taken memory in the meantime.
            Err(GpuError::OutOfMemory { needed, free, .. }) => {
                let needed_bytes = needed_bytes.max(needed.saturating_add(free_bytes - free.min(free_bytes)));
                Ok(Outcome::TooLarge(Missing { needed_bytes, free_bytes }))
            }
            Err(error) => Err(error),
        }
    }

    fn bucket(&self, point: Point) -> Result<usize, GpuError> {
        let geometry = self.model.geometry();
        let largest = geometry.lengths.last().copied().unwrap_or(0);
        let max_len = point.context;
        geometry.bucket_for(max_len).ok_or(GpuError::NoBucket { max_len, largest })
    }

    /// Bytes of device memory that a point takes.
    fn needed(&self, point: Point) -> Result<u64, GpuError> {
        let layer = self.model.layer(0)?;
        let row = 2
            * u64::from(layer.heads() + layer.kv_heads())
            * u64::from(layer.head_dim())
            * u64::from(self.model.dtype().bytes());
        let slabs = u64::from(point.batch) * self.model.geometry().slab_bytes[self.bucket(point)?];
        let warm_up = if point.phase == Phase::Decode { CHUNK.min(point.context) } else { 0 };
        let flush = 4 * self.model.device().info().l2_bytes;
        Ok(slabs + (point.rows() + u64::from(warm_up)) * row + flush + SPARE)
    }

    fn run(&self, point: Point, per_layer: bool) -> Result<Timed, GpuError> {
        let Self { model, stream } = *self;
        let device = model.device();
        let slab_bytes = model.geometry().slab_bytes[self.bucket(point)?].next_multiple_of(ALIGNMENT);
        let pool = model.pool(u64::from(point.batch) * slab_bytes)?;
        let mut slabs =
            (0..point.batch).map(|_| pool.slab(point.context)).collect::<Result<Vec<Slab>, _>>()?;
        let mut workspace = model.workspace(stream, point.batch)?;
        if point.phase == Phase::Decode {
            self.grow(&mut slabs, &mut workspace, point.context - 1)?;
        }
        let mut io = self.io(point.rows())?;
        let requests: Vec<Request<'_>> = slabs.iter().map(|slab| Request::new(slab, point.chunk())).collect();
        let step = match point.phase {
            Phase::Prefill => workspace.begin(stream, &[], &requests)?,
            Phase::Decode => workspace.begin(stream, &requests, &[])?,
        };
        // Once outside the capture: the driver loads code at its first launch.
        self.layers(&step, &mut io)?;
        stream.synchronize()?;
        let graph: Graph = stream.capture(|| self.layers(&step, &mut io))?;
        graph.upload()?;
        let useful = self.useful(point)?;
        let total: Useful = useful.iter().copied().sum();
        let l2_bytes = device.info().l2_bytes;
        let mut flush = None;
        if total.kv_bytes < 4 * l2_bytes {
            flush = Some(device.alloc(2 * l2_bytes, "overwriting the L2 cache")?);
        }
        let mut flush = || flush.as_mut().map_or(Ok(()), |buffer| buffer.fill(stream, 0x5a));
        let ms = median_ms(device, stream, &mut flush, || graph.launch())?;
        let mut layers = Vec::new();
        if per_layer {
            // A whole step in the queue ahead of them keeps the host's launches out of the layers' times.
            let ahead = || graph.launch().and_then(|()| flush());
            let times = self.layer_times(&step, &mut io, ahead, repetitions(ms))?;
            layers = times.into_iter().zip(useful).collect();
        }
        // Its slabs must outlive what is in flight, and freeing them waits for that.
        drop(step);
        Ok(Timed { ms, useful: total, layers })
    }

    /// The work of each layer.
    fn useful(&self, point: Point) -> Result<Vec<Useful>, GpuError> {
        let bucket = self.bucket(point)?;
        let head_dim = self.model.layer(0)?.head_dim();
        let row_bytes = u64::from(head_dim) * u64::from(self.model.dtype().bytes());
        let of = |layer| work::request(layer, bucket, point.phase, point.context, (head_dim, row_bytes));
        Ok(self.model.geometry().layers.iter().map(|layer| of(layer) * u64::from(point.batch)).collect())
    }

    fn layers(&self, step: &Step, io: &mut Io) -> Result<(), GpuError> {
        (0..self.model.layers()).try_for_each(|layer| self.layer(layer, step, io))
    }

    fn layer(&self, layer: usize, step: &Step, io: &mut Io) -> Result<(), GpuError> {
        self.model.layer(layer)?.attend(self.stream, step, &io.tensors()?)
    }

    /// Brings slabs to `tokens` tokens: one by prefill, the others as copies of it.
    fn grow(&self, slabs: &mut [Slab], workspace: &mut Workspace, tokens: u32) -> Result<(), GpuError> {
        let Some((first, others)) = slabs.split_first_mut() else { return Ok(()) };
        while first.len() < tokens {
            let chunk = CHUNK.min(tokens - first.len());
            let mut io = self.io(u64::from(chunk))?;
            let step = workspace.begin(self.stream, &[], &[Request::new(first, chunk)])?;
            self.layers(&step, &mut io)?;
            step.commit();
        }
        others.iter_mut().try_for_each(|other| first.clone_to(self.stream, other))?;
        self.stream.synchronize()
    }

    fn io(&self, rows: u64) -> Result<Io, GpuError> {
        let layer = self.model.layer(0)?;
        let dtype = self.model.dtype();
        let shape = |heads| Shape::new(rows, heads, layer.head_dim());
        let (queries, keys) = (shape(layer.heads()), shape(layer.kv_heads()));
        let alloc = |shape: Shape, what: &str| self.model.device().alloc(shape.bytes(dtype), what);
        let filled = |shape: Shape, what: &str, seed: u32| -> Result<Buffer, GpuError> {
            let mut buffer = alloc(shape, what)?;
            random(&mut buffer, self.stream, dtype, seed)?;
            Ok(buffer)
        };
        Ok(Io {
            q: filled(queries, "q", 1)?,
            k: filled(keys, "k", 2)?,
            v: filled(keys, "v", 3)?,
            o: alloc(queries, "o")?,
            dtype,
            queries,
            keys,
        })
    }

    fn layer_times(
        &self,
        step: &Step,
        io: &mut Io,
        mut ahead: impl FnMut() -> Result<(), GpuError>,
        repetitions: usize,
    ) -> Result<Vec<f64>, GpuError> {
        let layers = self.model.layers();
        let mut times = vec![Vec::new(); layers];
        for repetition in 0..=repetitions {
            let events: Vec<Event> =
                (0..=layers).map(|_| Event::new(self.model.device())).collect::<Result<_, _>>()?;
            ahead()?;
            events[0].record(self.stream)?;
            for layer in 0..layers {
                self.layer(layer, step, io)?;
                events[layer + 1].record(self.stream)?;
            }
            for (times, pair) in times.iter_mut().zip(events.windows(2)) {
                let ms = f64::from(pair[0].milliseconds_to(&pair[1])?);
                // The first is a warm-up: the whole step has run often by now.
                if repetition > 0 {
                    times.push(ms);
                }
            }
        }
        Ok(times.into_iter().map(median).collect())
    }
}

impl Io {
    fn tensors(&mut self) -> Result<Tensors<'_>, GpuError> {
        let Self { q, k, v, o, dtype, queries, keys } = self;
        Ok(Tensors {
            q: q.tensor(*dtype, *queries)?,
            k: k.tensor(*dtype, *keys)?,
            v: v.tensor(*dtype, *keys)?,
            o: o.tensor_mut(*dtype, *queries, Order::Rows)?,
            lse: None,
        })
    }
}

/// The median time of `body`, in milliseconds, after some repetitions that do not count. `before` is not timed.
///
/// # Errors
/// Any error of `before`, `body` or the driver.
pub fn median_ms(
    device: &Device,
    stream: &Stream,
    mut before: impl FnMut() -> Result<(), GpuError>,
    mut body: impl FnMut() -> Result<(), GpuError>,
) -> Result<f64, GpuError> {
    let mut begin = || -> Result<(Event, Event), GpuError> {
        let (start, end) = (Event::new(device)?, Event::new(device)?);
        before()?;
        start.record(stream)?;
        body()?;
        end.record(stream)?;
        Ok((start, end))
    };
    let taken = |(start, end): &(Event, Event)| start.milliseconds_to(end).map(f64::from);
    begin()?;
    let estimate = taken(&begin()?)?;
    let repetitions = repetitions(estimate);
    // What is long needs no more than the two that have run.
    let warm_up = if repetitions < REPETITIONS[1] { 0 } else { WARM_UP - 2 };
    let spans = (0..warm_up + repetitions).map(|_| begin()).collect::<Result<Vec<_>, GpuError>>()?;
    let times: Result<Vec<f64>, GpuError> = spans[warm_up..].iter().map(taken).collect();
    Ok(median(times?))
}

/// How often to repeat what takes `ms` milliseconds.
fn repetitions(ms: f64) -> usize {
    let [fewest, most] = REPETITIONS;
    // A time that is NaN or zero costs nothing to measure again.
    (1..most).find(|&count| (count + 1) as f64 * ms > ENOUGH_MS).unwrap_or(most).max(fewest)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Fills a buffer with normally distributed values of `dtype`; each buffer has its own `seed`.
///
/// # Errors
/// The driver's message.
pub fn random(buffer: &mut Buffer, stream: &Stream, dtype: DType, seed: u32) -> Result<(), GpuError> {
    let block = random_block(dtype, seed, usize::try_from(buffer.bytes()).unwrap_or(usize::MAX).min(BLOCK));
    let mut offset = 0;
    while offset < buffer.bytes() {
        let bytes = (buffer.bytes() - offset).min(block.len() as u64);
        buffer.part(offset..offset + bytes)?.upload(stream, &block[..bytes as usize])?;
        offset += bytes;
    }
    Ok(())
}

/// `bytes` bytes of such values.
fn random_block(dtype: DType, seed: u32, bytes: usize) -> Vec<u8> {
    const ELEMENTS: u32 = 128;
    let inputs = Inputs::new(dtype, ELEMENTS, u64::from(seed));
    let mut block = vec![0; bytes];
    for (position, row) in (0..).zip(block.chunks_mut(ELEMENTS as usize * 2)) {
        inputs.bytes(At { tensor: Tensor::K, sequence: 0, position, head: 0 }, row);
    }
    block
}

#[cfg(test)]
mod tests {
    use moac_runtime::element::from_bytes;
    use moac_runtime::plan::DType;

    use super::{median, random_block, repetitions};

    #[test]
    fn the_median_ignores_outliers_and_order() {
        assert!((median(vec![9.0, 1.0, 2.0]) - 2.0).abs() < 1e-12);
        assert!((median(vec![3.0, 1e9, 3.0, 3.0, -1e9]) - 3.0).abs() < 1e-12);
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn long_work_is_repeated_less_often() {
        assert_eq!([0.01, 90.0, 200.0, 300.0, 5000.0].map(repetitions), [21, 21, 10, 6, 5]);
        assert_eq!(repetitions(f64::NAN), 21);
    }

    /// Zeros, or rows that repeat, would be faster than random values.
    #[test]
    fn random_bytes_are_a_normal_distribution_to_the_last_row() {
        let bytes = 256 * 100 + 32;
        let block = random_block(DType::Bf16, 3, bytes);
        assert_eq!(block.len(), bytes);
        assert_ne!(block, random_block(DType::Bf16, 4, bytes));
        let values = from_bytes(DType::Bf16, &block);
        let count = values.len() as f32;
        let mean = values.iter().sum::<f32>() / count;
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / count;
        assert!(mean.abs() < 0.05 && (variance - 1.0).abs() < 0.1, "mean {mean}, variance {variance}");
        let rows: std::collections::BTreeSet<&[u8]> = block.chunks(256).collect();
        assert_eq!(rows.len(), 101, "no row is another's");
        assert!(block[256 * 100..].iter().any(|&byte| byte != 0));
    }
}
