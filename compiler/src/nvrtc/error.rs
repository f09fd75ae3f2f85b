//! Why there is no NVRTC, and why a kernel does not compile.

use std::fmt;
use std::path::PathBuf;

use moac_runtime::arch::Arch;
use thiserror::Error;

use crate::hint::Hint;

/// One place that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The place, as a user names it: a variable, a folder, the loader's path.
    pub place: String,
    /// What was there.
    pub outcome: Outcome,
}

/// What was found at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// No library of that name.
    Absent,
    /// A library that does not serve.
    Unusable {
        /// Which.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The one that is used.
    Found {
        /// Which.
        path: PathBuf,
    },
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.outcome {
            Outcome::Absent => write!(f, "{}: none", self.place),
            Outcome::Unusable { path, reason } => {
                write!(f, "{}: {} is unusable: {reason}", self.place, path.display())
            }
            Outcome::Found { path } => write!(f, "{}: {}", self.place, path.display()),
        }
    }
}

/// Why there is no NVRTC.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NvrtcError {
    /// Nowhere.
    #[error("NVRTC, CUDA's run-time compiler, was not found; searched:{}", lines(searched))]
    NotFound {
        /// Every place, in order.
        searched: Vec<Attempt>,
    },
    /// The user names one that does not serve. Nothing else is tried then.
    #[error("`MOAC_NVRTC` names {}, which is unusable: {reason}", path.display())]
    Named {
        /// As given.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
}

impl Hint for NvrtcError {
    fn hints(&self) -> Vec<String> {
        let hints: &[&str] = match self {
            Self::NotFound { .. } => &[
                "`moac doctor --fetch` downloads it; no GPU is needed",
                "where it is installed already, set `MOAC_NVRTC` to the libnvrtc.so or its folder",
            ],
            Self::Named { .. } => {
                &["set `MOAC_NVRTC` to a libnvrtc.so of CUDA 12.8 or later or to its folder, or unset it"]
            }
        };
        hints.iter().map(|&hint| hint.to_owned()).collect()
    }
}

/// Why a kernel did not compile, or compiled to something that would be slow.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CompileError {
    /// This NVRTC is too old or too new for the architecture.
    #[error("NVRTC {} does not compile for {arch}: it knows sm_{}", join(version, "."), join(known, ", sm_"))]
    Arch {
        /// Asked for.
        arch: Arch,
        /// Its CUDA version.
        version: [u32; 2],
        /// What it compiles for, as `10 * major + minor`.
        known: Vec<u32>,
    },
    /// The source is wrong.
    #[error("kernel `{symbol}` does not compile for {arch}:\n{log}")]
    Source {
        /// The kernel.
        symbol: String,
        /// For which architecture.
        arch: Arch,
        /// What the compiler says.
        log: String,
    },
    /// NVRTC failed in another way.
    #[error("NVRTC failed on kernel `{symbol}` for {arch}: {call}: {message}")]
    Call {
        /// The kernel.
        symbol: String,
        /// For which architecture.
        arch: Arch,
        /// The function.
        call: &'static str,
        /// What it says.
        message: String,
    },
    /// The source compiled, but the kernel is not in it.
    #[error(
        "the source of kernel `{symbol}` for {arch} has no `extern \"C\" __global__` function of that name"
    )]
    NoKernel {
        /// The kernel.
        symbol: String,
        /// For which architecture.
        arch: Arch,
    },
    /// The assembler's report lacks a figure.
    #[error("NVRTC's report on kernel `{symbol}` for {arch} does not say its {figure}; the report:\n{log}")]
    Report {
        /// The kernel.
        symbol: String,
        /// For which architecture.
        arch: Arch,
        /// Which.
        figure: &'static str,
        /// The report.
        log: String,
    },
    /// More spilled or stacked bytes than the kernel declares.
    #[error("kernel `{symbol}` for {arch} has {found} bytes of {what}, and declares {declared}")]
    LocalMemory {
        /// The kernel.
        symbol: String,
        /// For which architecture.
        arch: Arch,
        /// Spills or stack frame.
        what: &'static str,
        /// Per thread.
        found: u32,
        /// Per thread.
        declared: u32,
    },
    /// Matrix instructions wait for each other.
    #[error(
        "kernel `{symbol}` for {arch} runs its wgmma instructions one by one, and does not declare it:\n{log}"
    )]
    Serialised {
        /// The kernel.
        symbol: String,
        /// For which architecture.
        arch: Arch,
        /// The assembler's lines.
        log: String,
    },
}

fn lines(searched: &[Attempt]) -> String {
    searched.iter().map(|attempt| format!("\n  {attempt}")).collect::<Vec<_>>().concat()
}

fn join(numbers: &[u32], with: &str) -> String {
    numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(with)
}

impl Hint for CompileError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Arch { .. } => {
                vec!["`moac doctor` shows which NVRTC is used and how to get another".to_owned()]
            }
            Self::Source { .. } | Self::NoKernel { .. } => {
                vec!["`moac emit` writes the source that was compiled".to_owned()]
            }
            _ => Vec::new(),
        }
    }
}
