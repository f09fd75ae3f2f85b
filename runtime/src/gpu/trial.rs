//! Single launches with a parameter block of the caller's own making: what verification runs kernels with, where the
//! calls of a layer would leave it no choice of grids, strides and rows.
//!
//! A [`Trial`] owns all device memory that its launches reach, and before each of them checks that the block, and the
//! per-request arrays that it points to, stay inside. It waits for every launch and is not made for speed.

use std::collections::BTreeMap;

use super::memory::Pinned;
use super::module::LoadedKernel;
use super::{Buffer, Device, GpuError, Part, Stream};
use crate::abi::Task;
use crate::artifact::{Kernel, Role};
use crate::attention::{Block, KernelFacts, Launch};
use crate::geometry::LayerGeometry;
use crate::glue::{self, Op, Sizes};
use crate::launch::{Family, Grid, Phase, counters_bytes, partials_bytes};

/// A device with memory of its own, by address.
#[derive(Debug)]
pub struct Trial {
    device: Device,
    stream: Stream,
    memory: BTreeMap<u64, Buffer>,
    staging: Option<Pinned>,
}

/// A kernel of attention that a [`Trial`] runs.
#[derive(Debug)]
pub struct TrialKernel {
    kernel: LoadedKernel,
    facts: KernelFacts,
    head_dim: u32,
    layer: LayerGeometry,
}

/// A kernel of the engine that a [`Trial`] runs.
#[derive(Debug)]
pub struct TrialGlue {
    kernel: LoadedKernel,
    op: Op,
    sizes: Sizes,
}

impl TrialGlue {
    /// Loads the machine code of `kernel`, compiled for `sizes`.
    ///
    /// # Errors
    /// If it is not the kernel that the manifest describes, or what the driver says.
    pub fn load(device: &Device, kernel: &Kernel, cubin: &[u8], sizes: Sizes) -> Result<Self, GpuError> {
        let Role::Glue(op) = kernel.role else { return Err(GpuError::Foreign { what: "the kernel" }) };
        Ok(Self { kernel: LoadedKernel::load(device, kernel, cubin)?, op, sizes })
    }
}

impl TrialKernel {
    /// Loads the machine code of `kernel`, compiled for `layer`.
    ///
    /// # Errors
    /// If it is not the kernel that the manifest describes, or what the driver says.
    pub fn load(
        device: &Device,
        kernel: &Kernel,
        cubin: &[u8],
        layer: &LayerGeometry,
        head_dim: u32,
    ) -> Result<Self, GpuError> {
        let facts = kernel.facts().ok_or(GpuError::Foreign { what: "the kernel" })?;
        let loaded = LoadedKernel::load(device, kernel, cubin)?;
        Ok(Self { kernel: loaded, facts, head_dim, layer: layer.clone() })
    }
}

