//! Text to tokens and back, and conversations to prompts.

pub(crate) mod chat;
mod gguf;
mod guard;
mod library;
mod pieces;
mod special;
mod split;
mod stream;
mod tokenizer;

use std::path::Path;

pub use chat::{CHATML, ChatTemplate, Message};
pub use stream::TextStream;
pub use tokenizer::Tokenizer;

use crate::{Config, Gguf, ModelError};

/// All of a model that has to do with text.
#[derive(Debug)]
pub(crate) struct Texts {
    pub(crate) tokenizer: Tokenizer,
    pub(crate) template: Option<ChatTemplate>,
    /// The tokens that end an answer, by their ids, in order.
    pub(crate) ends: Vec<u32>,
}

impl Texts {
    /// The texts of a Hugging Face folder.
    pub(crate) fn of_folder(folder: &Path, config: &Config) -> Result<Self, ModelError> {
        let settings = special::Settings::read(folder)?;
        let path = folder.join("tokenizer.json");
        let mut tokenizer = Tokenizer::from_file(&path)?;
        let named = settings.tokens(config, &tokenizer);
        if let Some(adds) = settings.adds_bos {
            let bos = named.iter().find(|(name, _)| name == "bos_token");
            tokenizer.set_start(bos.and_then(|(_, spelling)| tokenizer.id(spelling)).filter(|_| adds));
        }
        let eos = named.iter().find(|(name, _)| name == "eos_token");
        let eos = eos.and_then(|(_, spelling)| tokenizer.id(spelling));
        let template = match chat::template_of_folder(folder, settings.chat_template) {
            Ok(source) => source.map(|source| ChatTemplate::new(source, named)),
            Err(error) => Some(ChatTemplate::unusable(error.to_string())),
        };
        Ok(Self { ends: merged(&config.eos, eos), template, tokenizer })
    }

    /// The texts of a GGUF file.
    pub(crate) fn of_gguf(file: &Gguf, config: &Config) -> Result<Self, ModelError> {
        let tokenizer = Tokenizer::from_gguf(file)?;
        let named = gguf::special_tokens(file, &tokenizer)?;
        let template = file.text("tokenizer.chat_template")?;
        Ok(Self {
            ends: merged(&config.eos, gguf::ends(file)?),
            template: template.map(|source| ChatTemplate::new(source.to_owned(), named)),
            tokenizer,
        })
    }
}

fn merged(ids: &[u32], more: impl IntoIterator<Item = u32>) -> Vec<u32> {
    let mut ids: Vec<u32> = ids.iter().copied().chain(more).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}
