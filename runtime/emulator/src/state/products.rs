//! The asynchronous products of warpgroups and warps: what was issued, and the registers that are under way.

use std::collections::VecDeque;

use crate::hb::Know;
use crate::ir::{Accumulator, Reg};

/// The parameters that the warps of a warpgroup must agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Operands {
    pub(crate) pc: u32,
    pub(crate) a: u64,
    pub(crate) b: u64,
    pub(crate) add: bool,
}

/// A product that some of the four warps have issued.
#[derive(Debug)]
pub(crate) struct Product {
    pub(crate) operands: Operands,
    /// Operand B, k x n.
    pub(crate) b: Vec<f32>,
    /// The events known to the first warp, which sufficed to read B.
    pub(crate) know: Know,
    pub(crate) warps: u32,
}

/// A warpgroup.
#[derive(Debug, Default)]
pub(crate) struct Warpgroup {
    /// Products issued, and groups committed, by warp.
    pub(crate) issued: [u64; 4],
    pub(crate) committed: [u32; 4],
    /// Products from number `first` on.
    pub(crate) first: u64,
    pub(crate) products: VecDeque<Product>,
    /// Counts of the `setmaxnreg` instructions executed, by the warps that are ahead.
    pub(crate) registers: Vec<(u32, bool)>,
    pub(crate) register_steps: [usize; 4],
}

/// Accumulators under way.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) regs: Box<[Reg]>,
    pub(crate) acc: Accumulator,
    pub(crate) n: usize,
    /// 16 x n.
    pub(crate) sum: Vec<f32>,
    /// The last group that adds to it.
    pub(crate) group: u32,
}

/// The asynchronous products of a warp.
#[derive(Debug)]
pub(crate) struct WgmmaWarp {
    pub(crate) committed: u32,
    /// Goes up at every `wgmma.fence`; a register touched at this count has not been fenced since.
    pub(crate) fences: u32,
    pub(crate) touched: Vec<u32>,
    /// One more than the group until whose end a register may not be touched; 0 if there is none.
    pub(crate) busy: Vec<u32>,
    /// Whether a register that is under way holds a fragment of A; otherwise an accumulator.
    pub(crate) fragment: Vec<bool>,
    /// Registers of fragments under way.
    pub(crate) fragments: Vec<Reg>,
    pub(crate) chains: Vec<Chain>,
}
