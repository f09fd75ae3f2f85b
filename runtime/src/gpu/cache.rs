//! Slabs: the cache of one request, all layers and KV heads, in one allocation.

use std::sync::Arc;

use super::load::Inner;
use super::{Buffer, GpuError, Stream};

/// The cache of one request. Its bucket is chosen when it is made and never changes; its position is kept on the host
/// and moves when a step is committed. It belongs to one stream at a time.
#[derive(Debug)]
pub struct Slab {
    memory: Buffer,
    bucket: usize,
    len: u32,
    // Last, for the kernels to stay until the device is done with the memory.
    owner: Arc<Inner>,
}

impl Slab {
    pub(super) fn new(owner: Arc<Inner>, stream: &Stream, max_len: u32) -> Result<Self, GpuError> {
        let geometry = &owner.geometry;
        let Some(bucket) = geometry.bucket_for(max_len) else {
            let largest = geometry.lengths.last().copied().unwrap_or(0);
            return Err(GpuError::NoBucket { max_len, largest });
        };
        let what = format!("a slab of the bucket {}", geometry.lengths[bucket]);
        let mut memory = owner.device.alloc(geometry.slab_bytes[bucket], &what)?;
        // Masked keys take part with weight 0, which a number that is none would survive.
        memory.fill(stream, 0)?;
        Ok(Self { memory, bucket, len: 0, owner })
    }

    /// Tokens in it, evicted ones included: the position of the next.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether it holds no token.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The context length at which it is full: its bucket's.
    pub fn length(&self) -> u32 {
        self.owner.geometry.lengths[self.bucket]
    }

    /// Its bucket, by index.
    pub fn bucket(&self) -> usize {
        self.bucket
    }

    /// Bytes of device memory.
    pub fn bytes(&self) -> u64 {
        self.memory.bytes()
    }

    /// Forgets all tokens, for the next request of the same bucket. Work in flight is not disturbed.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Copies the state to another slab of the same bucket, in stream order: two requests that share a prefix start
    /// from one prefill.
    ///
    /// # Errors
    /// [`GpuError::Bucket`], [`GpuError::Foreign`], or what the driver says; the other is as before then.
    pub fn clone_to(&self, stream: &Stream, other: &mut Self) -> Result<(), GpuError> {
        if !Arc::ptr_eq(&self.owner, &other.owner) {
            return Err(GpuError::Foreign { what: "the other slab" });
        }
        if self.bucket != other.bucket {
            return Err(GpuError::Bucket { from: self.length(), to: other.length() });
        }
        self.memory.copy_to(stream, &mut other.memory)?;
        other.len = self.len;
        Ok(())
    }

    pub(super) fn belongs_to(&self, owner: &Arc<Inner>) -> bool {
        Arc::ptr_eq(&self.owner, owner)
    }

    pub(super) fn address(&self) -> u64 {
        self.memory.address()
    }

    pub(super) fn advance(&mut self, tokens: u32) {
        self.len += tokens;
    }
}
