//! Long documents, a question about them, and the answer that the dense model gives.

use moac_model::{CpuOptions, EngineOptions, Event, dense_plan};

use super::{CalibrateError, Job, Maker};
use crate::items::Item;
use crate::tasks::{Document, Filler, Frame, Page, Random, TaskError};

/// The words before a document.
const INTRO: &str = "Read this text.";
/// An answer ends where it repeats so many of its tokens: from there on it says nothing about the document.
const REPEATED: usize = 8;
/// An answer of fewer tokens says nothing about the document.
const SHORTEST: usize = 8;
/// Documents with a question that are too short are passed over, and units of text that the vocabulary cannot spell,
/// but not for ever.
const TRIES: usize = 1000;
const PASSED: usize = 100_000;

/// The request made of a document. The item's number decides which one.
#[derive(Clone, Copy, Debug)]
enum Request {
    /// A question or an instruction.
    Ask(&'static str),
    /// The words of a passage from somewhere in it, whose beginning is given.
    Quote,
    /// More of the same, without a conversation around it.
    Continue,
}

const REQUESTS: [Request; 4] = [
    Request::Ask("Summarise the text above in a few sentences."),
    Request::Quote,
    Request::Ask("Which names and terms does the text above mention? What does it say about them?"),
    Request::Continue,
];

/// Asks for a passage, whose beginning the answer begins with.
const QUOTE: &str = "Repeat one passage of the text above, word for word.";
/// Words of a passage that are given away where it is to be quoted.
const GIVEN: usize = 8;

impl Maker<'_> {
    /// A document that nearly fills the length, and the model's answer; none where it says nothing.
    pub(super) fn document(&self, job: &Job, attempt: usize) -> Result<Option<Item>, CalibrateError> {
        let (length, number, tried) = (job.length.to_string(), job.number.to_string(), attempt.to_string());
        let random = |what| Random::new(self.options.seed, &["document", &length, &number, &tried, what]);
        let limit = self.options.answer_tokens.min(job.length as usize / 4);
        let room = job.length as usize - limit;
        let (document, units) = self.units(room, random("filler"))?;
        let prompt = match (&document.question, REQUESTS[job.number % REQUESTS.len()]) {
            (Some(question), _) => self.asked(room, &units, question, "")?,
            (None, Request::Ask(question)) => self.asked(room, &units, question, "")?,
            (None, Request::Quote) => {
                let unit = units[random("passage").below(units.len())].trim();
                self.asked(room, &units, QUOTE, beginning(unit))?
            }
            (None, Request::Continue) => {
                let mut page = Page::new(&self.model.tokenizer, self.model.tokenizer.encode_prompt("")?);
                fill(&mut page, &units, room)?;
                page.tokens
            }
        };
        let answer = self.answer(&prompt, job.length, limit)?;
        if answer.len() < SHORTEST.min(limit) {
            return Ok(None);
        }
        self.finish(job, &prompt, &answer, document.name.clone()).map(Some)
    }

    /// Units of text that fill `room` tokens or more, and the document that they begin in. A document with a question
    /// of its own is taken from its beginning and alone, so only if it is long enough.
    pub(super) fn units(
        &self,
        room: usize,
        random: Random,
    ) -> Result<(&Document, Vec<&str>), CalibrateError> {
        let mut filler = Filler::new(self.corpus, random);
        let mut longest = 0;
        for _ in 0..TRIES {
            let document = filler.document();
            let alone = document.question.is_some();
            let units = if alone {
                self.enough(document.units(), room)?
            } else {
                self.enough(filler.by_ref(), room)?
            };
            match units {
                Ok(units) => return Ok((document, units)),
                Err(tokens) => longest = tokens.max(longest),
            }
            if !alone {
                // It went through many texts, and found next to nothing that the vocabulary can spell.
                break;
            }
            filler = filler.elsewhere();
        }
        Err(TaskError::TooFewTexts { found: longest, expected: room }.into())
    }

