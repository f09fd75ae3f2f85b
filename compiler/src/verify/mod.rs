//! Every kernel against the float64 reference, on a GPU or on the PTX emulator.
//!
//! A [`Candidate`] is a kernel; a [`Case`] is a launch of it; a [`Harness`] runs cases on a [`Device`] and checks all that
//! came of them: outputs against the oracle, every element written and finite, nothing else written, slabs byte for
//! byte, and, where the device reports them, its findings and counts. The engine's own kernels are in [`glue`].

pub mod bounds;
pub mod budget;
pub mod candidate;
pub mod case;
pub mod cases;
pub mod compare;
pub mod device;
pub mod emulated;
pub mod expect;
pub mod glue;
pub mod gpu;
pub mod image;
pub mod inputs;
mod layer;
mod outputs;
pub mod rows;
pub mod run;
pub mod session;
mod stage;
mod verdict;

pub use crate::lower::family::Tile;
pub use candidate::Candidate;
pub use case::{Case, Layout, Request, Work};
pub use compare::{Failure, Kind};
pub use device::{Device, DeviceError};
pub use emulated::Emulated;
pub use glue::{GlueCandidate, GlueCase};
pub use gpu::Gpu;
pub use inputs::Inputs;
pub use layer::Layer;
pub use run::{Error, Harness};
pub use verdict::Outcome;
