//! Numbers and uuids by keys, in noise, in running text and among others alike.

use super::super::Random;
use super::super::dialog::Asked;
use super::super::draft::{Draft, Hay};
use super::super::formats::fill;
use super::super::hide::words_of;
use super::super::values::{compounds, list, number, numbers, uuid};
use super::Synthetic;

const INTRO: &str = "Codes are hidden in the text below. Remember them: some will be asked for.";
/// How a needle is told.
const CARRIER: &str = "Take note: the code of {key} is {value}.";
const ONE: &str = "What is the code of {key}, as told in the text above?";
const ALL: &str = "What are all the codes of {key}, as told in the text above?";
const BEGUN_ONE: &str = "As told in the text, the code of {key} is";
const BEGUN_ALL: &str = "As told in the text, the codes of {key} are";

/// All of it.
#[cfg(test)]
pub(super) const WORDING: [&str; 6] = [INTRO, CARRIER, ONE, ALL, BEGUN_ONE, BEGUN_ALL];

/// Noise: the same sentences again and again.
const NOISE: [&str; 5] = [
    " The hill is steep.",
    " The road is dry.",
    " The well is deep.",
    " We set out early.",
    " We come home late.",
];

/// Keys, values and questions where there are several.
const SEVERAL: usize = 4;
/// Digits of a number.
const DIGITS: u32 = 7;

/// The sentences of noise, without an end.
pub(super) fn noise() -> Box<dyn Iterator<Item = String>> {
    Box::new(NOISE.into_iter().cycle().map(str::to_owned))
}

/// The needles of a task, and what is asked of them.
pub(super) fn draft(task: Synthetic, random: &mut Random) -> Draft<'static> {
    let uuids = task == Synthetic::KeysUuid;
    let (keys, values) = match task {
        Synthetic::Keys | Synthetic::Queries => (SEVERAL, 1),
        Synthetic::Values => (1, SEVERAL),
        _ => (1, 1),
    };
    // The first keys are the needles', the others those of needles alike.
    let mut names = if uuids { Vec::new() } else { compounds(random) };
    while uuids && names.len() < keys {
        names.push(uuid(random));
    }
    let alike = names.split_off(keys);
    let of_facts: Vec<String> = if uuids || task == Synthetic::NeedleUuid {
        (0..keys * values).map(|_| uuid(random)).collect()
    } else {
        numbers(keys * values, DIGITS, random)
    };
    let facts: Vec<(&String, &String)> =
        of_facts.iter().enumerate().map(|(at, value)| (&names[at / values], value)).collect();

    let asked: Vec<usize> =
        if task == Synthetic::Queries { (0..keys).collect() } else { vec![random.below(keys)] };
    let wanted: Vec<usize> = (0..facts.len()).filter(|at| asked.contains(&(at / values))).collect();
    let key = list(asked.iter().map(|&at| names[at].as_str()));
    let (question, begun) = if wanted.len() > 1 { (ALL, BEGUN_ALL) } else { (ONE, BEGUN_ONE) };
    let expected = wanted.iter().map(|&at| of_facts[at].clone()).collect();
    let question = Asked { question: fill(question, &key, ""), begun: fill(begun, &key, ""), expected };

    let hidden: Vec<String> = facts.iter().map(|(key, value)| fill(CARRIER, key, value)).collect();
    let hay = match task {
        Synthetic::NeedleNoise => Hay::Sentences(noise()),
        Synthetic::KeysAlike | Synthetic::KeysUuid => {
            let taken = of_facts.clone();
            let mut random = random.clone();
            let mut alike = alike.into_iter();
            let other = move || loop {
                let (key, value) = if uuids {
                    (uuid(&mut random), uuid(&mut random))
                } else {
                    (alike.next()?, number(DIGITS, &mut random))
                };
                if !taken.contains(&value) {
                    return Some(format!("\n\n{}", fill(CARRIER, &key, &value)));
                }
            };
            Hay::Sentences(Box::new(std::iter::from_fn(other)))
        }
        _ => Hay::Text(facts.iter().flat_map(|(key, value)| words_of(key).chain(words_of(value))).collect()),
    };
    Draft { intro: INTRO, told: vec![wanted[0]], hidden, hay, asked: vec![question] }
}
