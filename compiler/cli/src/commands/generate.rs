//! `moac generate`: text out of a real model.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use moac_compiler::{lower, plan};
use moac_model::{Cache, Conversation, Generator, Message, Model, ModelError, Sampling, Stop, dense_plan};
use moac_runtime::plan::Plan;
use serde::Serialize;

use super::{Context, ExitStatus, say};
use crate::error::Error;
use crate::subject::Subject;

/// The most tokens of an answer where no other number is asked for.
const MAX_TOKENS: usize = 256;

/// Generate text with a model, its attention as a plan has it
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model: a GGUF file, or a Hugging Face folder
    pub model: PathBuf,
    #[command(flatten)]
    input: Input,
    /// The plan [default: every head sees everything]
    #[arg(long, value_name = "PLAN", conflicts_with = "artifact")]
    pub plan: Option<PathBuf>,
    /// An artifact: its plan and its context lengths
    #[arg(long, value_name = "FILE")]
    pub artifact: Option<PathBuf>,
    /// What the model is told first
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Give the prompt to the model as it is, without its chat template
    #[arg(long, conflicts_with_all = ["system", "chat"])]
    pub raw: bool,
    /// The most tokens of an answer
    #[arg(short = 'n', long, value_name = "TOKENS", default_value_t = MAX_TOKENS)]
    pub max_tokens: usize,
    /// Context length that the spans are those of [default: what prompt and answer take, in steps of 1024]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub context: Option<u32>,
    /// 0 takes the likeliest token always, 1 follows the model's probabilities
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    pub temperature: f32,
    /// Choose among this many of the likeliest tokens only
    #[arg(long, value_name = "K")]
    pub top_k: Option<u32>,
    /// Choose among the likeliest tokens that together have this probability only
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    pub top_p: f32,
    /// Choose among tokens that are at least this many times as likely as the likeliest only
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    pub min_p: f32,
    /// Divides the logits of tokens that prompt and answer have already; 1 changes nothing
    #[arg(long, value_name = "R", default_value_t = 1.0)]
    pub repetition_penalty: f32,
    /// The same seed gives the same text
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// One JSON object per answer
    #[arg(long, conflicts_with = "chat")]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Input {
    /// The prompt
    #[arg(short, long, value_name = "TEXT")]
    prompt: Option<String>,
    /// A file of prompts: one a line, or in a .jsonl file objects with a field `prompt`
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// Talk: each line of standard input is a turn
    #[arg(long)]
    chat: bool,
}

/// An answer, as `--json` has it.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    prompt: &'a str,
    text: &'a str,
    prompt_tokens: usize,
    tokens: usize,
    stop: &'static str,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, Error> {
    let model = Model::open(&args.model)?;
    let (plan, lengths) = args.plan(&model)?;
    let session = Session { args, context, model: &model, plan, lengths };
    match (&args.input.prompt, &args.input.prompts) {
        (Some(prompt), _) => session.answer(prompt)?,
        (None, Some(file)) => {
            for (at, prompt) in prompts(file)?.iter().enumerate() {
                if at > 0 && !args.json {
                    context.print("")?;
                }
                session.answer(prompt)?;
            }
        }
        (None, None) => session.chat()?,
    }
    Ok(ExitStatus::Done)
}

impl Args {
    /// One question, answered with the likeliest tokens under the plan of an artifact.
    pub fn asking(model: PathBuf, artifact: PathBuf, question: &str) -> Self {
        let Sampling { temperature, top_k, top_p, min_p, repetition_penalty, seed } = Sampling::greedy();
        Self {
            model,
            input: Input { prompt: Some(question.to_owned()), prompts: None, chat: false },
            plan: None,
            artifact: Some(artifact),
            system: None,
            raw: false,
            max_tokens: MAX_TOKENS,
            context: None,
            temperature,
            top_k,
            top_p,
            min_p,
            repetition_penalty,
            seed,
            json: false,
        }
    }

    fn sampling(&self) -> Sampling {
        let &Self { temperature, top_k, top_p, min_p, repetition_penalty, seed, .. } = self;
        Sampling { temperature, top_k, top_p, min_p, repetition_penalty, seed }
    }

    /// The plan, and the context lengths that it may be run at, if they are limited.
    fn plan(&self, model: &Model) -> Result<(Plan, Option<Vec<u32>>), Error> {
        let shape = model.decoder.config().shape();
        let (path, plan, lengths) = match (&self.plan, &self.artifact) {
            (Some(path), _) => (path, plan::read(path, Some(shape.clone()))?, None),
            (None, Some(path)) => match Subject::open(path, None)? {
                Subject::Plan(plan) => (path, *plan, None),
                Subject::Artifact(artifact) => {
                    let manifest = artifact.manifest();
                    (path, manifest.plan.clone(), Some(artifact.geometry().lengths.clone()))
                }
            },
            (None, None) => return Ok((dense_plan(&shape), None)),
        };
        let sizes = |s: &moac_runtime::plan::ModelShape| {
            (s.num_layers, s.num_heads, s.num_kv_heads, s.head_dim, s.scale().to_bits())
        };
        if sizes(&plan.model) != sizes(&shape) {
            return Err(Error::OtherModel {
                path: path.clone(),
                found: plan.model.name,
                expected: shape.name,
            });
        }
        Ok((plan, lengths))
    }
}

