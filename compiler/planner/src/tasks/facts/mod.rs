//! Facts of many kinds, each told once in a long text and asked for in several wordings.
//!
//! There are three sets of formats: one to calibrate on, one to choose settings by, one to report. They share no wording, no
//! kind of keys and no carrier sentence; a test holds them apart. A prompt is of one kind and one wording: its number decides
//! which, and whether it is a turn of the model's conversation or text that goes on. A [`Prompt`] is asked and checked as any
//! other ([`ask`](super::ask)): an answer is right iff greedy decoding gives exactly it.

mod forms;
mod turns;

use std::collections::BTreeSet;
use std::fmt;

use moac_model::{Model, Tokenizer};
use serde::{Deserialize, Serialize};

use self::forms::{Form, Keys};
pub use self::turns::TurnsSpec;
use super::dialog::frame;
use super::draft::Which;
use super::formats::fill;
use super::frame::{Frame, continuation};
use super::hide::{Hidden, hide, places, words_of};
use super::values::{compounds, distinct, list, name, number, uuid};
use super::{Corpus, Filler, Page, Prompt, Question, Random, TaskError, words};

/// What a set of formats is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Set {
    /// To find plans.
    Calibration,
    /// To choose among settings and plans.
    Choice,
    /// To report what a plan keeps: nothing is ever chosen by it.
    #[default]
    Report,
}

impl Set {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Calibration, Self::Choice, Self::Report];

    /// Its name in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Calibration => "calibration",
            Self::Choice => "choice",
            Self::Report => "report",
        }
    }

    fn nouns(self) -> &'static [&'static str] {
        match self {
            Self::Calibration => &words::CALIBRATION,
            Self::Choice => &words::CHOICE,
            Self::Report => &words::EVALUATION,
        }
    }

    fn names(self) -> &'static words::Names {
        match self {
            Self::Calibration => &words::CALIBRATION_NAMES,
            Self::Choice => &words::CHOICE_NAMES,
            Self::Report => &words::REPORT_NAMES,
        }
    }
}

/// The kind of a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FactKind {
    /// A number of four to nine digits.
    Number,
    /// A uuid.
    Uuid,
    /// A word.
    Word,
    /// A first and a family name.
    Name,
    /// A whole sentence.
    Sentence,
    /// A number in a row of a table.
    Table,
    /// A number in code.
    Code,
    /// A number that one fact leads to by way of another.
    Chain,
    /// Several words, of as many facts.
    Several,
    /// A number, asked for after questions about other facts.
    Turns,
}

impl FactKind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Number,
        Self::Uuid,
        Self::Word,
        Self::Name,
        Self::Sentence,
        Self::Table,
        Self::Code,
        Self::Chain,
        Self::Several,
        Self::Turns,
    ];

    /// Its name on the command line and in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::Uuid => "uuid",
            Self::Word => "word",
            Self::Name => "name",
            Self::Sentence => "sentence",
            Self::Table => "table",
            Self::Code => "code",
            Self::Chain => "chain",
            Self::Several => "several",
            Self::Turns => "turns",
        }
    }

    /// Facts in a context.
    const fn facts(self) -> usize {
        match self {
            Self::Table | Self::Code => 2 * GROUP,
            Self::Several => 3,
            _ => 4,
        }
    }
}

impl fmt::Display for FactKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Rows of a table, lines of code.
const GROUP: usize = 4;
/// Questions before the one that counts.
const EARLIER: usize = 2;

/// Facts of a kind at a length.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FactsSpec {
    /// The kind.
    pub kind: FactKind,
    /// The formats.
    pub set: Set,
    /// The most tokens that context, question and answer take together; they fall short of it by less than a word.
    pub length: u32,
    /// The seed.
    pub seed: u64,
}

/// A fact: the value of a key, and the key that leads to that one in a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fact {
    key: String,
    value: String,
    link: String,
}

