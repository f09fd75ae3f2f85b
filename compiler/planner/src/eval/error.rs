//! Errors of an evaluation.

use std::path::{Path, PathBuf};

use moac_model::ModelError;
use thiserror::Error;

use super::Task;

/// The errors of this module.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EvalError {
    /// A file cannot be read or written.
    #[error("cannot {action} `{}`: {source}", path.display())]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The underlying error.
        source: std::io::Error,
    },
    /// A folder without texts.
    #[error("`{}` contains no text: expected a .txt file, or a folder of them", path.display())]
    NoTexts {
        /// The folder.
        path: PathBuf,
    },
    /// A length that cannot be evaluated at.
    #[error("--lengths: found {found}, expected {expected}")]
    Length {
        /// The value given.
        found: String,
        /// The values allowed.
        expected: String,
    },
    /// Texts too short for one item.
    #[error(
        "{task} at {length} tokens: the longest text has {found} tokens: give longer texts, or shorter lengths"
    )]
    TooShort {
        /// The task.
        task: Task,
        /// Tokens of an item.
        length: u32,
        /// Tokens of the longest text.
        found: usize,
    },
    /// A suite names a plan that it does not list.
    #[error("the run `{run}` names the plan `{name}`, but the suite only has {}", known.join(", "))]
    UnknownPlan {
        /// The run.
        run: String,
        /// The plan's name.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// A suite of nothing.
    #[error("the suite `{}` contains no runs", path.display())]
    NoRuns {
        /// The file.
        path: PathBuf,
    },
    /// Two plans or two runs of one name.
    #[error("two {what} are called `{name}`")]
    Twice {
        /// The kind of name.
        what: &'static str,
        /// Their name.
        name: String,
    },
    /// A run whose name cannot be a file's.
    #[error(
        "invalid run name `{name}`: expected letters, digits, `-`, `_` and `.`, beginning with a letter or digit"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// The suite file is not what it should be.
    #[error("`{}`: {source}", path.display())]
    Suite {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// The model's loss is NaN or infinite.
    #[error("{item} at {length} tokens under {method}: the loss is NaN or infinite")]
    NotFinite {
        /// The item.
        item: String,
        /// The length.
        length: u32,
        /// The method.
        method: String,
    },
    /// The user stopped it.
    #[error("stopped after {done} of {all} cells, which are saved: run the same command to resume")]
    Stopped {
        /// Cells measured by this run.
        done: usize,
        /// Cells that were to be measured.
        all: usize,
    },
    /// A retrieval task could not be made.
    #[error(transparent)]
    Tasks(#[from] crate::tasks::TaskError),
    /// The model or its tokenizer failed.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl EvalError {
    /// A closure for `map_err`: `action` on `path` failed.
    pub(super) fn file(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }
}
