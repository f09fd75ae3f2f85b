//! Evaluation items: windows of text, contexts with questions, conversations.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use moac_model::{Model, Tokenizer};
use moac_runtime::digest::Digest;
use rayon::prelude::*;

use super::{EvalError, Run, Task};
use crate::tasks::{
    Corpus, Dialog, FactKind, FactsSpec, Kind, Prompt, Question, Split, Synthetic, SyntheticSpec, TaskError,
    TaskSpec, TurnsSpec,
};

/// One thing to measure.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Its name, for people.
    pub name: String,
    /// Its task: of a run of several, the one.
    pub task: Task,
    /// The part of the run's items that it is one of, if there are several.
    pub part: Option<&'static str>,
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
    /// A context and what is asked of it, one question after the other.
    Dialog(Dialog),
}

impl Input {
    /// Tokens that the model reads or writes, once.
    pub fn tokens(&self) -> usize {
        match self {
            Self::Window(tokens) => tokens.len(),
            Self::Prompt(prompt) => {
                let of = |question: &Question| question.tokens.len() + question.answer.len() - 1;
                prompt.context.len() + prompt.questions.iter().map(of).sum::<usize>()
            }
            Self::Dialog(dialog) => {
                let turns = dialog.turns.iter().map(|turn| turn.tokens.len() + turn.limit as usize);
                dialog.context.len() + turns.sum::<usize>()
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
            // What is expected decides the score, which is no part of a measurement.
            Self::Dialog(dialog) => {
                let stop = dialog.stop.unwrap_or_default();
                let turns = dialog.turns.iter().flat_map(|turn| [bytes(&turn.tokens), bytes(&[turn.limit])]);
                let fields: Vec<Vec<u8>> =
                    [bytes(&dialog.context), stop.as_bytes().to_vec()].into_iter().chain(turns).collect();
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
        let (task, part) = (Task::Nll, None);
        Some(Item { name, task, part, text: text.name.clone(), input: Input::Window(tokens) })
    };
    let all = (0..rounds).flat_map(|round| texts.iter().filter_map(move |text| window(round, text)));
    let windows: Vec<Item> = all.take(count).collect();
    if windows.is_empty() {
        return Err(EvalError::TooShort { task: Task::Nll, length, found: longest });
    }
    Ok(windows)
}

/// The contexts of a task that asks questions. `stop` stops making them.
pub fn contexts(
    model: &Model,
    corpus: &Corpus,
    (run, length): (&Run, u32),
    stop: &AtomicBool,
) -> Result<Vec<Item>, EvalError> {
    let makers = makers(run, length);
    let count = run.items_at(length);
    let all = count * makers.len();
    let item = |at: usize| {
        if stop.load(Ordering::Relaxed) {
            return Err(EvalError::Stopped { done: 0, all });
        }
        let Maker { task, part, make } = &makers[at / count.max(1)];
        let (name, text, input) = make(model, corpus, at % count.max(1))?;
        Ok(Item { name, task: *task, part: *part, text, input })
    };
    (0..all).into_par_iter().map(item).collect()
}

/// Makes the items of one task or of one part of it, by number: their names, the texts that they are from, the inputs.
struct Maker {
    task: Task,
    part: Option<&'static str>,
    make: Box<Make>,
}

type Make = dyn Fn(&Model, &Corpus, usize) -> Result<(String, String, Input), TaskError> + Sync;

/// What makes the items of a run: of a task that stands for several, one for each.
fn makers(run: &Run, length: u32) -> Vec<Maker> {
    let &Run { seed, plain, set, questions, facts, .. } = run;
    let of_prompt = |prompt: Prompt| (prompt.id.clone(), prompt.source.clone(), Input::Prompt(prompt));
    let of_dialog = |dialog: Dialog| (dialog.id.clone(), dialog.source.clone(), Input::Dialog(dialog));
    let retrieval = |kind: Kind| -> Box<Make> {
        let spec = TaskSpec { kind, split: Split::Evaluation, length, facts, questions, seed };
        Box::new(move |model, corpus, number| spec.prompt(model, corpus, number).map(of_prompt))
    };
    let synthetic = |task: Synthetic| -> Box<Make> {
        let spec = SyntheticSpec { task, length, seed, plain };
        Box::new(move |model, corpus, number| spec.dialog(model, corpus, number).map(of_dialog))
    };
    let one = |make| vec![Maker { task: run.task, part: None, make }];
    match run.task {
        Task::Nll => Vec::new(),
        Task::Passkey => one(retrieval(Kind::Passkey)),
        Task::Kv => one(retrieval(Kind::KeyValue)),
        Task::Synthetic(task) => one(synthetic(task)),
        Task::Ruler => Synthetic::ALL
            .into_iter()
            .map(|task| Maker { task: Task::Synthetic(task), part: Some(task.name()), make: synthetic(task) })
            .collect(),
        Task::Turns => {
            let spec = TurnsSpec { set, length, seed, plain };
            one(Box::new(move |model, corpus, number| spec.dialog(model, corpus, number).map(of_dialog)))
        }
        Task::Facts => FactKind::ALL
            .into_iter()
            .map(|kind| {
                let spec = FactsSpec { kind, set, length, seed };
                let make: Box<Make> =
                    Box::new(move |model, corpus, number| spec.prompt(model, corpus, number).map(of_prompt));
                Maker { task: run.task, part: Some(kind.name()), make }
            })
            .collect(),
    }
}
