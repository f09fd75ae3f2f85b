//! Runs the engine's steps on a GPU.
//!
//! A step of decodes alone is a graph, one for each padded number of them, captured when it comes first; a step with chunks
//! of prompts is launched piece by piece. The host only writes the tables of the next step and reads the tokens of the last
//! one, both through pinned memory: it never waits for the step that it has just started.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;

use moac_runtime::glue::{Outcome, TOP_LOGPROBS};
use moac_runtime::gpu::blas::Products;
use moac_runtime::gpu::{
    Downloads, Event, GpuError, Graph, LoadedArtifact, Request, Slab, SlabPool, Step, Stream, Uploads,
    Workspace,
};
use moac_runtime::space::ALIGNMENT;
use serde::Serialize;

use super::forward::{Extent, Forward, Memory, Work};
use super::sizes::{MemoryByKind, Most, StepBytes, padded};
use super::tables::Tables;
use super::weights::GpuWeights;
use crate::engine::runner::{Bucket, Chosen, Decode, IN_FLIGHT, Limits, Prefill, Runner};
use crate::{Config, ModelError};

/// Tables that may be on their way to the device at once.
const TURNS: usize = 8;
/// Device memory that stays free: graphs, and the code of kernels that were not launched yet.
const SPARE: u64 = 384 << 20;

/// Layers whose weights the algorithms of a whole step are timed with: their products take milliseconds each.
const LAYERS_OF_WHOLE: usize = 2;

/// The configuration of a runner.
#[derive(Clone, Debug)]
pub struct Options {
    /// Requests that run at once, at most.
    pub lanes: u32,
    /// Rows of a step: one for each decode, one for each token of a chunk.
    pub rows: u32,
    /// Bytes for slabs, or what is free if that is less; all that is free if none are given.
    pub slab_bytes: Option<u64>,
    /// Where the algorithms of products are kept.
    pub folder: Option<PathBuf>,
}

/// Where the time of steps goes.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Profile(pub BTreeMap<Work, Spent>);

/// The time of a kind of work.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Spent {
    /// Microseconds of all its pieces.
    pub us: f64,
    /// Pieces.
    pub pieces: usize,
}

/// A model on a GPU.
#[derive(Debug)]
pub struct GpuRunner {
    stream: Stream,
    limits: Limits,
    graphs: BTreeMap<u32, Graph>,
    whole_is_tuned: bool,
    workspace: Workspace,
    pool: SlabPool,
    forward: Forward,
    row_tables: Uploads,
    sample_tables: Uploads,
    seen_tables: Uploads,
    outcomes: Downloads,
    tops: Downloads,
    /// The receivers of the tokens of each step in flight, and the number of likely tokens that each wants.
    under_way: VecDeque<Vec<(u32, u32)>>,
    memory: MemoryByKind,
}

