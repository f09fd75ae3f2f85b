//! Retrieval tasks, on the tokenizer and the weights of a tiny random model.

use std::path::Path;

use moac_model::{Cache, CpuOptions, EngineOptions, Model, dense_plan};
use moac_planner::tasks::{Corpus, Kind, Prompt, Question, Split, TaskError, TaskSpec, ask};
use proptest::prelude::*;

use crate::generate;

/// A folder with the model in `tiny` and texts in `texts`.
pub(crate) fn folder() -> tempfile::TempDir {
    let folder = generate::folder();
    std::fs::create_dir_all(folder.path().join("texts/more")).unwrap();
    std::fs::write(folder.path().join("texts/a.txt"), prose(40)).unwrap();
    std::fs::write(folder.path().join("texts/more/b.rst"), prose(90)).unwrap();
    folder
}

/// Paragraphs of sentences.
fn prose(paragraphs: usize) -> String {
    let words = ["the", "inn", "of", "her", "aunt", "was", "quite", "old", "and", "Mr. Hill", "spoke; then"];
    let sentence = |n: usize| {
        let words: Vec<&str> = (0..7 + n % 5).map(|at| words[(n * n + 3 * at) % words.len()]).collect();
        format!("So {}.", words.join(" "))
    };
    let paragraph = |p: usize| (0..4 + p % 3).map(|s| sentence(5 * p + s)).collect::<Vec<_>>().join("\n");
    (0..paragraphs).map(paragraph).collect::<Vec<_>>().join("\n\n")
}

fn model(folder: &Path) -> Model {
    Model::open(&folder.join("tiny")).unwrap()
}

fn corpus(folder: &Path) -> Corpus {
    Corpus::read(&[folder.join("texts")]).unwrap()
}

/// Context, question and answer.
fn whole(prompt: &Prompt, question: &Question) -> Vec<u32> {
    [prompt.context.as_slice(), &question.tokens, &question.answer].concat()
}

/// Where a question's fact begins, in tokens.
fn place(prompt: &Prompt, question: &Question) -> usize {
    (question.depth * prompt.context.len() as f64).round() as usize
}

