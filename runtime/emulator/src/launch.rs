//! How to launch a kernel, and the checks that CUDA would make.

use crate::kernel::Kernel;
use crate::report::Dim3;

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
        /// The invalid extent, and why.
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

    pub(crate) fn check(&self, kernel: &Kernel) -> Result<(), Fault> {
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
