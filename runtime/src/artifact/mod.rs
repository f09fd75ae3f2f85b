//! Artifacts: the file that a plan compiles to, its writing, and its opening with every check that needs no GPU.
//!
//! A `.moac` file is a safetensors container: any language opens it with the library that it already has. Its U8
//! tensors are, for each kernel, `<arch>/<symbol>.cubin`, `.ptx` (of the same compilation) and `.cu`, and
//! `headers/<path>` for each included file. Its metadata holds the [`Manifest`] and the digest of it.
//!
//! A file is untrusted. [`Artifact::open`] checks, in this order, each check with an error of its own in
//! [`OpenError`]: the format's version; that every tensor lies within the file; the manifest's schema, the tensors'
//! names and the ranges of all values; the digests; the geometry, recomputed from the plan; the kernels' ABI.
//! Checks that need a device come on loading ([`LoadError`]): the architecture; the driver; symbols and resources;
//! device memory. The digests detect damage; they are not a signature: do not run an artifact from a source that you do not trust.

mod check;
mod container;
mod engine;
mod error;
mod manifest;
mod message;
mod recompute;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::time::Instant;

pub use container::encode;
pub use engine::shape_of as check_engine_shape;
pub use error::{LoadError, OpenError};
pub use manifest::{
    Engine, FORMAT_VERSION, HEADERS, Kernel, Layer, LayerKernels, METADATA_KEY, Manifest, Producer,
    Resources, Role,
};
pub use values::plan as check_plan;

use crate::arch::Arch;
use crate::digest::Digest;
use crate::geometry::Geometry;
use crate::glue::Op;
use crate::launch::Phase;

/// An artifact that passed every check that needs no GPU.
pub struct Artifact {
    manifest: Manifest,
    digest: Digest,
    bytes: Vec<u8>,
    tensors: BTreeMap<String, Range<usize>>,
}

impl Artifact {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let began = Instant::now();
        let path = path.as_ref();
        let read = || {
            // A pipe or a device may never end.
            if !std::fs::metadata(path)?.is_file() {
                return Err(std::io::Error::other("not a regular file"));
            }
            std::fs::read(path)
        };
        let bytes = read().map_err(|source| OpenError::Read { path: path.to_owned(), source })?;
        let artifact = Self::from_bytes(bytes)?;
        tracing::debug!(bytes = artifact.bytes.len(), took = ?began.elapsed(), "opened and checked an artifact");
        Ok(artifact)
    }

    /// Checks the bytes of a file.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, OpenError> {
        let check::Checked { manifest, digest, tensors } = check::check(&bytes)?;
        Ok(Self { manifest, digest, bytes, tensors })
    }

    /// The manifest of the file.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The digest of the manifest, and so of everything in the file.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Spans, rings and slab sizes.
    pub fn geometry(&self) -> &Geometry {
        &self.manifest.geometry
    }

    /// The kernel of `layer` and `phase` for `arch`, or `None` where there is no such layer or architecture.
    pub fn kernel(&self, layer: u32, phase: Phase, arch: Arch) -> Option<&Kernel> {
        let ids = self.manifest.layers.get(layer as usize)?.kernels.get(&arch)?;
        self.manifest.kernels.get(ids.of(phase))
    }

    /// The kernel of the engine's `op` for `arch`, or `None` where there is none.
    pub fn engine_kernel(&self, op: Op, arch: Arch) -> Option<&Kernel> {
        let id = self.manifest.engine.as_ref()?.kernels.get(&arch)?.get(&op)?;
        self.manifest.kernels.get(*id)
    }

    /// A kernel's machine code; empty for a kernel of another artifact.
    pub fn cubin(&self, kernel: &Kernel) -> &[u8] {
        self.tensor(&kernel.cubin()).unwrap_or_default()
    }

    /// A kernel's PTX.
    ///
    /// # Errors
    /// If it is not UTF-8, which NVRTC's always is.
    pub fn ptx(&self, kernel: &Kernel) -> Result<&str, std::str::Utf8Error> {
        std::str::from_utf8(self.tensor(&kernel.ptx()).unwrap_or_default())
    }

    /// A kernel's generated source.
    ///
    /// # Errors
    /// If it is not UTF-8, which moac's always is.
    pub fn source(&self, kernel: &Kernel) -> Result<&str, std::str::Utf8Error> {
        std::str::from_utf8(self.tensor(&kernel.source()).unwrap_or_default())
    }

    /// The bytes of a tensor.
    pub fn tensor(&self, name: &str) -> Option<&[u8]> {
        self.tensors.get(name).map(|range| &self.bytes[range.clone()])
    }

    /// The names of all tensors, sorted.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Artifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the bytes: they are megabytes of machine code.
        let model = &self.manifest.plan.model.name;
        f.debug_struct("Artifact").field("model", model).field("digest", &self.digest).finish_non_exhaustive()
    }
}

/// Artifacts are shared between threads.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<Artifact>();
};