fn specs() -> impl Strategy<Value = TaskSpec> {
    let kind = prop_oneof![Just(Kind::Passkey), Just(Kind::KeyValue)];
    let split = prop_oneof![Just(Split::Calibration), Just(Split::Evaluation)];
    (kind, split, 2048..6000_u32, 1..=12_usize, 1..=12_usize, any::<u64>()).prop_map(
        |(kind, split, length, facts, questions, seed)| {
            let questions = questions.min(facts);
            TaskSpec { kind, split, length, facts: Some(facts), questions, seed }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_prompt_is_what_it_promises(spec in specs(), number in 0..50_usize) {
        let folder = folder();
        let (model, corpus) = (model(folder.path()), corpus(folder.path()));
        let tokenizer = &model.tokenizer;
        let prompt = spec.prompt(&model, &corpus, number).unwrap();
        prop_assert_eq!(prompt.questions.len(), spec.questions);
        let longest = prompt.questions.iter().map(|question| whole(&prompt, question).len()).max().unwrap();
        // A word of the filler that does not fit is left out.
        prop_assert!((spec.length as usize - 16..=spec.length as usize).contains(&longest), "{}", longest);
        let text = tokenizer.decode(&prompt.context).unwrap();
        let mut depth = 0.0;
        for question in &prompt.questions {
            // The tokens are those of the whole text.
            let all = whole(&prompt, question);
            prop_assert_eq!(tokenizer.encode_prompt(&tokenizer.decode(&all).unwrap()).unwrap(), all);
            let answer = tokenizer.decode(&question.answer).unwrap();
            prop_assert_eq!(answer.trim_start(), &question.value);
            // The fact is where it is said to be: its paragraph begins there, and key and value are in no other.
            prop_assert!(question.depth > depth && question.depth < 1.0);
            depth = question.depth;
            let after = tokenizer.decode(&prompt.context[place(&prompt, question)..]).unwrap();
            let fact = after.strip_prefix("\n\n").unwrap().split("\n\n").next().unwrap();
            prop_assert!(fact.contains(&question.value) && fact.contains(&question.key), "{}", fact);
            for part in question.key.split_whitespace().chain(question.value.split_whitespace()) {
                let inside = fact.matches(part).count();
                prop_assert!((2..=4).contains(&inside), "{} in {}", part, fact);
                prop_assert_eq!(text.matches(part).count(), inside, "{}", part);
            }
        }
        prop_assert_eq!(spec.prompt(&model, &corpus, number).unwrap(), prompt);
    }

    #[test]
    fn facts_lie_in_every_part(spec in specs(), number in 0..50_usize) {
        let folder = folder();
        let (model, corpus) = (model(folder.path()), corpus(folder.path()));
        let spec = TaskSpec { length: 6000, facts: Some(10), questions: 10, ..spec };
        let prompt = spec.prompt(&model, &corpus, number).unwrap();
        let depths: Vec<f64> = prompt.questions.iter().map(|question| question.depth).collect();
        prop_assert!(prompt.questions.iter().all(|question| place(&prompt, question) >= 64));
        // A fact begins where the paragraph before it ends, which may be a little outside of its part.
        let near = |part: usize| (part as f64 / 7.0 - 0.03)..((part + 1) as f64 / 7.0 + 0.03);
        for part in 0..7 {
            prop_assert!(depths.iter().any(|depth| near(part).contains(depth)), "{}: {:?}", part, depths);
        }
    }
}

#[test]
fn single_facts_lie_in_every_part_by_turns() {
    let folder = folder();
    let (model, corpus) = (model(folder.path()), corpus(folder.path()));
    let spec = TaskSpec {
        kind: Kind::Passkey,
        split: Split::Calibration,
        length: 4096,
        facts: None,
        questions: 1,
        seed: 3,
    };
    let parts: std::collections::BTreeSet<usize> = (0..7)
        .map(|number| (spec.prompt(&model, &corpus, number).unwrap().questions[0].depth * 7.0) as usize)
        .collect();
    assert_eq!(parts.len(), 7);
}

#[test]
fn prompts_differ_by_number_seed_kind_and_split() {
    let folder = folder();
    let (model, corpus) = (model(folder.path()), corpus(folder.path()));
    let mut seen = std::collections::BTreeSet::new();
    let mut ids = std::collections::BTreeSet::new();
    for kind in Kind::ALL {
        for split in [Split::Calibration, Split::Evaluation] {
            for (seed, number) in [(0, 0), (0, 1), (1, 0)] {
                let spec = TaskSpec { kind, split, length: 2048, facts: Some(3), questions: 2, seed };
                let prompt = spec.prompt(&model, &corpus, number).unwrap();
                assert!(seen.insert(prompt.context));
                ids.insert(prompt.id);
            }
        }
    }
    assert_eq!(ids.len(), 8);
}

#[test]
fn what_cannot_be_made_is_an_error() {
    let folder = folder();
    let (model, corpus) = (model(folder.path()), corpus(folder.path()));
    let spec = TaskSpec {
        kind: Kind::KeyValue,
        split: Split::Evaluation,
        length: 200,
        facts: Some(10),
        questions: 10,
        seed: 0,
    };
    let Err(TaskError::TooShort { length: 200, needed, .. }) = spec.prompt(&model, &corpus, 0) else {
        panic!("200 tokens hold ten facts")
    };
    // It says how much would do, but for the words of another draw.
    let enough = TaskSpec { length: needed as u32 + 50, ..spec.clone() };
    assert_eq!(enough.prompt(&model, &corpus, 0).unwrap().questions.len(), 10);
    let facts = |facts, questions| {
        let spec = TaskSpec { length: 60_000, facts: Some(facts), questions, ..spec.clone() };
        matches!(spec.prompt(&model, &corpus, 0), Err(TaskError::Facts { .. }))
    };
    assert!(facts(1000, 10) && facts(5, 6));
}

/// The answer that greedy decoding gives is right, and no other is.
#[test]
fn a_question_is_right_iff_greedy_decoding_answers_it() {
    let folder = folder();
    let model = model(folder.path());
    let dense = dense_plan(&model.decoder.config().shape());
    let mut narrow = dense.clone();
    narrow.alphas.iter_mut().flatten().for_each(|alpha| *alpha = 128.0);
    narrow.betas.iter_mut().flatten().for_each(|beta| *beta = 0.0);
    let text = prose(9);
    let context = model.tokenizer.encode(&text).unwrap()[..700].to_vec();
    let mut answered = 0;
    for plan in [&dense, &narrow] {
        let mut cache = Cache::new(plan, 1024).unwrap();
        model.decoder.prefill(&context, &mut cache).unwrap();
        let engine =
            model.cpu_engine(plan, &[1024], &CpuOptions::default(), EngineOptions::default()).unwrap();
        let mut questions = Vec::new();
        let mut expected = Vec::new();
        for asked in ["\n\nWhy?", "[inn", "12", " the old"] {
            let tokens = model.tokenizer.encode(asked).unwrap();
            let request = model.request([&context[..], &tokens].concat(), 5);
            let answer = engine.submit(request).unwrap().answers().unwrap().remove(0).tokens;
            let question = |answer: Vec<u32>| Question {
                tokens: tokens.clone(),
                answer,
                depth: 0.0,
                key: String::new(),
                value: String::new(),
            };
            for at in 0..answer.len() {
                let mut other = answer.clone();
                other[at] = (other[at] + 1) % model.decoder.config().vocab_size as u32;
                questions.push(question(other));
                expected.push(false);
                questions.push(question(answer[..=at].to_vec()));
                expected.push(true);
                answered += 1;
            }
        }
        let verdicts = ask(&model.decoder, &cache, &questions).unwrap();
        assert_eq!(verdicts.iter().map(|verdict| verdict.right).collect::<Vec<_>>(), expected);
        // The loss is that of the answer in the whole text.
        for (question, verdict) in questions.iter().zip(&verdicts) {
            let all = [context.as_slice(), &question.tokens, &question.answer].concat();
            let losses = model.decoder.losses(&all, &mut Cache::new(plan, 1024).unwrap()).unwrap();
            let answer = &losses[losses.len() - question.answer.len()..];
            let mean = answer.iter().sum::<f32>() / answer.len() as f32;
            assert!((verdict.loss - f64::from(mean)).abs() < 1e-3, "{} is not {mean}", verdict.loss);
        }
        assert_eq!(cache.len(), context.len());
    }
    assert!(answered >= 20, "the model ended nearly every answer at once");
    let empty =
        Question { tokens: vec![], answer: vec![1], depth: 0.0, key: String::new(), value: String::new() };
    let mut cache = Cache::new(&dense, 1024).unwrap();
    model.decoder.prefill(&context, &mut cache).unwrap();
    assert!(ask(&model.decoder, &cache, &[empty]).is_err());
}
