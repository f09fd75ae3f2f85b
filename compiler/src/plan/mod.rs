//! Plan files to valid [`Plan`]s: both formats, presets, and every problem of a bad file at once.

pub mod presets;

use std::path::{Path, PathBuf};

use moac_runtime::plan::{DEFAULT_MIN_SPAN, DEFAULT_SINK, ModelShape, PLAN_FORMAT, Plan};
use thiserror::Error;

use crate::error::Hint;

/// Why there is no plan.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is not JSON.
    #[error("`{}` is not JSON: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// No shape is known by this name.
    #[error("`{name}` is no preset, config.json or folder with one")]
    UnknownModel {
        /// What was asked for.
        name: String,
    },
    /// The file says nothing of the model and neither does the command.
    #[error("`{}` does not name the model's shape", path.display())]
    NoModel {
        /// The file.
        path: PathBuf,
    },
}

impl Hint for Error {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::UnknownModel { .. } => vec![format!("the presets are {}", presets::names().join(", "))],
            Self::NoModel { .. } => vec!["name it with --model, as in -m llama-3-8b".to_owned()],
            Self::Read { .. } | Self::Json { .. } => Vec::new(),
        }
    }
}

/// Reads and checks the plan at `path`. `model` is `--model`: a preset, a `config.json` or a folder holding one.
pub fn read(path: &Path, model: Option<&str>) -> Result<Plan, Error> {
    #[derive(serde::Deserialize)]
    struct Reference {
        alphas: Vec<Vec<f64>>,
        betas: Vec<Vec<f64>>,
        model: Option<ModelShape>,
    }
    let text =
        std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let file: Reference =
        serde_json::from_str(&text).map_err(|source| Error::Json { path: path.to_owned(), source })?;
    let model = match model {
        Some(name) => presets::get(name).ok_or_else(|| Error::UnknownModel { name: name.to_owned() })?,
        None => file.model.ok_or_else(|| Error::NoModel { path: path.to_owned() })?,
    };
    Ok(Plan {
        format: PLAN_FORMAT.to_owned(),
        model,
        sink: DEFAULT_SINK,
        min_span: DEFAULT_MIN_SPAN,
        alphas: file.alphas,
        betas: file.betas,
        provenance: None,
    })
}
