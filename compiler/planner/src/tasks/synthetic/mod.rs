//! The synthetic tasks of RULER (arXiv 2404.06654) by their public definition, in words of our own.
//!
//! Needles are hidden in noise, in running text or among others alike; a variable is traced through assignments; the most
//! frequent words of a list are named. The answer is decoded greedily, and its score is the share of the expected texts that
//! are in it ([`recall`](super::recall)). Counts and shapes are those of the paper's configuration: needles are words,
//! numbers of seven digits or uuids, four keys, values or queries where there are several; one chain of five variables; ten
//! common words among words said three times; three coded words whose frequencies fall with the square of their rank.

mod counting;
mod needles;
mod tracing;

use std::fmt;

use moac_model::Model;

use super::draft::Which;
use super::{Corpus, Dialog, TaskError};

/// A task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Synthetic {
    /// One number, hidden in the same few sentences again and again.
    NeedleNoise,
    /// One number, hidden in running text.
    NeedleText,
    /// One uuid, hidden in running text.
    NeedleUuid,
    /// Four numbers with keys in running text, one of which is asked for.
    Keys,
    /// One number among as many others as fit, told in the same words.
    KeysAlike,
    /// The same with uuids as keys and values.
    KeysUuid,
    /// Four numbers of one key, all of which are asked for.
    Values,
    /// Four numbers with keys, all of which are asked for.
    Queries,
    /// The variables that got a value, one from the other.
    Tracing,
    /// The ten most common words of a list.
    Common,
    /// The three most frequent of coded words.
    Frequent,
}

impl Synthetic {
    /// Every task.
    pub const ALL: [Self; 11] = [
        Self::NeedleNoise,
        Self::NeedleText,
        Self::NeedleUuid,
        Self::Keys,
        Self::KeysAlike,
        Self::KeysUuid,
        Self::Values,
        Self::Queries,
        Self::Tracing,
        Self::Common,
        Self::Frequent,
    ];

    /// Its name on the command line and in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NeedleNoise => "needle-noise",
            Self::NeedleText => "needle-text",
            Self::NeedleUuid => "needle-uuid",
            Self::Keys => "keys",
            Self::KeysAlike => "keys-alike",
            Self::KeysUuid => "keys-uuid",
            Self::Values => "values",
            Self::Queries => "queries",
            Self::Tracing => "tracing",
            Self::Common => "common",
            Self::Frequent => "frequent",
        }
    }

    /// What it asks for, for help texts.
    pub const fn about(self) -> &'static str {
        match self {
            Self::NeedleNoise => "RULER: one number in repeated sentences",
            Self::NeedleText => "RULER: one number in running text",
            Self::NeedleUuid => "RULER: one uuid in running text",
            Self::Keys => "RULER: one of four numbers in running text, by its key",
            Self::KeysAlike => "RULER: one number among many told alike, by its key",
            Self::KeysUuid => "RULER: one uuid among many told alike, by its uuid",
            Self::Values => "RULER: all four numbers of one key",
            Self::Queries => "RULER: the numbers of four keys",
            Self::Tracing => "RULER: variables assigned one from the other",
            Self::Common => "RULER: the ten most common words of a list",
            Self::Frequent => "RULER: the three most frequent coded words",
        }
    }
}

impl fmt::Display for Synthetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A task at a length.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SyntheticSpec {
    /// The task.
    pub task: Synthetic,
    /// The most tokens that context, question and answer take together. They fall short of it by less than a word of
    /// running text, a word of a list or a hundred tokens of uuids.
    pub length: u32,
    /// The seed.
    pub seed: u64,
    /// Without the model's chat template: the text goes on with the question and the beginning of an answer.
    pub plain: bool,
}

impl SyntheticSpec {
    /// The dialog of a number, of one turn. It depends on nothing but this description, the number, the texts and the
    /// vocabulary.
    pub fn dialog(&self, model: &Model, corpus: &Corpus, number: usize) -> Result<Dialog, TaskError> {
        let &Self { task, length, seed, plain } = self;
        let which = Which { task: task.name(), length, number, seed, plain };
        let random = &mut which.random("facts");
        let draft = match task {
            Synthetic::Tracing => tracing::draft(random),
            Synthetic::Common => counting::common(length, random),
            Synthetic::Frequent => counting::frequent(random),
            _ => needles::draft(task, random),
        };
        draft.dialog(which, model, corpus)
    }
}

/// All fixed wording of the needles, which the sets of facts must not have.
#[cfg(test)]
pub(super) fn shown() -> Vec<&'static str> {
    needles::WORDING.to_vec()
}
