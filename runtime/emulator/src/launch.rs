//! Launching a kernel: the checks that CUDA would make, the split of the grid into groups that run, and the merged report.

use rayon::prelude::*;

use crate::count::{CtaCounters, Tally};
use crate::exec::findings::Findings;
use crate::exec::{Env, Group, Outcome};
use crate::memory::global::Memory;
use crate::memory::view::{Merged, View};
use crate::module::{Kernel, Module};
use crate::parse::ast::Init;
use crate::report::{Dim3, FindingKind, Report};

/// CTAs whose views are held at once when CTAs run apart. Fixed, so that results do not depend on the host's cores.
const CHUNK: usize = 64;

/// A launch that cannot start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// No kernel of that name.
    #[error("the module has no kernel `{0}`; it has {1}")]
    UnknownKernel(String, String),
    /// The parameter block does not fit the kernel.
    #[error("kernel `{kernel}` takes {expected} bytes of parameters, found {found}")]
    Parameters {
        /// Kernel symbol.
        kernel: String,
        /// Bytes declared.
        expected: u32,
        /// Bytes given.
        found: usize,
    },
    /// Grid or block extents that the kernel or the hardware does not allow.
    #[error("kernel `{kernel}`: {what}")]
    Shape {
        /// Kernel symbol.
        kernel: String,
        /// What is wrong with which extent.
        what: String,
    },
    /// More shared memory than a CTA can have.
    #[error("kernel `{kernel}` needs {needed} bytes of shared memory, a CTA has {limit}")]
    Shared {
        /// Kernel symbol.
        kernel: String,
        /// Static and dynamic bytes.
        needed: u64,
        /// The launch's limit.
        limit: u32,
    },
}

/// How to launch a kernel.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Kernel symbol.
    pub kernel: String,
    /// CTAs per axis.
    pub grid: Dim3,
    /// Threads per axis.
    pub block: Dim3,
    /// Bytes of dynamic shared memory.
    pub dynamic_shared: u32,
    /// The parameter block, laid out as [`Kernel::params`] says.
    pub params: Vec<u8>,
    /// CTAs per axis of a cluster, where the kernel does not say it itself.
    pub cluster: Option<Dim3>,
    /// Only these CTAs of the grid (and the others of their clusters), or all.
    pub ctas: Option<Vec<Dim3>>,
    /// Seed of the schedule: which warp runs next, and for how long.
    pub schedule: u64,
    /// CTAs that are resident at once where CTAs synchronise with each other.
    pub resident: u32,
    /// Value of `%nsmid`; `%smid` is the CTA index modulo this.
    pub sm_count: u32,
    /// Bytes of shared memory that a CTA can have.
    pub shared_limit: u32,
    /// A warp that executes more instructions than this hangs.
    pub max_instructions: u64,
    /// Kinds and lines beyond this many are not recorded.
    pub max_findings: usize,
    /// Whether to report lanes that store the same value to the same place in one instruction.
    pub report_same_value_stores: bool,
}

impl Launch {
    /// A launch of `grid` CTAs of `block` threads, all on the x axis.
    pub fn new(kernel: impl Into<String>, grid: u32, block: u32) -> Self {
        Self {
            kernel: kernel.into(),
            grid: (grid, 1, 1),
            block: (block, 1, 1),
            dynamic_shared: 0,
            params: Vec::new(),
            cluster: None,
            ctas: None,
            schedule: 0,
            resident: 16,
            sm_count: 132,
            shared_limit: 227 << 10,
            max_instructions: 1 << 28,
            max_findings: 100,
            report_same_value_stores: false,
        }
    }

    /// Appends a parameter, aligned to its own size (to 8 bytes if it is larger than that).
    #[must_use]
    pub fn param(mut self, bytes: &[u8]) -> Self {
        let align = bytes.len().next_power_of_two().clamp(1, 8);
        self.params.resize(self.params.len().next_multiple_of(align), 0);
        self.params.extend_from_slice(bytes);
        self
    }

    /// Sets the schedule's seed.
    #[must_use]
    pub fn schedule(mut self, seed: u64) -> Self {
        self.schedule = seed;
        self
    }

