//! The barriers of a CTA: who has come, who waits, and what they hand on.

use crate::hb::Know;
use crate::ir::{BarKind, Pred, Reg};

/// A group of threads that waits, and where its result goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiter {
    pub(crate) warp: u32,
    pub(crate) mask: u32,
    pub(crate) kind: BarKind,
    pub(crate) d: Option<Reg>,
    pub(crate) p: Option<Pred>,
}

/// One of a CTA's 16 barriers.
#[derive(Clone, Debug)]
pub(crate) struct Barrier {
    pub(crate) first: u32,
    pub(crate) warps: u32,
    pub(crate) arrived: u32,
    /// Threads to wait for; `None` until somebody came.
    pub(crate) expected: Option<u32>,
    /// Whether `expected` means all threads of the CTA.
    pub(crate) everyone: bool,
    pub(crate) know: Know,
    pub(crate) waiting: Vec<Waiter>,
    /// Warps that came without waiting, for the reports.
    pub(crate) arrivals: Vec<u32>,
    pub(crate) trues: u32,
    pub(crate) voters: u32,
}

impl Barrier {
    pub(crate) fn new(first: u32, warps: u32) -> Self {
        Self {
            first,
            warps,
            arrived: 0,
            expected: None,
            everyone: false,
            know: Know::new(first, warps),
            waiting: Vec::new(),
            arrivals: Vec::new(),
            trues: 0,
            voters: 0,
        }
    }
}