impl FactsSpec {
    /// The prompt of a number. It depends on nothing but this description, the number, the texts and the vocabulary.
    pub fn prompt(&self, model: &Model, corpus: &Corpus, number: usize) -> Result<Prompt, TaskError> {
        let &Self { kind, set, length, seed } = self;
        let tokenizer = &model.tokenizer;
        let forms: Vec<&Form> = forms::of(set).iter().filter(|form| form.kind == kind).collect();
        let form = forms[number % forms.len()];
        let plain = model.template.is_none() || number / forms.len() % 2 == 1;
        let task = format!("{kind}-{}", set.name());
        let which = Which { task: &task, length, number, seed, plain };
        let facts = facts(set, kind, form, &mut which.random("facts"));

        let writer = Writer { tokenizer, form, plain, frame: frame(model, plain)?.0 };
        let asked: Vec<Vec<usize>> = match kind {
            FactKind::Several => vec![(0..facts.len()).collect()],
            _ => (0..facts.len()).map(|at| vec![at]).collect(),
        };
        let mut questions = Vec::new();
        for (at, of) in asked.iter().enumerate() {
            let mut before = Vec::new();
            if kind == FactKind::Turns {
                for earlier in (1..=EARLIER).map(|by| (at + by) % facts.len()) {
                    let (question, answer) = writer.ask(&[&facts[earlier]], before.is_empty())?;
                    before.extend([question, answer].concat());
                }
            }
            let of: Vec<&Fact> = of.iter().map(|&at| &facts[at]).collect();
            let (question, answer) = writer.ask(&of, before.is_empty())?;
            questions.push(Question {
                tokens: [before, question].concat(),
                answer,
                depth: 0.0,
                key: list(of.iter().map(|fact| fact.asked())),
                value: list(of.iter().map(|fact| fact.value.as_str())),
            });
        }

        let (mut hidden, told) = hidden(tokenizer, kind, form, &facts)?;
        let after = questions.iter().map(|question| question.tokens.len() + question.answer.len()).max();
        let room = (length as usize).saturating_sub(after.unwrap_or(0));
        let intro = if plain { Vec::new() } else { tokenizer.encode(forms::intro(set))? };
        let mut page = Page::new(tokenizer, [writer.frame.head, intro].concat());
        let needed = page.tokens.len() + hidden.iter().map(|hidden| hidden.tokens.len()).sum::<usize>();
        if needed > room {
            let what = format!("{} facts and a question of the {kind} kind", facts.len());
            return Err(TaskError::TooShort { what, length, needed: needed + length as usize - room });
        }
        let places = places(number, page.tokens.len(), room, &hidden, &mut which.random("places"));
        let filler = Filler::new(corpus, which.random("filler"));
        let source = filler.document().name.clone();
        let words: BTreeSet<String> = facts.iter().flat_map(|fact| fact.gives_away(kind)).collect();
        let tells = |unit: &str| words_of(unit).any(|word| words.contains(&word));
        hide(&mut page, &mut hidden, &places, room, filler, tells)?;
        for (question, of) in questions.iter_mut().zip(&asked) {
            question.depth = hidden[told[of[0]]].at as f64 / page.tokens.len() as f64;
        }
        Ok(Prompt { id: format!("{task}-{length}-{number}"), context: page.tokens, questions, source })
    }
}

impl Fact {
    /// The key that is asked for.
    fn asked(&self) -> &str {
        if self.link.is_empty() { &self.key } else { &self.link }
    }

    /// Words that running text must not have. Those of a sentence are of all texts.
    fn gives_away(&self, kind: FactKind) -> impl Iterator<Item = String> {
        let value = if kind == FactKind::Sentence { "" } else { &self.value };
        words_of(&self.key).chain(words_of(value)).chain(words_of(&self.link))
    }
}

/// Facts with different keys and different values.
fn facts(set: Set, kind: FactKind, form: &Form, random: &mut Random) -> Vec<Fact> {
    let n = kind.facts();
    let links = if kind == FactKind::Chain { n } else { 0 };
    let keys = keys(set, form.keys, n + links, random);
    let values = values(set, kind, n, &keys, random);
    let (keys, links) = keys.split_at(n);
    let links = links.iter().cloned().chain(std::iter::repeat(String::new()));
    keys.iter()
        .cloned()
        .zip(values)
        .zip(links)
        .map(|((key, value), link)| Fact { key, value, link })
        .collect()
}

