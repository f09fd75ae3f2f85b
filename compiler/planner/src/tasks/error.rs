//! Errors of making a task.

use std::path::PathBuf;

use moac_model::ModelError;

/// The errors of this module.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// A file or folder of texts cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// The path.
        path: PathBuf,
        /// The underlying error.
        source: std::io::Error,
    },
    /// A file that is not UTF-8 text.
    #[error("`{}` is not UTF-8 text: byte {at} is invalid", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// The first byte that is wrong.
        at: usize,
    },
    /// A line of a JSONL file that holds no document.
    #[error(
        "`{}`, line {line}: found {found}, expected an object with `text`, or with `document` and `question`", path.display()
    )]
    NotADocument {
        /// The file.
        path: PathBuf,
        /// The line number, from 1.
        line: usize,
        /// The content found.
        found: String,
    },
    /// Nothing to make a task from.
    #[error("`{}` contains no text: expected a text file, or a folder with .txt, .rst, .md or .jsonl files", path.display())]
    NoTexts {
        /// Where texts were looked for.
        path: PathBuf,
    },
    /// A file that is to be left out, but is not there.
    #[error("there is no text `{file}`: expected the path of a file inside its data folder")]
    NoSuchText {
        /// The name.
        file: String,
    },
    /// The texts are too few for one context.
    #[error(
        "the texts have {found} tokens, expected at least {expected}: give more texts, or shorter lengths"
    )]
    TooFewTexts {
        /// Tokens that there are.
        found: usize,
        /// Tokens that are needed.
        expected: usize,
    },
    /// The facts and the question leave no room in so short a context.
    #[error("{what} do not fit in {length} tokens: they need at least {needed}")]
    TooShort {
        /// The task.
        what: String,
        /// The length asked for.
        length: u32,
        /// The values allowed.
        needed: usize,
    },
    /// More facts than there are keys.
    #[error("found {found} facts in a context, expected {min} to {max}")]
    Facts {
        /// The number asked for.
        found: usize,
        /// The fewest.
        min: usize,
        /// The most.
        max: usize,
    },
    /// A vocabulary whose tokens reach across the places where texts are joined.
    #[error(
        "the tokenizer merges {text:?} with the preceding {before:?}, so the two cannot be tokenised separately"
    )]
    Joined {
        /// The first part.
        before: String,
        /// The part after it.
        text: String,
    },
    /// The engine did not take a prompt.
    #[error(transparent)]
    Refused(#[from] moac_model::Refused),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] moac_model::EngineError),
    /// The model or its tokenizer failed.
    #[error(transparent)]
    Model(#[from] ModelError),
}
