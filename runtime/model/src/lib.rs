//! Llama-family language models: their files, their tokenizer, and a forward pass on the CPU whose attention is a plan's.
//!
//! - [`Config`], [`Weights`], [`Tokenizer`] and [`ChatTemplate`] are read from a GGUF file or a Hugging Face folder. Files are
//!   untrusted: damage is an error that names the place, never a panic or a wrong answer.
//! - [`Decoder`] computes in float32, with the caches that an [`Attention`] keeps: on the CPU [`Cache`], which has
//!   exactly the rings and spans of the runtime. A dense model is one whose plan lets every head see everything
//!   ([`dense_plan`]).
//! - [`Engine`] makes tokens and text of many requests at once.
//! - [`candle`] has attention alone, as a candle op for models of other programs.
//!
//! ```no_run
//! use moac_model::{CpuOptions, Event, Message, Model, EngineOptions, dense_plan};
//!
//! let model = Model::open("SmolLM2-135M-Instruct.Q4_1.gguf".as_ref())?;
//! let plan = dense_plan(&model.decoder.config().shape());
//! let engine = model.cpu_engine(&plan, &[1024], &CpuOptions::default(), EngineOptions::default())?;
//! let prompt = model.chat(&[Message::new("user", "What is the capital of France?")])?;
//! for event in engine.submit(model.request(prompt, 256))? {
//!     match event {
//!         Event::Token(token) => print!("{}", token.text),
//!         Event::End(end) => println!("{}", end.text),
//!         Event::Failed(error) => return Err(error.into()),
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![deny(unsafe_code)] // but in files/mmap.rs

mod cpu;
pub mod engine;
mod error;
mod files;
#[cfg(feature = "gpu")]
pub mod gpu;
#[cfg(test)]
mod tests;
mod text;

use std::path::Path;
use std::sync::Arc;

pub use cpu::{
    Ablation, Attention, Batch, Branches, CHUNK, Cache, CpuOptions, CpuRunner, CpuSlab, Decoder, backward,
    candle, ops,
};
pub use engine::{
    Answer, End, Engine, EngineError, EngineOptions, Event, Finish, Refused, Request, Sampling, Stream,
    Ticket, Token,
};
pub use error::{ModelError, TensorProblem};
pub use files::{
    Checkpoint, Config, Element, Gguf, LayerWeights, Mapped, Rope, RopeScaling, Shards, Weight, Weights,
};
pub use text::{CHATML, ChatTemplate, Message, TextStream, Tokenizer};

use text::Texts;

use moac_runtime::plan::{DEFAULT_MIN_SPAN, DEFAULT_SINK, ModelShape, PLAN_FORMAT, Plan};

/// A model with all that belongs to it.
#[derive(Clone, Debug)]
pub struct Model {
    /// Configuration and weights.
    pub decoder: Decoder,
    /// Text to tokens and back.
    pub tokenizer: Arc<Tokenizer>,
    /// Conversations to prompts, if the model ships a template.
    pub template: Option<ChatTemplate>,
}

/// A model's files, opened: all of it but the weights, which are read from the checkpoint to where they are wanted.
#[derive(Debug)]
pub struct ModelFiles {
    /// Configuration and weights.
    pub checkpoint: Checkpoint,
    /// Text to tokens and back.
    pub tokenizer: Arc<Tokenizer>,
    /// Conversations to prompts, if the model ships a template.
    pub template: Option<ChatTemplate>,
}