    /// Sets the bytes of dynamic shared memory.
    #[must_use]
    pub fn dynamic_shared(mut self, bytes: u32) -> Self {
        self.dynamic_shared = bytes;
        self
    }

    fn check(&self, kernel: &Kernel) -> Result<(), Fault> {
        let shape = |what: String| Fault::Shape { kernel: self.kernel.clone(), what };
        if self.params.len() != kernel.param_bytes as usize {
            let (expected, found) = (kernel.param_bytes, self.params.len());
            return Err(Fault::Parameters { kernel: self.kernel.clone(), expected, found });
        }
        let (g, b) = (self.grid, self.block);
        if g.0 == 0 || g.1 == 0 || g.2 == 0 || g.0 > i32::MAX as u32 || g.1 > 65535 || g.2 > 65535 {
            return Err(shape(format!("grid {g:?} is empty or too large")));
        }
        if u64::from(g.0) * u64::from(g.1) * u64::from(g.2) > 1 << 26 {
            return Err(shape(format!("grid {g:?} has more CTAs than the emulator runs")));
        }
        let threads = u64::from(b.0) * u64::from(b.1) * u64::from(b.2);
        if threads == 0 || threads > 1024 {
            return Err(shape(format!("block {b:?} has {threads} threads, allowed are 1 to 1024")));
        }
        if let Some(r) = kernel.required_threads
            && r != [b.0, b.1, b.2]
        {
            return Err(shape(format!("block {b:?}, but the kernel requires {r:?}")));
        }
        if let Some(m) = kernel.max_threads
            && threads > m.iter().map(|&x| u64::from(x)).product()
        {
            return Err(shape(format!("block {b:?} has {threads} threads, the kernel allows {m:?}")));
        }
        let c = self.cluster.or(kernel.cluster.map(|[x, y, z]| (x, y, z))).unwrap_or((1, 1, 1));
        let size = u64::from(c.0) * u64::from(c.1) * u64::from(c.2);
        if !(1..=16).contains(&size) || g.0 % c.0 != 0 || g.1 % c.1 != 0 || g.2 % c.2 != 0 {
            return Err(shape(format!("clusters of {c:?} CTAs (1 to 16 in all) do not divide grid {g:?}")));
        }
        if let (Some(a), Some(b)) = (self.cluster, kernel.cluster)
            && b != [a.0, a.1, a.2]
        {
            return Err(shape(format!("clusters of {a:?}, but the kernel requires {b:?}")));
        }
        if let Some(c) = self.ctas.iter().flatten().find(|c| c.0 >= g.0 || c.1 >= g.1 || c.2 >= g.2) {
            return Err(shape(format!("CTA {c:?} is not in grid {g:?}")));
        }
        let needed = u64::from(kernel.dynamic_shared_offset) + u64::from(self.dynamic_shared);
        if needed > self.shared_limit.into() {
            return Err(Fault::Shared { kernel: self.kernel.clone(), needed, limit: self.shared_limit });
        }
        Ok(())
    }
}

