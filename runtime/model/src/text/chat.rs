//! From a conversation to a prompt, by the template that the model ships.
//!
//! Templates are Jinja programs from an untrusted file, rendered as transformers renders them ([`moac_jinja`]). They see
//! the messages, the special tokens, `tools` and `documents` set to `none`, and the date. A template is parsed on
//! first use, so a model with an unsupported template still accepts plain prompts.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use moac_jinja::{Now, Template, Value};
use serde::{Deserialize, Serialize};

use crate::ModelError;
use crate::files::json;

/// The layout of many models, as a template: to put into the folder of one that ships none.
pub const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

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

/// A template and the special tokens that it may name.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    /// Its text, or the reason why it cannot be used.
    source: Result<String, String>,
    /// `bos_token` and so on, with their spelling.
    tokens: Vec<(String, String)>,
    template: OnceLock<Result<Arc<Template>, moac_jinja::Error>>,
}

impl ChatTemplate {
    /// A template; `tokens` are the special tokens by their names in it, such as `bos_token`.
    pub fn new(source: String, tokens: Vec<(String, String)>) -> Self {
        Self { source: Ok(source), tokens, template: OnceLock::new() }
    }

    /// A template that cannot be used, which matters only to who uses it.
    pub(super) fn unusable(why: String) -> Self {
        Self { source: Err(why), tokens: Vec::new(), template: OnceLock::new() }
    }

    /// The prompt of a conversation, ready for the assistant's turn.
    pub fn render(&self, messages: &[Message]) -> Result<String, ModelError> {
        let messages = messages.iter().map(|message| {
            let (role, content) = (message.role.as_str().into(), message.content.as_str().into());
            Value::dict([("role", role), ("content", content)])
        });
        let messages = messages.collect::<Result<Vec<_>, _>>().and_then(Value::list);
        self.render_with([("messages", messages.map_err(|error| failed(&error))?)], Now::local())
    }

    /// The same with variables of the caller's, which come before those that every template has.
    pub fn render_with<'a>(
        &'a self,
        variables: impl IntoIterator<Item = (&'a str, Value)>,
        now: Now,
    ) -> Result<String, ModelError> {
        let source = self.source.as_ref().map_err(|why| ModelError::Template(why.clone()))?;
        let template = self.template.get_or_init(|| Template::parse(source).map(Arc::new));
        let template = template.as_ref().map_err(failed)?;
        let every = [
            ("tools", Value::NONE),
            ("documents", Value::NONE),
            ("add_generation_prompt", Value::from(true)),
        ];
        let tokens = self.tokens.iter().map(|(name, spelling)| (name.as_str(), spelling.as_str().into()));
        template.render(every.into_iter().chain(tokens).chain(variables), now).map_err(|error| failed(&error))
    }
}

fn failed(error: &moac_jinja::Error) -> ModelError {
    ModelError::Template(error.to_string())
}

/// The template of a Hugging Face folder: `chat_template.jinja`, or the one in `tokenizer_config.json`, or the one in
/// `chat_template.json`. Of several with names it is the one named `default`.
pub(super) fn template_of_folder(
    folder: &Path,
    stated: Option<serde_json::Value>,
) -> Result<Option<String>, ModelError> {
    #[derive(Deserialize)]
    struct Named {
        name: String,
        template: String,
    }
    let path = folder.join("chat_template.jinja");
    if path.is_file() {
        return match std::fs::read_to_string(&path) {
            Ok(template) => Ok(Some(template.trim_start_matches('\u{feff}').to_owned())),
            Err(source) => Err(ModelError::Read { path, source }),
        };
    }
    let legacy = folder.join("chat_template.json");
    let (path, stated) = match stated {
        None | Some(serde_json::Value::Null) if legacy.is_file() => {
            let mut values: serde_json::Map<String, serde_json::Value> = json::read(&legacy)?;
            (legacy, values.remove("chat_template"))
        }
        stated => (folder.join("tokenizer_config.json"), stated),
    };
    let wrong = |found: String, expected: &str| ModelError::Setting {
        path: path.clone(),
        key: "chat_template".into(),
        found,
        expected: expected.into(),
    };
    let named: Vec<Named> = match stated {
        None | Some(serde_json::Value::Null) => return Ok(None),
        Some(serde_json::Value::String(template)) => return Ok(Some(template)),
        Some(serde_json::Value::Object(named)) => named
            .into_iter()
            .filter_map(|(name, template)| Some(Named { name, template: template.as_str()?.to_owned() }))
            .collect(),
        Some(list) => Vec::deserialize(list)
            .map_err(|error| wrong(error.to_string(), "a template, or templates with names"))?,
    };
    if named.is_empty() {
        return Ok(None);
    }
    let names = named.iter().map(|template| format!("`{}`", template.name)).collect::<Vec<_>>().join(", ");
    match named.into_iter().find(|template| template.name == "default") {
        Some(template) => Ok(Some(template.template)),
        None => Err(wrong(format!("the templates {names}"), "one named `default` among them")),
    }
}
