//! The linear layers that a kernel of our own takes where a step has few rows: what each is, and where there is one.
//!
//! `templates/include/moac/sm90/linear.cuh` computes threads and shared memory too, and every rendered kernel asserts
//! that both sides agree.

use super::{Op, Sizes};
use crate::arch::Arch;
use crate::launch::{Grid, LaunchRule};

/// Rows of activations of a launch at most.
pub const MAX_LINEAR_ROWS: u32 = 16;

/// A linear layer, and what its kernel does before and after the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Elements of a row of x.
    pub depth: u32,
    /// Rows of the weights.
    pub out: u32,
    /// x goes through a norm.
    pub norm: bool,
    /// The use of the results.
    pub after: After,
}

/// The use that a kernel makes of its results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// They are y.
    Store,
    /// They are y, in float32.
    StoreFloats,
    /// They are added to y.
    Add,
    /// y is `silu(gate) * up`: rows of the weights are gate, then up, and a row of y has half as many elements.
    Activate,
}

/// Elements of depth of two products, of which a kernel takes whole ones.
const STEP: u32 = 32;
/// Warps that multiply and warps that copy, rows of weights of a tile, and bytes of the stages at most.
const WARPS: u32 = 8;
const COPY_WARPS: u32 = 2;
const TILE: u32 = 16;
const STAGES_BYTES: u32 = 203 * 1024;

impl Layer {
    /// Elements of a row of y.
    pub const fn results(&self) -> u32 {
        if matches!(self.after, After::Activate) { self.out / 2 } else { self.out }
    }

    /// Bytes of an element of y.
    pub const fn result_bytes(&self) -> u32 {
        if matches!(self.after, After::StoreFloats) { 4 } else { 2 }
    }

    /// Elements of a row of y that a tile of the weights gives.
    pub const fn tile_results(&self) -> u32 {
        if matches!(self.after, After::Activate) { TILE / 2 } else { TILE }
    }

    /// Whether a kernel can be compiled for it.
    const fn fits(&self) -> bool {
        self.depth.is_multiple_of(STEP) && self.results().is_multiple_of(2)
    }

    /// How its kernel is launched: a CTA takes a multiprocessor's shared memory with stages of 16 rows of up to 2 KiB, two
    /// barriers each. Beside them the sums of the warps meet, two tiles at a time, and the squares of the rows of x.
    pub(super) const fn rule(&self) -> LaunchRule {
        let chunks = self.depth.div_ceil(1024);
        let slice = self.depth.div_ceil(chunks * WARPS * STEP) * STEP;
        let stage = TILE * (WARPS * slice * 2 + 64) + 16;
        let sums = WARPS * 2 * MAX_LINEAR_ROWS * (TILE + 4) * 4;
        let squares = if self.norm { WARPS * MAX_LINEAR_ROWS * 4 } else { 0 };
        LaunchRule {
            threads: 32 * (WARPS + COPY_WARPS),
            shared_bytes: STAGES_BYTES / stage * stage + sums + squares,
            grid: Grid::Wave { tiles: self.results().div_ceil(self.tile_results()) },
        }
    }
}

impl Sizes {
    /// The shape of a linear layer; `None` for every other operation.
    pub const fn layer(&self, op: Op) -> Option<Layer> {
        let plain = Layer { depth: self.hidden, out: self.hidden, norm: false, after: After::Store };
        Some(match op {
            Op::Qkv => Layer { out: self.qkv(), norm: true, ..plain },
            Op::Output => Layer { depth: self.heads * self.head_dim, after: After::Add, ..plain },
            Op::GateUp => Layer { out: 2 * self.intermediate, norm: true, after: After::Activate, ..plain },
            Op::Down => Layer { depth: self.intermediate, after: After::Add, ..plain },
            Op::Head => Layer { out: self.vocab, after: After::StoreFloats, ..plain },
            Op::Embed | Op::Norm | Op::Rotate | Op::Activate | Op::Sample => return None,
        })
    }

    /// The operations that there is a kernel for on an architecture, in their order: all but linear layers everywhere, those
    /// on Hopper where the model's sizes fit.
    pub fn ops(&self, arch: Arch) -> impl Iterator<Item = Op> + use<> {
        let sizes = *self;
        let fits = move |op: &Op| arch == Arch::Sm90a && sizes.layer(*op).is_some_and(|layer| layer.fits());
        Op::ALL.into_iter().chain(Op::LINEAR.into_iter().filter(fits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes = Sizes {
        hidden: 4096,
        intermediate: 14336,
        vocab: 128_256,
        heads: 32,
        kv_heads: 8,
        head_dim: 128,
        qkv_bias: false,
        qk_norm: false,
    };

    #[test]
    fn a_wave_has_equal_parts() {
        let ctas = |op| SIZES.rule(op).grid.of_rows_on(1, 132)[0];
        assert_eq!(Op::LINEAR.map(ctas), [128, 128, 128, 128, 132]);
    }

    #[test]
    fn layers_that_do_not_fit_have_no_kernel() {
        let ops = |sizes: Sizes, arch| sizes.ops(arch).skip(Op::ALL.len()).collect::<Vec<_>>();
        assert_eq!(ops(SIZES, Arch::Sm90a), Op::LINEAR);
        assert_eq!(ops(SIZES, Arch::Sm90), []);
        assert_eq!(ops(Sizes { vocab: 32_001, ..SIZES }, Arch::Sm90a), Op::LINEAR[..4]);
        assert_eq!(ops(Sizes { hidden: 40, ..SIZES }, Arch::Sm90a), [Op::Output, Op::Down]);
    }

    #[test]
    fn the_shared_memory_is_that_of_one_block() {
        for depth in (32..20_000).step_by(32) {
            let sizes = Sizes { hidden: depth, ..SIZES };
            let rule = sizes.rule(Op::Qkv);
            assert!(rule.shared_bytes <= Arch::Sm90a.shared_memory_per_block(), "{depth}: {rule:?}");
            assert!(rule.shared_bytes > 190 * 1024, "{depth}: {rule:?}");
        }
    }
}
