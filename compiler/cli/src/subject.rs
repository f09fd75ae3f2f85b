//! The input of a command that takes a plan or an artifact: which of the two a file is.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use moac_compiler::plan;
use moac_runtime::artifact::Artifact;
use moac_runtime::plan::Plan;

use crate::error::Error;
use crate::shape::shape;

/// A plan or an artifact, read and checked.
#[derive(Debug)]
pub enum Subject {
    /// A plan file.
    Plan(Box<Plan>),
    /// A compiled artifact.
    Artifact(Box<Artifact>),
}

impl Subject {
    /// Opens the file at `path`. `model` is `--model`, which only a plan needs.
    pub fn open(path: &Path, model: Option<&str>) -> Result<Self, Error> {
        if is_artifact(path)? {
            let opened = Artifact::open(path);
            let artifact = opened.map_err(|source| Error::Open { path: path.to_owned(), source })?;
            Ok(Self::Artifact(Box::new(artifact)))
        } else {
            Ok(Self::Plan(Box::new(plan::read(path, model.map(shape).transpose()?)?)))
        }
    }
}

/// Whether a file is an artifact: by its name, or because it starts as safetensors do, with a length of eight bytes
/// whose upper ones are zero, which no text has.
fn is_artifact(path: &Path) -> Result<bool, Error> {
    if path.extension().is_some_and(|extension| extension == "moac") {
        return Ok(true);
    }
    // Only a regular file can be looked at and then read again from its start.
    if !path.is_file() {
        return Ok(false);
    }
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(9).read_to_end(&mut start));
    read.map_err(Error::file("read", path))?;
    Ok(start.len() == 9 && start[5..8] == [0; 3] && start[8] == b'{')
}