    /// The first units that have `room` tokens together, or how many tokens all of them have.
    pub(super) fn enough<'t>(
        &self,
        units: impl Iterator<Item = &'t str>,
        room: usize,
    ) -> Result<Result<Vec<&'t str>, usize>, CalibrateError> {
        let page = Page::new(&self.model.tokenizer, Vec::new());
        let (mut taken, mut tokens) = (Vec::new(), 0);
        for unit in units.take(room.max(PASSED)) {
            if let Some(more) = page.measure(unit)? {
                tokens += more.len();
                taken.push(unit);
            }
            if tokens >= room {
                return Ok(Ok(taken));
            }
        }
        Ok(Err(tokens))
    }

    /// A conversation about a text, to the assistant's turn, which begins with `begun`.
    fn asked(
        &self,
        room: usize,
        units: &[&str],
        question: &str,
        begun: &str,
    ) -> Result<Vec<u32>, CalibrateError> {
        let tokenizer = &self.model.tokenizer;
        let Frame { head, tail, .. } = Frame::of(self.model)?;
        let begun = tokenizer.encode(begun)?;
        let question = [Page::paragraph(tokenizer, question)?, tail, begun].concat();
        let mut page = Page::new(tokenizer, [head, tokenizer.encode(INTRO)?].concat());
        let needed = page.tokens.len() + question.len();
        if needed >= room {
            let what = "a document and its question".to_owned();
            return Err(TaskError::TooShort { what, length: room as u32, needed: needed + 1 }.into());
        }
        fill(&mut page, units, room - question.len())?;
        page.add_paragraph(&question);
        Ok(page.tokens)
    }

    /// The dense model's answer, up to where it ends or begins to repeat itself.
    fn answer(&self, prompt: &[u32], length: u32, limit: usize) -> Result<Vec<u32>, CalibrateError> {
        let plan = dense_plan(&self.model.decoder.config().shape());
        let cpu = CpuOptions { lanes: 1, ..CpuOptions::default() };
        let engine = self.model.cpu_engine(&plan, &[length], &cpu, EngineOptions::default())?;
        let request = self.model.request(prompt.to_vec(), limit as u32);
        let mut tokens = Vec::new();
        for event in engine.submit(request)? {
            match event {
                Event::Token(token) => tokens.push(token.token),
                Event::End(_) => break,
                Event::Failed(error) => return Err(error.into()),
            }
            if let Some(end) = repetition(&tokens) {
                tokens.truncate(end);
                break;
            }
        }
        Ok(tokens)
    }
}

/// Fills a page up to `room` tokens.
pub(super) fn fill(page: &mut Page<'_>, units: &[&str], room: usize) -> Result<(), CalibrateError> {
    for unit in units {
        if !page.add(unit, room)? {
            break;
        }
    }
    Ok(())
}

/// The first words of a text.
fn beginning(text: &str) -> &str {
    let mut end = 0;
    for _ in 0..GIVEN {
        let rest = &text[end..];
        let word = rest.len() - rest.trim_start().len();
        end += rest[word..].find(char::is_whitespace).map_or(rest.len(), |length| word + length);
    }
    text[..end].trim_end()
}

/// Where the last tokens begin, if they were there before.
fn repetition(tokens: &[u32]) -> Option<usize> {
    let start = tokens.len().checked_sub(REPEATED)?;
    let (before, last) = (&tokens[..tokens.len() - 1], &tokens[start..]);
    before.windows(REPEATED).any(|window| window == last).then_some(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_is_whole_words() {
        assert_eq!(beginning("a b\n  c d e f g  hh ii j"), "a b\n  c d e f g  hh");
        assert_eq!(beginning("a b"), "a b");
        assert_eq!(beginning(""), "");
    }

    #[test]
    fn a_repetition_is_found_where_it_begins() {
        let tokens: Vec<u32> = (0..20).chain(5..13).collect();
        assert_eq!(repetition(&tokens), Some(20));
        assert_eq!(repetition(&tokens[..27]), None);
        assert_eq!(repetition(&[7; 9]), Some(1));
        assert_eq!(repetition(&[7; 8]), None);
        assert_eq!(repetition(&[]), None);
    }
}
