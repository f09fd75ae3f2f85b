//! One value that goes from variable to variable, in noise.

use super::super::Random;
use super::super::dialog::Asked;
use super::super::draft::{Draft, Hay};
use super::super::values::{letters, number};
use super::needles::noise;

const INTRO: &str = "Assignments of variables are hidden in the text below. Follow them.";
/// Variables of the chain.
const CHAIN: usize = 5;
/// Letters of a variable.
const LETTERS: usize = 5;
/// Digits of the value.
const DIGITS: u32 = 5;

pub(super) fn draft(random: &mut Random) -> Draft<'static> {
    let value = number(DIGITS, random);
    let mut chain: Vec<String> = Vec::new();
    while chain.len() < CHAIN {
        let name = letters(LETTERS, random);
        if !chain.contains(&name) {
            chain.push(name);
        }
    }
    let first = std::iter::once(format!("let {} = {value}", chain[0]));
    let hidden = first.chain(chain.windows(2).map(|pair| format!("let {} = {}", pair[1], pair[0]))).collect();
    let question = format!(
        "Which variables have the value {value} after all assignments of the text above, directly or through others?"
    );
    let begun = format!("These {CHAIN} variables have the value {value}:");
    let asked = vec![Asked { question, begun, expected: chain }];
    Draft { intro: INTRO, hidden, hay: Hay::Sentences(noise()), asked, told: vec![0] }
}
