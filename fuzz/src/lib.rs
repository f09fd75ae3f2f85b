//! Fuzzing of everything that comes from outside: a target per kind of file or request, and a mutation loop that runs on
//! the stable compiler. The README beside says how to run it, and what it found.
//!
//! What must hold of every target and input: it returns, within seconds, with memory of a small multiple of the input
//! on top of a constant.

#![forbid(unsafe_code)]

mod files;
mod mutate;
mod note;
mod pool;
mod sealed;
mod targets;
mod worker;

pub use mutate::Mutator;
pub use note::{Note, Progress};
pub use pool::{Order, Report, run};
pub use targets::{TARGETS, Target, home};
pub use worker::{Failure, work};
