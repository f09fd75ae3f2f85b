//! Llama-family language models: their files, their tokenizer, and a forward pass on the CPU whose attention is a plan's.
//!
//! - [`Config`], [`Weights`], [`Tokenizer`] and [`ChatTemplate`] are read from a GGUF file or a Hugging Face folder. Files are
//!   untrusted: damage is an error that names the place, never a panic or a wrong answer.
//! - [`Decoder`] computes in float32, with the caches that an [`Attention`] keeps: on the CPU [`Cache`], which has
//!   exactly the rings and spans of the runtime. A dense model is one whose plan lets every head see everything
//!   ([`dense_plan`]).
//! - [`Generator`] makes text.
//! - [`candle`] has attention alone, as a candle op for models of other programs.
//!
//! ```no_run
//! use moac_model::{Cache, Generator, Message, Model, Sampling, dense_plan};
//!
//! let model = Model::open("SmolLM2-135M-Instruct.Q4_1.gguf".as_ref())?;
//! let prompt = model.chat(&[Message::new("user", "What is the capital of France?")])?;
//! let cache = Cache::new(&dense_plan(&model.decoder.config().shape()), 1024)?;
//! for text in Generator::new(&model, &prompt, cache, &Sampling::greedy())? {
//!     print!("{}", text?);
//! }
//! # Ok::<(), moac_model::ModelError>(())
//! ```

#![deny(unsafe_code)] // but in files/mmap.rs

mod cpu;
pub mod engine;
mod error;
mod files;
#[cfg(test)]
mod tests;
mod text;

use std::path::Path;

pub use cpu::{Ablation, Attention, Batch, Branches, CHUNK, Cache, Decoder, backward, candle, ops};
pub use engine::{Conversation, Generator, Sampling, Stop};
pub use error::{ModelError, TensorProblem};
pub use files::{Config, Gguf, LayerWeights, Mapped, Rope, RopeScaling, Shards, Source, Weights};
pub use text::{CHATML, ChatTemplate, Message, TextStream, Tokenizer};

use moac_runtime::plan::{DEFAULT_MIN_SPAN, DEFAULT_SINK, ModelShape, PLAN_FORMAT, Plan};

/// A model with all that belongs to it.
#[derive(Clone, Debug)]
pub struct Model {
    /// Configuration and weights.
    pub decoder: Decoder,
    /// Text to tokens and back.
    pub tokenizer: Tokenizer,
    /// Conversations to prompts, if the model ships a template.
    pub template: Option<ChatTemplate>,
}

impl Model {
    /// Opens a GGUF file, or a folder with `config.json`, `tokenizer.json` and safetensors.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        if path.is_dir() { Self::open_folder(path) } else { Self::open_gguf(path) }
    }

    fn open_gguf(path: &Path) -> Result<Self, ModelError> {
        let gguf = open_gguf(path)?;
        let config = Config::from_gguf(&gguf)?;
        let tokenizer = Tokenizer::from_gguf(&gguf)?;
        let template = gguf.text("tokenizer.chat_template")?.map(str::to_owned);
        Self::assemble(config, &Source::Gguf(gguf), tokenizer, template)
    }

    fn open_folder(folder: &Path) -> Result<Self, ModelError> {
        if !folder.join("config.json").is_file() {
            return Err(ModelError::NotAModel { path: folder.to_owned() });
        }
        let config = Config::from_folder(folder)?;
        let tokenizer = Tokenizer::from_file(&folder.join("tokenizer.json"))?;
        let template = text::chat::template_of_folder(folder)?;
        Self::assemble(config, &Source::Folder(Shards::open(folder)?), tokenizer, template)
    }

    fn assemble(
        config: Config,
        source: &Source,
        tokenizer: Tokenizer,
        template: Option<String>,
    ) -> Result<Self, ModelError> {
        let spelling = |token: Option<u32>| token.and_then(|t| tokenizer.spelling(t)).unwrap_or_default();
        let (bos, eos) = (spelling(config.bos), spelling(config.eos.first().copied()));
        let template = template.map(|source| ChatTemplate::new(source, bos, eos)).transpose()?;
        let weights = Weights::read(source, &config)?;
        Ok(Self { decoder: Decoder::new(config, weights), tokenizer, template })
    }

    /// The tokens of a conversation, ready for the assistant's turn.
    pub fn chat(&self, messages: &[Message]) -> Result<Vec<u32>, ModelError> {
        let template = self.template.as_ref().ok_or_else(|| {
            ModelError::Template(
                "the model ships none: give a plain prompt, or put a `chat_template.jinja` in its folder"
                    .into(),
            )
        })?;
        self.tokenizer.encode_prompt(&template.render(messages)?)
    }
}

fn open_gguf(path: &Path) -> Result<Gguf, ModelError> {
    let start = Mapped::open(path)?;
    if !Gguf::is_gguf(&start) {
        return Err(ModelError::NotAModel { path: path.to_owned() });
    }
    Gguf::open(path)
}

/// Reads only the configuration of a model: a GGUF file, a folder, or a `config.json`.
pub fn read_config(path: &Path) -> Result<Config, ModelError> {
    if path.is_dir() {
        Config::from_folder(path)
    } else if path.extension().is_some_and(|extension| extension == "json") {
        Config::from_json(path)
    } else {
        Config::from_gguf(&open_gguf(path)?)
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
