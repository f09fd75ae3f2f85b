//! The workspace of calls, and the steps that a batch takes.
//!
//! Tables that differ from step to step (whose slabs, how many tokens are in them, how many are new) lie in device memory
//! that [`Workspace::begin`] writes once for all layers. The calls of the layers carry only addresses: a graph that
//! was captured from them replays the next step after the next `begin`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::load::Inner;
use super::slab::InStep;
use super::{Buffer, GpuError, LoadedArtifact, Slab, Stream, Uploads};
use crate::attention::{self, Batch, CallError, MAX_BATCH, Scratch, StepTable, Table};

/// Steps whose tables may be on their way to the device at once; the host waits when it is further ahead.
const IN_FLIGHT: usize = 8;

/// Everything that calls need beside the caller's tensors and slabs, allocated beforehand. It belongs to one stream
/// at a time.
#[derive(Debug)]
pub struct Workspace {
    tables: Uploads,
    memory: Arc<WorkspaceMemory>,
}

/// The state shared by a workspace and its steps.
#[derive(Debug)]
struct WorkspaceMemory {
    capacity: u32,
    partials: Buffer,
    counters: Buffer,
    table: Buffer,
    /// Counts the steps: only the newest one's table is on the device.
    turn: AtomicU64,
    // Last, for the kernels to stay until the device is done with the memory.
    owner: Arc<Inner>,
}

/// One request of a step.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    slab: Option<&'a Slab>,
    tokens: u32,
    rows: u32,
}

impl<'a> Request<'a> {
    /// A request with `tokens` new tokens, at the slab's position.
    pub fn new(slab: &'a Slab, tokens: u32) -> Self {
        Self { slab: Some(slab), tokens, rows: tokens }
    }

    /// An unused place in the batch. Graphs need it: they replay the batch size that they were captured with.
    pub fn idle() -> Self {
        Self { slab: None, tokens: 0, rows: 0 }
    }

    /// Gives the request `rows` rows of the tensors, its new tokens first and rows that are not touched behind them:
    /// for padded tensors, and to keep the others' rows in place from replay to replay of a graph.
    #[must_use]
    pub fn padded(self, rows: u32) -> Self {
        Self { rows, ..self }
    }
}

/// A batch's step through all layers: the device knows its lengths, and every layer may be called with it, until the
/// workspace begins the next one. The slabs' positions move when it is committed; dropping it instead leaves them where they
/// were, but what layers have written to the rings in the meantime stays written. It keeps its slabs' memory.
#[derive(Debug)]
#[must_use = "the slabs' positions move when the step is committed"]
pub struct Step {
    memory: Arc<WorkspaceMemory>,
    turn: u64,
    /// The requests that decode, and those that prefill, where there are any.
    pub(super) decode: Option<StepTable>,
    pub(super) prefill: Option<StepTable>,
    rows: u64,
    slabs: Vec<(InStep, u32)>,
}

impl LoadedArtifact {
    /// The workspace of calls with at most `capacity` requests. It is cleared in the order of `stream`.
    ///
    /// # Errors
    /// [`CallError::BatchSize`](crate::attention::CallError::BatchSize), [`GpuError::OutOfMemory`], or what the driver says.
    pub fn workspace(&self, stream: &Stream, capacity: u32) -> Result<Workspace, GpuError> {
        Workspace::new(self.inner.clone(), stream, capacity)
    }
}

impl Workspace {
    pub(super) fn new(owner: Arc<Inner>, stream: &Stream, capacity: u32) -> Result<Self, GpuError> {
        if capacity == 0 || capacity > MAX_BATCH {
            return Err(CallError::BatchSize { found: capacity as usize, most: MAX_BATCH }.into());
        }
        let device = &owner.device;
        let partials = device.alloc(owner.partials_bytes(), "the workspace's split results")?;
        let mut counters = device.alloc(owner.counters_bytes(capacity), "the workspace's counters")?;
        counters.fill(stream, 0)?;
        let table_bytes = Table::bytes(capacity, owner.split_layers().len());
        let table = device.alloc(table_bytes, "the workspace's tables")?;
        let tables = Uploads::new(device, table_bytes, IN_FLIGHT)?;
        let turn = AtomicU64::new(0);
        let memory = WorkspaceMemory { capacity, partials, counters, table, turn, owner };
        Ok(Self { tables, memory: Arc::new(memory) })
    }

    /// The most requests of a step.
    pub fn capacity(&self) -> u32 {
        self.memory.capacity
    }

    /// Bytes of device memory.
    pub fn bytes(&self) -> u64 {
        let WorkspaceMemory { partials, counters, table, .. } = &*self.memory;
        partials.bytes() + counters.bytes() + table.bytes()
    }

    /// Clears the counters, in stream order: after a launch that failed midway.
    ///
    /// # Errors
    /// Any error of the driver.
    pub fn reset(&mut self, stream: &Stream) -> Result<(), GpuError> {
        self.memory.counters.all().fill(stream, 0)
    }

