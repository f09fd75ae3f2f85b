//! Hopper's instructions in the compact form.

use super::operand::{Accumulator, Address, Element, Pred, Reg, Use};

/// How an instruction names shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Window {
    /// `.shared` and `.shared::cta`: this CTA's.
    Cta,
    /// `.shared::cluster`: any CTA's of the cluster.
    Cluster,
    Generic,
}

/// An address in shared memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SharedPlace {
    pub(crate) window: Window,
    pub(crate) address: Address,
}

/// The phase that a wait is about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Phase {
    Parity(Reg),
    State(Reg),
}

/// The memory side of a bulk copy.
#[derive(Clone, Debug)]
pub(crate) enum Bulk {
    /// `bytes` in a row at `global`.
    Linear { global: Address, bytes: Reg },
    /// A box of a tensor.
    Tensor { map: Address, coords: Box<[Reg]> },
}

/// The arithmetic of a reducing copy, and the type of its elements where the instruction says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reduce {
    pub(crate) op: ReduceOp,
    pub(crate) ty: Option<ReduceTy>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReduceOp {
    Add,
    Min,
    Max,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReduceTy {
    U32,
    S32,
    U64,
    S64,
    F16,
    Bf16,
    F32,
    F64,
}

/// Operand A of `wgmma`.
#[derive(Clone, Debug)]
pub(crate) enum OperandA {
    /// Four registers of fragments.
    Registers(Box<[Reg]>),
    /// A matrix descriptor.
    Shared(Reg),
}

/// `wgmma.mma_async`.
#[derive(Clone, Debug)]
pub(crate) struct Wgmma {
    pub(crate) n: usize,
    pub(crate) a_type: Element,
    pub(crate) b_type: Element,
    pub(crate) acc: Accumulator,
    pub(crate) d: Box<[Reg]>,
    pub(crate) a: OperandA,
    pub(crate) b: Reg,
    /// Whether the accumulators are added to: a predicate, or a literal.
    pub(crate) scale_d: Result<(Pred, bool), bool>,
    pub(crate) negate: [bool; 2],
    /// Whether operands are MN-major.
    pub(crate) transpose: [bool; 2],
}

impl Wgmma {
    /// Elements in k.
    pub(crate) fn k(&self) -> usize {
        32 / self.a_type.bytes()
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Init {
        at: SharedPlace,
        count: Reg,
    },
    Inval {
        at: SharedPlace,
    },
    Arrive {
        at: SharedPlace,
        count: Reg,
        expect: Option<Reg>,
        drop: bool,
        no_complete: bool,
        release: bool,
        d: Option<Reg>,
    },
    Expect {
        at: SharedPlace,
        bytes: Reg,
    },
    CompleteTx {
        at: SharedPlace,
        bytes: Reg,
    },
    Wait {
        at: SharedPlace,
        p: Pred,
        phase: Phase,
        may_suspend: bool,
        acquire: bool,
    },
    /// `cp.async.mbarrier.arrive`.
    CopyArrive {
        at: SharedPlace,
        noinc: bool,
    },
    /// Global to shared memory.
    Load {
        from: Bulk,
        to: SharedPlace,
        barrier: SharedPlace,
        multicast: Option<Reg>,
    },
    /// Shared to global memory.
    Store {
        to: Bulk,
        from: SharedPlace,
        reduce: Option<Reduce>,
    },
    /// From this CTA's shared memory to one of the cluster.
    Send {
        from: SharedPlace,
        bytes: Reg,
        to: SharedPlace,
        barrier: SharedPlace,
    },
    /// `st.async`.
    StoreAsync {
        to: SharedPlace,
        values: Box<[Reg]>,
        bytes: usize,
        barrier: SharedPlace,
    },
    BulkCommit,
    BulkWait {
        left: u32,
        read: bool,
    },
    Wgmma(Wgmma),
    WgmmaFence,
    WgmmaCommit,
    WgmmaWait {
        left: u32,
    },
    /// `fence.proxy.async`, for shared and for global memory.
    ProxyFence {
        shared: bool,
        global: bool,
    },
    FenceInit,
    SetMaxNReg {
        count: u32,
        increase: bool,
    },
    Mapa {
        d: Reg,
        a: SharedPlace,
        rank: Reg,
    },
    CtaRank {
        d: Reg,
        a: SharedPlace,
    },
    ClusterArrive {
        release: bool,
        aligned: bool,
    },
    ClusterWait {
        aligned: bool,
    },
}

impl Op {
    /// Calls `f` for each general register that the operation names.
    #[allow(clippy::match_same_arms)] // one arm for each shape of operands
    pub(crate) fn visit(&mut self, f: &mut dyn FnMut(Use, &mut Reg)) {
        use Use::{Read, Write};
        fn bulk(b: &mut Bulk, f: &mut dyn FnMut(Use, &mut Reg)) {
            match b {
                Bulk::Linear { global, bytes } => {
                    f(Read, &mut global.base);
                    f(Read, bytes);
                }
                Bulk::Tensor { map, coords } => {
                    f(Read, &mut map.base);
                    for c in coords {
                        f(Read, c);
                    }
                }
            }
        }
        match self {
            Self::Init { at, count: r }
            | Self::Expect { at, bytes: r }
            | Self::CompleteTx { at, bytes: r } => {
                f(Read, &mut at.address.base);
                f(Read, r);
            }
            Self::Inval { at } | Self::CopyArrive { at, .. } => f(Read, &mut at.address.base),
            Self::Arrive { at, count, expect, d, .. } => {
                f(Read, &mut at.address.base);
                f(Read, count);
                if let Some(r) = expect {
                    f(Read, r);
                }
                if let Some(r) = d {
                    f(Write, r);
                }
            }
            Self::Wait { at, phase: Phase::Parity(r) | Phase::State(r), .. } => {
                f(Read, &mut at.address.base);
                f(Read, r);
            }
            Self::Load { from, to, barrier, multicast } => {
                bulk(from, f);
                f(Read, &mut to.address.base);
                f(Read, &mut barrier.address.base);
                if let Some(r) = multicast {
                    f(Read, r);
                }
            }
            Self::Store { to, from, .. } => {
                bulk(to, f);
                f(Read, &mut from.address.base);
            }
            Self::Send { from, bytes, to, barrier } => {
                for r in [&mut from.address.base, bytes, &mut to.address.base, &mut barrier.address.base] {
                    f(Read, r);
                }
            }
            Self::StoreAsync { to, values, barrier, .. } => {
                f(Read, &mut to.address.base);
                for r in values.iter_mut() {
                    f(Read, r);
                }
                f(Read, &mut barrier.address.base);
            }
            Self::Wgmma(w) => {
                match &mut w.a {
                    OperandA::Registers(a) => {
                        for r in a.iter_mut() {
                            f(Read, r);
                        }
                    }
                    OperandA::Shared(r) => f(Read, r),
                }
                f(Read, &mut w.b);
                for r in &mut w.d {
                    f(Write, r);
                }
            }
            Self::Mapa { d, a, rank } => {
                f(Read, &mut a.address.base);
                f(Read, rank);
                f(Write, d);
            }
            Self::CtaRank { d, a } => {
                f(Read, &mut a.address.base);
                f(Write, d);
            }
            Self::BulkCommit
            | Self::BulkWait { .. }
            | Self::WgmmaFence
            | Self::WgmmaCommit
            | Self::WgmmaWait { .. }
            | Self::ProxyFence { .. }
            | Self::FenceInit
            | Self::SetMaxNReg { .. }
            | Self::ClusterArrive { .. }
            | Self::ClusterWait { .. } => {}
        }
    }
}