/// What every prompt needs.
struct Session<'a> {
    args: &'a Args,
    context: &'a Context,
    model: &'a Model,
    plan: Plan,
    lengths: Option<Vec<u32>>,
}

impl Session<'_> {
    fn system(&self) -> Vec<Message> {
        self.args.system.iter().map(|text| Message::new("system", text)).collect()
    }

    /// The context length for `tokens` tokens: the smallest that holds them, or the longest that there is.
    fn length(&self, tokens: usize) -> Result<u32, Error> {
        let own = u32::try_from(self.model.decoder.config().context).unwrap_or(u32::MAX);
        let longest = self.lengths.as_ref().and_then(|lengths| lengths.last().copied()).unwrap_or(own);
        if let Some(found) = self.args.context.filter(|&context| context > longest) {
            return Err(Error::Context { found, longest });
        }
        let lengths = match &self.lengths {
            Some(lengths) => lengths.clone(),
            None => lower::buckets(&self.plan, self.args.context.as_slice())?.buckets,
        };
        let asked = self.args.context.unwrap_or(u32::try_from(tokens).unwrap_or(u32::MAX));
        let fits = lengths.iter().copied().find(|&length| length >= asked);
        Ok(fits.or(lengths.last().copied()).unwrap_or(self.plan.min_span))
    }

    /// Answers one prompt.
    fn answer(&self, prompt: &str) -> Result<(), Error> {
        let mut messages = self.system();
        // A model without a template continues plain text, which has no place for a system's words.
        let tokens = if self.args.raw || (self.model.template.is_none() && messages.is_empty()) {
            self.model.tokenizer.encode_prompt(prompt)?
        } else {
            messages.push(Message::new("user", prompt));
            self.model.chat(&messages)?
        };
        let length = self.length(tokens.len().saturating_add(self.args.max_tokens))?;
        if tokens.len() > length as usize {
            return Err(Error::Prompt { found: tokens.len(), length });
        }
        let cache = Cache::new(&self.plan, length)?;
        let start = Instant::now();
        let generator = Generator::new(self.model, &tokens, cache, &self.args.sampling())?;
        let read = start.elapsed().as_secs_f64();
        let mut generator = generator.with_limit(self.args.max_tokens);
        let text = self.stream(&mut generator, !self.args.json)?;
        let written = start.elapsed().as_secs_f64() - read;
        if self.args.json {
            let answer = Answer {
                prompt,
                text: &text,
                prompt_tokens: tokens.len(),
                tokens: generator.tokens().len(),
                stop: reason(generator.stop()),
            };
            self.context.json_line(&answer)?;
        } else {
            self.context.print("")?;
        }
        let out = generator.tokens().len();
        tracing::info!(
            "{} tokens read in {read:.2} s, {out} written at {:.1} a second",
            tokens.len(),
            out as f64 / written
        );
        Ok(())
    }

    /// Prints the answer as it comes and returns it.
    fn stream(&self, generator: &mut Generator<'_>, show: bool) -> Result<String, Error> {
        let mut text = String::new();
        for piece in generator.by_ref() {
            let piece = piece?;
            if show {
                self.context.print_bytes(piece.as_bytes())?;
            }
            text += &piece;
        }
        if generator.stop() == Some(Stop::ContextFull) {
            self.context.note("the context is full: the answer ends here");
        }
        Ok(text)
    }

    fn chat(&self) -> Result<(), Error> {
        let length = self.length(self.model.decoder.config().context)?;
        let mut conversation = Conversation::new(self.model, &self.plan, length, self.system())?;
        let prompt = || {
            if std::io::stdin().is_terminal() {
                let _ = write!(std::io::stderr(), "> ");
            }
        };
        prompt();
        for line in std::io::stdin().lock().lines() {
            let line = line.map_err(Error::file("read", Path::new("standard input")))?;
            if !line.trim().is_empty() {
                match conversation.ask(&line, &self.args.sampling()) {
                    Ok(answer) => {
                        let mut answer = answer.with_limit(self.args.max_tokens);
                        self.stream(&mut answer, true)?;
                        self.context.print("")?;
                        conversation.answered(answer)?;
                    }
                    // A turn that cannot be taken in is not the end of the conversation.
                    Err(error @ (ModelError::NotInVocabulary { .. } | ModelError::Layer(_))) => {
                        say(&format!("error: {error}"));
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            prompt();
        }
        Ok(())
    }
}

fn reason(stop: Option<Stop>) -> &'static str {
    match stop {
        Some(Stop::EndOfText) => "end",
        Some(Stop::ContextFull) => "context",
        Some(Stop::Limit) | None => "limit",
    }
}

/// The prompts of a file.
fn prompts(path: &Path) -> Result<Vec<String>, Error> {
    #[derive(serde::Deserialize)]
    struct Line {
        prompt: String,
    }
    let text = std::fs::read_to_string(path).map_err(Error::file("read", path))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    if lines.clone().next().is_none() {
        return Err(Error::NoPrompts { path: path.to_owned() });
    }
    if path.extension().is_none_or(|extension| extension != "jsonl") {
        return Ok(lines.map(|(_, line)| line.to_owned()).collect());
    }
    lines
        .map(|(at, line)| {
            let parsed: Result<Line, _> = serde_json::from_str(line);
            parsed.map(|line| line.prompt).map_err(|source| Error::Line {
                path: path.to_owned(),
                line: at + 1,
                source,
            })
        })
        .collect()
}
