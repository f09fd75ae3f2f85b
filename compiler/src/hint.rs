//! How an error says what to do about it, and how it is shown: one `error:` paragraph, then `hint:` lines.

use std::fmt::Write as _;

/// An error that knows how to mend itself.
pub trait Hint {
    /// How to fix it, one line each.
    fn hints(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The error as a person reads it: the message, its causes that the message does not quote already, the hints.
pub fn report<E: std::error::Error + Hint>(error: &E) -> String {
    let mut text = format!("error: {error}\n");
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        let line = source.to_string();
        if !said.contains(&line) {
            let _ = writeln!(text, "  caused by: {line}");
        }
        said = line;
        cause = source.source();
    }
    for hint in error.hints() {
        let _ = writeln!(text, "hint: {hint}");
    }
    text
}
