//! The result of a launch: counters, and the findings that locate the kernel's defects.

use std::fmt;

use serde::Serialize;

use crate::count::Counters;

/// Three unsigned extents or indexes, x fastest.
pub type Dim3 = (u32, u32, u32);

/// The kind of a defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[non_exhaustive]
pub enum FindingKind {
    /// An access outside every allocation, or outside the space's declared size.
    OutOfBounds,
    /// An address that is not a multiple of the access size.
    Misaligned,
    /// A read of unwritten bytes.
    Uninitialised,
    /// Two conflicting accesses that no synchronisation orders.
    Race,
    /// Several lanes of one instruction store the same value to one place. Only reported when asked for.
    SameValueStore,
    /// The destination of an asynchronous copy touched before the wait that completes it.
    AsyncInFlight,
    /// A store to constant or parameter memory.
    ReadOnlyStore,
    /// A CTA barrier executed by part of a warp, or after threads of the CTA have exited.
    DivergentBarrier,
    /// A warp-wide instruction whose member mask names absent lanes or leaves out an executing one.
    MaskMismatch,
    /// Threads that use one barrier do not agree on its thread count, or the count or id is not allowed.
    BarrierMisuse,
    /// Nothing can run any more: the details list who waits on what.
    Deadlock,
    /// A warp ran more instructions than the launch allows.
    Hang,
    /// The kernel executed `trap` or `brkpt`.
    Trap,
    /// A rule of an instruction is broken; the details say which.
    Misuse,
    /// Memory written through the generic proxy is read by the asynchronous proxy, or the reverse, without a proxy fence.
    MissingProxyFence,
    /// A register of a `wgmma` in flight is touched before the wait.
    WgmmaInFlight,
}

/// A PTX state space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Space {
    /// Device memory, including module variables.
    Global,
    /// A CTA's shared memory.
    Shared,
    /// A thread's own memory.
    Local,
    /// Kernel parameters.
    Param,
    /// Constant memory.
    Const,
}

/// A thread of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Thread {
    /// CTA index in the grid.
    pub cta: Dim3,
    /// Linear thread index in the CTA.
    pub thread: u32,
}

/// The other party of a [`FindingKind::Race`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Other {
    /// The thread that made the earlier access.
    pub thread: Thread,
    /// PTX line of the earlier access, 0 if unknown.
    pub line: u32,
    /// Text of that line.
    pub text: String,
    /// Whether the earlier access was a store.
    pub write: bool,
}

/// One defect: the first occurrence for its kind and PTX line, and how often it came up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The kind of defect.
    pub kind: FindingKind,
    /// Kernel symbol.
    pub kernel: String,
    /// Line in the PTX text, counted from 1.
    pub line: u32,
    /// Text of that line.
    pub text: String,
    /// The thread that met it.
    pub thread: Thread,
    /// Space and address of the access, where there is one.
    pub access: Option<(Space, u64)>,
    /// Label of the allocation that the address is in or nearest to, and the offset from its start.
    pub place: Option<(String, i64)>,
    /// The earlier access of a race.
    pub other: Option<Other>,
    /// The value found, and the value expected.
    pub detail: String,
    /// How many times the same kind came up at this line.
    pub count: u64,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} in {} at PTX line {}: `{}`, thread {} of CTA {:?}",
            self.kind, self.kernel, self.line, self.text, self.thread.thread, self.thread.cta
        )?;
        if let Some((space, address)) = self.access {
            write!(f, ", {space:?} address {address:#x}")?;
        }
        if let Some((label, offset)) = &self.place {
            write!(f, " ({label}{offset:+})")?;
        }
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        if let Some(o) = &self.other {
            let what = if o.write { "store" } else { "load" };
            write!(
                f,
                "; against the {what} of thread {} of CTA {:?} at line {}: `{}`",
                o.thread.thread, o.thread.cta, o.line, o.text
            )?;
        }
        if self.count > 1 {
            write!(f, " ({} times)", self.count)?;
        }
        Ok(())
    }
}

/// Counters of one CTA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CtaCounters {
    /// CTA index in the grid.
    pub cta: Dim3,
    /// Its counters.
    pub counters: Counters,
}

/// The report of one launch.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Kernel symbol.
    pub kernel: String,
    /// Whether every chosen CTA ran to its end.
    pub completed: bool,
    /// Sums over the CTAs that ran; unique bytes are counted once per launch.
    pub counters: Counters,
    /// The same per CTA, in grid order; unique bytes are counted once per CTA.
    pub ctas: Vec<CtaCounters>,
    /// The defects, ordered by PTX line and kind.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether the launch ran to its end without a finding.
    pub fn clean(&self) -> bool {
        self.completed && self.findings.is_empty()
    }
}
