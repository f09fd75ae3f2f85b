//! The launches of a call of one layer: the one place that says how often a kernel runs, on which grid and with which parameters.

use super::block::{Block, TensorMap};
use super::{CallError, HeadShape, Table, Tensors, View};
use crate::abi::{MAX_BUCKETS, Params, Task};
use crate::geometry::Geometry;
use crate::launch::{Family, GridShape, LaunchRule, Phase};

/// Rows of the boxes that Hopper's prefill copies of q, and of k and v.
const QUERY_BOX_ROWS: u32 = 64;
const KEY_BOX_ROWS: u32 = 128;
/// A tensor copy's strides are below this many bytes.
const MAP_STRIDE_LIMIT: u64 = 1 << 40;
/// Kernels count rows, and what a box takes beyond the last, in 32 bits.
const MAP_ROWS_LIMIT: u64 = i32::MAX as u64 - 256;

/// The facts about a kernel that a launch depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelFacts {
    /// The phase it computes.
    pub phase: Phase,
    /// The family, which decides the parameter block.
    pub family: Family,
    /// Threads, shared memory and grid.
    pub rule: LaunchRule,
}

/// One launch of a kernel.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Its work.
    pub task: Task,
    /// CTAs in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a CTA.
    pub threads: u32,
    /// Bytes of dynamic shared memory of a CTA.
    pub shared_bytes: u32,
    /// The launch that must have ended before it begins.
    pub waits_for: WaitsFor,
    /// Its parameters.
    pub block: Block,
}

/// The launch that must have ended before another begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitsFor {
    /// All that was given to the stream before it.
    AllBefore,
    /// All but the kernel right before it, which may still run: the kernel itself waits for that one before it touches
    /// anything that another kernel of the step reads or writes. Until then it reads old keys and the step's table, which no
    /// kernel of the step before it writes.
    AllButTheLast,
}

/// The workspace of a launch: split results and counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scratch {
    /// [`partials_bytes`](crate::launch::partials_bytes) of device memory.
    pub partials: u64,
    /// [`counters_bytes`](crate::launch::counters_bytes) of device memory, zero.
    pub counters: u64,
}

/// A batch whose arrays are on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepTable {
    /// Where they lie.
    pub table: Table,
    /// Requests.
    pub batch: u32,
    /// Rows of the tensors that the requests take.
    pub rows: u64,
    /// New tokens of the request that has the most.
    pub longest_chunk: u32,
}

/// The facts shared by all calls of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerCall {
    /// Its heads.
    pub shape: HeadShape,
    /// The layer, by index among those of its artifact.
    pub layer: usize,
    /// Bytes from a slab's start to the layer's rings, by bucket.
    pub layer_base: [u64; MAX_BUCKETS],
}

impl LayerCall {
    /// The calls of `layer`.
    ///
    /// # Panics
    /// If the layer does not exist.
    pub fn new(geometry: &Geometry, layer: usize, head_dim: u32) -> Self {
        let own = &geometry.layers[layer];
        let mut layer_base = [0; MAX_BUCKETS];
        layer_base[..geometry.lengths.len()].copy_from_slice(&geometry.layer_base[layer]);
        let heads = own.group_of_head.len() as u32;
        let kv_heads = own.buckets[0].kv_span.len() as u32;
        Self { shape: HeadShape { heads, kv_heads, head_dim }, layer, layer_base }
    }