impl Trial {
    /// A trial on a device.
    ///
    /// # Errors
    /// Any error of the driver.
    pub fn new(device: &Device) -> Result<Self, GpuError> {
        Ok(Self {
            device: device.clone(),
            stream: device.new_stream()?,
            memory: BTreeMap::new(),
            staging: None,
        })
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The address of `bytes` of memory, with whatever was in it.
    ///
    /// # Errors
    /// [`GpuError::OutOfMemory`], or what the driver says.
    pub fn alloc(&mut self, bytes: u64, what: &str) -> Result<u64, GpuError> {
        let buffer = self.device.alloc(bytes, what)?;
        let address = buffer.address();
        self.memory.insert(address, buffer);
        Ok(address)
    }

    /// Frees the memory that starts at an address.
    pub fn free(&mut self, address: u64) {
        self.memory.remove(&address);
    }

    /// Frees all memory.
    pub fn clear(&mut self) {
        self.memory.clear();
    }

    /// Sets every byte of the memory that starts at an address.
    ///
    /// # Errors
    /// [`GpuError::Range`] if there is none, or an error of the driver.
    pub fn fill(&mut self, address: u64, value: u8) -> Result<(), GpuError> {
        let buffer = self.memory.get(&address).ok_or_else(|| outside(address, 0))?;
        buffer.all().fill(&self.stream, value)
    }

    /// Writes `bytes` bytes that `fill` makes, in memory that the device copies from at its full speed.
    ///
    /// # Errors
    /// [`GpuError::Range`], [`GpuError::OutOfMemory`] of the host, or what the driver says.
    pub fn write(
        &mut self,
        address: u64,
        bytes: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<(), GpuError> {
        let mut staging = self.staging(bytes)?;
        let part = &mut staging.bytes_mut()[..bytes];
        fill(part);
        let to = self.at(address, bytes as u64);
        let written = to.and_then(|to| to.upload(&self.stream, part));
        self.staging = Some(staging);
        written
    }

    /// Reads bytes, which stay until the next read or write.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn read(&mut self, address: u64, bytes: usize) -> Result<&mut [u8], GpuError> {
        let mut staging = self.staging(bytes)?;
        let part = &mut staging.bytes_mut()[..bytes];
        let from = self.at(address, bytes as u64);
        let read = from.and_then(|from| from.download(&self.stream, part));
        let staging = self.staging.insert(staging);
        read.map(|()| &mut staging.bytes_mut()[..bytes])
    }

    /// Pinned memory of at least so many bytes, taken out of `self`.
    fn staging(&mut self, bytes: usize) -> Result<Pinned, GpuError> {
        match self.staging.take() {
            Some(staging) if staging.bytes().len() >= bytes => Ok(staging),
            smaller => {
                drop(smaller);
                Pinned::new(&self.device, bytes.next_power_of_two())
            }
        }
    }

    /// Runs a kernel to its end.
    ///
    /// # Errors
    /// [`GpuError::Range`] if anything that the block names is not in this trial's memory, or what the driver says.
    pub fn launch(&self, kernel: &TrialKernel, launch: &Launch) -> Result<(), GpuError> {
        self.check(kernel, launch)?;
        // SAFETY: every address and extent in the block was just checked to be within memory that `self` owns, and the
        // launch is waited for below while `self` is borrowed.
        unsafe { kernel.kernel.launch(&self.stream, launch) }?;
        self.stream.synchronize()
    }

    /// Runs a kernel of the engine to its end. Tokens, rows and lanes that the tables name are the kernel's to check.
    ///
    /// # Errors
    /// [`GpuError::Range`] if anything that the block names is not in this trial's memory, or what the driver says.
    pub fn launch_glue(&self, kernel: &TrialGlue, launch: &glue::Launch) -> Result<(), GpuError> {
        if launch.block.op() != kernel.op {
            return Err(GpuError::Foreign { what: "the parameter block" });
        }
        for (address, bytes) in kernel.sizes.ranges(&launch.block) {
            self.inside(address, bytes)?;
        }
        // SAFETY: every range that the launch may touch was just checked to be within memory that `self` owns, and the
        // launch is waited for below while `self` is borrowed.
        unsafe { kernel.kernel.launch_glue(&self.stream, launch) }?;
        self.stream.synchronize()
    }

    /// Checks that a launch reaches nothing but this trial's memory.
    fn check(&self, kernel: &TrialKernel, launch: &Launch) -> Result<(), GpuError> {
        let (params, grid) = (launch.block.call(), launch.grid);
        let layer = &kernel.layer;
        let KernelFacts { phase, family, rule } = kernel.facts;
        let fits = matches!(
            (family, phase, &launch.block),
            (Family::Sm80, _, Block::Portable(_))
                | (Family::Sm90, Phase::Prefill, Block::HopperPrefill { .. })
                | (Family::Sm90, Phase::Decode, Block::HopperDecode { .. })
        );
        if !fits {
            return Err(GpuError::Foreign { what: "the parameter block" });
        }
        let heads = layer.group_of_head.len() as u64;
        let kv_heads = layer.buckets.first().map_or(0, |bucket| bucket.kv_span.len()) as u64;
        let dim = u64::from(kernel.head_dim);
        let batch = u64::from(params.batch.unsigned_abs());
        let slabs = self.array::<8>(params.slabs, batch)?;
        let starts = self.array::<8>(params.starts, batch)?;
        let buckets = self.array::<4>(params.buckets, batch)?;
        let cached = self.array::<4>(params.cached, batch)?;
        let chunks = self.array::<4>(params.chunk, batch)?;
        for request in (0..batch as usize).filter(|&request| i32::from_le_bytes(chunks[request]) != 0) {
            let chunk = i32::from_le_bytes(chunks[request]);
            let (start, cached) = (i64::from_le_bytes(starts[request]), i32::from_le_bytes(cached[request]));
            let bucket = layer.buckets.get(i32::from_le_bytes(buckets[request]) as usize);
            let row = bucket.map(|bucket| (bucket.length, i64::from(cached) + i64::from(chunk)));
            let sound = chunk > 0 && start >= 0 && cached >= 0;
            let Some((length, end)) = row.filter(|_| sound) else { return Err(outside(0, 0)) };
            if end > i64::from(length) {
                return Err(outside(0, end.unsigned_abs()));
            }
            let index = i32::from_le_bytes(buckets[request]) as usize;
            let rings = layer.rows(index) * dim * 2;
            self.inside(u64::from_le_bytes(slabs[request]), params.layer_base[index].saturating_add(rings))?;
            let last = start.unsigned_abs() + u64::from(chunk.unsigned_abs()) - 1;
            let tensors = [
                (params.q, params.q_token, params.q_head, heads, dim, 2),
                (params.k, params.k_token, params.k_head, kv_heads, dim, 2),
                (params.v, params.v_token, params.v_head, kv_heads, dim, 2),
                (params.o, params.o_token, params.o_head, heads, dim, 2),
                (params.lse, params.lse_token, params.lse_head, heads, 1, 4),
            ];
            for (address, token, head, heads, dim, element) in tensors {
                if address == 0 && element == 4 {
                    continue;
                }
                let (Ok(token), Ok(head)) = (u64::try_from(token), u64::try_from(head)) else {
                    return Err(outside(address, 0));
                };
                let elements = last.saturating_mul(token).saturating_add((heads - 1).saturating_mul(head));
                self.inside(address, elements.saturating_add(dim).saturating_mul(element))?;
            }
        }
        if params.task == Task::Attend as i32 && !matches!(rule.grid, Grid::Tiles { .. }) {
            self.inside(params.counters, counters_bytes(batch as u32, kv_heads as u32))?;
        }
        if phase == Phase::Decode && params.task == Task::Attend as i32 {
            let group = (heads / kv_heads.max(1)) as u32;
            self.inside(params.partials, partials_bytes(grid[0], group, kernel.head_dim))?;
        }
        match &launch.block {
            Block::Portable(_) => {}
            Block::HopperPrefill { maps, .. } => {
                for map in maps {
                    let [columns, rows, panels, heads] = map.extents;
                    let [row, panel, head] = map.strides;
                    let last = [(rows, row), (panels, panel), (heads, head)]
                        .into_iter()
                        .map(|(extent, stride)| extent.saturating_sub(1).saturating_mul(stride))
                        .fold(columns.saturating_mul(2), u64::saturating_add);
                    self.inside(map.address, last)?;
                }
            }
            Block::HopperDecode { first_tiles, .. } => {
                // The kernel finds requests by them: they have to be those of the requests checked above.
                let found = self.array::<4>(*first_tiles, batch + 1)?;
                let mut before = 0;
                for request in 0..=batch as usize {
                    if i32::from_le_bytes(found[request]) != before {
                        return Err(outside(*first_tiles, 0));
                    }
                    let Some(chunk) = chunks.get(request) else { break };
                    if i32::from_le_bytes(*chunk) != 0 {
                        let (bucket, length) = (buckets[request], i32::from_le_bytes(cached[request]) + 1);
                        before += layer.tiles(i32::from_le_bytes(bucket) as usize, length as u32) as i32;
                    }
                }
            }
        }
        Ok(())
    }

    /// `count` numbers of `N` bytes.
    fn array<const N: usize>(&self, address: u64, count: u64) -> Result<Vec<[u8; N]>, GpuError> {
        let mut bytes = vec![0; count as usize * N];
        self.at(address, bytes.len() as u64)?.download(&self.stream, &mut bytes)?;
        Ok(bytes.chunks_exact(N).map(|chunk| chunk.try_into().expect("a chunk is N bytes")).collect())
    }

    fn inside(&self, address: u64, bytes: u64) -> Result<(), GpuError> {
        self.at(address, bytes).map(|_| ())
    }

    /// The memory at an address.
    fn at(&self, address: u64, bytes: u64) -> Result<Part<'_>, GpuError> {
        let (start, buffer) =
            self.memory.range(..=address).next_back().ok_or_else(|| outside(address, bytes))?;
        let offset = address - start;
        buffer.part(offset..offset.saturating_add(bytes))
    }
}

fn outside(address: u64, bytes: u64) -> GpuError {
    GpuError::Range { start: address, end: address.saturating_add(bytes), bytes: 0 }
}
