//! Slabs: the cache of one request, all layers and KV heads, and the pool that they come from.
//!
//! A pool is one reservation of device memory. A slab is a range of it: to make one or to drop one allocates nothing, clears
//! nothing and waits for nothing. So a pool and its slabs belong to one stream at a time: the order of the stream keeps the
//! next request's work behind what a dropped slab was still needed for. Kernels never use a slot that no token was written
//! to, whatever a range held before. A graph refers to slabs by the table of the newest step: it is replayed only after a
//! `begin` of its own, or it writes to ranges that may be another request's by now.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::load::Inner;
use super::{Buffer, GpuError, LoadedArtifact, Part, Stream};
use crate::space::{ALIGNMENT, Space};

/// One reservation of device memory for the slabs of a loaded artifact. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SlabPool(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    memory: Buffer,
    space: Mutex<Space>,
    // Last, for the kernels to stay until the device is done with the memory.
    owner: Arc<Inner>,
}

impl Pool {
    fn with<R>(&self, act: impl FnOnce(&mut Space) -> R) -> R {
        // A panic elsewhere leaves the ranges as they were: each change of them is whole.
        act(&mut self.space.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl LoadedArtifact {
    /// A reservation of `bytes` bytes of device memory for slabs of any bucket.
    ///
    /// # Errors
    /// [`GpuError::OutOfMemory`], or what the driver says.
    pub fn pool(&self, bytes: u64) -> Result<SlabPool, GpuError> {
        SlabPool::new(self.inner.clone(), bytes)
    }

    /// An empty slab with memory of its own, for a request of at most `max_len` tokens, prompt and generation together: a
    /// pool of one. Many requests share a [`pool`](Self::pool).
    ///
    /// # Errors
    /// [`GpuError::NoBucket`], [`GpuError::OutOfMemory`], or what the driver says.
    pub fn slab(&self, max_len: u32) -> Result<Slab, GpuError> {
        let geometry = self.geometry();
        let bytes = geometry.bucket_for(max_len).map_or(0, |bucket| geometry.slab_bytes[bucket]);
        self.pool(bytes.next_multiple_of(ALIGNMENT))?.slab(max_len)
    }
}

impl SlabPool {
    pub(super) fn new(owner: Arc<Inner>, bytes: u64) -> Result<Self, GpuError> {
        let memory = owner.device.alloc(bytes, "a pool of slabs")?;
        Ok(Self(Arc::new(Pool { memory, space: Mutex::new(Space::new(bytes)), owner })))
    }

    /// An empty slab for a request of at most `max_len` tokens, prompt and generation together.
    ///
    /// # Errors
    /// [`GpuError::NoBucket`], or [`GpuError::PoolFull`].
    pub fn slab(&self, max_len: u32) -> Result<Slab, GpuError> {
        let geometry = &self.0.owner.geometry;
        let Some(bucket) = geometry.bucket_for(max_len) else {
            let largest = geometry.lengths.last().copied().unwrap_or(0);
            return Err(GpuError::NoBucket { max_len, largest });
        };
        let bytes = geometry.slab_bytes[bucket];
        let offset = self.0.with(|space| {
            let (free, largest) = (space.bytes() - space.taken(), space.largest_free());
            space.take(bytes).ok_or(GpuError::PoolFull { needed: bytes, free, largest })
        })?;
        Ok(Slab(Arc::new(SlabState {
            pool: self.0.clone(),
            offset,
            bytes,
            bucket,
            len: AtomicU32::new(0),
            in_step: AtomicBool::new(false),
        })))
    }

    /// Bytes of the reservation.
    pub fn bytes(&self) -> u64 {
        self.0.memory.bytes()
    }

    /// Bytes that slabs take of it.
    pub fn taken(&self) -> u64 {
        self.0.with(|space| space.taken())
    }
}

/// The cache of one request. Its bucket is chosen when it is made and never changes; its position is kept on the host
/// and moves when a step is committed.
#[derive(Debug)]
pub struct Slab(Arc<SlabState>);

/// The state shared by a slab and the steps that use it: its range stays taken until the last of them is dropped.
#[derive(Debug)]
pub(super) struct SlabState {
    pool: Arc<Pool>,
    offset: u64,
    bytes: u64,
    bucket: usize,
    len: AtomicU32,
    /// Whether a step has it that is neither committed nor dropped: its position is that step's to move.
    in_step: AtomicBool,
}

impl SlabState {
    fn part(&self) -> Result<Part<'_>, GpuError> {
        self.pool.memory.part(self.offset..self.offset + self.bytes)
    }
}

impl Drop for SlabState {
    fn drop(&mut self) {
        self.pool.with(|space| space.give_back(self.offset, self.bytes));
    }
}

/// A slab's part in a step, from the step's begin to its commit or end.
#[derive(Debug)]
pub(super) struct InStep(Arc<SlabState>);

impl InStep {
    pub(super) fn advance(&self, tokens: u32) {
        self.0.len.fetch_add(tokens, Ordering::Relaxed);
    }
}

impl Drop for InStep {
    fn drop(&mut self) {
        self.0.in_step.store(false, Ordering::Release);
    }
}

impl Slab {
    /// Tokens in it, evicted ones included: the position of the next.
    pub fn len(&self) -> u32 {
        self.0.len.load(Ordering::Relaxed)
    }

    /// Whether it holds no token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The context length at which it is full: its bucket's.
    pub fn length(&self) -> u32 {
        self.0.pool.owner.geometry.lengths[self.0.bucket]
    }

    /// Its bucket, by index.
    pub fn bucket(&self) -> usize {
        self.0.bucket
    }

    /// Bytes of device memory.
    pub fn bytes(&self) -> u64 {
        self.0.bytes
    }

    /// Forgets all tokens, for the next request of the same bucket. Work in flight is not disturbed.
    ///
    /// # Errors
    /// [`GpuError::InStep`].
    pub fn clear(&mut self) -> Result<(), GpuError> {
        self.idle("the slab to clear")?;
        self.0.len.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Forgets all but the first `tokens` tokens. Work in flight is not disturbed.
    ///
    /// # Errors
    /// [`GpuError::InStep`], or [`GpuError::Overwritten`] if there are fewer tokens or a ring has overwritten one.
    pub fn rewind(&mut self, tokens: u32) -> Result<(), GpuError> {
        self.idle("the slab to wind back")?;
        let (len, ring) = (self.len(), self.0.pool.owner.geometry.shortest_ring(self.0.bucket));
        if tokens > len || tokens < len && len > ring {
            return Err(GpuError::Overwritten { len, tokens, ring });
        }
        self.0.len.store(tokens, Ordering::Relaxed);
        Ok(())
    }

    fn idle(&self, what: &'static str) -> Result<(), GpuError> {
        if self.0.in_step.load(Ordering::Acquire) { Err(GpuError::InStep { what }) } else { Ok(()) }
    }

    /// Copies the state to another slab of the same bucket, in stream order: two requests that share a prefix start
    /// from one prefill.
    ///
    /// # Errors
    /// [`GpuError::Bucket`], [`GpuError::Foreign`], [`GpuError::InStep`], or what the driver says; the other is as before
    /// then.
    pub fn clone_to(&self, stream: &Stream, other: &mut Self) -> Result<(), GpuError> {
        let (from, to) = (&self.0, &other.0);
        if !Arc::ptr_eq(&from.pool.owner, &to.pool.owner) {
            return Err(GpuError::Foreign { what: "the other slab" });
        }
        if from.bucket != to.bucket {
            return Err(GpuError::Bucket { from: self.length(), to: other.length() });
        }
        self.idle("the slab to copy")?;
        other.idle("the slab to copy to")?;
        from.part()?.copy_to(stream, to.part()?)?;
        to.len.store(self.len(), Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn belongs_to(&self, owner: &Arc<Inner>) -> bool {
        Arc::ptr_eq(&self.0.pool.owner, owner)
    }

    pub(super) fn address(&self) -> u64 {
        self.0.pool.memory.address() + self.0.offset
    }

    /// Takes part in a step; none but one at a time.
    pub(super) fn enter(&self) -> Result<InStep, GpuError> {
        if self.0.in_step.swap(true, Ordering::AcqRel) {
            return Err(GpuError::InStep { what: "a slab of the batch" });
        }
        Ok(InStep(self.0.clone()))
    }
}
