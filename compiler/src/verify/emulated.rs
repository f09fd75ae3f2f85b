//! The PTX emulator as a device.

use std::collections::BTreeMap;

use moac_emulator::{
    CtaCounters, Launch as Emulate, Memory, Module, OobFill, Swizzle, TensorMapError, TensorType,
};
use moac_runtime::arch::Arch;
use moac_runtime::attention::{Launch, TensorMap};
use moac_runtime::glue;

use super::candidate::Candidate;
use super::device::{Count, Counts, Device, DeviceError, Fresh, POISON, Seen};
use super::glue::GlueCandidate;

/// Findings of a launch that are worth their lines.
const SHOWN: usize = 8;
/// A warp that runs this many instructions hangs. The longest warp of a sound kernel runs a small part of them.
const MAX_INSTRUCTIONS: u64 = 1 << 25;

/// A machine of the emulator's: memory, a kernel, and the seed of the order in which its warps run.
#[derive(Debug)]
pub struct Emulated {
    memory: Memory,
    kernel: Option<Loaded>,
    labels: BTreeMap<u64, String>,
    /// The last value read.
    read: Option<Vec<u8>>,
    /// The schedule's seed.
    pub schedule: u64,
    /// Multiprocessors that it claims to have.
    pub sms: u32,
}

#[derive(Debug)]
struct Loaded {
    module: Module,
    symbol: String,
    shared_limit: u32,
}

impl Emulated {
    /// An empty machine that runs warps in the order of `schedule`.
    pub fn new(schedule: u64) -> Self {
        Self { memory: Memory::new(), kernel: None, labels: BTreeMap::new(), read: None, schedule, sms: 4 }
    }

    fn failed(&self, address: u64, source: impl std::error::Error + Send + Sync + 'static) -> DeviceError {
        let nearest = self.labels.range(..=address).next_back();
        let label = nearest.map_or_else(String::new, |(_, label)| label.clone());
        DeviceError::Memory { label, source: source.into() }
    }
}

impl Device for Emulated {
    fn is_sparse(&self) -> bool {
        true
    }

    fn sms(&self) -> u32 {
        self.sms
    }

    fn blank(&self) -> u8 {
        0
    }

    fn lse_slack(&self) -> f64 {
        0.0
    }

    fn load(&mut self, candidate: &Candidate) -> Result<(), DeviceError> {
        self.parse(&candidate.symbol, candidate.arch, &candidate.ptx)
    }

    fn load_glue(&mut self, candidate: &GlueCandidate) -> Result<(), DeviceError> {
        self.parse(&candidate.symbol, candidate.arch, &candidate.ptx)
    }

    fn alloc(&mut self, label: &str, _number: u32, bytes: u64, fresh: Fresh<'_>) -> Result<u64, DeviceError> {
        let address = match fresh {
            Fresh::Unwritten => self.memory.alloc(label, bytes),
            Fresh::Poison => self.memory.alloc_filled(label, bytes, POISON),
            Fresh::Zero => self.memory.alloc_filled(label, bytes, 0),
            Fresh::Data(data) => self.memory.alloc_from(label, data),
        };
        self.labels.insert(address, label.to_owned());
        Ok(address)
    }

    fn clear(&mut self) {
        self.memory = Memory::new();
        self.labels.clear();
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        self.memory.write(address, bytes).map_err(|source| self.failed(address, source))
    }

    fn make(&mut self, address: u64, bytes: u64, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), DeviceError> {
        let mut made = vec![0; bytes as usize];
        fill(&mut made);
        self.write(address, &made)
    }

    fn read(&mut self, address: u64, bytes: u64) -> Result<&mut [u8], DeviceError> {
        match self.memory.read(address, bytes as usize) {
            Ok(bytes) => Ok(self.read.insert(bytes)),
            Err(source) => Err(self.failed(address, source)),
        }
    }

    fn launch(&mut self, launch: &Launch, ctas: Option<&[(u32, u32, u32)]>) -> Result<Seen, DeviceError> {
        let kernel = self.kernel.as_ref().expect("a kernel is loaded before it is launched");
        let mut what = describe(&kernel.symbol, launch, kernel.shared_limit)
            .map_err(|source| DeviceError::Kernel { symbol: kernel.symbol.clone(), source })?;
        what.ctas = ctas.map(<[_]>::to_vec);
        self.run(what)
    }

