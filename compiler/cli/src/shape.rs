//! The model that `--model` names (a preset, a configuration or a GGUF file): the shape that plans are made for, and what the
//! engine's kernels are compiled for.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use moac_compiler::plan;
use moac_runtime::glue::EngineShape;
use moac_runtime::plan::ModelShape;

use crate::error::Error;

/// The shape that `--model NAME` stands for. GGUF files are read here, since the compiler knows no model's weights.
pub fn shape(name: &str) -> Result<ModelShape, Error> {
    let path = Path::new(name);
    if plan::presets::get(name).is_none() && is_gguf(path) {
        let shape = moac_model::read_config(path).map_err(Error::Gguf)?.shape();
        plan::supported(&shape, path)?;
        return Ok(shape);
    }
    Ok(plan::shape(name)?)
}

/// The shape that the engine's kernels of the model are compiled for. A preset states only what plans need, and has none.
pub fn engine_shape(name: &str) -> Result<Option<EngineShape>, moac_model::ModelError> {
    if plan::presets::get(name).is_some() {
        return Ok(None);
    }
    Ok(Some(moac_model::read_config(Path::new(name))?.engine_shape()))
}

/// Whether a file begins as GGUF does. One that cannot be read is left to the caller, which reports the error.
fn is_gguf(path: &Path) -> bool {
    let mut start = Vec::new();
    path.is_file()
        && File::open(path).and_then(|file| file.take(4).read_to_end(&mut start)).is_ok()
        && start == *b"GGUF"
}
