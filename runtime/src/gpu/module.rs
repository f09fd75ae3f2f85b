//! One kernel on a device: loaded from its cubin, checked against the manifest, ready to launch.
//!
//! Loading runs no code of the cubin, launching does: a cubin is trusted as much as the program that loads it.

use std::ffi::c_void;

use cudarc::driver::sys::{self, CUfunction_attribute as Attribute, CUresult};
use cudarc::driver::{CudaFunction, DriverError};
use cudarc::nvrtc::Ptx;

use super::error::{Doing, is_out_of_memory};
use super::{Device, GpuError, Stream, tensor_map};
use crate::artifact::{Kernel, LoadError, Resources};
use crate::attention::{Launch, WaitsFor};
use crate::glue;
use crate::launch::LaunchRule;

/// A kernel in a device's memory.
#[derive(Debug)]
pub(super) struct LoadedKernel {
    device: Device,
    function: CudaFunction,
    rule: LaunchRule,
}

impl LoadedKernel {
    /// Loads `kernel` from its machine code.
    pub(super) fn load(device: &Device, kernel: &Kernel, cubin: &[u8]) -> Result<Self, GpuError> {
        let Kernel { symbol, launch, .. } = kernel;
        check_limits(kernel, device.info().shared_bytes_per_cta)?;
        let refused = |source| refusal(device, symbol, cubin.len(), source);
        let module = device.context().load_module(Ptx::from_binary(cubin.to_vec())).map_err(refused)?;
        let function = module.load_function(symbol).map_err(|source| match source.0 {
            CUresult::CUDA_ERROR_NOT_FOUND => GpuError::from(LoadError::Symbol {
                symbol: symbol.clone(),
                reason: "not in its cubin".to_owned(),
            }),
            _ => refusal(device, symbol, cubin.len(), source),
        })?;
        let read = |attribute| -> Result<u32, GpuError> {
            let value = function.get_attribute(attribute).doing("read a kernel's resources")?;
            Ok(value.unsigned_abs())
        };
        check_resources(
            kernel,
            &Loaded {
                registers: read(Attribute::CU_FUNC_ATTRIBUTE_NUM_REGS)?,
                local_bytes: read(Attribute::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES)?,
                shared_bytes: read(Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?,
                most_threads: read(Attribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?,
            },
        )?;
        let set = |attribute, value| function.set_attribute(attribute, value).doing("set up a kernel");
        // Above 48 KiB a kernel has to opt in; and the carve-out of L1 has to leave room for several CTAs.
        set(Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, launch.shared_bytes as i32)?;
        set(Attribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, 100)?;
        Ok(Self { device: device.clone(), function, rule: *launch })
    }

    /// CTAs of it that run on a multiprocessor at once.
    pub(super) fn ctas_per_sm(&self) -> Result<u32, GpuError> {
        let LaunchRule { threads, shared_bytes, .. } = self.rule;
        self.function
            .occupancy_max_active_blocks_per_multiprocessor(threads, shared_bytes as usize, None)
            .doing("tell a kernel's occupancy")
    }

    /// Gives one launch of attention to `stream`.
    ///
    /// # Safety
    /// `launch` must be one of this kernel, and its block what the kernel can be called with: every address in it device
    /// memory of the size that `abi.rs` says, for as long as the work takes.
    pub(super) unsafe fn launch(&self, stream: &Stream, launch: &Launch) -> Result<(), GpuError> {
        let Launch { task: _, grid, threads, shared_bytes, waits_for, ref block } = *launch;
        let block = block.bytes(tensor_map::encode)?;
        // SAFETY: the caller's promise.
        unsafe { self.submit(stream, &Submission { grid, threads, shared_bytes, waits_for, block }) }
    }

    /// Gives one launch of an operation of the engine to `stream`.
    ///
    /// # Safety
    /// `launch` must be one of this kernel, and every range that [`glue::Sizes::ranges`] names for it device memory for as
    /// long as the work takes.
    pub(super) unsafe fn launch_glue(&self, stream: &Stream, launch: &glue::Launch) -> Result<(), GpuError> {
        let glue::Launch { grid, threads, shared_bytes, waits_for, block } = *launch;
        let block = block.to_bytes();
        // SAFETY: the caller's promise.
        unsafe { self.submit(stream, &Submission { grid, threads, shared_bytes, waits_for, block }) }
    }

    /// # Safety
    /// The block must be what the kernel can be called with on this grid.
    unsafe fn submit(&self, stream: &Stream, launch: &Submission) -> Result<(), GpuError> {
        stream.bind(&self.device)?;
        let [x, y, z] = launch.grid;
        let mut early = sys::CUlaunchAttribute {
            id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
            pad: [0; 4],
            value: sys::CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
        };
        let config = sys::CUlaunchConfig {
            gridDimX: x,
            gridDimY: y,
            gridDimZ: z,
            blockDimX: launch.threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: launch.shared_bytes,
            hStream: stream.raw(),
            attrs: &raw mut early,
            numAttrs: u32::from(launch.waits_for == WaitsFor::AllButTheLast),
        };
        // SAFETY: the function and its module live in `self`. The kernel takes exactly one parameter, a block of these
        // bytes (its size and version were checked on opening), which the driver copies before it returns, as it does the
        // configuration and its one attribute. What the kernel does with it is the caller's promise.
        unsafe {
            sys::cuLaunchKernelEx(
                &raw const config,
                self.function.cu_function(),
                [launch.block.as_ptr().cast_mut().cast::<c_void>()].as_mut_ptr(),
                std::ptr::null_mut(),
            )
        }
        .result()
        .doing("launch a kernel")
    }
}

/// A launch as the driver takes it.
struct Submission {
    grid: [u32; 3],
    threads: u32,
    shared_bytes: u32,
    waits_for: WaitsFor,
    block: Vec<u8>,
}

/// The driver's report on a loaded kernel.
#[derive(Clone, Copy, Debug)]
struct Loaded {
    registers: u32,
    local_bytes: u32,
    shared_bytes: u32,
    most_threads: u32,
}

fn resource(kernel: &Kernel, what: &'static str, found: u32, expected: u32) -> LoadError {
    let symbol = kernel.symbol.clone();
    LoadError::Resources { symbol, what, found: u64::from(found), expected: u64::from(expected) }
}

/// Whether a kernel asks for no more shared memory than the device gives.
fn check_limits(kernel: &Kernel, shared_bytes_per_cta: u32) -> Result<(), LoadError> {
    let needed = kernel.launch.shared_bytes.saturating_add(kernel.resources.static_shared_bytes);
    if needed > shared_bytes_per_cta {
        let what = "bytes of shared memory of a CTA, more than the device has";
        return Err(resource(kernel, what, needed, shared_bytes_per_cta));
    }
    Ok(())
}

/// Whether a loaded kernel is the one that the manifest describes.
fn check_resources(kernel: &Kernel, loaded: &Loaded) -> Result<(), LoadError> {
    let Resources { registers, stack_bytes, static_shared_bytes, .. } = kernel.resources;
    // Spills live in the stack frame, which the driver hands out in steps of 16 bytes.
    let frame = |bytes: u32| bytes.next_multiple_of(16);
    for (what, found, expected) in [
        ("registers of a thread", loaded.registers, registers),
        ("bytes of local memory of a thread", frame(loaded.local_bytes), frame(stack_bytes)),
        ("bytes of static shared memory of a CTA", loaded.shared_bytes, static_shared_bytes),
    ] {
        if found != expected {
            return Err(resource(kernel, what, found, expected));
        }
    }
    if loaded.most_threads < kernel.launch.threads {
        let what = "threads of a CTA at most";
        return Err(resource(kernel, what, loaded.most_threads, kernel.launch.threads));
    }
    Ok(())
}

/// The error of a cubin that the driver does not take.
fn refusal(device: &Device, symbol: &str, bytes: usize, source: DriverError) -> GpuError {
    let what = format!("kernel `{symbol}`");
    match (is_out_of_memory(source), device.memory()) {
        (true, Ok(memory)) => {
            LoadError::DeviceMemory { what, needed: bytes as u64, free: memory.free }.into()
        }
        _ => LoadError::Symbol { symbol: symbol.to_owned(), reason: source.to_string() }.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Loaded, check_limits, check_resources};
    use crate::arch::Arch;
    use crate::artifact::{Kernel, Resources, Role};
    use crate::attention::Block;
    use crate::launch::{Family, Grid, LaunchRule, Phase};

    fn kernel() -> Kernel {
        Kernel {
            symbol: "moac_prefill".to_owned(),
            role: Role::attention(Family::Sm80, Phase::Prefill),
            arch: Arch::Sm90,
            abi: Block::abi(Family::Sm80, Phase::Prefill),
            launch: LaunchRule { threads: 128, shared_bytes: 100_000, grid: Grid::Tiles { rows: 64 } },
            resources: Resources { registers: 168, static_shared_bytes: 32, ..Resources::default() },
        }
    }

    #[test]
    fn a_kernel_that_is_not_the_described_one_is_refused() {
        let same = Loaded { registers: 168, local_bytes: 0, shared_bytes: 32, most_threads: 384 };
        check_resources(&kernel(), &same).unwrap();
        let error = |loaded: Loaded| check_resources(&kernel(), &loaded).unwrap_err().to_string();
        assert_eq!(
            error(Loaded { registers: 255, ..same }),
            "kernel `moac_prefill` takes 255 registers of a thread, expected 168"
        );
        assert!(
            error(Loaded { local_bytes: 8, ..same })
                .contains("16 bytes of local memory of a thread, expected 0")
        );
        assert!(error(Loaded { shared_bytes: 0, ..same }).contains("0 bytes of static shared memory"));
        assert!(
            error(Loaded { most_threads: 96, ..same }).contains("96 threads of a CTA at most, expected 128")
        );
    }

    #[test]
    fn more_shared_memory_than_the_device_has_is_refused() {
        check_limits(&kernel(), 100_032).unwrap();
        let error = check_limits(&kernel(), 100_031).unwrap_err().to_string();
        assert!(error.contains("takes 100032 bytes of shared memory of a CTA"), "{error}");
    }
}
