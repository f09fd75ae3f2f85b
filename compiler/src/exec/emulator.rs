//! A layer on the PTX emulator with tensors on the host: the same face as the CPU's and the GPU's.

use moac_emulator::{Memory, Module, ParseError};
use moac_runtime::arch::Arch;
use moac_runtime::artifact::{Artifact, Kernel};
use moac_runtime::attention::{
    self, Batch, CallError, HeadShape, KernelFacts, LayerCall, Request, Scratch, StepTable, Table, Tensors,
    View,
};
use moac_runtime::backend::{LayerBackend, LayerError, Outputs, Rows};

use moac_runtime::element::{f32_from_bytes, from_bytes, to_bytes};
use moac_runtime::geometry::LayerGeometry;
use moac_runtime::launch::{Phase, counters_bytes, partials_bytes};
use moac_runtime::plan::DType;
use ndarray::{Array2, Array3};
use thiserror::Error;

use crate::verify::emulated;

/// Multiprocessors of the machine that the emulator stands for.
const SMS: u32 = 4;

/// Errors of running a layer on the emulator.
#[derive(Debug, Error)]
pub enum EmulatorError {
    /// The artifact has no kernel for this.
    #[error("the artifact has no kernel of layer {layer} for {arch}")]
    NoKernel {
        /// The layer.
        layer: u32,
        /// The architecture.
        arch: Arch,
    },
    /// A kernel's PTX cannot be run.
    #[error("cannot run the PTX of `{symbol}`: {source}")]
    Ptx {
        /// The kernel.
        symbol: String,
        /// The underlying error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A kernel did something wrong.
    #[error("the emulator found a defect in `{symbol}`: {finding}")]
    Finding {
        /// The kernel.
        symbol: String,
        /// The finding, and where it occurred.
        finding: String,
    },
    /// The call's tensors or batch are wrong.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The emulator refused memory or a launch.
    #[error(transparent)]
    Emulator(#[from] Box<dyn std::error::Error + Send + Sync>),
}

/// One layer of an artifact for a batch of requests, on the emulator.
#[derive(Debug)]
pub struct EmulatedLayer {
    memory: Memory,
    prefill: Emulated,
    decode: Emulated,
    call: LayerCall,
    geometry: LayerGeometry,
    dtype: DType,
    requests: Vec<Slab>,
}

#[derive(Debug)]
struct Emulated {
    symbol: String,
    module: Module,
    facts: KernelFacts,
    shared_limit: u32,
}

/// The slab of one request.
#[derive(Clone, Copy, Debug)]
struct Slab {
    address: u64,
    bucket: u32,
    length: u32,
    cached: u32,
}

impl EmulatedLayer {
    /// A layer with one empty slab per request, in the buckets given by index.
    ///
    /// # Errors
    /// Kernels that are not there, or whose PTX the emulator does not know.
    ///
    /// # Panics
    /// If the layer or the bucket does not exist.
    pub fn new(
        artifact: &Artifact,
        layer: u32,
        arch: Arch,
        buckets: &[usize],
    ) -> Result<Self, EmulatorError> {
        let kernel = |phase| {
            let missing = || EmulatorError::NoKernel { layer, arch };
            let kernel = artifact.kernel(layer, phase, arch).ok_or_else(missing)?;
            Emulated::new(artifact, kernel, kernel.facts().ok_or_else(missing)?)
        };
        let (prefill, decode) = (kernel(Phase::Prefill)?, kernel(Phase::Decode)?);
        let geometry = artifact.geometry();
        let mut memory = Memory::new();
        let slab = |&bucket: &usize| Slab {
            address: memory.alloc("slab", geometry.slab_bytes[bucket]),
            bucket: bucket as u32,
            length: geometry.lengths[bucket],
            cached: 0,
        };
        let requests = buckets.iter().map(slab).collect();
        let manifest = artifact.manifest();
        let call = LayerCall::new(geometry, layer as usize, manifest.plan.model.head_dim);
        // The table has the tiles before each request of this layer alone.
        let call = LayerCall { layer: 0, ..call };
        let geometry = geometry.layers[layer as usize].clone();
        Ok(Self { memory, prefill, decode, call, geometry, dtype: manifest.dtype, requests })
    }

    fn run(&mut self, rows: &Rows<'_>, phase: Phase) -> Result<Outputs, LayerError> {
        let HeadShape { heads, kv_heads, head_dim } = self.call.shape;
        let shape = [heads, kv_heads, head_dim].map(|extent| extent as usize);
        rows.starts(shape, self.requests.len())?;
        for (request, &new) in self.requests.iter().zip(rows.chunk) {
            let (cached, length) = (request.cached, request.length);
            if u64::from(cached) + u64::from(new) > u64::from(length) {
                return Err(LayerError::ContextFull { cached, new: u64::from(new), length });
            }
        }
        let outputs = self.launch(rows, phase, shape);
        let outputs = outputs.map_err(|error| LayerError::Device(Box::new(error)))?;
        for (request, &new) in self.requests.iter_mut().zip(rows.chunk) {
            request.cached += new;
        }
        Ok(outputs)
    }

    fn launch(
        &mut self,
        rows: &Rows<'_>,
        phase: Phase,
        [heads, kv_heads, dim]: [usize; 3],
    ) -> Result<Outputs, EmulatorError> {
        let tokens = rows.qkv.q.dim().0;
        let Self { memory, call, geometry, dtype, requests, .. } = self;
        let mut input = |label: &str, values: ndarray::ArrayView3<'_, f32>| {
            memory.alloc_from(label, &to_bytes(*dtype, values.iter().copied()))
        };
        let (q, k, v) = (input("q", rows.qkv.q), input("k", rows.qkv.k), input("v", rows.qkv.v));
        let o = memory.alloc("o", (tokens * heads * dim * 2) as u64);
        let lse = memory.alloc("lse", (tokens * heads * 4) as u64);
        let view = |address, heads, dim| View::packed(address, tokens as u64, heads as u32, dim as u32);
        let tensors = Tensors {
            q: view(q, heads, dim),
            k: view(k, kv_heads, dim),
            v: view(v, kv_heads, dim),
            o: view(o, heads, dim),
            lse: Some(view(lse, heads, 1)),
        };
        let request = |(slab, &chunk): (&Slab, &u32)| {
            let Slab { address, bucket, cached, .. } = *slab;
            Request { slab: address, bucket, cached, chunk, rows: chunk }
        };
        let batch = Batch::new(requests.iter().zip(rows.chunk).map(request).collect())?;
        let split = std::slice::from_ref(geometry);
        let table = memory.alloc_from("table", &batch.table(batch.len(), split, batch.len() as usize));
        let step = StepTable {
            table: Table::addresses(table, batch.len()),
            batch: batch.len(),
            rows: batch.rows(),
            longest_chunk: batch.longest_chunk(),
        };
        let kernel = if phase == Phase::Prefill { &self.prefill } else { &self.decode };
        let shape = call.shape;
        let partials =
            partials_bytes(kernel.facts.rule.grid.split_ctas(SMS), shape.group_size(), shape.head_dim);
        let scratch = Scratch {
            partials: memory.alloc("partials", partials),
            counters: memory.alloc_filled("counters", counters_bytes(batch.len(), shape.kv_heads), 0),
        };
        for launch in call.launches(&kernel.facts, &tensors, &step, scratch, SMS)? {
            kernel.launch(memory, &launch)?;
        }
        let read = |address, bytes| {
            memory.read(address, bytes).map_err(|error| EmulatorError::Emulator(error.into()))
        };
        let shaped = "a tensor is read whole";
        let (o, lse) = (read(o, tokens * heads * dim * 2)?, read(lse, tokens * heads * 4)?);
        Ok(Outputs {
            o: Array3::from_shape_vec((tokens, heads, dim), from_bytes(*dtype, &o)).expect(shaped),
            lse: Array2::from_shape_vec((tokens, heads), f32_from_bytes(&lse)).expect(shaped),
        })
    }
}

impl Emulated {
    fn new(artifact: &Artifact, kernel: &Kernel, facts: KernelFacts) -> Result<Self, EmulatorError> {
        let ptx = |source| EmulatorError::Ptx { symbol: kernel.symbol.clone(), source };
        let text = artifact.ptx(kernel).map_err(|error| ptx(error.into()))?;
        let module = Module::parse(text).map_err(|error: ParseError| ptx(error.into()))?;
        let shared_limit = kernel.arch.shared_memory_per_block();
        Ok(Self { symbol: kernel.symbol.clone(), module, facts, shared_limit })
    }

    fn launch(&self, memory: &mut Memory, launch: &attention::Launch) -> Result<(), EmulatorError> {
        let Self { symbol, module, shared_limit, .. } = self;
        let refused = |error| EmulatorError::Emulator(error);
        let what = emulated::describe(symbol, launch, *shared_limit).map_err(refused)?;
        let report = moac_emulator::launch(module, memory, &what).map_err(|error| refused(error.into()))?;
        let finding = match report.findings.first() {
            Some(finding) => finding.to_string(),
            None if !report.completed => "it did not run to its end".to_owned(),
            None => return Ok(()),
        };
        Err(EmulatorError::Finding { symbol: symbol.clone(), finding })
    }
}

impl LayerBackend for EmulatedLayer {
    fn cached(&self) -> Vec<u32> {
        self.requests.iter().map(|request| request.cached).collect()
    }

    fn prefill(&mut self, rows: &Rows<'_>) -> Result<Outputs, LayerError> {
        self.run(rows, Phase::Prefill)
    }

    fn decode(&mut self, rows: &Rows<'_>) -> Result<Outputs, LayerError> {
        rows.check_decode()?;
        self.run(rows, Phase::Decode)
    }
}
