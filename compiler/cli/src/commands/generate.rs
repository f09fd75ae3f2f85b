//! `moac generate`: text from a real model.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use moac_compiler::{lower, plan};
use moac_model::engine::runner::Runner as _;
use moac_model::{
    Answer, CpuOptions, CpuRunner, Engine, EngineOptions, Event, Finish, Message, ModelError, ModelFiles,
    Refused, Request, Sampling, Stream, dense_plan,
};
use moac_runtime::artifact::Artifact;
use moac_runtime::plan::Plan;
use serde::Serialize;

use super::args::{STDIN, input};
use super::{Context, ExitStatus, gpu};
use crate::error::Error;
use crate::prompts::{prompt, prompts, turns};
use crate::subject::Subject;

/// The most tokens of an answer where no other number is asked for.
const MAX_TOKENS: u32 = 256;
/// Prompts of a file that are answered at once, and the bytes that their caches may take, if one does not take more.
const LANES: u32 = 8;
/// The same on a GPU.
const GPU_LANES: u32 = 64;
const SLAB_BYTES: u64 = 4 << 30;

/// Generate text with a model, under a plan or an artifact
#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools)] // flags of a command line
pub struct Args {
    /// The model: a GGUF file, or a Hugging Face folder
    pub model: PathBuf,
    #[command(flatten)]
    input: Input,
    /// The plan [default: every head sees everything]
    #[arg(long, value_name = "PLAN", conflicts_with = "artifact", value_parser = input())]
    pub plan: Option<PathBuf>,
    /// An artifact: its plan and its context lengths
    #[arg(long, value_name = "FILE")]
    pub artifact: Option<PathBuf>,
    /// The system message
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Give the prompt to the model as it is, without its chat template
    #[arg(long, conflicts_with_all = ["system", "chat"])]
    pub raw: bool,
    /// The most tokens of an answer
    #[arg(short = 'n', long, value_name = "TOKENS", default_value_t = MAX_TOKENS)]
    pub max_tokens: u32,
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
    /// Text that ends an answer, which does not include it; repeatable
    #[arg(long = "stop", value_name = "TEXT")]
    pub stops: Vec<String>,
    /// Where the model runs [default: gpu where there is one, else cpu]
    #[arg(long, value_name = "gpu|cpu")]
    pub device: Option<Device>,
    /// An answer does not depend, to the last bit, on the prompts that are answered with it
    #[arg(long)]
    pub deterministic: bool,
    /// Make the weights from the seed instead of reading them, to try or measure a shape: MODEL needs no more than `config.json`
    /// and `tokenizer.json`
    #[arg(long)]
    pub random_weights: bool,
    /// One JSON object per answer
    #[arg(long, conflicts_with = "chat")]
    pub json: bool,
}

/// Where a model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Device {
    /// The first GPU
    Gpu,
    /// The CPU, in float32
    Cpu,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Input {
    /// The prompt, or - for standard input
    #[arg(short, long, value_name = "TEXT")]
    prompt: Option<String>,
    /// A file of prompts: one a line, or in a .jsonl file objects with a field `prompt`
    #[arg(long, value_name = "FILE", value_parser = input())]
    prompts: Option<PathBuf>,
    /// Talk: each line of standard input is a turn
    #[arg(long)]
    chat: bool,
}

/// An answer, as `--json` has it.
#[derive(Debug, Serialize)]
struct Line<'a> {
    prompt: &'a str,
    text: &'a str,
    prompt_tokens: usize,
    tokens: usize,
    stop: &'static str,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, Error> {
    let files = if args.random_weights {
        ModelFiles::random(&args.model, args.seed)?
    } else {
        ModelFiles::open(&args.model)?
    };
    let device = args.device.unwrap_or(if gpu::present() { Device::Gpu } else { Device::Cpu });
    if device == Device::Gpu && args.deterministic {
        return Err(Error::DeterministicGpu);
    }
    let Chosen { plan, lengths, artifact } =
        Chosen::read(args.plan.as_ref(), args.artifact.as_ref(), &files)?;
    let session = Session { args, context, files: &files, device, plan, lengths, artifact };
    match (&args.input.prompt, &args.input.prompts) {
        (Some(text), _) => session.answer(&[prompt(text, Path::new(STDIN))?])?,
        (None, Some(file)) => session.answer(&prompts(file)?)?,
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
            stops: Vec::new(),
            // The plan of an artifact, whichever kernels are in it.
            device: Some(Device::Cpu),
            deterministic: false,
            random_weights: false,
            json: false,
        }
    }

    fn sampling(&self) -> Sampling {
        let &Self { temperature, top_k, top_p, min_p, repetition_penalty, seed, .. } = self;
        Sampling { temperature, top_k, top_p, min_p, repetition_penalty, seed }
    }
}

/// The plan of the attention.
pub(super) struct Chosen {
    pub(super) plan: Plan,
    /// The context lengths, if they are limited.
    pub(super) lengths: Option<Vec<u32>>,
    /// The compiled plan, if that was given.
    pub(super) artifact: Option<Box<Artifact>>,
}

