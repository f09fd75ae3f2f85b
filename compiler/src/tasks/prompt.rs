//! From a task's description to tokens.

use moac_runtime::model::{Model, ModelError};

use super::formats::{Format, fill};
use super::frame::{Frame, continuation};
use super::{Corpus, Filler, Kind, Random, Split, TaskError};

/// How a text ends that something follows on a line of its own: a place that no token reaches across.
const END: &str = "end.";
/// The context is laid out in this many parts, each of which has its share of the facts.
const PARTS: usize = 7;

/// A retrieval task.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TaskSpec {
    /// What kind of facts.
    pub kind: Kind,
    /// What it is for.
    pub split: Split,
    /// The most tokens that context, question and answer take together.
    pub length: u32,
    /// Facts in a context, at least 7 and at least the questions; 0 takes as many as are usual for the kind and length.
    pub facts: usize,
    /// Questions asked of a context, each about another fact.
    pub questions: usize,
    /// The seed.
    pub seed: u64,
}

/// One context and what is asked of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    /// The task and its number, different for all prompts of a seed.
    pub id: String,
    /// The tokens to prefill.
    pub context: Vec<u32>,
    /// The questions, by the depth of their facts.
    pub questions: Vec<Question>,
    /// The text that the filler begins with.
    pub source: String,
}

/// A question of a context.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// What follows the context; it ends right before the answer.
    pub tokens: Vec<u32>,
    /// The answer.
    pub answer: Vec<u32>,
    /// Where its fact begins in the context: 0 at the start, 1 at the end.
    pub depth: f64,
    /// What is asked for.
    pub key: String,
    /// The answer as text.
    pub value: String,
}

/// A fact on its way into the context.
struct Fact {
    key: String,
    value: String,
    tokens: Vec<u32>,
    at: usize,
}

impl TaskSpec {
    /// The prompt of a number. It depends on nothing but this description, the number, the texts and the vocabulary.
    pub fn prompt(&self, model: &Model, corpus: &Corpus, number: usize) -> Result<Prompt, TaskError> {
        let (kind, split, length) = (self.kind.name(), self.split.name(), self.length.to_string());
        let names = [kind, split, &length, &number.to_string()];
        let random = |what| Random::new(self.seed, &[names.as_slice(), &[what]].concat());
        let format = Format::of(self.kind, self.split);
        let tokenizer = &model.tokenizer;
        let frame = Frame::of(model)?;

        let facts = format.facts(self.fact_count(format)?, &mut random("facts"));
        let mut asked = random("questions").distinct(self.questions, facts.len());
        asked.sort_unstable();
        let mut questions = Vec::new();
        for &at in &asked {
            let (key, value) = &facts[at];
            let question = format!("\n\n{}", fill(format.question, key, ""));
            let begun = fill(format.answer, key, "");
            let answer = continuation(tokenizer, &begun, value)?;
            let tokens =
                [continuation(tokenizer, END, &question)?, frame.tail.clone(), tokenizer.encode(&begun)?];
            let (key, value) = (key.clone(), value.clone());
            questions.push(Question { tokens: tokens.concat(), answer, depth: 0.0, key, value });
        }
        let after = questions.iter().map(|question| question.tokens.len() + question.answer.len()).max();
        let room = (self.length as usize).saturating_sub(after.unwrap_or(0));

        let mut context = frame.head.clone();
        context.extend(tokenizer.encode(format.intro)?);
        let mut facts = facts
            .into_iter()
            .map(|(key, value)| {
                let tokens =
                    continuation(tokenizer, END, &format!("\n\n{}", fill(format.fact, &key, &value)))?;
                Ok(Fact { key, value, tokens, at: 0 })
            })
            .collect::<Result<Vec<_>, TaskError>>()?;
        let needed = context.len() + facts.iter().map(|fact| fact.tokens.len()).sum::<usize>();
        if needed > room {
            let needed = needed + self.length as usize - room;
            let what = format!("{} facts and a question of the {} task", facts.len(), self.kind);
            return Err(TaskError::TooShort { what, length: self.length, needed });
        }
        let places = places(context.len(), room, &facts, &mut random("places"));
        let filler = Filler::new(corpus, random("filler"));
        let source = filler.document().name.clone();
        fill_context(model, &mut context, &mut facts, &places, room, filler)?;

        for (question, at) in questions.iter_mut().zip(asked) {
            question.depth = facts[at].at as f64 / context.len() as f64;
        }
        let id = format!("{kind}-{split}-{length}-{number}");
        Ok(Prompt { id, context, questions, source })
    }

