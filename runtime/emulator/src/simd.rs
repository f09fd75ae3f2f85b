//! Loops over lanes, written in plain Rust, compiled once per instruction set; the best is picked when the program runs. The results do
//! not depend on it: nothing is contracted or reordered.

// A function that is not inlined into the one with the wide vectors is compiled without them.
#![allow(clippy::inline_always)]

pub(crate) use pulp::NullaryFnOnce;

/// Runs a loop with the widest vectors that the machine has. What it calls must be inlined into it to profit, and so must
/// `f` itself: a closure of a few lines is; of anything longer make a type whose `call` says `#[inline(always)]`.
#[inline]
pub(crate) fn vectorized<F: NullaryFnOnce>(f: F) -> F::Output {
    pulp::Arch::new().dispatch(f)
}

/// Makes a register, lane by lane.
pub(crate) struct EachLane<F>(pub(crate) F);

impl<F: Fn(usize) -> u64> NullaryFnOnce for EachLane<F> {
    type Output = [u64; 32];

    #[inline(always)]
    fn call(self) -> [u64; 32] {
        let mut all = [0; 32];
        for (l, out) in all.iter_mut().enumerate() {
            *out = self.0(l);
        }
        all
    }
}

/// Makes a bit of each lane.
pub(crate) struct EachBit<F>(pub(crate) F);

impl<F: Fn(usize) -> bool> NullaryFnOnce for EachBit<F> {
    type Output = u32;

    #[inline(always)]
    fn call(self) -> u32 {
        let mut out = 0;
        for l in 0..32 {
            out |= u32::from(self.0(l)) << l;
        }
        out
    }
}
