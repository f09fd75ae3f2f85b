//! One CTA's shared memory: bytes, which of them were written, and their shadow.

#![allow(clippy::inline_always)] // what is constant where an access is made leaves little of these functions

use crate::memory::shadow::{Access, Clash, Entry, Shadow};
use crate::memory::{all_set, copy, set_bits};

/// Shared addresses start here, so that 0 is never one; the alignment of a variable holds for its address up to this power of two.
pub(crate) const SHARED_BASE: u32 = 1024;
/// Bytes per shadow block.
const BLOCK: usize = 1024;

/// Shared memory of a CTA. Offsets count from [`SHARED_BASE`].
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    data: Vec<u8>,
    init: Vec<u64>,
    shadow: Vec<Shadow>,
}

impl Shared {
    pub(crate) fn new(bytes: usize) -> Self {
        Self {
            data: vec![0; bytes],
            init: vec![0; bytes.div_ceil(64)],
            shadow: vec![Shadow::default(); bytes.div_ceil(BLOCK)],
        }
    }

    /// The offset of `len` bytes at shared address `address`, if they are inside.
    #[inline]
    pub(crate) fn offset(&self, address: u32, len: usize) -> Option<usize> {
        let offset = address.wrapping_sub(SHARED_BASE) as usize;
        (address >= SHARED_BASE && offset + len <= self.data.len()).then_some(offset)
    }

    /// Size in bytes.
    pub(crate) fn len(&self) -> usize {
        self.data.len()
    }

    #[inline]
    pub(crate) fn read(&self, offset: usize, out: &mut [u8]) -> bool {
        copy(out, &self.data[offset..offset + out.len()]);
        all_set(&self.init, offset, out.len())
    }

    #[inline]
    pub(crate) fn write(&mut self, offset: usize, data: &[u8]) {
        copy(&mut self.data[offset..offset + data.len()], data);
        set_bits(&mut self.init, offset, data.len());
    }

    /// See [`Shadow::plain`].
    #[inline(always)]
    pub(crate) fn plain(&mut self, offset: usize, len: usize, access: &Access) -> bool {
        self.shadow[offset / BLOCK].plain(offset % BLOCK, len, access)
    }

    /// Checks an access of at most a block against the ones before it; the offset in the clash counts from the start of the memory.
    pub(crate) fn check(&mut self, offset: usize, len: usize, access: &Access) -> Option<Clash> {
        let mut clash = None;
        let mut at = offset;
        while at < offset + len {
            let block = at / BLOCK;
            let n = (offset + len - at).min((block + 1) * BLOCK - at);
            let found = self.shadow[block].access(BLOCK, at % BLOCK, n, access);
            clash = clash.or(found.map(|c| Clash { offset: c.offset + block * BLOCK, ..c }));
            at += n;
        }
        clash
    }

    /// An asynchronous copy of `len` bytes to `offset`, inside one block, has been waited for.
    pub(crate) fn complete(&mut self, offset: usize, len: usize, old: Entry, new: Entry) {
        self.shadow[offset / BLOCK].complete(offset % BLOCK, len, old, new);
    }

    /// The same of any number of bytes.
    pub(crate) fn complete_range(&mut self, offset: usize, len: usize, old: Entry, new: Entry) {
        let mut at = offset;
        while at < offset + len {
            let n = (offset + len - at).min(BLOCK - at % BLOCK);
            self.complete(at, n, old, new);
            at += n;
        }
    }
}
