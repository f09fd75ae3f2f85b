//! Parts of device memory: where a call reads or writes, and what is copied there and back. A part is within its memory.

use std::ops::Range;

use cudarc::driver::result;

use super::error::Doing;
use super::{Device, GpuError, Stream};

/// Some bytes of device memory, for a call that reads or writes them. What one call writes and another reads is ordered
/// by their stream; the memory lives until the calls are done, since freeing it waits for the device.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    pub(super) address: u64,
    pub(super) bytes: u64,
    /// The device of the memory; unknown for another library's memory.
    device: Option<&'a Device>,
}

impl<'a> Part<'a> {
    pub(super) const fn of(device: &'a Device, address: u64, bytes: u64) -> Self {
        Self { address, bytes, device: Some(device) }
    }

    /// Bytes at any device address, such as another library's.
    ///
    /// # Safety
    /// They must be device memory that lives until the calls that take them are done; for a captured call, until its last
    /// replay is.
    pub const unsafe fn from_raw(address: u64, bytes: u64) -> Self {
        Self { address, bytes, device: None }
    }

    /// How many.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The device address of the first.
    pub const fn address(&self) -> u64 {
        self.address
    }

    /// Some of them.
    ///
    /// # Errors
    /// [`GpuError::Range`].
    pub fn part(self, bytes: Range<u64>) -> Result<Self, GpuError> {
        if bytes.start > bytes.end || bytes.end > self.bytes {
            return Err(GpuError::Range { start: bytes.start, end: bytes.end, bytes: self.bytes });
        }
        Ok(Self { address: self.address + bytes.start, bytes: bytes.end - bytes.start, ..self })
    }

    /// Sets every byte to `value`, in stream order.
    ///
    /// # Errors
    /// Any error of the driver.
    pub fn fill(self, stream: &Stream, value: u8) -> Result<(), GpuError> {
        self.bind(stream)?;
        if self.bytes == 0 {
            return Ok(());
        }
        // SAFETY: the bytes are device memory, and any value of a byte is a valid one.
        unsafe { result::memset_d8_async(self.address, value, self.bytes as usize, stream.raw()) }
            .doing("fill memory")
    }

    /// Fills it with repetitions of `pattern`, which lies outside it, in stream order.
    ///
    /// # Errors
    /// [`GpuError::Range`] for a pattern without bytes, or what the driver says.
    pub fn repeat(self, stream: &Stream, pattern: Part<'_>) -> Result<(), GpuError> {
        let mut filled = pattern.bytes.min(self.bytes);
        if filled < self.bytes.min(1) {
            return Err(GpuError::Range { start: 0, end: 1, bytes: pattern.bytes });
        }
        pattern.part(0..filled)?.copy_to(stream, self)?;
        // What is there is copied behind itself, twice as much each time.
        while filled < self.bytes {
            let more = filled.min(self.bytes - filled);
            self.part(0..more)?.copy_to(stream, self.part(filled..filled + more)?)?;
            filled += more;
        }
        Ok(())
    }

    /// Copies `from` to its beginning, and waits for it.
    ///
    /// # Errors
    /// [`GpuError::Range`], or what the driver says.
    pub fn upload(self, stream: &Stream, from: &[u8]) -> Result<(), GpuError> {
        // SAFETY: the source lives until the copy is waited for below.
        unsafe { self.upload_async(stream, from) }?;
        stream.synchronize()
    }

    /// Copies its beginning to `to`, and waits for it.
    ///
    /// # Errors
    /// [`GpuError::Range`], or what the driver says, of this or of earlier work of the stream.
    pub fn download(self, stream: &Stream, to: &mut [u8]) -> Result<(), GpuError> {
        // SAFETY: the target lives until the copy is waited for below.
        unsafe { self.download_async(stream, to) }?;
        stream.synchronize()
    }

    /// As [`upload`](Self::upload), in stream order.
    ///
    /// # Safety
    /// `from` must live, unchanged, until it was copied.
    pub(super) unsafe fn upload_async(self, stream: &Stream, from: &[u8]) -> Result<(), GpuError> {
        let to = self.part(0..from.len() as u64)?;
        self.bind(stream)?;
        // SAFETY: the target is device memory; the source is kept by the caller.
        unsafe { result::memcpy_htod_async(to.address, from, stream.raw()) }.doing("copy to the device")
    }

    /// As [`download`](Self::download), in stream order.
    ///
    /// # Safety
    /// `to` must live, and nobody may touch it, until it was written.
    pub(super) unsafe fn download_async(self, stream: &Stream, to: &mut [u8]) -> Result<(), GpuError> {
        let from = self.part(0..to.len() as u64)?;
        self.bind(stream)?;
        // SAFETY: the source is device memory; the target is kept by the caller.
        unsafe { result::memcpy_dtoh_async(to, from.address, stream.raw()) }.doing("copy from the device")
    }

    /// Copies all of it to the beginning of another part, which it does not overlap, in stream order.
    pub(super) fn copy_to(self, stream: &Stream, to: Part<'_>) -> Result<(), GpuError> {
        let to = to.part(0..self.bytes)?;
        self.bind(stream)?;
        to.bind(stream)?;
        // SAFETY: both are device memory, and do not overlap by the caller's promise, without which bytes would be copied
        // in no certain order and nothing else would happen.
        unsafe { result::memcpy_dtod_async(to.address, self.address, self.bytes as usize, stream.raw()) }
            .doing("copy on the device")
    }

    fn bind(self, stream: &Stream) -> Result<(), GpuError> {
        self.device.map_or_else(|| stream.bind_own(), |device| stream.bind(device))
    }
}
