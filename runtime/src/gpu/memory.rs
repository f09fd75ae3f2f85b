//! Device memory and pinned host memory.

use std::marker::PhantomData;

use cudarc::driver::result;

use super::error::Doing;
use super::{Device, GpuError, Stream};

/// Bytes of device memory, freed when dropped. Freeing waits for the device: nothing in flight uses it afterwards.
///
/// A captured graph keeps the addresses that it was captured with; replay it only while their buffers live.
#[derive(Debug)]
pub struct Buffer {
    device: Device,
    address: u64,
    bytes: u64,
}

impl Buffer {
    pub(super) fn new(device: Device, address: u64, bytes: u64) -> Self {
        Self { device, address, bytes }
    }

    /// The device address.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The device that it is on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Sets every byte to `value`, in stream order.
    ///
    /// # Errors
    /// Any error of the driver.
    pub fn fill(&mut self, stream: &Stream, value: u8) -> Result<(), GpuError> {
        self.fill_shared(stream, value)
    }

    /// As [`fill`](Self::fill), for memory whose users are ordered by the stream.
    pub(super) fn fill_shared(&self, stream: &Stream, value: u8) -> Result<(), GpuError> {
        self.fill_part(stream, 0, self.bytes, value)
    }

    /// Sets `bytes` bytes from `start` on to `value`, in stream order.
    ///
    /// # Errors
    /// [`GpuError::Range`], or what the driver says.
    pub fn fill_range(&mut self, stream: &Stream, start: u64, bytes: u64, value: u8) -> Result<(), GpuError> {
        self.fill_part(stream, start, bytes, value)
    }

    fn fill_part(&self, stream: &Stream, start: u64, bytes: u64, value: u8) -> Result<(), GpuError> {
        let address = self.range(start, bytes)?;
        stream.bind(&self.device)?;
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the range is within this allocation, and any byte is a valid one.
        unsafe { result::memset_d8_async(address, value, bytes as usize, stream.raw()) }.doing("fill memory")
    }

    /// Copies `from` to the bytes from `offset` on, and waits for it.
    ///
    /// # Errors
    /// [`GpuError::Range`], or what the driver says.
    pub fn upload(&mut self, stream: &Stream, offset: u64, from: &[u8]) -> Result<(), GpuError> {
        let address = self.range(offset, from.len() as u64)?;
        stream.bind(&self.device)?;
        // SAFETY: the target range is within this allocation; the source lives until the copy is waited for.
        unsafe { result::memcpy_htod_async(address, from, stream.raw()) }.doing("copy to the device")?;
        stream.synchronize()
    }

    /// Copies the first `bytes` bytes of pinned memory to those from `offset` on, in stream order. The caller keeps it
    /// unchanged until then.
    pub(super) fn upload_pinned(
        &self,
        stream: &Stream,
        offset: u64,
        from: &Pinned,
        bytes: usize,
    ) -> Result<(), GpuError> {
        let (address, from) = (self.range(offset, bytes as u64)?, &from.bytes()[..bytes]);
        stream.bind(&self.device)?;
        // SAFETY: the target range is within this allocation; the source is kept by the caller until it was read.
        unsafe { result::memcpy_htod_async(address, from, stream.raw()) }.doing("copy to the device")
    }

    /// Copies the beginning of this to pinned memory, in stream order. The caller leaves it alone until then.
    pub(super) fn download_pinned(&self, stream: &Stream, to: &mut [u8]) -> Result<(), GpuError> {
        let address = self.range(0, to.len() as u64)?;
        stream.bind(&self.device)?;
        // SAFETY: the source range is within this allocation; the target is kept by the caller until it was written.
        unsafe { result::memcpy_dtoh_async(to, address, stream.raw()) }.doing("copy from the device")
    }

    /// Fills all of this with repetitions of `pattern`'s bytes, from byte `start` of it on, in stream order.
    ///
    /// # Errors
    /// [`GpuError::Range`] for a start that is not inside `pattern`, or what the driver says.
    pub fn repeat(&mut self, stream: &Stream, pattern: &Self, start: u64) -> Result<(), GpuError> {
        if start >= pattern.bytes {
            return Err(GpuError::Range { start, end: start + 1, bytes: pattern.bytes });
        }
        let mut filled = (pattern.bytes - start).min(self.bytes);
        pattern.copy_range(stream, start, self, 0, filled)?;
        // What is there is copied behind itself, twice as much each time.
        while filled < self.bytes {
            let more = filled.min(self.bytes - filled);
            self.copy_range(stream, 0, self, filled, more)?;
            filled += more;
        }
        Ok(())
    }