    /// The launches of a call on a device of `sms` multiprocessors, in order: prefill attends and then appends, decode does
    /// both at once. A prefill without new tokens has none.
    ///
    /// # Errors
    /// The first thing wrong with a tensor, or [`CallError::NotOneToken`].
    pub fn launches(
        &self,
        kernel: &KernelFacts,
        tensors: &Tensors,
        step: &StepTable,
        scratch: Scratch,
        sms: u32,
    ) -> Result<Vec<Launch>, CallError> {
        let tasks: &[Task] = match kernel.phase {
            Phase::Prefill => &[Task::Attend, Task::Fill],
            Phase::Decode => &[Task::Attend],
        };
        if kernel.phase == Phase::Decode && step.longest_chunk > 1 {
            return Err(CallError::NotOneToken { found: step.longest_chunk });
        }
        tensors.check(self.shape, step.rows)?;
        // A decode is launched all the same: a graph that holds it may serve requests that have a token.
        if kernel.phase == Phase::Prefill && step.longest_chunk == 0 {
            return Ok(Vec::new());
        }
        let HeadShape { heads, kv_heads, .. } = self.shape;
        let shape = GridShape { longest_chunk: step.longest_chunk, heads, kv_heads, batch: step.batch, sms };
        let launch = |&task: &Task| {
            let KernelFacts { phase, family, rule } = *kernel;
            let call = self.params(task, tensors, step, scratch);
            let block = match (family, phase) {
                (Family::Sm80, _) => Block::Portable(call),
                (Family::Sm90, Phase::Prefill) => Block::HopperPrefill { maps: self.maps(tensors)?, call },
                (Family::Sm90, Phase::Decode) => {
                    Block::HopperDecode { call, first_tiles: step.table.first_tiles_of(self.layer) }
                }
            };
            let waits_for = match (family, phase) {
                (Family::Sm90, Phase::Decode) => WaitsFor::AllButTheLast,
                _ => WaitsFor::AllBefore,
            };
            let LaunchRule { threads, shared_bytes, grid } = rule;
            Ok(Launch { task, grid: grid.ctas(task, &shape), threads, shared_bytes, waits_for, block })
        };
        tasks.iter().map(launch).collect()
    }

    fn maps(&self, tensors: &Tensors) -> Result<[TensorMap; 3], CallError> {
        let map = |tensor, view: &View, box_rows| {
            let View { address, rows, heads, token_stride, head_stride } = *view;
            // The stride of a dimension of one is never used.
            let stride = |extent: u64, elements: u64| if extent > 1 { elements * 2 } else { 128 };
            let strides = [stride(rows, token_stride), 128, stride(u64::from(heads), head_stride)];
            if strides.iter().any(|&stride| stride >= MAP_STRIDE_LIMIT) || rows > MAP_ROWS_LIMIT {
                return Err(CallError::TooLarge { tensor });
            }
            let extents = [64, rows, u64::from(self.shape.head_dim / 64), u64::from(heads)];
            Ok(TensorMap { address, extents, strides, box_rows })
        };
        Ok([
            map("q", &tensors.q, QUERY_BOX_ROWS)?,
            map("k", &tensors.k, KEY_BOX_ROWS)?,
            map("v", &tensors.v, KEY_BOX_ROWS)?,
        ])
    }

    fn params(&self, task: Task, tensors: &Tensors, step: &StepTable, scratch: Scratch) -> Params {
        let Tensors { q, k, v, o, lse } = tensors;
        let StepTable { table, batch, .. } = step;
        Params {
            q: q.address,
            k: k.address,
            v: v.address,
            o: o.address,
            lse: lse.map_or(0, |lse| lse.address),
            partials: scratch.partials,
            counters: scratch.counters,
            slabs: table.slabs,
            buckets: table.buckets,
            cached: table.cached,
            chunk: table.chunk,
            starts: table.starts,
            q_token: q.token_stride as i64,
            q_head: q.head_stride as i64,
            k_token: k.token_stride as i64,
            k_head: k.head_stride as i64,
            v_token: v.token_stride as i64,
            v_head: v.head_stride as i64,
            o_token: o.token_stride as i64,
            o_head: o.head_stride as i64,
            lse_token: lse.map_or(0, |lse| lse.token_stride as i64),
            lse_head: lse.map_or(0, |lse| lse.head_stride as i64),
            batch: *batch as i32,
            task: task as i32,
            layer_base: self.layer_base,
        }
    }
}
