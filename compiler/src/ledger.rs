//! The GPU ledger: which machine code has passed `moac verify` on silicon.
//!
//! An entry is a cubin's sha256, as the pinned NVRTC makes it, with where and how well it ran; so it holds for exactly
//! the bytes that ran, and a changed kernel is unproven again. The file is sorted and holds no time, so that recording
//! the same run twice changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use moac_runtime::arch::Arch;
use moac_runtime::artifact::{Artifact, Kernel};
use moac_runtime::digest::Digest;
use moac_runtime::file;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::fetch;

/// The version of the file's format.
const FORMAT: u32 = 1;

/// The ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    format: u32,
    kernels: BTreeMap<Digest, Entry>,
}

/// A run of a kernel that passed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The kernel's name.
    pub symbol: String,
    /// The architecture that it was compiled for.
    pub arch: Arch,
    /// The GPU that it ran on, by its name.
    pub gpu: String,
    /// The CUDA version of the driver, `[major, minor]`.
    pub driver: [u32; 2],
    /// The largest relative Frobenius error of its cases.
    pub error: f64,
}

/// Errors of the ledger.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The file cannot be read or written.
    #[error("cannot {action} the ledger `{}`: {source}", path.display())]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The underlying error.
        source: std::io::Error,
    },
    /// The file is something else.
    #[error("`{}` is not a ledger: {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The problem.
        reason: String,
    },
    /// The kernels were compiled with another NVRTC: nobody else could reproduce the same bytes.
    #[error("the ledger is for NVRTC {expected}, but the kernels were compiled with {found}")]
    Nvrtc {
        /// The build that compiled them.
        found: String,
        /// The pinned build.
        expected: &'static str,
    },
}

impl Default for Ledger {
    fn default() -> Self {
        Self { format: FORMAT, kernels: BTreeMap::new() }
    }
}

impl Ledger {
    /// Reads a ledger; an absent file is an empty one.
    ///
    /// # Errors
    /// If the file cannot be read or is not a ledger.
    pub fn read(path: &Path) -> Result<Self, LedgerError> {
        let text = match file::read_text(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(LedgerError::File { action: "read", path: path.to_owned(), source }),
        };
        let content = |reason| LedgerError::Content { path: path.to_owned(), reason };
        let ledger: Self = serde_json::from_str(&text).map_err(|error| content(error.to_string()))?;
        if ledger.format == FORMAT {
            Ok(ledger)
        } else {
            Err(content(format!("format {}, expected {FORMAT}", ledger.format)))
        }
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), LedgerError> {
        let file = |source| LedgerError::File { action: "write", path: path.to_owned(), source };
        let text = serde_json::to_string_pretty(self).map_err(|error| file(error.into()))?;
        file::write(path, format!("{text}\n").as_bytes()).map_err(file)
    }

    /// Adds a kernel that passed, in place of the earlier entry of the same cubin.
    ///
    /// # Errors
    /// If the artifact was not compiled with the pinned NVRTC.
    pub fn record(&mut self, artifact: &Artifact, kernel: &Kernel, entry: Entry) -> Result<(), LedgerError> {
        let (found, expected) = (&artifact.manifest().producer.nvrtc, fetch::NVRTC.version);
        if found != expected {
            return Err(LedgerError::Nvrtc { found: found.clone(), expected });
        }
        self.kernels.insert(Digest::of(artifact.cubin(kernel)), entry);
        Ok(())
    }

    /// Drops what is known of a cubin: it has failed since.
    pub fn forget(&mut self, cubin: Digest) {
        self.kernels.remove(&cubin);
    }

    /// The entry of a cubin.
    pub fn get(&self, cubin: Digest) -> Option<&Entry> {
        self.kernels.get(&cubin)
    }

    /// How many cubins it holds.
    pub fn len(&self) -> usize {
        self.kernels.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.kernels.is_empty()
    }

    /// Drops every entry that is not of one of `current`; returns how many there were.
    pub fn prune(&mut self, current: &BTreeSet<Digest>) -> usize {
        let before = self.kernels.len();
        self.kernels.retain(|cubin, _| current.contains(cubin));
        before - self.kernels.len()
    }
}
