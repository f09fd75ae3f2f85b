//! From a task as text to the tokens of a [`Dialog`]: what is hidden, what it is hidden in, and what is asked.

use std::collections::BTreeSet;

use moac_model::Model;

use super::dialog::{Asked, frame, tokens_of, turns};
use super::hide::{Hidden, hide, places, words_of};
use super::{Corpus, Dialog, Filler, Page, Random, TaskError};

/// A task as text.
pub(super) struct Draft<'a> {
    /// The first paragraph.
    pub(super) intro: &'static str,
    /// Paragraphs to hide, in this order.
    pub(super) hidden: Vec<String>,
    /// What they are hidden in.
    pub(super) hay: Hay<'a>,
    /// The turns.
    pub(super) asked: Vec<Asked>,
    /// For each turn the paragraph that tells of it, by index.
    pub(super) told: Vec<usize>,
}

/// What a context is filled with.
pub(super) enum Hay<'a> {
    /// Running text, but for units that have one of these words.
    Text(BTreeSet<String>),
    /// Sentences one after the other, each with the white space before it.
    Sentences(Box<dyn Iterator<Item = String> + 'a>),
    /// One paragraph, made to a size: the largest that fits, from the size given on.
    Sized(usize, Box<dyn Fn(usize) -> String + 'a>),
}

/// Which of a task's dialogs to make.
#[derive(Clone, Copy, Debug)]
pub(super) struct Which<'a> {
    pub(super) task: &'a str,
    pub(super) length: u32,
    pub(super) number: usize,
    pub(super) seed: u64,
    /// Without the model's chat template.
    pub(super) plain: bool,
}

impl Which<'_> {
    /// The stream of choices for one purpose.
    pub(super) fn random(&self, what: &str) -> Random {
        let (length, number) = (self.length.to_string(), self.number.to_string());
        Random::new(self.seed, &[self.task, &length, &number, what])
    }
}

impl Draft<'_> {
    /// The dialog. It depends on nothing but the draft, which one it is, the texts and the vocabulary.
    pub(super) fn dialog(
        self,
        which: Which<'_>,
        model: &Model,
        corpus: &Corpus,
    ) -> Result<Dialog, TaskError> {
        let Which { task, length, number, plain, .. } = which;
        let tokenizer = &model.tokenizer;
        let (frame, stop) = frame(model, plain)?;
        let mut turns = turns(tokenizer, &frame, &self.asked)?;
        let mut page = Page::new(tokenizer, [frame.head, tokenizer.encode(self.intro)?].concat());
        let mut hidden =
            self.hidden.iter().map(|text| Hidden::new(tokenizer, text)).collect::<Result<Vec<_>, _>>()?;
        let after = tokens_of(&turns);
        let room = (length as usize).saturating_sub(after);
        let mut needed = page.tokens.len() + hidden.iter().map(|hidden| hidden.tokens.len()).sum::<usize>();
        if let Hay::Sized(least, text) = &self.hay {
            needed += Page::paragraph(tokenizer, &text(*least))?.len();
        }
        if needed > room {
            let what = format!("the facts, the questions and the answers of the {task} task");
            return Err(TaskError::TooShort { what, length, needed: needed + after });
        }
        let mut source = "none".to_owned();
        let places = places(number, page.tokens.len(), room, &hidden, &mut which.random("places"));
        match self.hay {
            Hay::Text(words) => {
                let filler = Filler::new(corpus, which.random("filler"));
                filler.document().name.clone_into(&mut source);
                let tells = |unit: &str| words_of(unit).any(|word| words.contains(&word));
                hide(&mut page, &mut hidden, &places, room, filler, tells)?;
            }
            Hay::Sentences(sentences) => {
                // More than fit: a sentence has at least four tokens.
                let units: Vec<String> = sentences.take(room.div_ceil(4)).collect();
                hide(&mut page, &mut hidden, &places, room, units.iter().map(String::as_str), |_| false)?;
            }
            Hay::Sized(least, text) => {
                let tokens = |size| Page::paragraph(tokenizer, &text(size));
                let free = room - page.tokens.len();
                // The largest that fits lies from `fits` on and below `large`.
                let (mut fits, mut large) = (least, 2 * least.max(1));
                // More words than tokens never fit.
                while large <= room && tokens(large)?.len() <= free {
                    (fits, large) = (large, 2 * large);
                }
                while large - fits > 1 {
                    let middle = fits.midpoint(large);
                    if tokens(middle)?.len() <= free { fits = middle } else { large = middle }
                }
                let paragraph = tokens(fits)?;
                page.add_paragraph(&paragraph);
            }
        }
        let context = page.tokens;
        for (turn, told) in turns.iter_mut().zip(self.told) {
            turn.depth = hidden[told].at as f64 / context.len() as f64;
        }
        let wording = if plain { "-plain" } else { "" };
        let id = format!("{task}-{length}-{number}{wording}");
        Ok(Dialog { id, context, turns, stop, source })
    }
}
