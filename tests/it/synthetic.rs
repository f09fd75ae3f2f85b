//! Synthetic tasks, facts and turns on the tokenizer of a tiny random model: what is told and expected, found again in the
//! text by other means; and a conversation of several turns.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use moac_model::{CpuOptions, EngineOptions, Model, Tokenizer, dense_plan};
use moac_planner::tasks::{
    Corpus, Dialog, FactKind, FactsSpec, Set, Synthetic, SyntheticSpec, TaskError, TurnsSpec, converse,
};

use crate::tasks::folder;

fn open(folder: &Path) -> (Model, Corpus) {
    (Model::open(&folder.join("tiny")).unwrap(), Corpus::read(&[folder.join("texts")]).unwrap())
}

fn spec(task: Synthetic, length: u32, plain: bool) -> SyntheticSpec {
    SyntheticSpec { task, length, seed: 5, plain }
}

/// The context as text, without the paragraph before what is filled in.
fn body(tokenizer: &Tokenizer, dialog: &Dialog) -> String {
    let text = tokenizer.decode(&dialog.context).unwrap();
    text.split_once("\n\n").map(|(_, body)| body.to_owned()).unwrap()
}

/// Tokens of context, questions and answers.
fn tokens(dialog: &Dialog) -> usize {
    let turns = dialog.turns.iter().map(|turn| turn.tokens.len() + turn.limit as usize);
    dialog.context.len() + turns.sum::<usize>()
}

/// Codes by key, as a reader finds them.
fn codes(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut codes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for part in text.split("the code of ").skip(1) {
        // The last one among many alike may be cut off.
        let Some((key, rest)) = part.split_once(" is ") else { continue };
        let Some((value, _)) = rest.split_once('.') else { continue };
        codes.entry(key.to_owned()).or_default().push(value.to_owned());
    }
    codes
}

#[test]
fn dialogs_fill_their_length_and_are_the_same_again() {
    let folder = folder();
    let (model, corpus) = open(folder.path());
    let tokenizer = &model.tokenizer;
    for (task, plain) in Synthetic::ALL.into_iter().flat_map(|task| [(task, false), (task, true)]) {
        let spec = spec(task, 3072, plain);
        let dialog = spec.dialog(&model, &corpus, 3).unwrap();
        let slack = if task == Synthetic::KeysUuid { 128 } else { 48 };
        assert!((3072 - slack..=3072).contains(&tokens(&dialog)), "{task}: {}", tokens(&dialog));
        // The tokens are those of the whole text.
        let text = tokenizer.decode(&dialog.context).unwrap();
        let whole = if plain { tokenizer.encode_prompt(&text) } else { tokenizer.encode_chat(&text) };
        assert_eq!(whole.unwrap(), dialog.context, "{task}");
        assert_eq!((dialog.stop.is_some(), text.contains("<|im_start|>user")), (plain, !plain));
        let [turn] = dialog.turns.as_slice() else { panic!("one question") };
        // There is room for all that is expected.
        let answer = tokenizer.encode(&turn.expected.join(", ")).unwrap();
        assert!(answer.len() + 16 <= turn.limit as usize, "{task}");
        let asked = tokenizer.decode(&turn.tokens).unwrap();
        assert!(!turn.expected.iter().any(|text| asked.contains(text)), "{asked}");
        assert_eq!(spec.dialog(&model, &corpus, 3).unwrap(), dialog);
        assert_ne!(spec.dialog(&model, &corpus, 4).unwrap().context, dialog.context);
        assert_ne!(SyntheticSpec { seed: 6, ..spec }.dialog(&model, &corpus, 3).unwrap(), dialog);
    }
}

