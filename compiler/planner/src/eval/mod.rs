//! Quality: dense attention, plans and uniform spans of the same KV bytes side by side, on real text and on retrieval
//! tasks.
//!
//! A [`Run`] is one task at some lengths. Everything that is measured is a cell: one item (a window of text, or a
//! context with its questions) under the spans of one [`Method`] at one length. Cells are saved by content
//! ([`cells`]), so an interrupted evaluation resumes where it stopped, plans with the same spans share cells, and
//! folders of cells from several machines can be copied together. [`report`] only makes tables of them.
//!
//! What must hold: an evaluation at length N has context, question and answer within N tokens, in the bucket N; a uniform
//! partner has at least the KV bytes of its plan and less than one tile more per KV head; methods are compared on the same
//! items; and the same inputs give the same tables.

pub mod cells;
mod error;
pub mod fingerprint;
pub mod items;
pub mod measure;
pub mod method;
pub mod report;
mod run;
pub mod stats;
pub mod suite;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::error::EvalError;
pub use self::method::{Method, NamedPlan, Spans};
pub use self::run::{Evaluation, Measured, Progress, Shard};
pub use self::suite::{Run, Suite};
use crate::tasks::Kind;

/// The task given to the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// The loss of every token of windows of text
    Nll,
    /// Pass keys told in running text
    Passkey,
    /// Lines of keys and values
    Kv,
}

impl Task {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Nll, Self::Passkey, Self::Kv];

    /// Its name on the command line and in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nll => "nll",
            Self::Passkey => "passkey",
            Self::Kv => "kv",
        }
    }

    /// The heading of its tables.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Nll => "Loss on text",
            Self::Passkey => "Passkey retrieval",
            Self::Kv => "Key-value retrieval",
        }
    }

    /// The facts that it hides, if it is a retrieval task.
    pub const fn facts(self) -> Option<Kind> {
        match self {
            Self::Nll => None,
            Self::Passkey => Some(Kind::Passkey),
            Self::Kv => Some(Kind::KeyValue),
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
