//! Device memory and pinned host memory.

use std::ops::Range;

use cudarc::driver::result;

use super::error::Doing;
use super::{Device, GpuError, Part, Stream};

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
        self.all().fill(stream, value)
    }

    /// Copies `from` to its beginning, and waits for it.
    ///
    /// # Errors
    /// [`GpuError::Range`], or what the driver says.
    pub fn upload(&mut self, stream: &Stream, from: &[u8]) -> Result<(), GpuError> {
        self.all().upload(stream, from)
    }

    /// Copies its beginning to `to`, and waits for it.
    ///
    /// # Errors
    /// [`GpuError::Range`], or what the driver says, of this or of earlier work of the stream.
    pub fn download(&self, stream: &Stream, to: &mut [u8]) -> Result<(), GpuError> {
        self.all().download(stream, to)
    }

    /// All bytes.
    pub fn all(&self) -> Part<'_> {
        Part::of(&self.device, self.address, self.bytes)
    }

    /// Some of the bytes.
    ///
    /// # Errors
    /// [`GpuError::Range`].
    pub fn part(&self, bytes: Range<u64>) -> Result<Part<'_>, GpuError> {
        self.all().part(bytes)
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
