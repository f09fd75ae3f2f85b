//! From a task's description to tokens.

use std::collections::BTreeSet;

use moac_model::{Model, Tokenizer};

use super::formats::{Chat, Format, fill};
use super::frame::{Frame, continuation};
use super::hide::{Hidden, hide, places, words_of};
use super::{Corpus, Filler, Kind, Page, Random, Split, TaskError};

/// A retrieval task.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TaskSpec {
    /// The kind of facts.
    pub kind: Kind,
    /// The purpose.
    pub split: Split,
    /// The most tokens that context, question and answer take together.
    pub length: u32,
    /// Facts in a context, at least as many as questions, if not as many as are usual for the task.
    pub facts: Option<usize>,
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
    /// The text after the context; it ends right before the answer.
    pub tokens: Vec<u32>,
    /// The answer.
    pub answer: Vec<u32>,
    /// Where its fact begins in the context: 0 at the start, 1 at the end.
    pub depth: f64,
    /// The key that is asked for.
    pub key: String,
    /// The answer as text.
    pub value: String,
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

        let facts = self.facts(format, tokenizer, &mut random("facts"))?;
        let asked = spread(self.questions, facts.len(), &mut random("questions"));
        let mut questions = Vec::new();
        for &at in &asked {
            let (key, value) = &facts[at];
            let begun = fill(format.answer, key, "");
            // A word takes the space before it into its token; before digits it is a token of its own.
            let spaced = if begun.ends_with(' ') { value.clone() } else { format!(" {value}") };
            let answer = continuation(tokenizer, &begun, &spaced)?;
            let tokens = match format.chat {
                None => Page::paragraph(tokenizer, &begun)?,
                Some(Chat { question, .. }) => {
                    let question = Page::paragraph(tokenizer, &fill(question, key, ""))?;
                    [question, frame.tail.clone(), tokenizer.encode(&begun)?].concat()
                }
            };
            questions.push(Question { tokens, answer, depth: 0.0, key: key.clone(), value: value.clone() });
        }
        let after = questions.iter().map(|question| question.tokens.len() + question.answer.len()).max();
        let room = (self.length as usize).saturating_sub(after.unwrap_or(0));

        let context = match format.chat {
            None => tokenizer.encode_prompt("")?,
            Some(Chat { intro, .. }) => [frame.head, tokenizer.encode(intro)?].concat(),
        };
        let words: BTreeSet<String> =
            facts.iter().flat_map(|(key, value)| words_of(key).chain(words_of(value))).collect();
        let mut facts = facts
            .iter()
            .map(|(key, value)| Hidden::new(tokenizer, &fill(format.fact, key, value)))
            .collect::<Result<Vec<_>, TaskError>>()?;
        let needed = context.len() + facts.iter().map(|fact| fact.tokens.len()).sum::<usize>();
        if needed > room {
            let needed = needed + self.length as usize - room;
            let what = format!("{} facts and a question of the {} task", facts.len(), self.kind);
            return Err(TaskError::TooShort { what, length: self.length, needed });
        }
        let places = places(number, context.len(), room, &facts, &mut random("places"));
        let filler = Filler::new(corpus, random("filler"));
        let source = filler.document().name.clone();
        let mut page = Page::new(tokenizer, context);
        let tells = |unit: &str| words_of(unit).any(|word| words.contains(&word));
        hide(&mut page, &mut facts, &places, room, filler, tells)?;
        let context = page.tokens;

        for (question, at) in questions.iter_mut().zip(asked) {
            question.depth = facts[at].at as f64 / context.len() as f64;
        }
        let id = format!("{kind}-{split}-{length}-{number}");
        Ok(Prompt { id, context, questions, source })
    }

    fn facts(
        &self,
        format: &Format,
        tokenizer: &Tokenizer,
        random: &mut Random,
    ) -> Result<Vec<(String, String)>, TaskError> {
        let asked = self.facts.unwrap_or_else(|| format.facts.max(self.questions));
        let facts = format.facts(asked, tokenizer, random)?;
        if facts.len() < asked || asked < self.questions.max(1) {
            let (min, max) = (self.questions.max(1), facts.len());
            return Err(TaskError::Facts { found: asked, min, max });
        }
        Ok(facts)
    }
}

/// `n` different numbers of `0..of`, ascending: one of each of `n` equal parts.
fn spread(n: usize, of: usize, random: &mut Random) -> Vec<usize> {
    let part = |at: usize| at * of / n;
    (0..n).map(|at| part(at) + random.below(part(at + 1) - part(at))).collect()
}
