//! Why a template could not be read or rendered.

use thiserror::Error;

/// An error of a template, with the line that it is about.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{kind}{}", line.map(|line| format!(" (line {line})")).unwrap_or_default())]
pub struct Error {
    /// The kind of the error.
    pub kind: ErrorKind,
    /// The line of the template, from 1.
    pub line: Option<usize>,
}

/// Kinds of errors.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The text is not a template.
    #[error("syntax error: {0}")]
    Syntax(String),
    /// The template called `raise_exception`.
    #[error("{0}")]
    Raised(String),
    /// An operation that Python refuses too.
    #[error("{0}")]
    Runtime(String),
    /// Something that Jinja2 has and this implementation does not.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// The template takes more time, memory or depth than it is allowed.
    #[error("the template exceeds its limit on {0}")]
    Limit(&'static str),
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self { kind, line: None }
    }
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// An error that Python raises too.
pub(crate) fn fail<T>(message: impl Into<String>) -> Result<T> {
    Err(ErrorKind::Runtime(message.into()).into())
}

/// A refusal by name.
pub(crate) fn unsupported<T>(what: impl Into<String>) -> Result<T> {
    Err(ErrorKind::Unsupported(what.into()).into())
}