impl Chosen {
    /// The plan, and the context lengths that it may be run at, if they are limited.
    pub(super) fn read(
        plan: Option<&PathBuf>,
        artifact: Option<&PathBuf>,
        files: &ModelFiles,
    ) -> Result<Self, Error> {
        let shape = files.checkpoint.config().shape();
        let (path, chosen) = match (plan, artifact) {
            (Some(path), _) => (path, Self::of_plan(plan::read(path, Some(shape.clone()))?)),
            (None, Some(path)) => match Subject::open(path, None)? {
                Subject::Plan(plan) => (path, Self::of_plan(*plan)),
                Subject::Artifact(artifact) => {
                    let (plan, lengths) =
                        (artifact.manifest().plan.clone(), artifact.geometry().lengths.clone());
                    (path, Self { plan, lengths: Some(lengths), artifact: Some(artifact) })
                }
            },
            (None, None) => return Ok(Self::of_plan(dense_plan(&shape))),
        };
        let plan = &chosen.plan;
        let sizes = |s: &moac_runtime::plan::ModelShape| {
            (s.num_layers, s.num_heads, s.num_kv_heads, s.head_dim, s.scale().to_bits())
        };
        if sizes(&plan.model) != sizes(&shape) {
            let (found, expected) = (plan.model.name.clone(), shape.name);
            return Err(Error::OtherModel { path: path.clone(), found, expected });
        }
        Ok(chosen)
    }

    fn of_plan(plan: Plan) -> Self {
        Self { plan, lengths: None, artifact: None }
    }
}

/// The state shared by all prompts.
struct Session<'a> {
    args: &'a Args,
    context: &'a Context,
    files: &'a ModelFiles,
    device: Device,
    plan: Plan,
    lengths: Option<Vec<u32>>,
    artifact: Option<Box<Artifact>>,
}

