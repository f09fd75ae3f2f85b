//! The compact form of a kernel that `exec` runs: instructions with dense register indexes and resolved targets.
//!
//! To add an instruction: give it an [`Op`], name its registers in `visit.rs`, make it in `decode`, run it in `exec`.

pub(crate) mod hopper;
mod operand;
mod visit;

use std::sync::Arc;

use crate::count::Class;
use crate::hb::Scope;
use crate::lanes::{Map, Test};

pub(crate) use operand::{
    Accumulator, Address, AtomOp, AtomTy, BarKind, Clock, Element, Extend, Logic, MemSpace, Order, Place,
    Pred, ReduxOp, Reg, ShuffleMode, Use, VoteMode,
};

/// An operation.
#[derive(Clone)]
pub(crate) enum Op {
    /// Registers in, one register out.
    Map {
        f: Map,
        d: Reg,
        s: [Reg; 4],
        n: u8,
    },
    /// A comparison into `p`, its negation into `q`, each combined with `with`.
    Test {
        f: Test,
        p: Option<Pred>,
        q: Option<Pred>,
        a: Reg,
        b: Reg,
        with: Option<(Logic, Pred, bool)>,
    },
    /// Predicate logic: `p = (a ^ na) op (b ^ nb)`.
    Logic {
        op: Logic,
        p: Pred,
        a: (Pred, bool),
        b: (Pred, bool),
    },
    /// `d = p ? a : b`.
    Select {
        d: Reg,
        a: Reg,
        b: Reg,
        p: (Pred, bool),
    },
    /// `d = a + b` or `a - b` of `bits`, with the carry flag.
    Carry {
        d: Reg,
        a: Reg,
        b: Reg,
        bits: u32,
        subtract: bool,
        takes: bool,
        gives: bool,
    },
    Branch {
        target: u32,
    },
    /// Jump to `targets[index]`.
    Switch {
        index: Reg,
        targets: Arc<[u32]>,
    },
    Exit,
    Trap,
    Nop,
    Clock {
        d: Reg,
        what: Clock,
    },
    Ld {
        place: Place,
        d: Box<[Reg]>,
        extend: Extend,
    },
    St {
        place: Place,
        s: Box<[Reg]>,
    },
    Atom {
        place: Place,
        op: AtomOp,
        ty: AtomTy,
        d: Option<Reg>,
        b: Reg,
        c: Option<Reg>,
    },
    /// `cp.async` of `bytes` from global to shared, of which `size` (if given) are read and the rest are zero.
    CpAsync {
        to: Address,
        from: Address,
        bytes: u8,
        size: Option<Reg>,
        ignore: Option<(Pred, bool)>,
    },
    CpCommit,
    /// Waits until at most `left` groups are pending; `None` waits for everything.
    CpWait {
        left: Option<u32>,
    },
    Ldmatrix {
        space: MemSpace,
        address: Address,
        d: Box<[Reg]>,
        trans: bool,
    },
    Stmatrix {
        space: MemSpace,
        address: Address,
        s: Box<[Reg]>,
        trans: bool,
    },
    Movmatrix {
        d: Reg,
        a: Reg,
    },
    /// `mma.sync` m16n8k: fragments in registers.
    Mma {
        k: u8,
        a: Element,
        b: Element,
        acc: Accumulator,
        saturate: bool,
        d: Box<[Reg]>,
        ra: Box<[Reg]>,
        rb: Box<[Reg]>,
        rc: Box<[Reg]>,
    },
    Shuffle {
        mode: ShuffleMode,
        d: Reg,
        p: Option<Pred>,
        a: Reg,
        b: Reg,
        c: Reg,
        mask: Reg,
    },
    Vote {
        mode: VoteMode,
        d: Option<Reg>,
        p: Option<Pred>,
        a: (Pred, bool),
        mask: Reg,
    },
    /// `match.any` or, with `all`, `match.all`.
    Match {
        all: bool,
        d: Reg,
        p: Option<Pred>,
        a: Reg,
        mask: Reg,
    },
    Redux {
        op: ReduxOp,
        signed: bool,
        d: Reg,
        a: Reg,
        mask: Reg,
    },
    Elect {
        d: Option<Reg>,
        p: Pred,
        mask: Reg,
    },
    ActiveMask {
        d: Reg,
    },
    WarpBarrier {
        mask: Reg,
    },
    Barrier {
        kind: BarKind,
        aligned: bool,
        id: Reg,
        count: Option<Reg>,
        input: Option<(Pred, bool)>,
        d: Option<Reg>,
        p: Option<Pred>,
    },
    Fence {
        scope: Scope,
    },
    Hopper(Box<hopper::Op>),
}

/// One instruction.
#[derive(Clone)]
pub(crate) struct Instr {
    pub(crate) op: Op,
    /// Predicate, and whether it is negated.
    pub(crate) guard: Option<(Pred, bool)>,
    pub(crate) class: Class,
    /// Line in the PTX text.
    pub(crate) line: u32,
    /// If it touches registers of some `wgmma`: one more than the index of their list in [`Code::watched`]; else 0.
    pub(crate) watch: u32,
}

/// Where a constant register's value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Constant {
    Bits(u64),
    /// Address of a module variable, by index, plus an offset.
    Variable(u32, i64),
    /// Start of the dynamic shared memory plus an offset; `decode` turns it into bits once the static size is known.
    DynamicShared(i64),
    Special(Special),
}

/// Special registers that do not change while a thread runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    LaneId,
    WarpId,
    NWarpId,
    SmId,
    NSmId,
    GridId,
    LaneMaskEq,
    LaneMaskLe,
    LaneMaskLt,
    LaneMaskGe,
    LaneMaskGt,
    DynamicShared,
    TotalShared,
    ClusterCtaId(u8),
    ClusterNCtaId(u8),
    ClusterCtaRank,
    ClusterNCtaRank,
    ClusterId(u8),
    NClusterId(u8),
}

/// A kernel, ready to run.
#[derive(Clone)]
pub(crate) struct Code {
    pub(crate) instrs: Vec<Instr>,
    /// Order in which diverged threads run: those at the smaller rank first, so that they meet again at the earliest place.
    pub(crate) rank: Vec<u32>,
    /// General registers, the constant ones last.
    pub(crate) regs: u32,
    pub(crate) preds: u32,
    /// The last registers, in order.
    pub(crate) constants: Vec<Constant>,
    /// Bytes of local memory per thread.
    pub(crate) local: u32,
    /// Registers of some `wgmma` that other instructions touch.
    pub(crate) watched: Vec<Box<[Reg]>>,
    /// Whether CTAs may synchronise through global memory, so that they cannot run apart.
    pub(crate) communicates: bool,
}

impl std::fmt::Debug for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Code({} instructions, {} registers)", self.instrs.len(), self.regs)
    }
}
