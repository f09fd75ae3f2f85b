//! The references of an operation: its registers, and the targets of control flow. Register assignment and control flow rely on both.

use super::Op;
use super::operand::{Reg, Use};

impl Op {
    /// Calls `f` for each general register that the operation names.
    pub(crate) fn visit(&mut self, f: &mut dyn FnMut(Use, &mut Reg)) {
        use Use::{Read, Write};
        fn all(f: &mut dyn FnMut(Use, &mut Reg), how: Use, regs: &mut [Reg]) {
            for r in regs {
                f(how, r);
            }
        }
        match self {
            Self::Map { d, s, n, .. } => {
                all(f, Read, &mut s[..usize::from(*n)]);
                // Maps of fewer operands ignore the rest, which only has to exist.
                let first = s[0];
                s[usize::from(*n)..].fill(first);
                f(Write, d);
            }
            Self::Test { a, b, .. } => {
                f(Read, a);
                f(Read, b);
            }
            Self::Select { d, a, b, .. } | Self::Carry { d, a, b, .. } => {
                f(Read, a);
                f(Read, b);
                f(Write, d);
            }
            Self::Switch { index, .. } => f(Read, index),
            Self::Clock { d, .. } | Self::ActiveMask { d } => f(Write, d),
            Self::Ld { place, d, .. } => {
                f(Read, &mut place.address.base);
                all(f, Write, d);
            }
            Self::St { place, s } => {
                f(Read, &mut place.address.base);
                all(f, Read, s);
            }
            Self::Atom { place, d, b, c, .. } => {
                f(Read, &mut place.address.base);
                f(Read, b);
                all(f, Read, c.as_mut_slice());
                all(f, Write, d.as_mut_slice());
            }
            Self::CpAsync { to, from, size, .. } => {
                f(Read, &mut to.base);
                f(Read, &mut from.base);
                all(f, Read, size.as_mut_slice());
            }
            Self::Ldmatrix { address, d, .. } => {
                f(Read, &mut address.base);
                all(f, Write, d);
            }
            Self::Stmatrix { address, s, .. } => {
                f(Read, &mut address.base);
                all(f, Read, s);
            }
            Self::Movmatrix { d, a } => {
                f(Read, a);
                f(Write, d);
            }
            Self::Mma { d, ra, rb, rc, .. } => {
                all(f, Read, ra);
                all(f, Read, rb);
                all(f, Read, rc);
                all(f, Write, d);
            }
            Self::Shuffle { d, a, b, c, mask, .. } => {
                for r in [a, b, c, mask] {
                    f(Read, r);
                }
                f(Write, d);
            }
            Self::Vote { d, mask, .. } | Self::Elect { d, mask, .. } => {
                f(Read, mask);
                all(f, Write, d.as_mut_slice());
            }
            Self::Match { d, a, mask, .. } | Self::Redux { d, a, mask, .. } => {
                f(Read, a);
                f(Read, mask);
                f(Write, d);
            }
            Self::WarpBarrier { mask } => f(Read, mask),
            Self::Hopper(op) => op.visit(f),
            Self::Barrier { id, count, d, .. } => {
                f(Read, id);
                all(f, Read, count.as_mut_slice());
                all(f, Write, d.as_mut_slice());
            }
            Self::Logic { .. }
            | Self::Branch { .. }
            | Self::Exit
            | Self::Trap
            | Self::Nop
            | Self::CpCommit
            | Self::CpWait { .. }
            | Self::Fence { .. } => {}
        }
    }

    /// Where control can go from here, beside the next instruction.
    pub(crate) fn targets(&self) -> &[u32] {
        match self {
            Self::Branch { target } => std::slice::from_ref(target),
            Self::Switch { targets, .. } => targets,
            _ => &[],
        }
    }

    /// Whether control never goes on to the next instruction, if unguarded.
    pub(crate) fn diverts(&self) -> bool {
        matches!(self, Self::Branch { .. } | Self::Switch { .. } | Self::Exit | Self::Trap)
    }
}
