//! Why a task could not be made.

use std::path::PathBuf;

use moac_model::ModelError;

/// The errors of this module.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// A file or folder of texts cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file that is no text.
    #[error("`{}` is no text: byte {at} is not UTF-8", path.display())]
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
        /// Which line, from 1.
        line: usize,
        /// What is there.
        found: String,
    },
    /// Nothing to make a task from.
    #[error("`{}` holds no text: expected a text file, or a folder with .txt, .rst, .md or .jsonl files", path.display())]
    NoTexts {
        /// Where texts were looked for.
        path: PathBuf,
    },
    /// A file that is to be left out, but is not there.
    #[error("no text is named `{file}`: expected a file's path within its data folder")]
    NoSuchText {
        /// The name.
        file: String,
    },
    /// The texts are too few for one context.
    #[error("the texts end after {found} tokens, expected {expected}: give more texts, or shorter lengths")]
    TooFewTexts {
        /// Tokens that there are.
        found: usize,
        /// Tokens that are needed.
        expected: usize,
    },
    /// The facts and the question leave no room in so short a context.
    #[error("{what} in {length} tokens: at least {needed} are needed")]
    TooShort {
        /// The task.
        what: String,
        /// The length asked for.
        length: u32,
        /// What would do.
        needed: usize,
    },
    /// More facts than there are keys.
    #[error("{found} facts in a context, expected {min} to {max}")]
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
        "the tokenizer joins {text:?} with {before:?} before it, so the two cannot be read one after the other"
    )]
    Joined {
        /// What comes first.
        before: String,
        /// What follows.
        text: String,
    },
    /// The model or its tokenizer failed.
    #[error(transparent)]
    Model(#[from] ModelError),
}