    /// Starts a step: hands the requests' slabs, positions and new tokens to the device, in stream order. Once per
    /// step, for all layers. Requests of `decode` have at most one new token, those of `prefill` any number. The rows of
    /// the call's tensors are the first decode's, then the next one's, then the prefills': a row for each new token, or as
    /// many as [`Request::padded`] says.
    ///
    /// It waits only where the host is more than eight steps ahead of the device, and cannot be captured. A step that was
    /// begun before is over.
    ///
    /// # Errors
    /// [`GpuError::ContextFull`], [`GpuError::Capacity`], [`GpuError::Foreign`], [`GpuError::SameSlab`],
    /// [`GpuError::InStep`], [`GpuError::Capturing`], [`CallError`], or what the driver says.
    pub fn begin(
        &mut self,
        stream: &Stream,
        decode: &[Request<'_>],
        prefill: &[Request<'_>],
    ) -> Result<Step, GpuError> {
        let WorkspaceMemory { capacity, owner, .. } = &*self.memory;
        let requests: Vec<Request<'_>> = decode.iter().chain(prefill).copied().collect();
        if requests.len() > *capacity as usize {
            return Err(GpuError::Capacity { found: requests.len(), capacity: *capacity });
        }
        differ(&requests)?;
        let seen = requests.iter().enumerate().map(|(at, request)| admit(owner, at, request));
        let batch = Batch::new(seen.collect::<Result<_, GpuError>>()?)?;
        let longest = |part: &[Request<'_>]| part.iter().map(|request| request.tokens).max().unwrap_or(0);
        if longest(decode) > 1 {
            return Err(CallError::NotOneToken { found: longest(decode) }.into());
        }
        if stream.is_capturing()? {
            return Err(GpuError::Capturing { what: "the start of a step" });
        }
        let enter = |request: &Request<'_>| Some(request.slab?.enter().map(|slab| (slab, request.tokens)));
        let slabs = requests.iter().filter_map(enter).collect::<Result<_, GpuError>>()?;
        // From here on the step before is over, whatever becomes of this one.
        let turn = self.memory.turn.fetch_add(1, Ordering::Relaxed) + 1;
        let bytes = batch.table(*capacity, owner.split_layers(), decode.len());
        self.tables.send(stream, self.memory.table.all(), &bytes)?;
        let table = Table::addresses(self.memory.table.address(), *capacity);
        let part = |from: usize, part: &[Request<'_>]| {
            (!part.is_empty()).then(|| StepTable {
                table: table.skip(from as u32),
                batch: part.len() as u32,
                rows: batch.rows(),
                longest_chunk: longest(part),
            })
        };
        Ok(Step {
            decode: part(0, decode),
            prefill: part(decode.len(), prefill),
            rows: batch.rows(),
            slabs,
            turn,
            memory: self.memory.clone(),
        })
    }
}

/// A request as the kernels see it, if its slab is of `owner` and has room.
fn admit(owner: &Arc<Inner>, at: usize, request: &Request<'_>) -> Result<attention::Request, GpuError> {
    let Some(slab) = &request.slab else {
        return Ok(attention::Request { slab: 0, bucket: 0, cached: 0, chunk: 0, rows: request.rows });
    };
    if !slab.belongs_to(owner) {
        return Err(GpuError::Foreign { what: "a slab of the batch" });
    }
    let (cached, new, length) = (slab.len(), request.tokens, slab.length());
    if u64::from(cached) + u64::from(new) > u64::from(length) {
        return Err(GpuError::ContextFull { request: at, cached, new, length });
    }
    let (slab, bucket) = (slab.address(), slab.bucket() as u32);
    Ok(attention::Request { slab, bucket, cached, chunk: new, rows: request.rows })
}

/// No two requests of a step may write to one slab.
fn differ(requests: &[Request<'_>]) -> Result<(), GpuError> {
    let mut slabs: Vec<(u64, usize)> =
        (0..).zip(requests).filter_map(|(at, request)| Some((request.slab?.address(), at))).collect();
    slabs.sort_unstable();
    match slabs.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => Err(GpuError::SameSlab { first: pair[0].1, second: pair[1].1 }),
        None => Ok(()),
    }
}

impl Step {
    /// Rows of the step's tensors.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Refuses the step of another artifact, and one whose table is no longer on the device.
    pub(super) fn check(&self, owner: &Arc<Inner>) -> Result<(), GpuError> {
        if !Arc::ptr_eq(owner, &self.memory.owner) {
            return Err(GpuError::Foreign { what: "the step" });
        }
        let newest = self.memory.turn.load(Ordering::Relaxed);
        if newest == self.turn { Ok(()) } else { Err(GpuError::StepOver) }
    }

    pub(super) fn scratch(&self) -> Scratch {
        let WorkspaceMemory { partials, counters, .. } = &*self.memory;
        Scratch { partials: partials.address(), counters: counters.address() }
    }

    /// Moves the slabs' positions behind the new tokens. Every layer must have been given its call.
    pub fn commit(self) {
        for (slab, tokens) in &self.slabs {
            slab.advance(*tokens);
        }
    }
}
