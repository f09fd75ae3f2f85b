//! The ledger of kernels proven on silicon: `tests/gpu/ledger.json`.
//!
//! An entry names a kernel by the SHA-256 of its machine code, so it holds for exactly the bytes that were run. The
//! file is sorted, so that two verifications of the same kernels differ in nothing but what they measured.

use std::io;
use std::path::{Path, PathBuf};

use moac_runtime::arch::Arch;
use moac_runtime::artifact::{self, Digest};
use moac_runtime::gpu::DeviceInfo;
use moac_runtime::launch::Phase;
use moac_runtime::plan::DType;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::session::{Status, Verdict};

/// The `format` of the file.
pub const FORMAT: &str = "moac.ledger/1";

/// The file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    /// Always [`FORMAT`].
    pub format: String,
    /// One entry per machine code, sorted by symbol and architecture.
    pub kernels: Vec<Entry>,
}

/// A kernel that passed on a GPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    pub symbol: String,
    /// What its machine code was made for.
    pub arch: Arch,
    /// What it computes.
    pub phase: Phase,
    /// Element type.
    pub dtype: DType,
    /// The SHA-256 of its machine code.
    pub cubin: Digest,
    /// The build of the NVRTC that made it.
    pub nvrtc: String,
    /// The GPU that ran it.
    pub gpu: String,
    /// The newest CUDA version of that machine's driver.
    pub driver: String,
    /// The largest relative Frobenius error of a case.
    pub error: f64,
    /// Query rows that were compared with the reference.
    pub rows: usize,
}

/// Why there is no ledger, or why it could not be written.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// The file cannot be read or written.
    #[error("cannot {action} `{}`: {source}", path.display())]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is something else.
    #[error("`{}` is no ledger: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
}

impl Default for Ledger {
    fn default() -> Self {
        Self { format: FORMAT.to_owned(), kernels: Vec::new() }
    }
}

impl Ledger {
    /// Reads a ledger; where there is no file, an empty one.
    ///
    /// # Errors
    /// A file that cannot be read, or that is no ledger.
    pub fn read(path: &Path) -> Result<Self, LedgerError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(LedgerError::File { action: "read", path: path.to_owned(), source }),
        };
        let format = |reason| LedgerError::Format { path: path.to_owned(), reason };
        let ledger: Self = serde_json::from_str(&text).map_err(|error| format(error.to_string()))?;
        if ledger.format != FORMAT {
            return Err(format(format!("its format is `{}`, expected `{FORMAT}`", ledger.format)));
        }
        Ok(ledger)
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// If the file cannot be written.
    ///
    /// # Panics
    /// Never: an entry is plain data.
    pub fn write(&self, path: &Path) -> Result<(), LedgerError> {
        let mut text = serde_json::to_string_pretty(self).expect("a ledger is plain data");
        text.push('\n');
        artifact::write(path, text.as_bytes()).map_err(|source| LedgerError::File {
            action: "write",
            path: path.to_owned(),
            source,
        })
    }

    /// Takes in a verdict from a GPU: a kernel that passed gets an entry, one that failed loses its own.
    pub fn record(&mut self, verdict: &Verdict, nvrtc: &str, gpu: &DeviceInfo) {
        if verdict.status == Status::NotRun {
            return;
        }
        self.kernels.retain(|entry| entry.cubin != verdict.cubin);
        if verdict.status == Status::Passed {
            self.kernels.push(Entry {
                symbol: verdict.symbol.clone(),
                arch: verdict.arch,
                phase: verdict.phase,
                dtype: verdict.dtype,
                cubin: verdict.cubin,
                nvrtc: nvrtc.to_owned(),
                gpu: gpu.name.clone(),
                driver: format!("CUDA {}.{}", gpu.driver[0], gpu.driver[1]),
                error: verdict.error,
                rows: verdict.rows,
            });
        }
        self.kernels.sort_by(|a, b| (&a.symbol, a.arch, a.cubin).cmp(&(&b.symbol, b.arch, b.cubin)));
    }

    /// Whether machine code has an entry.
    pub fn has(&self, cubin: Digest) -> bool {
        self.kernels.iter().any(|entry| entry.cubin == cubin)
    }
}
