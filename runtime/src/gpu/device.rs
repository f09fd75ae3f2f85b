//! Devices: what the driver finds, and one of them opened.

use std::sync::Arc;

use cudarc::driver::result::device as driver_device;
use cudarc::driver::sys::CUdevice_attribute as Attribute;
use cudarc::driver::{CudaContext, result, sys};
use serde::Serialize;

use super::error::{Doing, is_out_of_memory};
use super::{Buffer, DriverVersion, GpuError, Stream, driver};

/// The properties of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceInfo {
    /// The driver's number of it.
    pub ordinal: usize,
    /// Its name.
    pub name: String,
    /// Compute capability, `[major, minor]`.
    pub capability: [u32; 2],
    /// Multiprocessors.
    pub sms: u32,
    /// Bytes of device memory.
    pub memory_bytes: u64,
    /// Bytes of the L2 cache.
    pub l2_bytes: u64,
    /// Bytes of shared memory that one CTA may opt in to.
    pub shared_bytes_per_cta: u32,
    /// The newest CUDA version that the driver supports, `[major, minor]`.
    pub driver: DriverVersion,
}

/// Device memory at one moment, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Free for everybody on the device.
    pub free: u64,
    /// All of it.
    pub total: u64,
}

/// A device, opened: cheap to clone, and shared between threads. It uses the device's primary context, as the
/// CUDA runtime and what is built on it do.
#[derive(Clone, Debug)]
pub struct Device {
    context: Arc<CudaContext>,
    info: Arc<DeviceInfo>,
}

impl Device {
    /// The devices that the driver finds, without opening any of them.
    ///
    /// # Errors
    /// [`GpuError::NoDriver`] where there is no driver; an empty list where there is a driver and no device.
    pub fn all() -> Result<Vec<DeviceInfo>, GpuError> {
        let version = driver::ensure()?;
        let count = driver_device::get_count().doing("count the devices")?;
        (0..count.unsigned_abs() as usize).map(|ordinal| describe(ordinal, version)).collect()
    }

    /// Opens the device number `ordinal`.
    ///
    /// # Errors
    /// [`GpuError::NoDriver`], [`GpuError::NoDevice`], or what the driver says.
    pub fn open(ordinal: usize) -> Result<Self, GpuError> {
        let version = driver::ensure()?;
        let count = driver_device::get_count().doing("count the devices")?.unsigned_abs() as usize;
        if ordinal >= count {
            return Err(GpuError::NoDevice { ordinal, count });
        }
        let context = CudaContext::new(ordinal).doing("open the device")?;
        Ok(Self { context, info: Arc::new(describe(ordinal, version)?) })
    }

    /// The device of a context that somebody else opened with cudarc, such as candle.
    ///
    /// # Errors
    /// Any error of the driver.
    pub fn from_context(context: Arc<CudaContext>) -> Result<Self, GpuError> {
        let info = describe(context.ordinal(), driver::ensure()?)?;
        Ok(Self { context, info: Arc::new(info) })
    }

    /// The properties of the device.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// The context, for use with cudarc.
    pub fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }

    /// Free and total memory, now.
    ///
    /// # Errors
    /// Any error of the driver.
    pub fn memory(&self) -> Result<Memory, GpuError> {
        let (free, total) = self.context.mem_get_info().doing("tell the free memory")?;
        Ok(Memory { free: free as u64, total: total as u64 })
    }

    /// A new stream, not ordered with any other.
    ///
    /// # Errors
    /// Any error of the driver.
    pub fn new_stream(&self) -> Result<Stream, GpuError> {
        Ok(Stream::from_cudarc(self.context.new_stream().doing("make a stream")?))
    }

    /// The default stream of the context. It cannot be captured.
    pub fn default_stream(&self) -> Stream {
        Stream::from_cudarc(self.context.default_stream())
    }

    /// Waits for all work of the device's context.
    ///
    /// # Errors
    /// Any error of the driver, from this call or from earlier asynchronous work.
    pub fn synchronize(&self) -> Result<(), GpuError> {
        self.context.synchronize().doing("finish the device's work")
    }

    /// Allocates `bytes` of device memory for `what`, with whatever was in it.
    ///
    /// # Errors
    /// [`GpuError::OutOfMemory`], which says what for, or what the driver says.
    pub fn alloc(&self, bytes: u64, what: &str) -> Result<Buffer, GpuError> {
        self.context.bind_to_thread().doing("use the device")?;
        // The driver has no allocation of 0 bytes, and no more than an address's worth.
        let granted = bytes.max(1);
        let out_of_memory =
            |free, total| GpuError::OutOfMemory { what: what.to_owned(), needed: bytes, free, total };
        let Ok(size) = usize::try_from(granted) else {
            let Memory { free, total } = self.memory()?;
            return Err(out_of_memory(free, total));
        };
        // SAFETY: the memory is raw bytes; every reader of it treats it as such.
        match unsafe { result::malloc_sync(size) } {
            Ok(address) => Ok(Buffer::new(self.clone(), address, bytes)),
            Err(error) if is_out_of_memory(error) => {
                let Memory { free, total } = self.memory()?;
                Err(out_of_memory(free, total))
            }
            Err(error) => Err(error).doing("allocate memory"),
        }
    }
}

fn describe(ordinal: usize, driver: DriverVersion) -> Result<DeviceInfo, GpuError> {
    let doing = "describe the device";
    let device = driver_device::get(i32::try_from(ordinal).unwrap_or(i32::MAX)).doing(doing)?;
    let attribute = |which: Attribute| -> Result<u32, GpuError> {
        // SAFETY: `device` came from the driver just now.
        let value = unsafe { driver_device::get_attribute(device, which) }.doing(doing)?;
        Ok(value.unsigned_abs())
    };
    // SAFETY: as above.
    let memory_bytes = unsafe { driver_device::total_mem(device) }.doing(doing)? as u64;
    Ok(DeviceInfo {
        ordinal,
        name: name(device)?,
        capability: [
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ],
        sms: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        memory_bytes,
        l2_bytes: u64::from(attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?),
        shared_bytes_per_cta: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        driver,
    })
}

fn name(device: sys::CUdevice) -> Result<String, GpuError> {
    driver_device::get_name(device).doing("describe the device")
}

#[cfg(test)]
mod tests {
    use super::Device;
    use crate::gpu::GpuError;

    /// Where there is no driver this must be an error, never cudarc's panic; where there is one, a list.
    #[test]
    fn devices_are_listed_or_the_driver_is_reported_missing() {
        match Device::all() {
            Ok(devices) => {
                assert!(devices.iter().enumerate().all(|(at, device)| device.ordinal == at));
                let beyond = Device::open(devices.len()).unwrap_err();
                assert!(
                    matches!(beyond, GpuError::NoDevice { ordinal, count } if ordinal == count),
                    "{beyond}"
                );
            }
            Err(error @ GpuError::NoDriver { .. }) => {
                assert!(error.to_string().contains("libcuda.so"), "{error}");
                assert!(matches!(Device::open(0), Err(GpuError::NoDriver { .. })));
            }
            // A driver without a device, as on build machines, does not start.
            Err(error) => assert!(matches!(error, GpuError::Driver { .. }), "{error}"),
        }
    }
}