#[test]
fn needles_are_where_they_are_said_to_be_and_have_one_key() {
    let folder = folder();
    let (model, corpus) = open(folder.path());
    for (task, keys, values, asked) in [
        (Synthetic::NeedleNoise, 1, 1, 1),
        (Synthetic::NeedleText, 1, 1, 1),
        (Synthetic::NeedleUuid, 1, 1, 1),
        (Synthetic::Keys, 4, 1, 1),
        (Synthetic::KeysAlike, 30, 1, 1),
        (Synthetic::KeysUuid, 10, 1, 1),
        (Synthetic::Values, 1, 4, 4),
        (Synthetic::Queries, 4, 1, 4),
    ] {
        let mut parts = BTreeSet::new();
        for number in 0..7 {
            let dialog = spec(task, 4096, false).dialog(&model, &corpus, number).unwrap();
            let turn = &dialog.turns[0];
            let text = body(&model.tokenizer, &dialog);
            let codes = codes(&text);
            let alike = matches!(task, Synthetic::KeysAlike | Synthetic::KeysUuid);
            assert!(if alike { codes.len() > keys } else { codes.len() == keys }, "{task}: {}", codes.len());
            assert!(codes.values().all(|of| of.len() == values), "{task}");
            // What is asked for by key is what is expected, in the order of the text.
            let question = model.tokenizer.decode(&turn.tokens).unwrap();
            let by_key = codes.iter().filter(|(key, _)| question.contains(key.as_str()));
            let found: BTreeSet<&String> = by_key.flat_map(|(_, values)| values).collect();
            assert_eq!(found, turn.expected.iter().collect(), "{task}: {question}");
            assert_eq!(turn.expected.len(), asked);
            for value in &turn.expected {
                assert_eq!(text.matches(value.as_str()).count(), 1);
                let uuid = matches!(task, Synthetic::NeedleUuid | Synthetic::KeysUuid);
                let form =
                    |c: char| if uuid { c.is_ascii_hexdigit() || c == '-' } else { c.is_ascii_digit() };
                assert!(value.len() == if uuid { 36 } else { 7 } && value.chars().all(form), "{value}");
            }
            let at = (turn.depth * dialog.context.len() as f64).round() as usize;
            let after = model.tokenizer.decode(&dialog.context[at..]).unwrap();
            let told = after.trim_start().split("\n\n").next().unwrap();
            assert!(told.starts_with("Take note") && told.contains(&turn.expected[0]), "{told}");
            parts.insert((turn.depth * 7.0) as usize);
        }
        // Single needles are in every part by turns.
        assert!(keys * values > 1 || parts.len() == 7, "{task}: {parts:?}");
    }
}

#[test]
fn chains_resolve_to_the_value() {
    let folder = folder();
    let (model, corpus) = open(folder.path());
    for number in 0..5 {
        let dialog = spec(Synthetic::Tracing, 2048, number % 2 == 1).dialog(&model, &corpus, number).unwrap();
        let text = body(&model.tokenizer, &dialog);
        let mut values: BTreeMap<&str, &str> = BTreeMap::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("let ")) {
            let (name, from) = line.split_once(" = ").unwrap();
            let value = values.get(from).copied().unwrap_or(from);
            assert!(values.insert(name, value).is_none());
        }
        let question = model.tokenizer.decode(&dialog.turns[0].tokens).unwrap();
        let right = values.iter().filter(|(_, value)| question.contains(**value)).map(|(name, _)| *name);
        let expected: BTreeSet<&str> = dialog.turns[0].expected.iter().map(String::as_str).collect();
        assert_eq!((right.collect::<BTreeSet<_>>(), expected.len()), (expected, 5));
        assert!(values.values().all(|value| value.len() == 5 && value.bytes().all(|b| b.is_ascii_digit())));
    }
}

#[test]
fn the_words_expected_are_the_most_frequent() {
    let folder = folder();
    let (model, corpus) = open(folder.path());
    let ranked = |words: Vec<&str>| {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for word in words {
            *counts.entry(word).or_default() += 1;
        }
        let mut ranked: Vec<(usize, String)> =
            counts.into_iter().map(|(word, count)| (count, word.to_owned())).collect();
        ranked.sort_by(|a, b| b.cmp(a));
        ranked
    };
    for length in [3072, 8192] {
        let dialog = spec(Synthetic::Common, length, false).dialog(&model, &corpus, 0).unwrap();
        let text = body(&model.tokenizer, &dialog);
        let ranked_words = ranked(text.split(' ').skip(1).step_by(2).collect());
        let expected: BTreeSet<&String> = dialog.turns[0].expected.iter().collect();
        assert_eq!(ranked_words[..10].iter().map(|(_, word)| word).collect::<BTreeSet<_>>(), expected);
        let (often, seldom) = if length < 4096 { (5, 1) } else { (30, 3) };
        assert!(ranked_words[..10].iter().all(|(count, _)| *count == often));
        assert!(ranked_words.len() > 10 && ranked_words[10..].iter().all(|(count, _)| *count == seldom));
        // No word is found in another.
        for ((_, a), (_, b)) in
            ranked_words[..10].iter().flat_map(|a| ranked_words.iter().map(move |b| (a, b)))
        {
            assert!(a == b || !b.contains(a.as_str()), "{b} contains {a}");
        }

        let dialog = spec(Synthetic::Frequent, length, false).dialog(&model, &corpus, 0).unwrap();
        let ranked = ranked(body(&model.tokenizer, &dialog).split(' ').collect::<Vec<_>>());
        let names: Vec<&str> = ranked.iter().map(|(_, word)| word.as_str()).collect();
        let expected: Vec<&str> = dialog.turns[0].expected.iter().map(String::as_str).collect();
        assert_eq!((names[0], &names[1..4]), ("....", expected.as_slice()));
        // The frequencies fall with the square of the rank, so the third is apart from the next.
        let count = |rank: usize| ranked[rank - 1].0 as f64;
        assert!(count(4) > count(5));
        for rank in 2..5 {
            let law = count(1) / (rank * rank) as f64;
            assert!((count(rank) - law).abs() < 0.1 * law + 3.0, "{rank}: {} for {law}", count(rank));
        }
    }
}

