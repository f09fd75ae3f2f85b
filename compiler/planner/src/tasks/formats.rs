//! The wording of the tasks. No wording is used by both splits.
//!
//! Small models distinguish facts by their words more than by their meaning. So a key or a value is a word that occurs
//! nowhere else, a key stands right before its value, and a fact that is one of many is stated three times in a row.

use moac_model::{ModelError, Tokenizer};

use super::{Kind, Random, Split, words};

/// How facts of one kind are written in one split. `{key}` and `{value}` stand for a fact's key and its value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Format {
    /// The text before and after the context, where the context is a turn of a conversation.
    pub(super) chat: Option<Chat>,
    /// A fact, a paragraph.
    pub(super) fact: &'static str,
    /// How the answer begins; it ends right before the value.
    pub(super) answer: &'static str,
    /// Whether a fact has a key.
    pub(super) key: bool,
    /// The kind of a value.
    pub(super) value: Value,
    /// The characters of keys and values.
    pub(super) words: &'static [&'static str],
    /// Facts in a context.
    pub(super) facts: usize,
}

/// The user's turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chat {
    /// How it begins.
    pub(super) intro: &'static str,
    /// How it ends.
    pub(super) question: &'static str,
}

/// The kind of a value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    /// A number of so many digits, the first of which is not 0.
    Digits(u32),
    /// So many words.
    Words(usize),
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

    /// Keys and values that are all different. Fewer than `n` where there are not as many.
    pub(super) fn facts(
        &self,
        n: usize,
        tokenizer: &Tokenizer,
        random: &mut Random,
    ) -> Result<Vec<(String, String)>, ModelError> {
        let of_value = if let Value::Words(words) = self.value { words } else { 0 };
        let of_fact = usize::from(self.key) + of_value;
        let words = self.words(n * of_fact, tokenizer)?;
        let n = words.len().checked_div(of_fact).map_or(n, |most| n.min(most));
        let drawn: Vec<&str> =
            random.distinct(n * of_fact, words.len()).into_iter().map(|at| words[at]).collect();
        let (keys, values) = drawn.split_at(if self.key { n } else { 0 });
        let values: Vec<String> = match self.value {
            Value::Words(_) => values.chunks(of_value).map(|words| words.join(" ")).collect(),
            Value::Digits(digits) => {
                let low = 10_usize.pow(digits - 1);
                random.distinct(n, 9 * low).into_iter().map(|value| (low + value).to_string()).collect()
            }
        };
        let keys = keys.iter().copied().chain(std::iter::repeat(""));
        Ok(keys.map(str::to_owned).zip(values).collect())
    }

    /// The words that are one token, if there are as many as are needed; else all.
    fn words(&self, needed: usize, tokenizer: &Tokenizer) -> Result<Vec<&'static str>, ModelError> {
        let mut single = Vec::new();
        for &word in self.words {
            if tokenizer.encode(&format!(" {word}"))?.len() == 1 {
                single.push(word);
            }
        }
        Ok(if single.len() >= needed { single } else { self.words.to_vec() })
    }
}

/// A template with its places filled.
pub(super) fn fill(template: &str, key: &str, value: &str) -> String {
    template.replace("{key}", key).replace("{value}", value)
}

const PASSKEY_CALIBRATION: Format = Format {
    chat: Some(Chat {
        intro: "A secret code is hidden in the following text. Find it and remember it.",
        question: "What is the secret code?",
    }),
    fact: "The secret code is {value}. Do not forget it. {value} is the secret code.",
    answer: "The secret code is ",
    key: false,
    value: Value::Digits(5),
    words: &[],
    facts: 1,
};

const PASSKEY_EVALUATION: Format = Format {
    chat: None,
    fact: "Pass phrase: {key} {value}. Pass phrase: {key} {value}. Pass phrase: {key} {value}.",
    answer: "Pass phrase: {key}",
    key: true,
    value: Value::Words(1),
    words: &words::EVALUATION,
    facts: 12,
};

const KV_CALIBRATION: Format = Format {
    chat: None,
    fact: "note {key} -> {value}; {key} -> {value}; {key} -> {value}",
    answer: "note {key} ->",
    key: true,
    value: Value::Words(2),
    words: &words::CALIBRATION,
    facts: 12,
};

const KV_EVALUATION: Format = Format {
    chat: None,
    fact: "[{key} {value}] [{key} {value}] [{key} {value}]",
    answer: "[{key}",
    key: true,
    value: Value::Words(1),
    words: &words::EVALUATION,
    facts: 14,
};

/// All that a split shows a model, but for the filler.
#[cfg(test)]
pub(super) fn shown(split: Split) -> Vec<&'static str> {
    let wording = |kind| {
        let Format { chat, fact, answer, .. } = *Format::of(kind, split);
        let turn = chat.into_iter().flat_map(|Chat { intro, question }| [intro, question]);
        turn.chain([fact, answer])
    };
    Kind::ALL.into_iter().flat_map(wording).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_splits_share_no_wording_and_no_word() {
        let (calibration, evaluation) = (shown(Split::Calibration), shown(Split::Evaluation));
        for a in &calibration {
            for b in &evaluation {
                assert_ne!(a, b);
                // What stands before a value is what a model finds it by.
                let before = |text: &str| text.split("{value}").next().unwrap_or_default().to_owned();
                assert_ne!(before(a), before(b), "{a} and {b}");
            }
        }
        let words: Vec<&str> = words::CALIBRATION.into_iter().chain(words::EVALUATION).collect();
        assert_eq!(words.iter().collect::<BTreeSet<_>>().len(), words.len());
        for split in [words::CALIBRATION.as_slice(), &words::EVALUATION] {
            for (a, b) in split.iter().flat_map(|a| split.iter().map(move |b| (a, b))) {
                assert!(a == b || !a.contains(b), "{a} contains {b}");
            }
        }
        for word in words {
            assert!(word.len() >= 4 && word.bytes().all(|b| b.is_ascii_lowercase()), "{word}");
            // Nor is a word part of the wording.
            for text in calibration.iter().chain(&evaluation) {
                assert!(!text.split(|c: char| !c.is_alphabetic()).any(|part| part == word), "{word}: {text}");
            }
        }
    }

    #[test]
    fn values_of_the_splits_differ_in_form() {
        for kind in Kind::ALL {
            let [a, b] = [Split::Calibration, Split::Evaluation].map(|split| Format::of(kind, split));
            match (a.value, b.value) {
                (Value::Digits(a), Value::Digits(b)) => assert_ne!(a, b),
                _ => assert!(a.words != b.words),
            }
        }
    }
}
