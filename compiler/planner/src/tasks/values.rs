//! Keys and values drawn at random: numbers, uuids, words, names, sentences.

use super::Random;
use super::words::{ADJECTIVES, EVALUATION, Names};

/// A number of so many digits, the first of which is not 0.
pub(super) fn number(digits: u32, random: &mut Random) -> String {
    let low = 10_usize.pow(digits - 1);
    (low + random.below(9 * low)).to_string()
}

/// Different ones.
pub(super) fn numbers(n: usize, digits: u32, random: &mut Random) -> Vec<String> {
    distinct(n, || number(digits, random))
}

/// Different results of a drawing.
pub(super) fn distinct(n: usize, mut draw: impl FnMut() -> String) -> Vec<String> {
    let mut all = Vec::with_capacity(n);
    while all.len() < n {
        let next = draw();
        if !all.contains(&next) {
            all.push(next);
        }
    }
    all
}

/// Hexadecimal digits in the groups of a uuid.
pub(super) fn uuid(random: &mut Random) -> String {
    let mut group = |digits: usize| -> String {
        (0..digits).map(|_| char::from(b"0123456789abcdef"[random.below(16)])).collect()
    };
    [8, 4, 4, 4, 12].map(&mut group).join("-")
}

/// Capital letters.
pub(super) fn letters(n: usize, random: &mut Random) -> String {
    (0..n).map(|_| char::from(b'A' + random.below(26) as u8)).collect()
}

/// Different words of six letters, consonants and vowels in turn.
pub(super) fn coded(n: usize, random: &mut Random) -> Vec<String> {
    let mut syllable = || {
        let (consonants, vowels) = (b"bcdfghjklmnpqrstvwxz", b"aeiou");
        [consonants[random.below(consonants.len())], vowels[random.below(vowels.len())]].map(char::from)
    };
    distinct(n, || (0..3).flat_map(|_| syllable()).collect())
}

/// All keys of an adjective and a noun, in random order. None contains another.
pub(super) fn compounds(random: &mut Random) -> Vec<String> {
    let all = ADJECTIVES.len() * EVALUATION.len();
    let word =
        |at: usize| format!("{}-{}", ADJECTIVES[at % ADJECTIVES.len()], EVALUATION[at / ADJECTIVES.len()]);
    random.distinct(all, all).into_iter().map(word).collect()
}

/// A person.
pub(super) fn name((first, family): &Names, random: &mut Random) -> String {
    format!("{} {}", first[random.below(first.len())], family[random.below(family.len())])
}

/// Texts as a list: `a, b and c`.
pub(super) fn list<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let texts: Vec<&str> = texts.into_iter().collect();
    match texts.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => texts.concat(),
    }
}
