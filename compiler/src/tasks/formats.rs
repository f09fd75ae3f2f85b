//! The wording of the tasks. What one split uses the other never does.

use super::{Kind, Random, Split};

/// How facts of one kind are written in one split. `{key}` and `{value}` stand for a fact's key and its value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Format {
    /// What the user says first.
    pub(super) intro: &'static str,
    /// A fact.
    pub(super) fact: &'static str,
    /// The question after the context.
    pub(super) question: &'static str,
    /// How the answer begins; it ends right before the value.
    pub(super) answer: &'static str,
    /// The two parts of a key; every pair of them is one.
    pub(super) keys: (&'static [&'static str], &'static [&'static str]),
    /// Between the parts of a key.
    pub(super) joint: &'static str,
    /// Digits of a value, the first of which is not 0.
    pub(super) digits: u32,
}

impl Format {
    /// The wording of a kind in a split.
    pub(super) fn of(kind: Kind, split: Split) -> &'static Self {
        match (kind, split) {
            (Kind::Passkey, Split::Calibration) => &PASSKEY_CALIBRATION,
            (Kind::Passkey, Split::Evaluation) => &PASSKEY_EVALUATION,
            (Kind::KeyValue, Split::Calibration) => &KV_CALIBRATION,
            (Kind::KeyValue, Split::Evaluation) => &KV_EVALUATION,
        }
    }

    /// How many keys there are.
    pub(super) fn key_count(&self) -> usize {
        self.keys.0.len() * self.keys.1.len()
    }

    /// Different keys with different values.
    pub(super) fn facts(&self, n: usize, random: &mut Random) -> Vec<(String, String)> {
        let (first, second) = self.keys;
        let keys = random.distinct(n, self.key_count());
        let low = 10_usize.pow(self.digits - 1);
        let values = random.distinct(n, 9 * low);
        keys.into_iter()
            .zip(values)
            .map(|(key, value)| {
                let key = [first[key % first.len()], second[key / first.len()]].join(self.joint);
                (key, (low + value).to_string())
            })
            .collect()
    }
}

/// A template with its places filled.
pub(super) fn fill(template: &str, key: &str, value: &str) -> String {
    template.replace("{key}", key).replace("{value}", value)
}

const PASSKEY_CALIBRATION: Format = Format {
    intro: "Below is a long text. Some locker codes are noted in it, one for each person. Read it well.",
    fact: "Note: the locker code for {key} is {value}.",
    question: "Which locker code was noted for {key}?",
    answer: "The locker code for {key} is ",
    keys: (
        &[
            "Akira", "Bjorn", "Carlos", "Dmitri", "Elif", "Farid", "Goran", "Hana", "Ingrid", "Jorge",
            "Kofi", "Leila", "Mateo", "Noor", "Olga", "Pedro", "Ravi", "Sven", "Tariq", "Yuki",
        ],
        &[""],
    ),
    joint: "",
    digits: 4,
};

const PASSKEY_EVALUATION: Format = Format {
    intro: "There are several pass keys hidden in the following text. Memorise them.",
    fact: "The pass key of {key} is {value}. Remember it.",
    question: "What is the pass key of {key}?",
    answer: "The pass key of {key} is ",
    keys: (
        &[
            "Albert", "Beatrice", "Clara", "Daniel", "Edith", "Felix", "Gloria", "Howard", "Irene", "Jasper",
            "Kenneth", "Lydia", "Martin", "Nora", "Oscar", "Patricia", "Quentin", "Rosalind", "Stanley",
            "Theresa", "Victor", "Wanda",
        ],
        &[""],
    ),
    joint: "",
    digits: 5,
};

const KV_CALIBRATION: Format = Format {
    intro: "Here is a stock list with the number of pieces of every item.",
    fact: "Item {key} has {value} pieces.",
    question: "How many pieces does item {key} have?",
    answer: "Item {key} has ",
    keys: (
        &[
            "amber", "blue", "coral", "dark", "early", "faded", "green", "heavy", "ivory", "jade", "large",
            "mild",
        ],
        &[
            "basket", "candle", "drum", "engine", "flute", "gate", "hammer", "jar", "kettle", "ladder",
            "mirror", "needle",
        ],
    ),
    joint: " ",
    digits: 4,
};

const KV_EVALUATION: Format = Format {
    intro: "Below is a record of lines. Each line has a name and a register content.",
    fact: "line {key}: the register content is {value}",
    question: "What is the register content of line {key}?",
    answer: "line {key}: the register content is ",
    keys: (
        &[
            "brave", "calm", "eager", "fancy", "gentle", "happy", "jolly", "kind", "lively", "nice", "proud",
            "quiet", "silly", "tidy", "witty", "zealous",
        ],
        &[
            "otter", "falcon", "tiger", "rabbit", "camel", "dolphin", "eagle", "goose", "horse", "lizard",
            "monkey", "panda", "raven", "salmon", "turtle", "wolf",
        ],
    ),
    joint: "-",
    digits: 5,
};