    fn fact_count(&self, format: &Format) -> Result<usize, TaskError> {
        let usual = match self.kind {
            Kind::Passkey => 12,
            Kind::KeyValue => 24,
        };
        let found = if self.facts == 0 { usual.max(self.questions) } else { self.facts };
        let (min, max) = (PARTS.max(self.questions), format.key_count());
        if (min..=max).contains(&found) { Ok(found) } else { Err(TaskError::Facts { found, min, max }) }
    }
}

/// Where a fact should begin.
struct Place {
    /// Not before this.
    from: usize,
    /// Here, or a little before or behind.
    at: usize,
}

/// Where the facts should begin in a context of `room` tokens, whose first `start` tokens are given: each part of the
/// context has its share of them, evenly spread but for a random part of their distance.
fn places(start: usize, room: usize, facts: &[Fact], random: &mut Random) -> Vec<Place> {
    let longest = facts.iter().map(|fact| fact.tokens.len()).max().unwrap_or(0);
    let mut places = Vec::new();
    for part in 0..PARTS {
        let first = (part * facts.len()).div_ceil(PARTS);
        let count = ((part + 1) * facts.len()).div_ceil(PARTS) - first;
        let low = (part * room / PARTS).max(start);
        let high = ((part + 1) * room / PARTS).saturating_sub(longest).max(low);
        for at in 0..count {
            let share = (at as f64 + random.unit()) / count as f64;
            places.push(Place { from: low, at: low + (share * (high - low) as f64) as usize });
        }
    }
    places
}

/// Fills the context up to `room` tokens: filler, and the facts at the ends of its units that are nearest to their
/// places.
fn fill_context(
    model: &Model,
    context: &mut Vec<u32>,
    facts: &mut [Fact],
    places: &[Place],
    room: usize,
    mut filler: Filler<'_>,
) -> Result<(), TaskError> {
    let mut left: usize = facts.iter().map(|fact| fact.tokens.len()).sum();
    let mut next = 0;
    let mut afresh = true;
    // Units that are not taken; a corpus of nothing else would be read for ever.
    let mut passed = 0;
    loop {
        let unit = filler.next().unwrap_or_default();
        let tells = facts.iter().any(|fact| unit.contains(&fact.value) || unit.contains(fact.key.trim()));
        let tokens = if tells { None } else { encode(model, unit, afresh)? };
        let Some(mut tokens) = tokens else {
            passed += 1;
            if passed > 100_000 {
                return Err(TaskError::TooFewTexts { found: context.len(), expected: room });
            }
            continue;
        };
        while next < facts.len()
            && context.len() >= places[next].from
            && context.len() + tokens.len() > places[next].at
        {
            facts[next].at = context.len();
            context.extend(&facts[next].tokens);
            left -= facts[next].tokens.len();
            next += 1;
            if !afresh {
                afresh = true;
                tokens = encode(model, unit, true)?.unwrap_or_default();
            }
        }
        let free = room - left - context.len();
        if tokens.len() > free {
            context.extend(cut(model, unit, afresh, free)?);
            break;
        }
        afresh = false;
        context.extend(tokens);
    }
    for fact in &mut facts[next..] {
        fact.at = context.len();
        context.extend(&fact.tokens);
    }
    Ok(())
}

/// The tokens of a unit of filler, none if the vocabulary lacks one of its characters.
fn encode(model: &Model, unit: &str, afresh: bool) -> Result<Option<Vec<u32>>, TaskError> {
    let text = if afresh || !unit.starts_with(char::is_whitespace) {
        format!("\n\n{}", unit.trim_start())
    } else {
        unit.to_owned()
    };
    match continuation(&model.tokenizer, END, &text) {
        Ok(tokens) => Ok(Some(tokens)),
        Err(TaskError::Model(ModelError::NotInVocabulary { .. })) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The tokens of as many words of a unit as fit.
fn cut(model: &Model, unit: &str, afresh: bool, free: usize) -> Result<Vec<u32>, TaskError> {
    let mut words = unit.trim_end();
    while let Some(at) = words.rfind(char::is_whitespace) {
        words = words[..at].trim_end();
        if let Some(tokens) = encode(model, words, afresh)?
            && tokens.len() <= free
            && !words.is_empty()
        {
            return Ok(tokens);
        }
    }
    Ok(Vec::new())
}
