//! Read-only memory maps of model files: the one place of this module with `unsafe` in it.

use std::fs::File;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use crate::ModelError;

/// The bytes of a file, paged in as they are read.
#[derive(Debug)]
pub struct Mapped {
    path: PathBuf,
    map: memmap2::Mmap,
}

impl Mapped {
    /// Maps a file.
    ///
    /// The file must not change while it is mapped: a reader would see the change, and a file cut short ends the
    /// process with a bus error. Model files are written once, so this is the usual trade for not copying them.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let read = |source| ModelError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(read)?;
        // SAFETY: the map is read-only and private to this process; that the file stays as it is, is the documented
        // condition above. Every offset into it is checked against its length by safe slicing.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(read)?;
        refuse_pointer(path, &map)?;
        Ok(Self { path: path.to_owned(), map })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Refuses what git leaves in place of a large file where git-lfs is not installed.
pub(crate) fn refuse_pointer(path: &Path, bytes: &[u8]) -> Result<(), ModelError> {
    if bytes.starts_with(b"version https://git-lfs.github.com/spec/") {
        return Err(ModelError::LfsPointer { path: path.to_owned() });
    }
    Ok(())
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}
