//! The words of a list that are said most often.

use super::super::Random;
use super::super::dialog::Asked;
use super::super::draft::{Draft, Hay};
use super::super::values::{coded, compounds};

const COMMON_INTRO: &str = "Below is a numbered list of words. Some are in it more often than others.";
/// Common words.
const COMMON: usize = 10;
/// How often a common word and any other one is said, from so many tokens on and below.
const OFTEN: (u32, [usize; 2], [usize; 2]) = (4096, [30, 3], [5, 1]);

/// A list of words, ten of which are said ten times as often as the others.
pub(super) fn common(length: u32, random: &mut Random) -> Draft<'static> {
    let words = compounds(random);
    let order = random.clone();
    let (from, long, short) = OFTEN;
    let [often, seldom] = if length >= from { long } else { short };
    let expected = words[..COMMON].to_vec();
    let text = move |others: usize| {
        let common = words[..COMMON].iter().flat_map(|word| std::iter::repeat_n(word, often));
        let others = words[COMMON..].iter().take(others).flat_map(|word| std::iter::repeat_n(word, seldom));
        let all: Vec<&String> = common.chain(others).collect();
        let order = order.clone().distinct(all.len(), all.len());
        let entry = |(number, at): (usize, usize)| format!("{}. {}", number + 1, all[at]);
        order.into_iter().enumerate().map(entry).collect::<Vec<_>>().join(" ")
    };
    let question = format!("What are the {COMMON} most common words of the list above?");
    let begun = format!("The {COMMON} most common words of the list are:");
    let asked = vec![Asked { question, begun, expected }];
    Draft {
        intro: COMMON_INTRO,
        hidden: Vec::new(),
        hay: Hay::Sized(COMMON, Box::new(text)),
        asked,
        told: Vec::new(),
    }
}

const FREQUENT_INTRO: &str = "Below is a text of coded words. Dots have no meaning.";
/// The most frequent thing of all means nothing.
const DOTS: &str = "....";
/// The words that are asked for: those of the ranks behind the first.
const WANTED: usize = 3;
/// A text of so many words has one word of its own for each.
const WORDS_EACH: usize = 20;
/// Fewer words do not tell the ranks apart.
const FEWEST: usize = 80;

/// Coded words, whose frequencies fall with the square of their rank; the first rank is dots.
pub(super) fn frequent(random: &mut Random) -> Draft<'static> {
    let first: Vec<String> = coded(WANTED, random);
    let expected = first.clone();
    let random = random.clone();
    let text = move |words: usize| {
        let mut random = random.clone();
        let ranks = (words / WORDS_EACH).max(WANTED + 3);
        let mut names = vec![DOTS.to_owned()];
        names.extend(first.iter().cloned());
        while names.len() < ranks {
            let new: Vec<String> =
                coded(1, &mut random).into_iter().filter(|name| !names.contains(name)).collect();
            names.extend(new);
        }
        let weight = |rank: usize| 1.0 / (rank as f64 * rank as f64);
        let sum: f64 = (1..=ranks).map(weight).sum();
        let count = |rank: usize| ((words as f64 * weight(rank) / sum) as usize).max(1);
        let all: Vec<&String> = names
            .iter()
            .enumerate()
            .flat_map(|(at, name)| std::iter::repeat_n(name, count(at + 1)))
            .collect();
        let order = random.distinct(all.len(), all.len());
        order.into_iter().map(|at| all[at].as_str()).collect::<Vec<_>>().join(" ")
    };
    let question = format!("Which {WANTED} coded words are in the text above most often?");
    let begun = format!("The {WANTED} coded words that are in the text most often are:");
    let asked = vec![Asked { question, begun, expected }];
    Draft {
        intro: FREQUENT_INTRO,
        hidden: Vec::new(),
        hay: Hay::Sized(FEWEST, Box::new(text)),
        asked,
        told: Vec::new(),
    }
}
