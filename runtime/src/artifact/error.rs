//! Errors of opening and loading an artifact. The variants are in the order of the checks.

use std::path::PathBuf;

use thiserror::Error;

use crate::arch::Arch;
use crate::digest::Digest;

/// Errors of opening an artifact. No GPU is needed for these checks.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The path of the file.
        path: PathBuf,
        /// The underlying error.
        source: std::io::Error,
    },
    /// It is another kind of file, or its beginning is damaged.
    #[error("not a moac artifact: {reason}")]
    Container {
        /// The value found.
        reason: String,
    },
    /// Check 1: another version of the format.
    #[error("format version {found}, expected {expected}: compile the plan again with this version of moac")]
    Version {
        /// In the file.
        found: u32,
        /// The version that this crate reads.
        expected: u32,
    },
    /// Check 2: the table of tensors does not fit the file.
    #[error("truncated or damaged: the tensor table does not fit the file of {length} bytes: {reason}")]
    Bounds {
        /// The file's length in bytes.
        length: usize,
        /// The mismatch.
        reason: String,
    },
    /// Check 2: a tensor that is not a plain row of bytes.
    #[error("tensor `{tensor}` is {found}, expected U8 of one dimension")]
    TensorType {
        /// Its name.
        tensor: String,
        /// Its type and shape.
        found: String,
    },
    /// Check 3: the manifest lacks a field or has one of another type.
    #[error("the manifest does not follow the schema: {reason}")]
    Schema {
        /// The problem and its location.
        reason: String,
    },
    /// Check 3: the manifest names a tensor that the file does not have.
    #[error("tensor `{tensor}` is missing: the manifest names it")]
    MissingTensor {
        /// Its name.
        tensor: String,
    },
    /// Check 3: the file has a tensor that the manifest does not name.
    #[error("unknown tensor `{tensor}`: the manifest does not name it")]
    UnknownTensor {
        /// Its name.
        tensor: String,
    },
    /// Check 3: a value out of its range.
    #[error("`{at}` is {found}, expected {expected}")]
    Value {
        /// Path in the manifest.
        at: String,
        /// In the file.
        found: String,
        /// The values allowed.
        expected: String,
    },
    /// Check 4: the bytes of the manifest or of a tensor are not those that were written.
    #[error("{what} is damaged: sha256 {found}, expected {expected}")]
    Hash {
        /// The manifest, or which tensor.
        what: String,
        /// Of the bytes in the file.
        found: Digest,
        /// As recorded.
        expected: Digest,
    },
    /// Check 5: the recorded geometry is not the one that follows from the plan.
    #[error("`{at}` is {found}, but the plan gives {expected}")]
    Geometry {
        /// Path in the manifest.
        at: String,
        /// As recorded.
        found: String,
        /// As recomputed.
        expected: String,
    },
    /// Check 6: the kernels take another parameter block.
    #[error(
        "the kernels' ABI has {what} {found}, expected {expected}: compile the plan again with this version of moac"
    )]
    Abi {
        /// The version, or the size of the block.
        what: &'static str,
        /// In the file.
        found: u64,
        /// The version that this crate supports.
        expected: u64,
    },
}

/// Errors of loading an open artifact on a device.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoadError {
    /// Check 7: no kernels for this device. PTX is never compiled in their stead.
    #[error(
        "no kernels for {device} (compute capability {major}.{minor}): the artifact has {}; compile it with `--arch`",
        found.iter().map(|arch| arch.name()).collect::<Vec<_>>().join(", ")
    )]
    Arch {
        /// The device's name.
        device: String,
        /// Of its compute capability.
        major: u32,
        /// Of its compute capability.
        minor: u32,
        /// The architectures in the artifact.
        found: Vec<Arch>,
    },
    /// Check 8: the driver is older than the compiler.
    #[error(
        "the driver supports CUDA {}.{}, the artifact was compiled with CUDA {}.{}: update the driver",
        found[0], found[1], expected[0], expected[1]
    )]
    Driver {
        /// The newest CUDA version of the driver, `[major, minor]`.
        found: [u32; 2],
        /// The version of the NVRTC that made the kernels.
        expected: [u32; 2],
    },
    /// Check 9: the driver refuses a cubin, or the kernel is not in it.
    #[error("kernel `{symbol}` does not load: {reason}")]
    Symbol {
        /// Its name.
        symbol: String,
        /// Any error of the driver.
        reason: String,
    },
    /// Check 9: the loaded kernel is not the one that the manifest describes, or takes more than the device has.
    #[error("kernel `{symbol}` takes {found} {what}, expected {expected}")]
    Resources {
        /// Its name.
        symbol: String,
        /// The resource, with its unit.
        what: &'static str,
        /// As loaded.
        found: u64,
        /// As recorded, or the device's limit.
        expected: u64,
    },
    /// Check 10: not enough device memory.
    #[error("out of device memory: {what} needs {needed} bytes, {free} are free")]
    DeviceMemory {
        /// The purpose of the memory.
        what: String,
        /// Bytes it takes.
        needed: u64,
        /// Bytes there are.
        free: u64,
    },
}
