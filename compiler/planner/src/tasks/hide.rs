//! Hides paragraphs in filler: where they go, and the text around them.

use moac_model::Tokenizer;
use moac_runtime::plan::DEFAULT_SINK;

use super::{Page, Random, TaskError};

/// The context is laid out in this many parts, each of which has its share of the paragraphs.
const PARTS: usize = 7;
/// Units of filler that may be passed over, as they hold a key or a value themselves, before the texts are given up.
const PASSED: usize = 100_000;

/// A paragraph on its way into the context.
#[derive(Clone, Debug)]
pub(super) struct Hidden {
    pub(super) tokens: Vec<u32>,
    /// The token of the context that it begins at, once it is there.
    pub(super) at: usize,
}

impl Hidden {
    /// A paragraph that is not in the context yet.
    pub(super) fn new(tokenizer: &Tokenizer, text: &str) -> Result<Self, TaskError> {
        Ok(Self { tokens: Page::paragraph(tokenizer, text)?, at: 0 })
    }
}

/// Where a paragraph should begin.
pub(super) struct Place {
    /// Not before this.
    from: usize,
    /// Here, or a little before or behind.
    at: usize,
}

/// Where the paragraphs should begin in the context of a number, which has `room` tokens, the first `start` of them given:
/// each part of the context has its share of them, evenly spread but for a random part of their distance. If there
/// are fewer of them than parts, each part has its turn as the numbers go on. None is among the first tokens, which every
/// plan keeps.
pub(super) fn places(
    number: usize,
    start: usize,
    room: usize,
    hidden: &[Hidden],
    random: &mut Random,
) -> Vec<Place> {
    let longest = hidden.iter().map(|hidden| hidden.tokens.len()).max().unwrap_or(0);
    let start = start.max(DEFAULT_SINK as usize);
    let mut counts = [hidden.len() / PARTS; PARTS];
    let left = hidden.len() % PARTS;
    for at in 0..left {
        counts[(number + at * PARTS / left) % PARTS] += 1;
    }
    let mut places = Vec::new();
    for (part, count) in counts.into_iter().enumerate() {
        let low = (part * room / PARTS).max(start);
        let high = ((part + 1) * room / PARTS).saturating_sub(longest).max(low);
        for at in 0..count {
            let share = (at as f64 + random.unit()) / count as f64;
            places.push(Place { from: low, at: low + (share * (high - low) as f64) as usize });
        }
    }
    places
}

/// Fills the context up to `room` tokens: units of filler, and the paragraphs at the ends of the units that are nearest to
/// their places. Units that give something away, by `tells`, are left out.
pub(super) fn hide<'t>(
    page: &mut Page<'_>,
    hidden: &mut [Hidden],
    places: &[Place],
    room: usize,
    filler: impl Iterator<Item = &'t str>,
    tells: impl Fn(&str) -> bool,
) -> Result<(), TaskError> {
    let mut left: usize = hidden.iter().map(|hidden| hidden.tokens.len()).sum();
    let mut next = 0;
    // Units that are not taken; a corpus of nothing else would be read for ever.
    let mut passed = 0;
    for unit in filler {
        let Some(tokens) = page.measure(unit)?.filter(|_| !tells(unit)) else {
            passed += 1;
            if passed == PASSED {
                break;
            }
            continue;
        };
        let end = page.tokens.len() + tokens.len();
        while next < hidden.len() && page.tokens.len() >= places[next].from && end > places[next].at {
            hidden[next].at = page.tokens.len();
            page.add_paragraph(&hidden[next].tokens);
            left -= hidden[next].tokens.len();
            next += 1;
        }
        if !page.add(unit, room - left)? {
            for hidden in &mut hidden[next..] {
                hidden.at = page.tokens.len();
                page.add_paragraph(&hidden.tokens);
            }
            return Ok(());
        }
    }
    Err(TaskError::TooFewTexts { found: page.tokens.len(), expected: room })
}

/// The words and numbers of a text, in small letters.
pub(super) fn words_of(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase)
}
