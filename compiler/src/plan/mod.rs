//! Plan files to valid [`Plan`]s: both formats, presets, model configurations, and every problem of a bad file at once.
//!
//! What must hold: a [`Plan`] that [`read`] returns satisfies SPEC.md section 2, so that nothing after it checks
//! again; and no input, of any size, makes it panic, hang or take memory without bound.

mod check;
mod config;
mod json;
mod object;
pub mod presets;
mod problem;
pub mod schema;
mod stated;

use std::path::{Path, PathBuf};

use moac_runtime::plan::{MAX_HEADS, MAX_LAYERS, ModelShape, Plan};
use thiserror::Error;

pub use self::problem::{Problem, Problems};
use self::stated::Stated;
use crate::hint::Hint;

/// Errors of reading a plan file or a model's shape.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The underlying error.
        source: std::io::Error,
    },
    /// A folder where a file is expected.
    #[error("`{}` is a folder, expected a {expected}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The kind of file expected.
        expected: &'static str,
    },
    /// The file is larger than any plan.
    #[error("`{}` is larger than {max} bytes, the limit for a {expected}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The kind of file expected.
        expected: &'static str,
        /// The most bytes that are read.
        max: u64,
    },
    /// The file is not text.
    #[error("`{}` is not UTF-8 text: the first invalid byte is at offset {offset}", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Bytes before the first bad one.
        offset: usize,
    },
    /// The file is not JSON.
    #[error("`{}` is not JSON: {source}", path.display())]
    NotJson {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// The file is JSON, but not what it should be.
    #[error("`{}` is not a valid {expected}: {problems}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The kind of file expected.
        expected: &'static str,
        /// Everything that is wrong with it.
        problems: Problems,
    },
    /// No shape is known by this name, and no file has it.
    #[error("--model: `{name}` is neither a preset nor a file or folder")]
    UnknownModel {
        /// The value given.
        name: String,
    },
    /// A model folder without a configuration.
    #[error("--model: `{}` contains no config.json", path.display())]
    NoConfig {
        /// The folder.
        path: PathBuf,
    },
}

impl Hint for Error {
    fn hints(&self) -> Vec<String> {
        let presets = || format!("the presets are {}", presets::names().join(", "));
        match self {
            Self::UnknownModel { .. } => vec![presets()],
            Self::NoConfig { .. } => {
                vec!["give a Hugging Face config.json, or a folder that contains one".to_owned()]
            }
            Self::Invalid { problems, .. } => problems.hints().to_vec(),
            Self::NotJson { source, .. } if source.is_eof() => {
                vec!["the file ends early: it may be truncated".to_owned()]
            }
            Self::Read { .. }
            | Self::Folder { .. }
            | Self::TooLarge { .. }
            | Self::NotUtf8 { .. }
            | Self::NotJson { .. } => Vec::new(),
        }
    }
}

/// Reads and checks the plan at `path`. A file that states its model's shape needs no `model`; one that is given all the
/// same must agree with it, and fills in what the file leaves out.
pub fn read(path: &Path, model: Option<ModelShape>) -> Result<Plan, Error> {
    let text = json::read_text(path, "plan")?;
    parse(&text, path, model)
}

/// Checks the text of a plan file. `path` is what messages call it.
pub fn parse(text: &str, path: &Path, model: Option<ModelShape>) -> Result<Plan, Error> {
    let document = json::document(text, path)?;
    check::plan(document.fields(), model).map_err(|problems| Error::Invalid {
        path: path.to_owned(),
        expected: "plan",
        problems,
    })
}

/// The shape by name: of a preset, a `config.json` or a folder holding one.
pub fn shape(name: &str) -> Result<ModelShape, Error> {
    if let Some(shape) = presets::get(name) {
        return Ok(shape);
    }
    let path = Path::new(name);
    if path.is_dir() {
        let config = path.join("config.json");
        if !config.is_file() {
            return Err(Error::NoConfig { path: path.to_owned() });
        }
        return config::read(&config);
    }
    if !path.exists() {
        return Err(Error::UnknownModel { name: name.to_owned() });
    }
    config::read(path)
}

/// Whether there are kernels for a model that was read from `path`: a plan for another one would be of no use.
pub fn supported(shape: &ModelShape, path: &Path) -> Result<(), Error> {
    let mut problems = Problems::default();
    for (at, found, most) in
        [("the layers", shape.num_layers, MAX_LAYERS), ("the attention heads", shape.num_heads, MAX_HEADS)]
    {
        if found > most {
            problems.add(at, found.to_string(), format!("at most {most}"));
        }
    }
    let places = ["the attention heads", "the head dimension", "the scale of scores"];
    Stated::from(shape.clone()).supported(places, &mut problems);
    problems.or(Some(())).map_err(|problems| Error::Invalid {
        path: path.to_owned(),
        expected: "model that there are kernels for",
        problems,
    })
}