impl ModelFiles {
    /// Opens a GGUF file, or a folder with `config.json`, `tokenizer.json` and safetensors.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        Self::of(Checkpoint::open(path)?, path)
    }

    /// Opens a folder with `config.json` and `tokenizer.json`; its weights are made from a seed, for measurements.
    pub fn random(folder: &Path, seed: u64) -> Result<Self, ModelError> {
        Self::of(Checkpoint::random(Config::from_folder(folder)?, seed), folder)
    }

    fn of(mut checkpoint: Checkpoint, path: &Path) -> Result<Self, ModelError> {
        let texts = match checkpoint.gguf() {
            Some(gguf) => Texts::of_gguf(gguf, checkpoint.config())?,
            None => Texts::of_folder(path, checkpoint.config())?,
        };
        checkpoint.set_ends(texts.ends);
        Ok(Self { checkpoint, tokenizer: Arc::new(texts.tokenizer), template: texts.template })
    }

    /// Reads the weights for the CPU. `progress` is called with how many bytes are done, and of how many.
    pub fn read(self, progress: &mut dyn FnMut(u64, u64)) -> Result<Model, ModelError> {
        Ok(Model { decoder: self.decoder(progress)?, tokenizer: self.tokenizer, template: self.template })
    }

    /// The model, ready to run on the CPU. `progress` is called with the bytes of weights that are read, and with those of all weights.
    pub fn decoder(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<Decoder, ModelError> {
        let weights = Weights::read(&self.checkpoint, progress)?;
        Ok(Decoder::new(self.checkpoint.config().clone(), weights))
    }

    /// As [`Model::request`].
    pub fn request(&self, prompt: Vec<u32>, max_tokens: u32) -> Request {
        request(self.checkpoint.config(), prompt, max_tokens)
    }

    /// As [`Model::chat`].
    pub fn chat(&self, messages: &[Message]) -> Result<Vec<u32>, ModelError> {
        chat(&self.tokenizer, self.template.as_ref(), messages)
    }
}

impl Model {
    /// Opens a GGUF file, or a folder with `config.json`, `tokenizer.json` and safetensors, and reads its weights.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        ModelFiles::open(path)?.read(&mut |_, _| ())
    }

    /// An engine that runs the model on the CPU under a plan, for contexts of the `lengths`.
    ///
    /// # Errors
    /// A length that cannot be ([`Cache::new`]), or [`ModelError::Thread`].
    pub fn cpu_engine(
        &self,
        plan: &Plan,
        lengths: &[u32],
        cpu: &CpuOptions,
        options: EngineOptions,
    ) -> Result<Engine, ModelError> {
        let runner = CpuRunner::new(self.decoder.clone(), plan, lengths, cpu)?;
        Engine::start(runner, Some(self.tokenizer.clone()), options)
    }

    /// A request for the likeliest continuation of a prompt, up to where the model ends it.
    pub fn request(&self, prompt: Vec<u32>, max_tokens: u32) -> Request {
        request(self.decoder.config(), prompt, max_tokens)
    }

    /// The tokens of a conversation, ready for the assistant's turn.
    pub fn chat(&self, messages: &[Message]) -> Result<Vec<u32>, ModelError> {
        chat(&self.tokenizer, self.template.as_ref(), messages)
    }
}

fn request(config: &Config, prompt: Vec<u32>, max_tokens: u32) -> Request {
    Request { stop_tokens: config.eos.clone(), ..Request::new(prompt, max_tokens) }
}

fn chat(
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
    messages: &[Message],
) -> Result<Vec<u32>, ModelError> {
    let template = template.ok_or_else(|| {
        ModelError::Template(
            "the model ships none: give a plain prompt, or put a `chat_template.jinja` in its folder".into(),
        )
    })?;
    tokenizer.encode_chat(&template.render(messages)?)
}

/// Reads only the configuration of a model: a GGUF file, a folder, or a `config.json`.
pub fn read_config(path: &Path) -> Result<Config, ModelError> {
    if path.is_dir() {
        Config::from_folder(path)
    } else if path.extension().is_some_and(|extension| extension == "json") {
        Config::from_json(path)
    } else {
        Config::from_gguf(&files::open_gguf(path)?)
    }
}

/// The plan under which every head sees everything.
pub fn dense_plan(model: &ModelShape) -> Plan {
    let (layers, heads) = (model.num_layers as usize, model.num_heads as usize);
    Plan {
        format: PLAN_FORMAT.to_owned(),
        model: model.clone(),
        sink: DEFAULT_SINK,
        min_span: DEFAULT_MIN_SPAN,
        alphas: vec![vec![0.0; heads]; layers],
        betas: vec![vec![1.0; heads]; layers],
        provenance: None,
    }
}
