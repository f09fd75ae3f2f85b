//! The problems of a file: a list of places, each with the value found and the value expected.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

/// One thing that is wrong with a JSON file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The JSON path, as in `$.alphas[3][7]`.
    pub path: String,
    /// The value found.
    pub found: String,
    /// The value expected.
    pub expected: String,
}

/// More than these are only counted: a file of megabytes must not become a message of gigabytes.
const MAX_LISTED: usize = 10_000;

/// Everything that is wrong with a JSON file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    listed: Vec<Problem>,
    unlisted: usize,
    hints: Vec<String>,
}

impl Problems {
    /// Adds one.
    pub(super) fn add(
        &mut self,
        path: impl Into<String>,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) {
        if self.listed.len() == MAX_LISTED {
            self.unlisted += 1;
            return;
        }
        self.listed.push(Problem { path: path.into(), found: found.into(), expected: expected.into() });
    }

    /// Adds a way to mend them.
    pub(super) fn hint(&mut self, hint: impl Into<String>) {
        self.hints.push(hint.into());
    }

    /// The problems in the order they were found, the first ten thousand.
    pub fn list(&self) -> &[Problem] {
        &self.listed
    }

    /// How to fix them.
    pub fn hints(&self) -> &[String] {
        &self.hints
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.listed.len() + self.unlisted
    }

    /// `value` if there is no problem.
    pub(super) fn or<T>(self, value: Option<T>) -> Result<T, Self> {
        match value {
            Some(value) if self.listed.is_empty() => Ok(value),
            _ => Err(self),
        }
    }
}

impl Display for Problems {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let count = self.count();
        write!(f, "{count} problem{}", if count == 1 { "" } else { "s" })?;
        for Problem { path, found, expected } in &self.listed {
            write!(f, "\n  {path}: found {found}, expected {expected}")?;
        }
        if self.unlisted > 0 {
            write!(f, "\n  and {} more", self.unlisted)?;
        }
        Ok(())
    }
}