impl GpuRunner {
    /// Takes a loaded artifact with the engine's kernels, and the weights of the same model.
    ///
    /// # Errors
    /// [`GpuError::NoEngine`], weights of another type or number of layers, [`GpuError::OutOfMemory`], no cuBLASLt, or what
    /// the driver says.
    pub fn new(
        model: &LoadedArtifact,
        stream: Stream,
        weights: GpuWeights,
        options: &Options,
    ) -> Result<Self, ModelError> {
        let sizes = *model.engine()?.sizes();
        check(model, &weights, options)?;
        let device = model.device().clone();
        let most = Most::new(options.lanes, options.rows);
        let products = Products::new(&device, options.folder.as_deref())?.ok_or(ModelError::NoProducts)?;
        let bytes = StepBytes::new(&sizes, &most);
        let memory = Memory::new(model, &stream, &bytes, &most)?;
        let workspace = model.workspace(&stream, most.samples)?;
        let uploads = |bytes| Uploads::new(&device, bytes, TURNS);
        let downloads = |bytes| Downloads::new(&device, bytes, IN_FLIGHT + 1);
        let mut by_kind = MemoryByKind {
            weights: weights.bytes(),
            activations: bytes.total(),
            workspaces: workspace.bytes() + products.bytes(),
            slabs: 0,
        };
        let mut forward = Forward { model: model.clone(), weights, sizes, most, memory, products };
        let mut workspace = workspace;
        warm_up(&stream, &mut workspace, &mut forward)?;
        // What is left is for slabs, whatever was taken by code and by others.
        let limits = limits(model, options, device.memory()?.free)?;
        let pool = model.pool(limits.slab_bytes)?;
        by_kind.slabs = limits.slab_bytes;
        Ok(Self {
            limits,
            graphs: BTreeMap::new(),
            whole_is_tuned: false,
            workspace,
            pool,
            row_tables: uploads(bytes.rows)?,
            sample_tables: uploads(bytes.samples)?,
            seen_tables: uploads(u64::from(sizes.seen_words()) * 4)?,
            outcomes: downloads(bytes.outcomes)?,
            tops: downloads(bytes.top)?,
            under_way: VecDeque::new(),
            forward,
            memory: by_kind,
            stream,
        })
    }

    /// The limits that a runner of a model would have on the device now, and the bytes that it would take. The weights are
    /// not read.
    ///
    /// # Errors
    /// As [`new`](Self::new), but for the weights.
    pub fn predict(
        model: &LoadedArtifact,
        stream: &Stream,
        config: &Config,
        options: &Options,
    ) -> Result<(Limits, MemoryByKind), ModelError> {
        let device = model.device();
        let sizes = *model.engine()?.sizes();
        let most = Most::new(options.lanes, options.rows);
        let products = Products::new(device, options.folder.as_deref())?.ok_or(ModelError::NoProducts)?;
        let workspace = model.workspace(stream, most.samples)?;
        let mut memory = MemoryByKind {
            weights: GpuWeights::bytes_of(config, model.dtype()),
            activations: StepBytes::new(&sizes, &most).total(),
            workspaces: workspace.bytes() + products.bytes(),
            slabs: 0,
        };
        let free = device.memory()?.free.saturating_sub(memory.weights + memory.activations);
        let limits = limits(model, options, free)?;
        memory.slabs = limits.slab_bytes;
        Ok((limits, memory))
    }

    /// Bytes of device memory, by purpose.
    pub fn memory(&self) -> MemoryByKind {
        self.memory
    }

    /// Bytes of weights that a step reads.
    pub fn weight_bytes(&self) -> u64 {
        self.forward.weights.step_bytes()
    }

    /// The artifact.
    pub fn model(&self) -> &LoadedArtifact {
        &self.forward.model
    }

    /// The stream of all its work.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Hands the tables of a step to the device.
    fn send(&mut self, tables: &Tables) -> Result<(), GpuError> {
        let memory = &self.forward.memory;
        self.row_tables.send(&self.stream, memory.rows.all(), &tables.rows)?;
        if tables.samples() > 0 {
            self.sample_tables.send(&self.stream, memory.samples.all(), &tables.samples)?;
        }
        Ok(())
    }

    /// The graph of a decode step, which is captured if it is the first of its size.
    fn graph(&mut self, step: &Step, extent: Extent) -> Result<&Graph, GpuError> {
        if !self.graphs.contains_key(&extent.rows) {
            let Self { forward, stream, .. } = self;
            forward.tune(stream, extent.rows, usize::MAX)?;
            let graph = stream.capture(|| forward.run(stream, step, extent, &mut |_| Ok(())))?;
            graph.upload()?;
            self.graphs.insert(extent.rows, graph);
        }
        Ok(&self.graphs[&extent.rows])
    }

