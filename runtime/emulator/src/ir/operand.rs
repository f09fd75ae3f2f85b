//! The parts of operations: registers, addresses, and the modes of instructions.

use crate::hb::Scope;

/// Index of a general register, of any width.
pub(crate) type Reg = u32;
/// Index of a predicate register.
pub(crate) type Pred = u32;

/// How an instruction uses a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    Read,
    Write,
}

/// A state space as an access names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemSpace {
    Generic,
    Global,
    Shared,
    Local,
    Param,
    /// Constant variables live in device memory, read-only.
    Const,
}

/// The memory order of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Weak,
    Relaxed,
    Acquire,
    Release,
    AcqRel,
}

/// `base + offset`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Address {
    pub(crate) base: Reg,
    pub(crate) offset: i64,
}

/// The memory half of a load, a store or an atomic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) space: MemSpace,
    pub(crate) address: Address,
    pub(crate) order: Order,
    pub(crate) scope: Scope,
    /// Bytes of one element.
    pub(crate) bytes: u8,
}

/// Sign extension of a loaded element: `None` is zero extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extend {
    pub(crate) signed: bool,
    /// Width of the destination register.
    pub(crate) bits: u32,
}

/// The arithmetic of an atomic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtomOp {
    Exch,
    Cas,
    And,
    Or,
    Xor,
    Add,
    Min,
    Max,
    Inc,
    Dec,
}

/// The type that an atomic computes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtomTy {
    Unsigned,
    Signed,
    F32,
    F64,
    F16,
    Bf16,
    F16x2,
    Bf16x2,
}

/// How predicates combine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Logic {
    And,
    Or,
    Xor,
}

/// The mode of a shuffle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShuffleMode {
    Up,
    Down,
    Bfly,
    Idx,
}

/// The result of a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VoteMode {
    All,
    Any,
    Uni,
    Ballot,
}

/// The operation of `redux`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReduxOp {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
}

/// The element type of a matrix product's factors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    F16,
    Bf16,
    E4m3,
    E5m2,
    S8,
    U8,
}

impl Element {
    /// Bytes of one element.
    pub(crate) fn bytes(self) -> usize {
        if matches!(self, Self::F16 | Self::Bf16) { 2 } else { 1 }
    }
}

/// The type of a matrix product's accumulators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accumulator {
    F32,
    F16,
    S32,
}

/// The kind of a CTA barrier instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BarKind {
    Sync,
    Arrive,
    /// Sync, and a reduction of a predicate over the threads.
    Popc,
    And,
    Or,
}

/// Values that change while a kernel runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    /// `%clock`, `%clock64`, `%globaltimer`: instructions that the warp has executed.
    Count,
    /// `%clock_hi` and the like.
    High,
}
