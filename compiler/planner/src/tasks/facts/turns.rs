//! Several turns: five facts in one context, and five questions one after the other on the same slab. The order of the
//! questions is not that of the facts, so that each is about something that the turns before it passed over.

use std::collections::BTreeSet;

use moac_model::Model;

use super::super::dialog::Asked;
use super::super::draft::{Draft, Hay, Which};
use super::super::formats::fill;
use super::super::hide::words_of;
use super::super::{Corpus, Dialog, TaskError};
use super::{FactKind, Set, forms, keys, values};

/// What is told, in the order of the context: kinds whose values are a few tokens.
const KINDS: [FactKind; 5] =
    [FactKind::Number, FactKind::Word, FactKind::Name, FactKind::Number, FactKind::Word];

/// Conversations of several turns at a length.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TurnsSpec {
    /// The formats.
    pub set: Set,
    /// The most tokens that the context, all questions and all answers take together; they fall short of it by less than a
    /// word.
    pub length: u32,
    /// The seed.
    pub seed: u64,
    /// Without the model's chat template.
    pub plain: bool,
}

impl TurnsSpec {
    /// Turns of a conversation.
    pub const TURNS: usize = KINDS.len();

    /// The dialog of a number. It depends on nothing but this description, the number, the texts and the vocabulary.
    pub fn dialog(&self, model: &Model, corpus: &Corpus, number: usize) -> Result<Dialog, TaskError> {
        let &Self { set, length, seed, plain } = self;
        let task = format!("turns-{}", set.name());
        let which = Which { task: &task, length, number, seed, plain };
        let random = &mut which.random("facts");
        let forms = KINDS.iter().enumerate().map(|(at, &kind)| {
            let forms = || forms::of(set).iter().filter(|form| form.kind == kind);
            let count = forms().count().max(1);
            // Two facts of a kind are told in different words.
            forms().nth((number + at) % count)
        });
        let forms: Vec<_> = forms.flatten().collect();
        let keys = keys(set, forms[0].keys, KINDS.len(), random);
        let mut told: Vec<String> = Vec::new();
        for kind in KINDS {
            // A word that was told is no key either, so that no value comes twice.
            let taken = [keys.as_slice(), &told].concat();
            told.extend(values(set, kind, 1, &taken, random));
        }
        let order = random.distinct(KINDS.len(), KINDS.len());
        let asked = order.iter().map(|&at| Asked {
            question: fill(forms[at].ask, &keys[at], ""),
            begun: fill(forms[at].begun, &keys[at], ""),
            expected: vec![told[at].clone()],
        });
        let words: BTreeSet<String> =
            keys.iter().chain(&told).flat_map(|text| words_of(text).collect::<Vec<_>>()).collect();
        let hidden = forms.iter().zip(keys.iter().zip(&told));
        let draft = Draft {
            intro: forms::intro(set),
            asked: asked.collect(),
            hidden: hidden.map(|(form, (key, value))| fill(form.carrier, key, value)).collect(),
            hay: Hay::Text(words),
            told: order,
        };
        draft.dialog(which, model, corpus)
    }
}
