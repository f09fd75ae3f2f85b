//! The interface that a case needs of a device, so that one harness drives the emulator and a GPU.

use std::collections::BTreeMap;

use moac_runtime::attention::Launch;
use moac_runtime::glue;
use thiserror::Error;

use super::candidate::Candidate;
use super::glue::candidate::GlueCandidate;

/// The byte that poisoned memory is full of: in every element type, a row of them is not a number.
pub const POISON: u8 = 0xff;

/// The content of fresh memory.
#[derive(Clone, Copy, Debug)]
pub enum Fresh<'a> {
    /// Nothing that a kernel may read: a GPU holds [`POISON`], the emulator reports the read.
    Unwritten,
    /// [`POISON`], which may be read.
    Poison,
    /// Zeros.
    Zero,
    /// These bytes, and no others.
    Data(&'a [u8]),
}

/// A device's observations of a launch, beyond the memory it wrote.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Defects that it reports, in words.
    pub findings: Vec<String>,
    /// The counters, if it has any.
    pub counts: Option<Counts>,
}

/// Exact counts of a launch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All CTAs together.
    pub total: Count,
    /// Each CTA that ran.
    pub ctas: Vec<((u32, u32, u32), Count)>,
}

/// Counts of a launch or of a CTA.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Bytes read by label, as often as they were asked for.
    pub read: BTreeMap<String, u64>,
    /// Bytes written by label, as often as they were written.
    pub written: BTreeMap<String, u64>,
    /// Bytes written at least once, by label.
    pub unique_written: BTreeMap<String, u64>,
    /// Floating-point operations of matrix instructions.
    pub matrix_flops: u64,
    /// Passes that accesses to shared memory took.
    pub shared_passes: u64,
    /// The passes among them that bank conflicts cost.
    pub bank_conflicts: u64,
}

impl Count {
    /// Bytes read from the labels that `of` names.
    pub fn read_of(&self, of: impl Fn(&str) -> bool) -> u64 {
        self.read.iter().filter(|(label, _)| of(label)).map(|(_, bytes)| bytes).sum()
    }

    /// Bytes written to the labels that `of` names.
    pub fn written_of(&self, of: impl Fn(&str) -> bool) -> u64 {
        self.written.iter().filter(|(label, _)| of(label)).map(|(_, bytes)| bytes).sum()
    }
}

/// Errors of a device. A wrong result of a kernel is not such an error.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// A kernel could not be loaded, or a launch not started.
    #[error("{symbol}: {source}")]
    Kernel {
        /// The kernel.
        symbol: String,
        /// The underlying error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Memory could not be had, written or read.
    #[error("device memory `{label}`: {source}")]
    Memory {
        /// Its purpose.
        label: String,
        /// The underlying error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A machine that runs kernels.
pub trait Device {
    /// Whether memory is cheap to leave unwritten and everything written is accounted for, so that only what a case
    /// needs is put there. Otherwise inputs stay from case to case and outputs are compared whole.
    fn is_sparse(&self) -> bool;

    /// Multiprocessors, for grids.
    fn sms(&self) -> u32;

    /// The byte that unwritten memory reads as.
    fn blank(&self) -> u8;

    /// How much its matrix instructions may add to the error of a log-sum-exp. Tensor cores cut the terms of a sum
    /// off below its largest, which a float32 sum does not.
    fn lse_slack(&self) -> f64;

    /// Makes a kernel the one that launches run.
    ///
    /// # Errors
    /// If the code is not for this device.
    fn load(&mut self, candidate: &Candidate) -> Result<(), DeviceError>;

    /// Makes a kernel of the engine the one that [`launch_glue`](Self::launch_glue) runs.
    ///
    /// # Errors
    /// If the code is not for this device.
    fn load_glue(&mut self, candidate: &GlueCandidate) -> Result<(), DeviceError>;

    /// The address of `bytes` of fresh memory. What had the same label and number is gone.
    ///
    /// # Errors
    /// If there is not enough.
    fn alloc(&mut self, label: &str, number: u32, bytes: u64, fresh: Fresh<'_>) -> Result<u64, DeviceError>;

    /// Gives all memory back.
    fn clear(&mut self);

    /// Writes bytes.
    ///
    /// # Errors
    /// If they are not inside one allocation.
    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), DeviceError>;

    /// Writes `bytes` bytes that `fill` makes.
    ///
    /// # Errors
    /// If they are not inside one allocation.
    fn make(&mut self, address: u64, bytes: u64, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), DeviceError>;

    /// Reads bytes, which stay until the next call.
    ///
    /// # Errors
    /// If they are not inside one allocation.
    fn read(&mut self, address: u64, bytes: u64) -> Result<&mut [u8], DeviceError>;

    /// Runs the loaded kernel to its end. Where `ctas` names CTAs, a device that can choose runs only those.
    ///
    /// # Errors
    /// If it could not start, or the device failed.
    fn launch(&mut self, launch: &Launch, ctas: Option<&[(u32, u32, u32)]>) -> Result<Seen, DeviceError>;

    /// Runs the loaded kernel of the engine to its end.
    ///
    /// # Errors
    /// If it could not start, or the device failed.
    fn launch_glue(&mut self, launch: &glue::Launch) -> Result<Seen, DeviceError>;
}
