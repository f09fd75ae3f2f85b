//! The special tokens that a Hugging Face folder names: first in `tokenizer_config.json`, then in
//! `special_tokens_map.json`, then by their ids in `config.json`.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::tokenizer::Tokenizer;
use crate::files::json;
use crate::{Config, ModelError};

/// The names that transformers gives to templates.
const NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The settings in the files beside `tokenizer.json`.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    /// `tokenizer_config.json`, then `special_tokens_map.json`.
    files: Vec<Map<String, Value>>,
    /// Whether a prompt starts with the bos token, if that is said.
    pub(crate) adds_bos: Option<bool>,
    /// The templates in `tokenizer_config.json`.
    pub(crate) chat_template: Option<Value>,
}

impl Settings {
    pub(crate) fn read(folder: &Path) -> Result<Self, ModelError> {
        let mut settings = Self::default();
        for file in ["tokenizer_config.json", "special_tokens_map.json"] {
            let path = folder.join(file);
            if path.is_file() {
                let mut values: Map<String, Value> = json::read(&path)?;
                if file == "tokenizer_config.json" {
                    settings.adds_bos = values.get("add_bos_token").and_then(Value::as_bool);
                    settings.chat_template = values.remove("chat_template");
                }
                settings.files.push(values);
            }
        }
        Ok(settings)
    }

    /// The special tokens by name, with their spelling.
    pub(crate) fn tokens(&self, config: &Config, tokenizer: &Tokenizer) -> Vec<(String, String)> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Spelled {
            Plain(String),
            Token { content: String },
        }
        let stated = |name: &str| {
            self.files.iter().find_map(|file| match Spelled::deserialize(file.get(name)?).ok()? {
                Spelled::Plain(content) | Spelled::Token { content } => Some(content),
            })
        };
        let by_id = |name: &str| {
            let id = match name {
                "bos_token" => config.bos,
                "eos_token" => config.eos.first().copied(),
                _ => None,
            };
            id.and_then(|id| tokenizer.spelling(id))
        };
        NAMES
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), stated(name).or_else(|| by_id(name))?)))
            .collect()
    }
}
