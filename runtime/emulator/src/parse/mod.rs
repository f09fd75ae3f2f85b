//! From PTX text to declarations and statements. Nothing is interpreted here: what an instruction means is `decode`'s matter.

pub(crate) mod ast;
pub(crate) mod lexer;
mod module;
mod statement;

pub(crate) use module::parse;

/// PTX that cannot be parsed, or an instruction that the emulator does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("PTX line {line}: {message}\n  {text}")]
pub struct ParseError {
    /// Line counted from 1.
    pub line: u32,
    /// Text of the line.
    pub text: String,
    /// The value found, and the value expected.
    pub message: String,
}

/// An error before the line's text is attached.
#[derive(Clone, Debug)]
pub(crate) struct Error {
    pub(crate) line: u32,
    pub(crate) message: String,
}

impl Error {
    pub(crate) fn new(line: u32, message: impl Into<String>) -> Self {
        Self { line, message: message.into() }
    }

    pub(crate) fn with_text(self, source: &str) -> ParseError {
        let text = source.lines().nth((self.line as usize).saturating_sub(1)).unwrap_or("").trim().to_owned();
        ParseError { line: self.line, text, message: self.message }
    }
}
