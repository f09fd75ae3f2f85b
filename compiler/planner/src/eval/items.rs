//! Evaluation items: windows of text, and contexts with questions.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use moac_model::{Model, Tokenizer};
use moac_runtime::digest::Digest;
use rayon::prelude::*;

use super::{EvalError, Run, Task};
use crate::tasks::{Corpus, Kind, Prompt, Question, Split, TaskSpec};

/// One thing to measure.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Its name, for people.
    pub name: String,
    /// The text that it is from.
    pub text: String,
    /// The input of the model.
    pub input: Input,
}

/// The input of the model.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Tokens whose losses are wanted.
    Window(Vec<u32>),
    /// A context and what is asked of it.
    Prompt(Prompt),
}

impl Input {
    /// Tokens that the model reads, once.
    pub fn tokens(&self) -> usize {
        match self {
            Self::Window(tokens) => tokens.len(),
            Self::Prompt(prompt) => {
                let of = |question: &Question| question.tokens.len() + question.answer.len() - 1;
                prompt.context.len() + prompt.questions.iter().map(of).sum::<usize>()
            }
        }
    }

    /// Its unique name.
    pub fn digest(&self) -> Digest {
        match self {
            Self::Window(tokens) => Digest::of_fields([bytes(tokens).as_slice()]),
            Self::Prompt(prompt) => {
                let asked = prompt.questions.iter().flat_map(|question| [&question.tokens, &question.answer]);
                let fields: Vec<Vec<u8>> =
                    std::iter::once(&prompt.context).chain(asked).map(|tokens| bytes(tokens)).collect();
                Digest::of_fields(fields.iter().map(Vec::as_slice))
            }
        }
    }
}

fn bytes(tokens: &[u32]) -> Vec<u8> {
    tokens.iter().flat_map(|token| token.to_le_bytes()).collect()
}

/// A text as tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// Its file's name.
    pub name: String,
    /// Its tokens, without any that starts a text.
    pub tokens: Vec<u32>,
}

/// The texts of a file, or of the .txt files of a folder in the order of their names, as they are.
pub fn texts(path: &Path, tokenizer: &Tokenizer) -> Result<Vec<Text>, EvalError> {
    let mut files = vec![path.to_owned()];
    if path.is_dir() {
        files.clear();
        for entry in std::fs::read_dir(path).map_err(EvalError::file("read", path))? {
            let file = entry.map_err(EvalError::file("read", path))?.path();
            if file.extension().is_some_and(|extension| extension == "txt") && file.is_file() {
                files.push(file);
            }
        }
        files.sort();
    }
    let text = |file: &std::path::PathBuf| {
        let text = moac_runtime::file::read_text(file).map_err(EvalError::file("read", file))?;
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Text { name, tokens: tokenizer.encode(&text)? })
    };
    let texts: Vec<Text> = files.iter().map(text).collect::<Result<_, EvalError>>()?;
    if texts.is_empty() { Err(EvalError::NoTexts { path: path.to_owned() }) } else { Ok(texts) }
}

/// At most `count` windows of `length` tokens that do not overlap: the first of every text, then the second, and so on. More
/// of them begin with the same.
pub fn windows(texts: &[Text], length: u32, count: usize) -> Result<Vec<Item>, EvalError> {
    let size = length as usize;
    let longest = texts.iter().map(|text| text.tokens.len()).max().unwrap_or(0);
    let rounds = longest / size.max(1);
    let window = |round: usize, text: &Text| {
        let tokens = text.tokens.get(round * size..(round + 1) * size)?.to_vec();
        let name = format!("{} from token {}", text.name, round * size);
        Some(Item { name, text: text.name.clone(), input: Input::Window(tokens) })
    };
    let all = (0..rounds).flat_map(|round| texts.iter().filter_map(move |text| window(round, text)));
    let windows: Vec<Item> = all.take(count).collect();
    if windows.is_empty() {
        return Err(EvalError::TooShort { task: Task::Nll, length, found: longest });
    }
    Ok(windows)
}

/// The contexts of a retrieval task. `stop` stops making them.
pub fn prompts(
    model: &Model,
    corpus: &Corpus,
    (kind, run, length): (Kind, &Run, u32),
    stop: &AtomicBool,
) -> Result<Vec<Item>, EvalError> {
    let spec = TaskSpec {
        kind,
        split: Split::Evaluation,
        length,
        facts: run.facts,
        questions: run.questions,
        seed: run.seed,
    };
    let all = run.items_at(length);
    let item = |number: usize| {
        if stop.load(Ordering::Relaxed) {
            return Err(EvalError::Stopped { done: 0, all });
        }
        let prompt = spec.prompt(model, corpus, number)?;
        Ok(Item { name: prompt.id.clone(), text: prompt.source.clone(), input: Input::Prompt(prompt) })
    };
    (0..all).into_par_iter().map(item).collect()
}
