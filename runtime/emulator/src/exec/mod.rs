//! Running a kernel. From the top: `grid` splits a launch into groups of CTAs, `group` picks the warps, `run` is a warp's turn and hands each
//! instruction to the file that executes it, and `step` is what all of those work with.

mod async_copy;
mod atomics;
mod barrier;
mod collective;
mod grid;
mod group;
mod hopper;
mod matrix;
mod mem;
mod mma;
mod run;
mod step;
mod variables;

pub use grid::launch;