/// Runs a kernel. Launches on one memory are ordered: each sees all that the ones before it wrote.
///
/// # Errors
/// Launches that CUDA would refuse; the memory is untouched then. What goes wrong while the kernel runs is in the report.
pub fn launch(module: &Module, memory: &mut Memory, launch: &Launch) -> Result<Report, Fault> {
    let Some(kernel) = module.kernel(&launch.kernel) else {
        let names: Vec<&str> = module.kernels().map(|k| k.name.as_str()).collect();
        return Err(Fault::UnknownKernel(launch.kernel.clone(), names.join(", ")));
    };
    launch.check(kernel)?;
    let variables = memory.instantiate(module);
    let mut ctas: Vec<u32> = match &launch.ctas {
        None => (0..launch.grid.0 * launch.grid.1 * launch.grid.2).collect(),
        Some(some) => some.iter().map(|c| c.0 + launch.grid.0 * (c.1 + launch.grid.1 * c.2)).collect(),
    };
    ctas.sort_unstable();
    ctas.dedup();

    let env = Env::new(module, kernel, launch, variables);
    let clusters = env.clusters(&ctas);
    let labels: Vec<String> = memory.allocations.iter().map(|a| a.label.clone()).collect();
    let mut findings = Findings::new(launch.max_findings);
    let mut total = Tally::default();
    let mut counted = Vec::new();
    let mut completed = true;
    let mut merged = Merged::default();
    let base: &Memory = memory;
    let mut absorb = |outcome: Outcome, findings: &mut Findings, merged: &mut Merged| {
        findings.absorb(outcome.findings);
        completed &= outcome.completed;
        for (cta, mut tally, touched) in outcome.ctas {
            touched.fill(&mut tally);
            total.add(&tally);
            counted.push(CtaCounters { cta: env.cta(cta), counters: tally.counters(&labels) });
            merged.touched.union(&touched);
        }
    };
    let writes = if kernel.code.communicates {
        let (view, outcome) = Group::new(&env, View::new(base), clusters).run();
        absorb(outcome, &mut findings, &mut merged);
        view.into_writes()
    } else {
        for chunk in clusters.chunks(CHUNK) {
            let run = |c: &Vec<u32>| Group::new(&env, View::new(base), vec![c.clone()]).run();
            let done: Vec<_> = chunk.par_iter().map(run).collect();
            for (view, outcome) in done {
                for (_, _, touched) in &outcome.ctas {
                    for clash in merged.clashes(&view, touched, 4) {
                        findings.cross(&env, base, &clash);
                    }
                    merged.keep(&view, touched);
                }
                absorb(outcome, &mut findings, &mut merged);
            }
        }
        std::mem::take(&mut merged.pages).into_writes()
    };
    merged.touched.fill(&mut total);
    let counters = total.counters(&labels);
    for (page, allocation, data, bits) in writes {
        memory.commit(allocation, page, &data, &bits);
    }
    counted.sort_by_key(|c| (c.cta.2, c.cta.1, c.cta.0));
    let findings = findings.into_list(&env);
    let completed = completed && !findings.iter().any(|f| f.kind == FindingKind::Trap);
    Ok(Report { kernel: launch.kernel.clone(), completed, counters, ctas: counted, findings })
}

impl Memory {
    /// Addresses of a module's variables, allocated and initialised on first use.
    fn instantiate(&mut self, module: &Module) -> Vec<u64> {
        if let Some(known) = self.modules.get(&module.identity) {
            return known.clone();
        }
        let addresses: Vec<u64> = module
            .variables
            .iter()
            .map(|v| {
                let bytes = v.bytes.unwrap_or(0);
                // Variables without an initialiser are zero.
                self.alloc_filled(v.name.clone(), bytes, 0)
            })
            .collect();
        for (v, &address) in module.variables.iter().zip(&addresses) {
            let mut data = Vec::new();
            for i in &v.init {
                let bits = match i {
                    Init::Bits(b) => *b,
                    Init::Float(f) if v.element == 4 => (*f as f32).to_bits().into(),
                    Init::Float(f) => f.to_bits(),
                    Init::Symbol(name, offset) => {
                        let k = module.variables.iter().position(|v| v.name == *name);
                        k.map_or(0, |k| addresses[k]).wrapping_add(*offset as u64)
                    }
                };
                data.extend_from_slice(&bits.to_le_bytes()[..v.element as usize]);
            }
            data.truncate(v.bytes.unwrap_or(0) as usize);
            // The allocation was made just above, with room for all of it.
            let _ = self.write(address, &data);
            if v.space == "const"
                && let Some(i) = self.at_or_before(address)
            {
                self.allocations[i].read_only = true;
            }
        }
        self.modules.insert(module.identity, addresses.clone());
        addresses
    }

    /// Address of a module's `.global` or `.const` variable, once a kernel of the module was launched.
    pub fn symbol(&self, module: &Module, name: &str) -> Option<u64> {
        let i = module.variables.iter().position(|v| v.name == name)?;
        self.modules.get(&module.identity).map(|a| a[i])
    }
}