    fn launch_glue(&mut self, launch: &glue::Launch) -> Result<Seen, DeviceError> {
        let kernel = self.kernel.as_ref().expect("a kernel is loaded before it is launched");
        let glue::Launch { grid: [x, y, z], threads, shared_bytes, waits_for: _, ref block } = *launch;
        let mut what = Emulate::new(&kernel.symbol, x, threads).param(&block.to_bytes());
        what.grid = (x, y, z);
        what.dynamic_shared = shared_bytes;
        what.shared_limit = kernel.shared_limit;
        self.run(what)
    }
}

impl Emulated {
    fn parse(&mut self, symbol: &str, arch: Arch, ptx: &str) -> Result<(), DeviceError> {
        let symbol = symbol.to_owned();
        let module = Module::parse(ptx)
            .map_err(|source| DeviceError::Kernel { symbol: symbol.clone(), source: source.into() })?;
        self.kernel = Some(Loaded { module, symbol, shared_limit: arch.shared_memory_per_block() });
        Ok(())
    }

    fn run(&mut self, mut what: Emulate) -> Result<Seen, DeviceError> {
        let kernel = self.kernel.as_ref().expect("a kernel is loaded before it is launched");
        what.schedule = self.schedule;
        what.sm_count = self.sms;
        what.max_instructions = MAX_INSTRUCTIONS;
        let report = moac_emulator::launch(&kernel.module, &mut self.memory, &what)
            .map_err(|source| DeviceError::Kernel { symbol: kernel.symbol.clone(), source: source.into() })?;
        let mut findings: Vec<String> =
            report.findings.iter().take(SHOWN).map(std::string::ToString::to_string).collect();
        if report.findings.len() > SHOWN {
            findings.push(format!("and {} more findings", report.findings.len() - SHOWN));
        }
        if !report.completed && findings.is_empty() {
            findings.push("the launch did not run to its end".to_owned());
        }
        let of_cta = |cta: &CtaCounters| (cta.cta, count(&cta.counters));
        let counts =
            Counts { total: count(&report.counters), ctas: report.ctas.iter().map(of_cta).collect() };
        Ok(Seen { findings, counts: Some(counts) })
    }
}

/// A launch as the emulator takes it.
///
/// # Errors
/// A tensor map that it does not model.
pub fn describe(
    symbol: &str,
    launch: &Launch,
    shared_limit: u32,
) -> Result<Emulate, Box<dyn std::error::Error + Send + Sync>> {
    let [x, y, z] = launch.grid;
    let mut what = Emulate::new(symbol, x, launch.threads).param(&launch.block.bytes(encode)?);
    what.grid = (x, y, z);
    what.dynamic_shared = launch.shared_bytes;
    what.shared_limit = shared_limit;
    Ok(what)
}

fn encode(map: &TensorMap) -> Result<[u8; 128], TensorMapError> {
    let tiled = moac_emulator::TensorMap::tiled(
        TensorType::Bf16,
        map.address,
        &map.extents,
        &map.strides,
        &map.box_extents(),
        &[1; 4],
        Swizzle::B128,
        OobFill::Zeros,
    )?;
    Ok(tiled.bytes())
}

fn count(counters: &moac_emulator::Counters) -> Count {
    let shared = &counters.shared;
    let mut count = Count {
        matrix_flops: counters.matrix_flops,
        shared_passes: shared.read_wavefronts + shared.write_wavefronts,
        bank_conflicts: shared.read_conflicts + shared.write_conflicts,
        ..Count::default()
    };
    for (label, traffic) in &counters.global {
        let put = |to: &mut BTreeMap<String, u64>, bytes| {
            if bytes > 0 {
                to.insert(label.clone(), bytes);
            }
        };
        put(&mut count.read, traffic.read.bytes);
        put(&mut count.written, traffic.written.bytes);
        put(&mut count.unique_written, traffic.written.unique_bytes);
    }
    count
}
