//! Device memory, pinned host memory, and views of tensors in it.

use std::marker::PhantomData;

use cudarc::driver::result;

use super::error::Doing;
use super::{Device, GpuError, Stream};
use crate::attention::View;

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
    /// What the driver says.
    pub fn fill(&mut self, stream: &Stream, value: u8) -> Result<(), GpuError> {
        stream.bind(&self.device)?;
        if self.bytes == 0 {
            return Ok(());
        }
        // SAFETY: the range is this allocation, and any byte is a valid one.
        unsafe { result::memset_d8_async(self.address, value, self.bytes as usize, stream.raw()) }
            .doing("fill memory")
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

    /// Copies pinned memory to the beginning of this, in stream order. The caller keeps it unchanged until then.
    pub(super) fn upload_pinned(&mut self, stream: &Stream, from: &Pinned) -> Result<(), GpuError> {
        let address = self.range(0, from.bytes().len() as u64)?;
        stream.bind(&self.device)?;
        // SAFETY: the target range is within this allocation; the source is kept by the caller until it was read.
        unsafe { result::memcpy_htod_async(address, from.bytes(), stream.raw()) }.doing("copy to the device")
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

    /// Copies all of this to the beginning of `to`, in stream order.
    ///
    /// # Errors
    /// [`GpuError::Range`] if `to` is smaller, or what the driver says.
    pub fn copy_to(&self, stream: &Stream, to: &mut Self) -> Result<(), GpuError> {
        let address = to.range(0, self.bytes)?;
        stream.bind(&self.device)?;
        stream.bind(&to.device)?;
        // SAFETY: both ranges are within their allocations, which differ: `to` is borrowed mutably.
        unsafe { result::memcpy_dtod_async(address, self.address, self.bytes as usize, stream.raw()) }
            .doing("copy on the device")
    }

    /// A tensor of 2-byte elements in this buffer, to read: `view.address` counts bytes from the buffer's start.
    ///
    /// # Errors
    /// [`GpuError::Range`] if some of it would be outside.
    pub fn tensor(&self, view: View, head_dim: u32) -> Result<Tensor<'_>, GpuError> {
        Ok(Tensor { view: self.locate(view, head_dim, 2)?, memory: PhantomData })
    }

    /// A tensor of 2-byte elements in this buffer, to write: `view.address` counts bytes from the buffer's start.
    ///
    /// # Errors
    /// [`GpuError::Range`] if some of it would be outside.
    pub fn tensor_mut(&mut self, view: View, head_dim: u32) -> Result<TensorMut<'_>, GpuError> {
        Ok(TensorMut { view: self.locate(view, head_dim, 2)?, memory: PhantomData })
    }

    /// A log-sum-exp, `[rows, heads]` f32, in this buffer: `view.address` counts bytes from the buffer's start.
    ///
    /// # Errors
    /// [`GpuError::Range`] if some of it would be outside.
    pub fn lse_mut(&mut self, view: View) -> Result<TensorMut<'_>, GpuError> {
        Ok(TensorMut { view: self.locate(view, 1, 4)?, memory: PhantomData })
    }

    fn locate(&self, view: View, head_dim: u32, element_bytes: u64) -> Result<View, GpuError> {
        let bytes = view.extent(head_dim).and_then(|elements| elements.checked_mul(element_bytes));
        let address = self.range(view.address, bytes.unwrap_or(u64::MAX))?;
        Ok(View { address, ..view })
    }

    /// The address of a range of bytes that must be inside.
    fn range(&self, start: u64, bytes: u64) -> Result<u64, GpuError> {
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

/// A tensor in device memory that a call reads: `[rows, heads, head_dim]`.
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'a> {
    pub(super) view: View,
    memory: PhantomData<&'a Buffer>,
}

impl Tensor<'_> {
    /// A tensor at any device address, such as one of another library's.
    ///
    /// # Safety
    /// All of `view`, in elements of the artifact's type, must be device memory that lives, and that nothing writes,
    /// until the calls that read it are done; for a captured call, until its last replay is.
    pub unsafe fn from_raw(view: View) -> Self {
        Self { view, memory: PhantomData }
    }
}

/// A tensor in device memory that a call writes: `[rows, heads, head_dim]`, or `[rows, heads]` for the log-sum-exp.
#[derive(Debug)]
pub struct TensorMut<'a> {
    pub(super) view: View,
    memory: PhantomData<&'a mut Buffer>,
}

impl TensorMut<'_> {
    /// A tensor at any device address, such as one of another library's.
    ///
    /// # Safety
    /// All of `view`, in elements of the artifact's type (f32 for the log-sum-exp), must be device memory that lives,
    /// and that nothing else reads or writes, until the calls that write it are done; for a captured call, until its
    /// last replay is.
    pub unsafe fn from_raw(view: View) -> Self {
        Self { view, memory: PhantomData }
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
