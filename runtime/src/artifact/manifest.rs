//! The manifest of an artifact: plain data, as stored in the file.
//!
//! A reader ignores fields that it does not know and refuses a manifest that lacks one it does; whatever changes a
//! field's meaning raises [`FORMAT_VERSION`]. The plan and the geometry are the types that the compiler lowered from.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::abi::Abi;
use crate::arch::Arch;
use crate::attention::{Block, KernelFacts};
use crate::digest::Digest;
use crate::geometry::Geometry;
use crate::glue::{EngineShape, Op};
use crate::launch::{Family, LaunchRule, Phase, RingLayout};
use crate::plan::{DType, Plan};

/// The version of the format that this crate writes and reads.
pub const FORMAT_VERSION: u32 = 3;

/// The key of the container's metadata that holds the manifest.
pub const METADATA_KEY: &str = "moac";

/// The folder of the included files among the tensors.
pub const HEADERS: &str = "headers/";

/// Everything about an artifact but the bytes of its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT_VERSION`].
    pub format: u32,
    /// Its producer.
    pub producer: Producer,
    /// The element type of q, k, v, o and of the cache.
    pub dtype: DType,
    /// The architectures that there are kernels for, ascending.
    pub archs: Vec<Arch>,
    /// The KV heads of the model that it serves: all, or one rank's.
    pub kv_heads: Range<u32>,
    /// The plan, and in it the model's shape.
    pub plan: Plan,
    /// Buckets, groups, spans, ring offsets and slab sizes; recomputed from the plan and compared on opening.
    pub geometry: Geometry,
    /// The kernels of each layer, one entry per layer.
    pub layers: Vec<Layer>,
    /// The kernels; layers of one spec share them.
    pub kernels: Vec<Kernel>,
    /// The engine's own kernels; without them the artifact has attention only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Engine>,
    /// The SHA-256 of every tensor of the file, by name.
    pub tensors: BTreeMap<String, Digest>,
}

/// The producer of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Producer {
    /// The version of moac.
    pub moac: String,
    /// The CUDA version of the NVRTC, `[major, minor]`: a driver of that major version and no older runs the cubins.
    pub cuda: [u32; 2],
    /// The build of the NVRTC, as it names itself.
    pub nvrtc: String,
    /// The options it was called with, without the architecture's.
    pub options: Vec<String>,
}

/// The kernels of one layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// By architecture, one entry for each that the artifact has.
    pub kernels: BTreeMap<Arch, LayerKernels>,
}

/// Indexes into [`Manifest::kernels`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerKernels {
    /// The kernel of [`Phase::Prefill`].
    pub prefill: usize,
    /// The kernel of [`Phase::Decode`].
    pub decode: usize,
}

impl LayerKernels {
    /// The kernel of `phase`.
    pub const fn of(self, phase: Phase) -> usize {
        match phase {
            Phase::Prefill => self.prefill,
            Phase::Decode => self.decode,
        }
    }
}

/// The engine's kernels besides attention.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Engine {
    /// The shape that its kernels are compiled for.
    pub shape: EngineShape,
    /// Indexes into [`Manifest::kernels`]: by architecture, one entry for each that the artifact has, and by operation,
    /// one for each of [`Sizes::ops`](crate::glue::Sizes::ops).
    pub kernels: BTreeMap<Arch, BTreeMap<Op, usize>>,
}

/// The role of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A phase of a layer's attention.
    Attention {
        /// The operation.
        phase: Phase,
        /// The family that its algorithm and its parameter block come from.
        family: Family,
        /// How the rings lie that it reads and writes: the family's.
        ring_layout: RingLayout,
    },
    /// An operation of the engine.
    Glue(Op),
}

impl Role {
    /// A phase of attention as `family` computes it.
    pub const fn attention(family: Family, phase: Phase) -> Self {
        Self::Attention { phase, family, ring_layout: family.ring_layout() }
    }

    /// The name in tables.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Attention { phase, .. } => phase.name(),
            Self::Glue(op) => op.name(),
        }
    }

    /// The parameter block that its kernels take.
    pub const fn abi(&self) -> Abi {
        match *self {
            Self::Attention { phase, family, .. } => Block::abi(family, phase),
            Self::Glue(op) => op.abi(),
        }
    }
}

/// One compiled kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// Its name in the cubin, and in the names of its tensors.
    pub symbol: String,
    /// The phase it computes.
    pub role: Role,
    /// The architecture of its cubin.
    pub arch: Arch,
    /// The parameter block that it takes: its role's.
    pub abi: Abi,
    /// How it is launched; dynamic shared memory is in it.
    pub launch: LaunchRule,
    /// Its resources on a multiprocessor.
    pub resources: Resources,
}

impl Kernel {
    /// The facts that a launch of attention depends on; `None` for other kernels.
    pub const fn facts(&self) -> Option<KernelFacts> {
        match self.role {
            Role::Attention { phase, family, .. } => Some(KernelFacts { phase, family, rule: self.launch }),
            Role::Glue(_) => None,
        }
    }

    /// The tensor of its machine code.
    pub fn cubin(&self) -> String {
        format!("{}/{}.cubin", self.arch, self.symbol)
    }

    /// The tensor of its PTX, from the same compilation.
    pub fn ptx(&self) -> String {
        format!("{}/{}.ptx", self.arch, self.symbol)
    }

    /// The tensor of its source.
    pub fn source(&self) -> String {
        format!("{}/{}.cu", self.arch, self.symbol)
    }
}

/// The resources of a kernel as reported by the compiler, without dynamic shared memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes of a thread's stack frame.
    pub stack_bytes: u32,
    /// Bytes of spilled registers that a thread stores.
    pub spill_store_bytes: u32,
    /// Bytes of spilled registers that a thread loads.
    pub spill_load_bytes: u32,
    /// Bytes of static shared memory of a CTA.
    pub static_shared_bytes: u32,
    /// Hardware barriers of a CTA.
    pub barriers: u32,
}
