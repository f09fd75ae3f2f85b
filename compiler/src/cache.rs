//! Compiled kernels, kept by content: the same source, headers, NVRTC, options and architecture are compiled once.
//!
//! An entry is a folder `cubin-v1/<arch>/<symbol>.<hex12>/` with `kernel.cu`, `kernel.cubin`, `kernel.ptx` and
//! `meta.json`. It is written beside its place, synced, and renamed into it, `meta.json` last; of two writers either
//! wins. An entry is either known to be whole or ignored: `meta.json` holds the full key and the digest of every file,
//! and whatever does not agree is compiled again and replaced. Deleting the folder is always safe.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use moac_runtime::artifact::Resources;
use moac_runtime::digest::Digest;
use serde::{Deserialize, Serialize};

use crate::env;
use crate::names::{self, CACHE_FORMAT};
use crate::nvrtc::{Compiled, Nvrtc, Source};

const SOURCE: &str = "kernel.cu";
const CUBIN: &str = "kernel.cubin";
const PTX: &str = "kernel.ptx";
const META: &str = "meta.json";

/// A cache of kernels, or none.
#[derive(Clone, Debug)]
pub struct Cache {
    root: Option<PathBuf>,
}

/// The metadata of an entry.
#[derive(Debug, Serialize, Deserialize)]
struct Meta {
    key: Digest,
    source: Digest,
    cubin: Digest,
    ptx: Digest,
    resources: Resources,
    warnings: Vec<String>,
}

impl Cache {
    /// The user's.
    pub fn of_this_machine() -> Self {
        Self { root: env::cache_folder().map(|folder| folder.join(CACHE_FORMAT)) }
    }

    /// One below `folder`, which is made when something is stored.
    pub fn at(folder: &Path) -> Self {
        Self { root: Some(folder.join(CACHE_FORMAT)) }
    }

    /// One that holds nothing.
    pub const fn none() -> Self {
        Self { root: None }
    }

    /// Where it is.
    pub fn path(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// The compiled kernel, from the cache or from `nvrtc`, and whether it was in the cache. A cache that cannot be
    /// written to is reported to the log and otherwise no obstacle.
    ///
    /// # Errors
    /// If the kernel does not compile.
    pub fn compile(
        &self,
        nvrtc: &Nvrtc,
        source: &Source,
    ) -> Result<(Compiled, bool), crate::nvrtc::CompileError> {
        let key = names::cache_key(source, nvrtc.build());
        if let Some(compiled) = self.load(source, key) {
            return Ok((compiled, true));
        }
        let compiled = nvrtc.compile(source)?;
        if let Err(error) = self.store(source, key, &compiled) {
            tracing::warn!(symbol = %source.symbol, %error, "the compiled kernel could not be cached");
        }
        Ok((compiled, false))
    }

    /// The entry of `key`, if there is a whole one.
    pub fn load(&self, source: &Source, key: Digest) -> Option<Compiled> {
        let folder = self.entry(source, key)?;
        let meta: Meta = serde_json::from_slice(&std::fs::read(folder.join(META)).ok()?).ok()?;
        let Meta { key: of, source: text, cubin, ptx, resources, warnings } = meta;
        let read = |name: &str, expected| {
            std::fs::read(folder.join(name)).ok().filter(|bytes| Digest::of(bytes) == expected)
        };
        // Twelve digits name the folder; the whole key decides.
        if of != key || text != Digest::of(source.text.as_bytes()) || read(SOURCE, text).is_none() {
            return None;
        }
        let ptx = String::from_utf8(read(PTX, ptx)?).ok()?;
        Some(Compiled { cubin: read(CUBIN, cubin)?, ptx, resources, warnings })
    }

    /// Stores an entry, replacing a damaged one.
    ///
    /// # Errors
    /// If the folder cannot be written to. Nothing partial is left then.
    pub fn store(&self, source: &Source, key: Digest, compiled: &Compiled) -> io::Result<()> {
        let Some(folder) = self.entry(source, key) else { return Ok(()) };
        let Compiled { cubin, ptx, resources, warnings } = compiled;
        let text = source.text.as_bytes();
        let meta = Meta {
            key,
            source: Digest::of(text),
            cubin: Digest::of(cubin),
            ptx: Digest::of(ptx.as_bytes()),
            resources: *resources,
            warnings: warnings.clone(),
        };
        let parent = folder.parent().unwrap_or(&folder);
        std::fs::create_dir_all(parent)?;
        let work = tempfile::Builder::new().prefix(".new-").tempdir_in(parent)?;
        for (name, bytes) in [
            (SOURCE, text),
            (CUBIN, cubin),
            (PTX, ptx.as_bytes()),
            (META, &serde_json::to_vec_pretty(&meta)?),
        ] {
            let mut file = std::fs::File::create_new(work.path().join(name))?;
            file.write_all(bytes)?;
            file.sync_all()?;
        }
        // A folder cannot be renamed onto one that is not empty: either somebody stored the same entry, or it is damaged.
        if std::fs::rename(work.path(), &folder).is_ok() || self.load(source, key).is_some() {
            return Ok(());
        }
        std::fs::remove_dir_all(&folder)?;
        std::fs::rename(work.path(), &folder)
    }

    fn entry(&self, source: &Source, key: Digest) -> Option<PathBuf> {
        let folder = names::cache_entry(&source.symbol, key);
        Some(self.root.as_ref()?.join(source.arch.name()).join(folder))
    }
}
