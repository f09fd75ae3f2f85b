//! The header of a GGUF file to a model's shape. What the forward pass cannot compute is refused by the reader of the
//! header ([`read_config`]); here, what there are no kernels for.

use std::path::Path;

use moac_runtime::model::read_config;
use moac_runtime::plan::{MAX_HEADS, MAX_LAYERS, ModelShape};

use super::Error;
use super::problem::Problems;
use super::stated::{Stated, is_name};

/// The shape that the file at `path` states.
pub(super) fn read(path: &Path) -> Result<ModelShape, Error> {
    let mut shape = read_config(path)?.shape();
    if !is_name(&shape.name) {
        "model".clone_into(&mut shape.name);
    }
    let mut problems = Problems::default();
    let [layers_at, heads_at, dim_at] =
        ["llama.block_count", "llama.attention.head_count", "llama.attention.key_length"];
    for (at, found, most) in
        [(layers_at, shape.num_layers, MAX_LAYERS), (heads_at, shape.num_heads, MAX_HEADS)]
    {
        if found > most {
            problems.add(at, found.to_string(), format!("at most {most}"));
        }
    }
    Stated::from(shape.clone()).supported([heads_at, dim_at, "llama.attention.scale"], &mut problems);
    problems.or(Some(shape)).map_err(|problems| Error::Invalid {
        path: path.to_owned(),
        expected: "model header",
        problems,
    })
}
