//! From a conversation to a prompt, by the template that the model ships.
//!
//! Templates are Jinja programs from an untrusted file: they get a budget of steps, and see nothing but the messages.
//! They are not given the time of day either, so the same conversation is always the same prompt.

use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value, context};
use serde::{Deserialize, Serialize};

use crate::ModelError;
use crate::files::json;

/// The layout of many models, as a template: to put into the folder of one that ships none.
pub const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// Steps that a template may take: some tens per message in practice.
const FUEL: u64 = 10_000_000;
const NAME: &str = "chat template";

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// The text of the message.
    pub content: String,
}

impl Message {
    /// A turn.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// A template, ready to render.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: String,
    eos: String,
}

impl ChatTemplate {
    /// Compiles a template; `bos` and `eos` are the spellings that it may refer to.
    pub fn new(source: String, bos: String, eos: String) -> Result<Self, ModelError> {
        let mut environment = Environment::new();
        // The settings that templates are written for.
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| failed(&error))?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_template_owned(NAME, source).map_err(|error| failed(&error))?;
        Ok(Self { environment, bos, eos })
    }

    /// The prompt of a conversation, ready for the assistant's turn.
    pub fn render(&self, messages: &[Message]) -> Result<String, ModelError> {
        let template = self.environment.get_template(NAME).map_err(|error| failed(&error))?;
        let messages: Value = messages
            .iter()
            .map(|message| context! { role => &message.role, content => &message.content })
            .collect();
        template
            .render(context! {
                messages, add_generation_prompt => true, bos_token => &self.bos, eos_token => &self.eos
            })
            .map_err(|error| failed(&error))
    }
}

fn failed(error: &Error) -> ModelError {
    ModelError::Template(error.to_string())
}

/// The template of a Hugging Face folder: `chat_template.jinja`, or the one in `tokenizer_config.json`.
pub(crate) fn template_of_folder(folder: &Path) -> Result<Option<String>, ModelError> {
    #[derive(Deserialize)]
    struct TokenizerConfig {
        chat_template: Option<Templates>,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Templates {
        One(String),
        Named(Vec<Named>),
    }
    #[derive(Deserialize)]
    struct Named {
        name: String,
        template: String,
    }
    let path = folder.join("chat_template.jinja");
    if path.is_file() {
        return match std::fs::read_to_string(&path) {
            Ok(template) => Ok(Some(template)),
            Err(source) => Err(ModelError::Read { path, source }),
        };
    }
    let path = folder.join("tokenizer_config.json");
    if !path.is_file() {
        return Ok(None);
    }
    let TokenizerConfig { chat_template } = json::read(&path)?;
    Ok(match chat_template {
        None => None,
        Some(Templates::One(template)) => Some(template),
        Some(Templates::Named(named)) => named.into_iter().find(|n| n.name == "default").map(|n| n.template),
    })
}
