//! A PTX emulator that knows nothing of attention: it runs the PTX that NVRTC emits on the CPU, exactly enough to prove a kernel
//! right, to find its races and its stray accesses, and to count what it moves. It models no time.
//!
//! ```
//! use moac_emulator::{Launch, Memory, Module, launch};
//!
//! let module = Module::parse(
//!     ".version 9.0\n.target sm_90a\n.address_size 64\n
//!      .visible .entry twice(.param .u64 data) {
//!        .reg .b32 %r<3>; .reg .b64 %rd<4>;
//!        ld.param.u64 %rd1, [data];  cvta.to.global.u64 %rd1, %rd1;
//!        mov.u32 %r1, %tid.x;  mul.wide.u32 %rd2, %r1, 4;  add.s64 %rd3, %rd1, %rd2;
//!        ld.global.u32 %r2, [%rd3];  add.s32 %r2, %r2, %r2;  st.global.u32 [%rd3], %r2;  ret; }",
//! )?;
//! let mut memory = Memory::new();
//! let data = memory.alloc_from("data", &[1, 0, 0, 0, 2, 0, 0, 0]);
//! let report = launch(&module, &mut memory, &Launch::new("twice", 1, 2).param(&data.to_le_bytes()))?;
//! assert!(report.completed && report.findings.is_empty());
//! assert_eq!(memory.read(data, 8)?, [2, 0, 0, 0, 4, 0, 0, 0]);
//! assert_eq!(report.counters.global["data"].read.unique_bytes, 8);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A defect of a kernel is a [`Finding`] in the [`Report`], never an `Err`: [`Fault`] is for launches that cannot start.
//! PTX that the emulator does not know is a [`ParseError`] that names the instruction and its line, never a guess.
//! The same module, memory, launch and schedule seed give the same bytes, findings and counters, on any number of host cores.
#![forbid(unsafe_code)]

mod cfg;
mod count;
mod decode;
mod exec;
mod hb;
mod hopper;
mod ir;
mod kernel;
mod lanes;
mod launch;
mod memory;
mod module;
mod parse;
mod report;
mod schedule;
mod simd;
mod state;

pub use count::{Class, Counters, SharedTraffic, Traffic, Transfers};
pub use exec::launch;
pub use hopper::swizzle::Swizzle;
pub use hopper::tensor_map::{OobFill, TensorMap, TensorMapError, TensorType};
pub use kernel::{Kernel, KernelParam};
pub use launch::{Fault, Launch};
pub use memory::global::{HostAccess, Memory};
pub use module::Module;
pub use parse::ParseError;
pub use report::{CtaCounters, Dim3, Finding, FindingKind, Other, Report, Space, Thread};