/// Different keys.
fn keys(set: Set, keys: Keys, n: usize, random: &mut Random) -> Vec<String> {
    let from = |all: &[&str], random: &mut Random| {
        random.distinct(n, all.len()).into_iter().map(|at| all[at].to_owned()).collect()
    };
    match keys {
        Keys::Nouns => from(set.nouns(), random),
        Keys::Families => from(&set.names().1, random),
        Keys::Compounds => compounds(random).into_iter().take(n).collect(),
    }
}

/// Different values, in none of which is a word of the keys.
fn values(set: Set, kind: FactKind, n: usize, keys: &[String], random: &mut Random) -> Vec<String> {
    let nouns = set.nouns();
    let free = |noun: &&str| !keys.iter().any(|key| key.contains(noun));
    let order = random.distinct(nouns.len(), nouns.len());
    let mut nouns = order.into_iter().map(|at| nouns[at]).filter(free);
    match kind {
        FactKind::Word | FactKind::Several => nouns.take(n).map(str::to_owned).collect(),
        FactKind::Uuid => distinct(n, || uuid(random)),
        FactKind::Name => distinct(n, || name(set.names(), random)),
        FactKind::Sentence => distinct(n, || forms::sentence(set, &mut nouns, random)),
        FactKind::Number | FactKind::Turns => {
            let digits = 4 + random.below(6) as u32;
            distinct(n, || number(digits, random))
        }
        FactKind::Table | FactKind::Code | FactKind::Chain => distinct(n, || number(4, random)),
    }
}

/// The paragraphs of some facts, and for every fact the one that tells its value.
fn hidden(
    tokenizer: &Tokenizer,
    kind: FactKind,
    form: &Form,
    facts: &[Fact],
) -> Result<(Vec<Hidden>, Vec<usize>), TaskError> {
    let mut paragraphs = Vec::new();
    let mut told = Vec::new();
    let group = if matches!(kind, FactKind::Table | FactKind::Code) { GROUP } else { 1 };
    for facts in facts.chunks(group) {
        let lines = facts.iter().map(|Fact { key, value, .. }| fill(form.carrier, key, value));
        let head = Some(form.head.to_owned()).filter(|head| !head.is_empty());
        paragraphs.push(head.into_iter().chain(lines).collect::<Vec<_>>().join("\n"));
        told.extend(facts.iter().map(|_| paragraphs.len() - 1));
    }
    // What leads to a fact is told before or behind it, in turn.
    for (at, Fact { key, link, .. }) in facts.iter().enumerate().filter(|(_, fact)| !fact.link.is_empty()) {
        let text = fill(form.link, link, key);
        if at % 2 == 0 {
            paragraphs.insert(0, text);
            for place in &mut told {
                *place += 1;
            }
        } else {
            paragraphs.push(text);
        }
    }
    let hidden = paragraphs.iter().map(|text| Hidden::new(tokenizer, text)).collect::<Result<_, _>>()?;
    Ok((hidden, told))
}

/// Writes questions and answers.
struct Writer<'m> {
    tokenizer: &'m Tokenizer,
    form: &'static Form,
    plain: bool,
    frame: Frame,
}

impl Writer<'_> {
    /// The tokens of a question up to its answer, and those of the answer.
    fn ask(&self, facts: &[&Fact], first: bool) -> Result<(Vec<u32>, Vec<u32>), TaskError> {
        let Self { tokenizer, form, plain, ref frame } = *self;
        let key = list(facts.iter().map(|fact| fact.asked()));
        let value = list(facts.iter().map(|fact| fact.value.as_str()));
        let begun = fill(form.begun, &key, "");
        let answer = continuation(tokenizer, &begun, &format!(" {value}"))?;
        let question = fill(form.ask, &key, "");
        let question = if plain {
            Page::paragraph(tokenizer, &begun)?
        } else if first {
            [Page::paragraph(tokenizer, &question)?, frame.tail.clone(), tokenizer.encode(&begun)?].concat()
        } else {
            let question = tokenizer.encode(&question)?;
            [frame.between.clone(), question, frame.tail.clone(), tokenizer.encode(&begun)?].concat()
        };
        Ok((question, answer))
    }
}
