//! The tasks that a model can be given, by name.

use std::fmt;

use clap::ValueEnum;
use clap::builder::PossibleValue;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::tasks::{Kind, Synthetic};

/// The task given to the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Task {
    /// The loss of every token of windows of text.
    Nll,
    /// Pass keys told in running text.
    Passkey,
    /// Lines of keys and values.
    Kv,
    /// Facts of many kinds, told once, asked for in many wordings.
    Facts,
    /// Five questions about one context, one after the other.
    Turns,
    /// All synthetic tasks of RULER.
    Ruler,
    /// One of them.
    Synthetic(Synthetic),
}

impl Task {
    /// Those of a quick look: the answers are given to the model and only checked, which takes little time.
    pub const QUICK: [Self; 3] = [Self::Nll, Self::Passkey, Self::Kv];

    const ALL: [Self; 6 + Synthetic::ALL.len()] = {
        let mut all = [Self::Nll; 6 + Synthetic::ALL.len()];
        [all[1], all[2], all[3], all[4], all[5]] =
            [Self::Passkey, Self::Kv, Self::Facts, Self::Turns, Self::Ruler];
        let mut at = 0;
        while at < Synthetic::ALL.len() {
            all[6 + at] = Self::Synthetic(Synthetic::ALL[at]);
            at += 1;
        }
        all
    };

    /// Its name on the command line and in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nll => "nll",
            Self::Passkey => "passkey",
            Self::Kv => "kv",
            Self::Facts => "facts",
            Self::Turns => "turns",
            Self::Ruler => "ruler",
            Self::Synthetic(task) => task.name(),
        }
    }

    /// The heading of its tables.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Nll => "Loss on text",
            Self::Passkey => "Passkey retrieval",
            Self::Kv => "Key-value retrieval",
            Self::Facts => "Facts of many kinds",
            Self::Turns => "Several turns",
            Self::Ruler => "Synthetic tasks",
            Self::Synthetic(task) => task.about(),
        }
    }

    /// What it asks for, for help texts.
    const fn about(self) -> &'static str {
        match self {
            Self::Nll => "The loss of every token of windows of text",
            Self::Passkey => "Pass keys told in running text",
            Self::Kv => "Lines of keys and values",
            Self::Facts => "Facts of ten kinds, told once, asked for in many wordings",
            Self::Turns => "Five questions about one context, one after the other on the same slab",
            Self::Ruler => "All synthetic tasks of RULER, the following",
            Self::Synthetic(task) => task.about(),
        }
    }

    /// The facts that it hides, if a prompt has many questions about facts of one kind.
    pub const fn facts(self) -> Option<Kind> {
        match self {
            Self::Passkey => Some(Kind::Passkey),
            Self::Kv => Some(Kind::KeyValue),
            _ => None,
        }
    }

    /// Whether it asks questions, so that answers are right or wrong.
    pub const fn asks(self) -> bool {
        !matches!(self, Self::Nll)
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl ValueEnum for Task {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()).help(self.about()))
    }
}

impl Serialize for Task {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Task {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::ALL.into_iter().find(|task| task.name() == name).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|task| task.name()).collect();
            serde::de::Error::custom(format!(
                "unknown variant `{name}`, expected one of {}",
                names.join(", ")
            ))
        })
    }
}
