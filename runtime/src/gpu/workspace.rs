//! The workspace of calls, and the steps that a batch takes.
//!
//! What differs from step to step (whose slabs, how many tokens are in them, how many are new) lives in device memory
//! that [`Workspace::begin`] writes once for all layers. The calls of the layers carry only addresses: a graph that
//! was captured from them replays the next step after the next `begin`.

use std::marker::PhantomData;
use std::sync::Arc;

use super::load::Inner;
use super::memory::Pinned;
use super::{Buffer, Event, GpuError, Slab, Stream};
use crate::attention::{self, Batch, CallError, MAX_BATCH, Scratch, StepTable, Table};

/// Steps whose tables may be on their way to the device at once; the host waits when it is further ahead.
const IN_FLIGHT: usize = 8;

/// Everything that calls need beside the caller's tensors and slabs, allocated beforehand. It belongs to one stream
/// at a time.
#[derive(Debug)]
pub struct Workspace {
    capacity: u32,
    partials: Buffer,
    counters: Buffer,
    table: Buffer,
    staging: Vec<Staging>,
    next: usize,
    // Last, for the kernels to stay until the device is done with the memory.
    owner: Arc<Inner>,
}

/// A table in pinned host memory, and when the device has read it.
#[derive(Debug)]
struct Staging {
    memory: Pinned,
    read: Event,
}

/// What one request brings to a step.
#[derive(Debug)]
pub struct Request<'a> {
    slab: Option<&'a mut Slab>,
    tokens: u32,
    rows: u32,
}

impl<'a> Request<'a> {
    /// A request with `tokens` new tokens, at the slab's position.
    pub fn new(slab: &'a mut Slab, tokens: u32) -> Self {
        Self { slab: Some(slab), tokens, rows: tokens }
    }

    /// A place in the batch that nobody uses. Graphs need it: they replay the batch size that they were captured with.
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

/// A batch's step through all layers: the device knows its lengths, and every layer may be called with it. The slabs'
/// positions move when it is committed; dropping it instead leaves them where they were, but what layers have written
/// to the rings in the meantime stays written.
#[derive(Debug)]
#[must_use = "the slabs' positions move when the step is committed"]
pub struct Step<'a> {
    pub(super) owner: &'a Arc<Inner>,
    pub(super) table: StepTable,
    pub(super) scratch: Scratch,
    slabs: Vec<(&'a mut Slab, u32)>,
    workspace: PhantomData<&'a mut Workspace>,
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
        let staging = (0..IN_FLIGHT)
            .map(|_| {
                let memory = Pinned::new(device, table_bytes as usize)?;
                Ok(Staging { memory, read: Event::untimed(device)? })
            })
            .collect::<Result<_, GpuError>>()?;
        Ok(Self { capacity, partials, counters, table, staging, next: 0, owner })
    }

    /// The most requests of a step.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Bytes of device memory.
    pub fn bytes(&self) -> u64 {
        self.partials.bytes() + self.counters.bytes() + self.table.bytes()
    }

    /// Clears the counters, in stream order: after a launch that failed midway.
    ///
    /// # Errors
    /// What the driver says.
    pub fn reset(&mut self, stream: &Stream) -> Result<(), GpuError> {
        self.counters.fill(stream, 0)
    }

    /// Starts a step: hands the requests' slabs, positions and new tokens to the device, in stream order. Once per
    /// step, for all layers. The rows of the call's tensors are the first request's, then the second's, and so on: a row
    /// for each new token, or as many as [`Request::padded`] says.
    ///
    /// It waits only where the host is more than eight steps ahead of the device, and cannot be captured.
    ///
    /// # Errors
    /// [`GpuError::ContextFull`], [`GpuError::Capacity`], [`GpuError::Foreign`], [`GpuError::Capturing`],
    /// [`CallError`], or what the driver says.
    pub fn begin<'a>(
        &'a mut self,
        stream: &Stream,
        requests: Vec<Request<'a>>,
    ) -> Result<Step<'a>, GpuError> {
        if requests.len() > self.capacity as usize {
            return Err(GpuError::Capacity { found: requests.len(), capacity: self.capacity });
        }
        let seen = requests.iter().enumerate().map(|(at, request)| self.admit(at, request));
        let batch = Batch::new(seen.collect::<Result<_, GpuError>>()?)?;
        if stream.is_capturing()? {
            return Err(GpuError::Capturing { what: "the start of a step" });
        }
        let staging = &mut self.staging[self.next];
        staging.read.synchronize()?;
        staging.memory.bytes_mut().copy_from_slice(&batch.table(self.capacity, self.owner.split_layers()));
        self.table.upload_pinned(stream, &staging.memory)?;
        staging.read.record(stream)?;
        self.next = (self.next + 1) % IN_FLIGHT;
        Ok(Step {
            owner: &self.owner,
            table: StepTable {
                table: Table::addresses(self.table.address(), self.capacity),
                batch: batch.len(),
                rows: batch.rows(),
                longest_chunk: batch.longest_chunk(),
            },
            scratch: Scratch { partials: self.partials.address(), counters: self.counters.address() },
            slabs: requests.into_iter().filter_map(|r| Some((r.slab?, r.tokens))).collect(),
            workspace: PhantomData,
        })
    }

    /// A request as the kernels see it, if its slab is ours and has room.
    fn admit(&self, at: usize, request: &Request<'_>) -> Result<attention::Request, GpuError> {
        let Some(slab) = &request.slab else {
            return Ok(attention::Request { slab: 0, bucket: 0, cached: 0, chunk: 0, rows: request.rows });
        };
        if !slab.belongs_to(&self.owner) {
            return Err(GpuError::Foreign { what: "a slab of the batch" });
        }
        let (cached, new, length) = (slab.len(), request.tokens, slab.length());
        if u64::from(cached) + u64::from(new) > u64::from(length) {
            return Err(GpuError::ContextFull { request: at, cached, new, length });
        }
        let (slab, bucket) = (slab.address(), slab.bucket() as u32);
        Ok(attention::Request { slab, bucket, cached, chunk: new, rows: request.rows })
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // The device may still be reading the pinned tables. Freeing the buffers waits for it, but comes later.
        for staging in &self.staging {
            // A device in error has stopped reading.
            let _ = staging.read.synchronize();
        }
    }
}

impl Step<'_> {
    /// Rows of the step's tensors.
    pub fn rows(&self) -> u64 {
        self.table.rows
    }

    /// Moves the slabs' positions behind the new tokens. Every layer must have been given its call.
    pub fn commit(self) {
        for (slab, tokens) in self.slabs {
            slab.advance(tokens);
        }
    }
}