    /// Copies the bytes from `offset` on to `to`, and waits for it.
    ///
    /// # Errors
    /// [`GpuError::Range`], or what the driver says, of this or of earlier work of the stream.
    pub fn download(&self, stream: &Stream, offset: u64, to: &mut [u8]) -> Result<(), GpuError> {
        let address = self.range(offset, to.len() as u64)?;
        stream.bind(&self.device)?;
        // SAFETY: the source range is within this allocation; the target lives until the copy is waited for.
        unsafe { result::memcpy_dtoh_async(to, address, stream.raw()) }.doing("copy from the device")?;
        stream.synchronize()
    }

    /// Copies `bytes` bytes from `start` to `to_start` of another range, in stream order. The ranges do not overlap.
    pub(super) fn copy_range(
        &self,
        stream: &Stream,
        start: u64,
        to: &Self,
        to_start: u64,
        bytes: u64,
    ) -> Result<(), GpuError> {
        let (from, target) = (self.range(start, bytes)?, to.range(to_start, bytes)?);
        stream.bind(&self.device)?;
        stream.bind(&to.device)?;
        // SAFETY: both ranges are within their allocations, and do not overlap by the caller's promise, without which bytes
        // would be copied in no certain order and nothing else would happen.
        unsafe { result::memcpy_dtod_async(target, from, bytes as usize, stream.raw()) }
            .doing("copy on the device")
    }

    /// The address of a range of bytes that must be inside.
    pub(super) fn range(&self, start: u64, bytes: u64) -> Result<u64, GpuError> {
        let end = start.saturating_add(bytes);
        if end > self.bytes {
            return Err(GpuError::Range { start, end, bytes: self.bytes });
        }
        Ok(self.address + start)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let context = self.device.context();
        context.record_err(context.bind_to_thread());
        // SAFETY: the address came from `malloc_sync` and is freed once. The driver waits for work that uses it.
        context.record_err(unsafe { result::free_sync(self.address) });
    }
}

/// Some bytes of device memory, for a call that reads or writes them. What one call writes and another reads is ordered
/// by their stream; the memory lives until the calls are done, since freeing it waits for the device.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    pub(super) address: u64,
    pub(super) bytes: u64,
    memory: PhantomData<&'a Buffer>,
}

impl Part<'_> {
    /// Bytes at any device address, such as another library's.
    ///
    /// # Safety
    /// They must be device memory that lives until the calls that take them are done; for a captured call, until its last
    /// replay is.
    pub const unsafe fn from_raw(address: u64, bytes: u64) -> Self {
        Self { address, bytes, memory: PhantomData }
    }

    /// How many.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The device address of the first.
    pub const fn address(&self) -> u64 {
        self.address
    }
}

impl Buffer {
    /// `bytes` bytes from `start` on.
    ///
    /// # Errors
    /// [`GpuError::Range`].
    pub fn part(&self, start: u64, bytes: u64) -> Result<Part<'_>, GpuError> {
        Ok(Part { address: self.range(start, bytes)?, bytes, memory: PhantomData })
    }

    /// All bytes.
    pub fn all(&self) -> Part<'_> {
        Part { address: self.address, bytes: self.bytes, memory: PhantomData }
    }
}

/// Page-locked host memory, which the device copies from without the host's help.
#[derive(Debug)]
pub(super) struct Pinned {
    device: Device,
    start: *mut u8,
    bytes: usize,
}

// SAFETY: the memory is owned, and only reached through `&self` to read and `&mut self` to write.
unsafe impl Send for Pinned {}
// SAFETY: as above.
unsafe impl Sync for Pinned {}

impl Pinned {
    pub(super) fn new(device: &Device, bytes: usize) -> Result<Self, GpuError> {
        device.context().bind_to_thread().doing("use the device")?;
        // SAFETY: the memory is raw bytes, and set just below. No flags: for this context only.
        let start = unsafe { result::malloc_host(bytes.max(1), 0) }.doing("allocate pinned host memory")?;
        let start = start.cast::<u8>();
        // SAFETY: the allocation is that long.
        unsafe { std::ptr::write_bytes(start, 0, bytes.max(1)) };
        Ok(Self { device: device.clone(), start, bytes })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: the allocation is that long and was initialised; writers need `&mut self`.
        unsafe { std::slice::from_raw_parts(self.start, self.bytes) }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` keeps everybody else out.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.bytes) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let context = self.device.context();
        context.record_err(context.bind_to_thread());
        // SAFETY: the address came from `malloc_host` and is freed once. Its owner has waited for the copies from it.
        context.record_err(unsafe { result::free_host(self.start.cast()) });
    }
}
