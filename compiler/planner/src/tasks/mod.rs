//! Retrieval tasks that the project makes itself: facts hidden in long texts, and questions about them.
//!
//! A [`Prompt`] is one context with many facts in it and several [`Question`]s, each about one fact: the context is
//! prefilled once, and every question is a branch of its cache ([`ask`]). There are two [`Kind`]s of facts and two
//! [`Split`]s: calibration and evaluation share no key, no wording and no text, as long as the caller gives them
//! different texts. Of the [`FactKind`]s there are three [`Set`]s, which share none either.
//!
//! A [`Dialog`] is one context with one question after the other, which a model answers in its own words ([`converse`]): the
//! [`Synthetic`] tasks of RULER, and conversations of several turns ([`TurnsSpec`]).
//!
//! What must hold: the same seed, texts and vocabulary give the same prompts; context, question and answer together
//! fit the requested length and nearly fill it; there are facts in every seventh of the context, or in turn where
//! there are fewer; a key or a value occurs nowhere in the context but in its fact; and the tokens are those of the
//! whole text.

mod ask;
mod dialog;
mod draft;
mod error;
mod facts;
mod formats;
mod frame;
mod hide;
mod page;
mod prompt;
mod random;
mod synthetic;
mod texts;
mod values;
mod words;

pub use ask::{Verdict, ask};
pub use dialog::{Dialog, Turn, converse, recall};
pub use error::TaskError;
pub use facts::{FactKind, FactsSpec, Set, TurnsSpec};
pub use frame::{Frame, continuation};
pub use page::Page;
pub use prompt::{Prompt, Question, TaskSpec};
pub use random::Random;
pub use synthetic::{Synthetic, SyntheticSpec};
pub use texts::{Corpus, Document, Filler};

use std::fmt;

use serde::{Deserialize, Serialize};

/// The kind of fact that is hidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Sentences that give a pass key.
    Passkey,
    /// Lines of keys and values.
    #[serde(rename = "kv")]
    KeyValue,
}

/// The permitted use of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Finding a plan.
    Calibration,
    /// Judging one.
    Evaluation,
}

impl Kind {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::Passkey, Self::KeyValue];

    /// Its name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Passkey => "passkey",
            Self::KeyValue => "kv",
        }
    }
}

impl Split {
    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Calibration => "calibration",
            Self::Evaluation => "evaluation",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