    /// Chooses the algorithms of a step that is as large as any, when it comes first: long prompts take many of them.
    fn tune_whole(&mut self, extent: Extent) -> Result<(), GpuError> {
        if !self.whole_is_tuned && extent.rows == self.forward.most.rows {
            self.forward.tune(&self.stream, extent.rows, LAYERS_OF_WHOLE)?;
            self.whole_is_tuned = true;
        }
        Ok(())
    }

    /// Begins a step: its tables go to the device. Decodes without chunks get the rows of a graph.
    fn begin(
        &mut self,
        decodes: &[Decode<'_, Slab>],
        prefills: &[Prefill<'_, Slab>],
    ) -> Result<(Step, Extent, Tables), GpuError> {
        let mut tables = Tables::new();
        for Decode { lane, slab, choice } in decodes {
            tables.decode(*lane, slab.len(), choice);
        }
        for Prefill { lane, slab, tokens, choice } in prefills {
            tables.prefill(*lane, slab.len(), tokens, choice.as_ref());
        }
        tables.pad();
        let mut ones: Vec<Request<'_>> = decodes.iter().map(|decode| Request::new(decode.slab, 1)).collect();
        if prefills.is_empty() {
            ones.resize(tables.rows() as usize, Request::idle().padded(1));
        }
        let chunks: Vec<Request<'_>> =
            prefills.iter().map(|prefill| Request::new(prefill.slab, prefill.tokens.len() as u32)).collect();
        let step = self.workspace.begin(&self.stream, &ones, &chunks)?;
        self.send(&tables)?;
        let extent = Extent { rows: tables.rows(), samples: tables.samples() };
        Ok((step, extent, tables))
    }

    /// Launches the same decode step again and again, out of its graph, and returns the milliseconds of each: every launch
    /// sees the lengths of the first, and no slab moves.
    ///
    /// # Errors
    /// Any error of the device.
    pub fn time_decode(
        &mut self,
        decodes: &[Decode<'_, Slab>],
        repetitions: usize,
    ) -> Result<Vec<f64>, ModelError> {
        let (step, extent, _) = self.begin(decodes, &[])?;
        let stream = self.stream.clone();
        let device = self.model().device().clone();
        let graph = self.graph(&step, extent)?;
        graph.launch()?;
        let mut spans = Vec::new();
        for _ in 0..repetitions {
            let (start, end) = (Event::new(&device)?, Event::new(&device)?);
            start.record(&stream)?;
            graph.launch()?;
            end.record(&stream)?;
            spans.push((start, end));
        }
        let times = spans.iter().map(|(start, end)| start.milliseconds_to(end).map(f64::from));
        let times = times.collect::<Result<_, _>>()?;
        drop(step);
        Ok(times)
    }

    /// Launches a step piece by piece and adds the time of each piece to `profile`. A piece begins when the one before has
    /// ended, so that together they take longer than in a graph. The step is done like any other, but chooses no tokens.
    ///
    /// # Errors
    /// Any error of the device.
    pub fn profile(
        &mut self,
        decodes: &[Decode<'_, Slab>],
        prefills: &[Prefill<'_, Slab>],
        profile: &mut Profile,
    ) -> Result<(), ModelError> {
        let (step, extent, _) = self.begin(decodes, prefills)?;
        let stream = self.stream.clone();
        let device = self.model().device().clone();
        if prefills.is_empty() {
            // A whole step ahead in the queue keeps the host's launches out of the times.
            self.graph(&step, extent)?.launch()?;
        }
        let mut marks: Vec<(Option<Work>, Event)> = Vec::new();
        let mut mark = |work: Option<Work>| -> Result<(), GpuError> {
            let event = Event::new(&device)?;
            event.record(&stream)?;
            marks.push((work, event));
            Ok(())
        };
        mark(None)?;
        self.forward.run(&stream, &step, extent, &mut |work| mark(Some(work)))?;
        for pair in marks.windows(2) {
            if let Some(work) = pair[1].0 {
                let part = profile.0.entry(work).or_default();
                part.us += 1e3 * f64::from(pair[0].1.milliseconds_to(&pair[1].1)?);
                part.pieces += 1;
            }
        }
        step.commit();
        Ok(())
    }

    /// Runs a chunk through the layers, without samples; its hidden states are left for [`logits`](Self::logits).
    pub(super) fn hidden(&mut self, slab: &mut Slab, tokens: &[u32]) -> Result<(), ModelError> {
        let chunk = [Prefill { lane: 0, slab, tokens, choice: None }];
        let (step, extent, _) = self.begin(&[], &chunk)?;
        self.forward.run(&self.stream, &step, extent, &mut |_| Ok(()))?;
        step.commit();
        Ok(())
    }

    /// The logits of the rows of the newest chunk that a table of samples names.
    pub(super) fn logits(&mut self, samples: &[u8], count: u32) -> Result<Vec<u8>, ModelError> {
        let memory = &self.forward.memory;
        self.sample_tables.send(&self.stream, memory.samples.all(), samples)?;
        self.forward.logits(&self.stream, padded(count), &mut |_| Ok(()))?;
        let mut bytes = vec![0; count as usize * self.limits.vocab as usize * 4];
        self.forward.memory.logits.download(&self.stream, &mut bytes)?;
        Ok(bytes)
    }
}

/// The limits of a runner where so many bytes are free for slabs and for what comes later.
fn limits(model: &LoadedArtifact, options: &Options, free: u64) -> Result<Limits, GpuError> {
    let free = free.saturating_sub(SPARE);
    let geometry = model.geometry();
    let bucket = |(at, &length): (usize, &u32)| Bucket {
        length,
        slab_bytes: geometry.slab_bytes[at].next_multiple_of(ALIGNMENT),
        intact: geometry.shortest_ring(at),
    };
    Ok(Limits {
        lanes: options.lanes,
        rows: options.rows,
        buckets: geometry.lengths.iter().enumerate().map(bucket).collect(),
        slab_bytes: options.slab_bytes.unwrap_or(free).min(free) / ALIGNMENT * ALIGNMENT,
        vocab: model.engine()?.sizes().vocab,
        deterministic: false,
    })
}

/// Launches each kind of kernel once, outside of any capture: the driver loads code when it is launched first.
fn warm_up(stream: &Stream, workspace: &mut Workspace, forward: &mut Forward) -> Result<(), GpuError> {
    let step = workspace.begin(stream, &[Request::idle().padded(1)], &[])?;
    // Idle rows and samples, as the cleared tables have none.
    forward.memory.rows.fill(stream, 0xff)?;
    forward.memory.samples.fill(stream, 0xff)?;
    forward.run(stream, &step, Extent { rows: 1, samples: 1 }, &mut |_| Ok(()))?;
    drop(step);
    stream.synchronize()
}

/// Whether the parts are of one model.
fn check(model: &LoadedArtifact, weights: &GpuWeights, options: &Options) -> Result<(), ModelError> {
    let wrong = |what, found: String, expected: String| Err(ModelError::Argument { what, found, expected });
    if weights.dtype != model.dtype() {
        let (found, expected) = (weights.dtype.to_string(), model.dtype().to_string());
        return wrong("the type of the weights", found, expected);
    }
    if weights.layers.len() != model.layers() {
        let (found, expected) = (weights.layers.len().to_string(), model.layers().to_string());
        return wrong("the number of the weights' layers", found, expected);
    }
    if options.lanes == 0 || options.rows < options.lanes {
        let found = format!("{} for {} requests", options.rows, options.lanes);
        return wrong("the number of a step's rows", found, "at least one for each request".to_owned());
    }
    Ok(())
}

impl Runner for GpuRunner {
    type Slab = Slab;

    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn slab(&mut self, max_len: u32) -> Result<Option<Slab>, ModelError> {
        match self.pool.slab(max_len) {
            Ok(slab) => Ok(Some(slab)),
            Err(GpuError::PoolFull { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn copy(&mut self, from: &Slab, to: &mut Slab) -> Result<(), ModelError> {
        Ok(from.clone_to(&self.stream, to)?)
    }

    fn rewind(&mut self, slab: &mut Slab, tokens: u32) -> Result<(), ModelError> {
        Ok(slab.rewind(tokens)?)
    }

    fn reset(&mut self, lane: u32, seen: &[u32]) -> Result<(), ModelError> {
        let words = self.forward.sizes.seen_words();
        let bytes = u64::from(words) * 4;
        let at = u64::from(lane) * bytes;
        let own = self.forward.memory.seen.part(at..at + bytes)?;
        if seen.is_empty() {
            return Ok(own.fill(&self.stream, 0)?);
        }
        let mut bits = vec![0_u8; bytes as usize];
        for &token in seen.iter().filter(|&&token| token < self.limits.vocab) {
            // Words are little-endian, so bit n of a word is bit n % 8 of byte n / 8.
            bits[token as usize / 8] |= 1 << (token % 8);
        }
        Ok(self.seen_tables.send(&self.stream, own, &bits)?)
    }

    fn start(
        &mut self,
        decodes: &mut [Decode<'_, Slab>],
        prefills: &mut [Prefill<'_, Slab>],
    ) -> Result<(), ModelError> {
        let (step, extent, tables) = self.begin(decodes, prefills)?;
        if prefills.is_empty() {
            self.graph(&step, extent)?.launch()?;
        } else {
            self.tune_whole(extent)?;
            self.forward.run(&self.stream, &step, extent, &mut |_| Ok(()))?;
        }
        let takers = tables.takers;
        let memory = &self.forward.memory;
        if !takers.is_empty() {
            let outcomes = memory.outcomes.part(0..(takers.len() * Outcome::BYTES) as u64)?;
            self.outcomes.ask(&self.stream, outcomes)?;
            if takers.iter().any(|&(_, top)| top > 0) {
                let bytes = takers.len() * TOP_LOGPROBS as usize * Outcome::BYTES;
                self.tops.ask(&self.stream, memory.top.part(0..bytes as u64)?)?;
            }
        }
        self.under_way.push_back(takers);
        step.commit();
        Ok(())
    }

    fn finish(&mut self) -> Result<Vec<Chosen>, ModelError> {
        let Some(takers) = self.under_way.pop_front() else { return Ok(Vec::new()) };
        if takers.is_empty() {
            return Ok(Vec::new());
        }
        let outcomes = read(self.outcomes.take()?.unwrap_or_default());
        let asked = takers.iter().any(|&(_, top)| top > 0);
        let tops = if asked { read(self.tops.take()?.unwrap_or_default()) } else { Vec::new() };
        let chosen = takers.iter().zip(outcomes).enumerate().map(|(at, (&(lane, wanted), outcome))| {
            let from = at * TOP_LOGPROBS as usize;
            let top = tops.iter().skip(from).take(wanted.min(TOP_LOGPROBS) as usize);
            Chosen { lane, outcome, top: top.map(|top| (top.token, top.logprob)).collect() }
        });
        Ok(chosen.collect())
    }
}

/// A table of outcomes.
fn read(table: &[u8]) -> Vec<Outcome> {
    let word = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let entries = table.chunks_exact(Outcome::BYTES);
    entries.map(|entry| Outcome { token: word(entry), logprob: f32::from_bits(word(&entry[4..])) }).collect()
}

#[cfg(test)]
mod tests {
    use moac_runtime::glue::Outcome;

    use super::read;

    #[test]
    fn outcomes_are_read_as_they_are_written() {
        let written = [Outcome { token: 7, logprob: -0.5 }, Outcome { token: u32::MAX, logprob: -12.25 }];
        let table: Vec<u8> = written.iter().flat_map(Outcome::to_bytes).collect();
        assert_eq!(read(&table), written);
    }
}