#[test]
fn what_is_too_short_says_how_much_would_do() {
    let folder = folder();
    let (model, corpus) = open(folder.path());
    for task in [Synthetic::Queries, Synthetic::Common] {
        let error = spec(task, 128, false).dialog(&model, &corpus, 0).unwrap_err();
        let TaskError::TooShort { length: 128, needed, .. } = error else { panic!("{error}") };
        // The words of another draw may have more tokens.
        let enough = needed as u32 + 300;
        assert!(spec(task, enough, false).dialog(&model, &corpus, 0).is_ok(), "{task}: {enough}");
    }
}

#[test]
fn facts_of_every_kind_are_told_once_and_asked_for() {
    let folder = folder();
    let (model, corpus) = open(folder.path());
    let tokenizer = &model.tokenizer;
    for (set, kind) in Set::ALL.into_iter().flat_map(|set| FactKind::ALL.map(|kind| (set, kind))) {
        // Two wordings, each as a conversation and as text that goes on.
        for number in 0..4 {
            let spec = FactsSpec { kind, set, length: 4096, seed: 1 };
            let prompt = spec.prompt(&model, &corpus, number).unwrap();
            let text = tokenizer.decode(&prompt.context).unwrap();
            assert_eq!(text.starts_with("<|im_start|>"), number < 2, "{kind}");
            let mut longest = 0;
            for question in &prompt.questions {
                let whole = [prompt.context.as_slice(), &question.tokens, &question.answer].concat();
                longest = longest.max(whole.len());
                assert_eq!(tokenizer.decode(&question.answer).unwrap().trim_start(), question.value);
                let asked = tokenizer.decode(&question.tokens).unwrap();
                let at = (question.depth * prompt.context.len() as f64).round() as usize;
                let after = tokenizer.decode(&prompt.context[at..]).unwrap();
                let told = after.strip_prefix("\n\n").unwrap().split("\n\n").next().unwrap();
                let one = if kind == FactKind::Several { 0..1 } else { 0..usize::MAX };
                for value in question.value.split([',']).flat_map(|part| part.split(" and ")).take(one.end) {
                    assert!(told.contains(value.trim()), "{kind}: {told} has no {value}");
                    assert_eq!(text.matches(value.trim()).count(), 1, "{kind}: {value}");
                }
                let turns = asked.matches("<|im_start|>user").count() + asked.matches("\n\n").count();
                assert_eq!(turns >= 2, kind == FactKind::Turns, "{asked}");
                assert!(kind == FactKind::Several || asked.contains(&question.key), "{asked}");
            }
            assert!((4096 - 48..=4096).contains(&longest), "{kind}: {longest}");
            assert_eq!(spec.prompt(&model, &corpus, number).unwrap(), prompt);
        }
    }
}

#[test]
fn five_questions_are_asked_of_one_context_on_the_same_slab() {
    const LENGTH: u32 = 1536;
    let folder = folder();
    let (model, corpus) = open(folder.path());
    for plain in [false, true] {
        let spec = TurnsSpec { set: Set::Report, length: LENGTH, seed: 2, plain };
        let dialog = spec.dialog(&model, &corpus, 1).unwrap();
        assert_eq!(dialog.turns.len(), TurnsSpec::TURNS);
        assert!((LENGTH as usize - 48..=LENGTH as usize).contains(&tokens(&dialog)), "{}", tokens(&dialog));
        let text = model.tokenizer.decode(&dialog.context).unwrap();
        let mut depths = Vec::new();
        for turn in &dialog.turns {
            let [value] = turn.expected.as_slice() else { panic!("one value") };
            assert_eq!(text.matches(value.as_str()).count(), 1);
            let at = (turn.depth * dialog.context.len() as f64).round() as usize;
            let after = model.tokenizer.decode(&dialog.context[at..]).unwrap();
            assert!(after.trim_start().split("\n\n").next().unwrap().contains(value.as_str()));
            depths.push(turn.depth);
        }
        let order = |depths: &[f64]| depths.windows(2).all(|pair| pair[0] < pair[1]);
        assert!(!order(&depths), "the questions are in the order of the facts");

        if plain {
            continue;
        }
        // Each answer is that of a fresh prefill of all that was said before.
        let plan = dense_plan(&model.decoder.config().shape());
        let said = converse(&model, &plan, LENGTH, &dialog).unwrap();
        let mut prompt = dialog.context.clone();
        for (turn, said) in dialog.turns.iter().zip(&said) {
            prompt.extend(&turn.tokens);
            let engine =
                model.cpu_engine(&plan, &[LENGTH], &CpuOptions::default(), EngineOptions::default()).unwrap();
            let answer = engine
                .submit(model.request(prompt.clone(), turn.limit))
                .unwrap()
                .answers()
                .unwrap()
                .remove(0);
            assert_eq!((&answer.text, answer.cached), (said, 0));
            prompt.extend(&answer.tokens);
        }
    }
}
