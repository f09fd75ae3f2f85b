//! Errors of finding NVRTC and of compiling a kernel.

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
    /// The outcome there.
    pub outcome: Outcome,
}

/// The outcome of searching one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// No library of that name.
    Absent,
    /// A library that does not serve.
    Unusable {
        /// The path.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The one that is used.
    Found {
        /// The path.
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

/// Errors of finding NVRTC.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NvrtcError {
    /// Nowhere.
    #[error("NVRTC, CUDA's run-time compiler, was not found in any of these places:{}", lines(searched))]
    NotFound {
        /// Every place, in order.
        searched: Vec<Attempt>,
    },
    /// The user names one that does not serve. Nothing else is tried then.
    #[error("`MOAC_NVRTC` names {}, which is unusable: {reason}", path.display())]
    Named {
        /// As given.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
}

impl Hint for NvrtcError {
    fn hints(&self) -> Vec<String> {
        let hints: &[&str] = match self {
            Self::NotFound { .. } => &[
                "`moac doctor --fetch` downloads it; no GPU is needed",
                "if it is installed already, set `MOAC_NVRTC` to its libnvrtc.so or folder",
            ],
            Self::Named { .. } => {
                &["set `MOAC_NVRTC` to a libnvrtc.so of CUDA 12.8 or later or to its folder, or unset it"]
            }
        };
        hints.iter().map(|&hint| hint.to_owned()).collect()
    }
}

/// Errors of compiling a kernel, and code that would be slow.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CompileError {
    /// This NVRTC is too old or too new for the architecture.
    #[error("NVRTC {} does not support {arch}, only sm_{}", join(version, "."), join(known, ", sm_"))]
    Arch {
        /// Asked for.
        arch: Arch,
        /// Its CUDA version.
        version: [u32; 2],
        /// The architectures that it supports, as `10 * major + minor`.
        known: Vec<u32>,
    },
    /// The source is wrong.
    #[error("kernel `{symbol}` does not compile for {arch}:\n{log}")]
    Source {
        /// The kernel.
        symbol: String,
        /// For which architecture.
        arch: Arch,
        /// The compiler's output.
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
        /// NVRTC's message.
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
    #[error("NVRTC's report on kernel `{symbol}` for {arch} lacks its {figure}:\n{log}")]
    Report {
        /// The kernel.
        symbol: String,
        /// For which architecture.
        arch: Arch,
        /// The path.
        figure: &'static str,
        /// The report.
        log: String,
    },
    /// More spilled or stacked bytes than the kernel declares.
    #[error("kernel `{symbol}` for {arch} has {found} bytes of {what}, but declares {declared}")]
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
        "kernel `{symbol}` for {arch} has serialised wgmma instructions, but does not declare them:\n{log}"
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