impl Session<'_> {
    fn system(&self) -> Vec<Message> {
        self.args.system.iter().map(|text| Message::new("system", text)).collect()
    }

    /// The context lengths that there are, and the longest that may be asked for.
    fn lengths(&self) -> Result<Vec<u32>, Error> {
        let own = u32::try_from(self.files.checkpoint.config().context).unwrap_or(u32::MAX);
        let longest = self.lengths.as_ref().and_then(|lengths| lengths.last().copied()).unwrap_or(own);
        if let Some(found) = self.args.context.filter(|&context| context > longest) {
            return Err(Error::Context { found, longest });
        }
        match &self.lengths {
            Some(lengths) => Ok(lengths.clone()),
            None => Ok(lower::buckets(&self.plan, self.args.context.as_slice())?.buckets),
        }
    }

    /// An engine that answers `prompts` prompts at once, if its memory goes so far.
    fn engine(&self, lengths: &[u32], prompts: usize) -> Result<Engine, Error> {
        let options = EngineOptions { queue: prompts, ..EngineOptions::default() };
        let prompts = u32::try_from(prompts).unwrap_or(u32::MAX);
        match self.device {
            Device::Cpu => self.cpu_engine(lengths, LANES.min(prompts), options),
            Device::Gpu => self.gpu_engine(lengths, GPU_LANES.min(prompts), options),
        }
    }

    fn cpu_engine(&self, lengths: &[u32], lanes: u32, options: EngineOptions) -> Result<Engine, Error> {
        let mut cpu = CpuOptions { lanes: 1, deterministic: self.args.deterministic, slab_bytes: None };
        let decoder = self.files.decoder(&mut |_, _| ())?;
        let one = CpuRunner::new(decoder.clone(), &self.plan, lengths, &cpu)?;
        let most = u64::from(lanes) * one.limits().slab_bytes;
        (cpu.lanes, cpu.slab_bytes) = (lanes, Some(SLAB_BYTES.min(most).max(one.limits().slab_bytes)));
        let runner = CpuRunner::new(decoder, &self.plan, lengths, &cpu)?;
        Ok(Engine::start(runner, Some(self.files.tokenizer.clone()), options)?)
    }

    fn gpu_engine(&self, lengths: &[u32], lanes: u32, options: EngineOptions) -> Result<Engine, Error> {
        let device = moac_runtime::gpu::Device::open(0)?;
        // Answers wait for chunks of prompts only where there are many of both.
        let options = EngineOptions { chunk: gpu::ROWS, ..options };
        let compiled;
        let artifact = if let Some(artifact) = &self.artifact {
            artifact
        } else {
            compiled = gpu::compile(&self.plan, &self.args.model, lengths, &device, self.context)?;
            &compiled
        };
        let slab_bytes = gpu::longest_in_every_lane(artifact, lanes);
        gpu::engine(self.files, artifact, &device, &gpu::options(lanes, gpu::ROWS, Some(slab_bytes)), options)
    }

    fn request(&self, prompt: Vec<u32>, lengths: &[u32]) -> Request {
        let args = self.args;
        let mut request = self.files.request(prompt, args.max_tokens);
        (request.sampling, request.stop_strings) = (args.sampling(), args.stops.clone());
        // As long as asked for, or the longest that there is.
        request.context = args.context.map(|context| context.min(lengths.last().copied().unwrap_or(context)));
        request
    }

    /// The tokens of a prompt.
    fn encode(&self, prompt: &str) -> Result<Vec<u32>, Error> {
        let mut messages = self.system();
        // A model without a template continues plain text, which has no place for a system's words.
        if self.args.raw || (self.files.template.is_none() && messages.is_empty()) {
            return Ok(self.files.tokenizer.encode_prompt(prompt)?);
        }
        messages.push(Message::new("user", prompt));
        Ok(self.files.chat(&messages)?)
    }

    /// Answers prompts together, and prints the answers in their order.
    fn answer(&self, prompts: &[String]) -> Result<(), Error> {
        let lengths = self.lengths()?;
        let engine = self.engine(&lengths, prompts.len())?;
        let start = Instant::now();
        let mut streams = Vec::with_capacity(prompts.len());
        for prompt in prompts {
            let tokens = self.encode(prompt)?;
            streams.push((tokens.len(), engine.submit(self.request(tokens, &lengths))?));
        }
        let (mut read, mut written) = (0, 0);
        for (at, (prompt, (prompt_tokens, stream))) in prompts.iter().zip(streams).enumerate() {
            if at > 0 && !self.args.json {
                self.context.print("")?;
            }
            let answer = self.stream(stream, !self.args.json)?;
            let tokens = answer.tokens.len();
            if self.args.json {
                let stop = reason(answer.finish);
                self.context.json_line(&Line { prompt, text: &answer.text, prompt_tokens, tokens, stop })?;
            } else {
                self.context.print("")?;
            }
            read += prompt_tokens;
            written += tokens;
        }
        let seconds = start.elapsed().as_secs_f64();
        let rate = written as f64 / seconds;
        let summary =
            format!("{read} tokens read and {written} written in {seconds:.2} s: {rate:.1} a second");
        if self.args.input.prompts.is_some() {
            self.context.note(format!("{} prompts, {summary}", prompts.len()));
        } else {
            tracing::info!("{summary}");
        }
        Ok(())
    }

    /// Prints an answer as it comes and returns it.
    fn stream(&self, stream: Stream, show: bool) -> Result<Answer, Error> {
        let mut answer = Answer::default();
        for event in stream {
            let piece = match &event {
                Event::Token(token) => {
                    answer.push(token);
                    &token.text
                }
                Event::End(end) => {
                    answer.end(end);
                    &end.text
                }
                Event::Failed(error) => return Err(error.clone().into()),
            };
            if show {
                self.context.print_bytes(piece.as_bytes())?;
            }
        }
        if answer.finish == Some(Finish::ContextFull) {
            self.context.note("the context is full, so the answer ends here");
        }
        Ok(answer)
    }

    fn chat(&self) -> Result<(), Error> {
        let lengths = self.lengths()?;
        let engine = self.engine(&lengths, 1)?;
        // All turns in one context, so that each goes on from the cache of the one before.
        let own = u32::try_from(self.files.checkpoint.config().context).unwrap_or(u32::MAX);
        let asked = self.args.context.unwrap_or(own);
        let length = lengths.iter().copied().find(|&length| length >= asked).or(lengths.last().copied());
        let mut messages = self.system();
        let prompt = || {
            if std::io::stdin().is_terminal() {
                self.context.prompt("> ");
            }
        };
        prompt();
        for line in turns() {
            let line = line.map_err(Error::file("read", Path::new("standard input")))?;
            if !line.trim().is_empty() {
                messages.push(Message::new("user", &line));
                let asked = self.files.chat(&messages).map_err(Error::from).and_then(|prompt| {
                    let request = Request { context: length, keep: true, ..self.request(prompt, &lengths) };
                    Ok(engine.submit(request)?)
                });
                match asked {
                    Ok(stream) => {
                        let answer = self.stream(stream, true)?;
                        self.context.print("")?;
                        messages.push(Message::new("assistant", answer.text));
                    }
                    // A turn that cannot be taken in is not the end of the conversation.
                    Err(
                        error @ (Error::Model(ModelError::NotInVocabulary { .. })
                        | Error::Refused(Refused::PromptTooLong { .. })),
                    ) => {
                        messages.pop();
                        self.context.error(&format!("error: {error}"));
                    }
                    Err(error) => return Err(error),
                }
            }
            prompt();
        }
        Ok(())
    }
}

fn reason(finish: Option<Finish>) -> &'static str {
    match finish {
        Some(Finish::StopToken(_)) => "end",
        Some(Finish::StopString(_)) => "stop",
        Some(Finish::ContextFull) => "context",
        Some(Finish::Limit | Finish::Cancelled) | None => "limit",
    }
}
