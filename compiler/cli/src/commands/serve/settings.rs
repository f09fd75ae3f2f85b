//! The settings of `moac serve`, out of four places: a flag comes before a variable, a variable before the file of `--config`,
//! and the file before the default.
//!
//! A setting is stated once, as a flag: the values of variables and of the file's keys are read as that flag's value is.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::{Args as _, FromArgMatches as _};
use moac_compiler::env;
use toml::{Table, Value};

use crate::commands::generate::Device;
use crate::error::Error;

/// The settings of the server; one that is not given has its default.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Settings {
    /// The model: a GGUF file, or a Hugging Face folder
    #[arg(value_name = "MODEL")]
    pub(super) model: Option<PathBuf>,
    /// The plan [default: every head sees everything]
    #[arg(long, value_name = "PLAN", conflicts_with = "artifact")]
    pub(super) plan: Option<PathBuf>,
    /// An artifact: its plan and its context lengths
    #[arg(long, value_name = "FILE")]
    pub(super) artifact: Option<PathBuf>,
    /// Where the model runs [default: gpu where there is one, else cpu]
    #[arg(long, value_name = "gpu|cpu")]
    pub(super) device: Option<Device>,
    /// Make the weights instead of reading them, to measure a shape: MODEL needs no more than `config.json` and
    /// `tokenizer.json`
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) random_weights: Option<bool>,
    /// An answer does not depend, to the last bit, on the requests that run with it; on the CPU only
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) deterministic: Option<bool>,
    /// The name of the model for clients [default: the name of its file or folder]
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<String>,
    /// Address to listen on; set a key before you listen on an address that others can reach [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS", help_heading = LIMITS)]
    pub(super) host: Option<IpAddr>,
    /// Port to listen on; 0 for any [default: 8000]
    #[arg(long, value_name = "PORT", help_heading = LIMITS)]
    pub(super) port: Option<u16>,
    /// A file with the key that clients must send; MOAC_API_KEY comes before it
    #[arg(long, value_name = "FILE", help_heading = LIMITS)]
    pub(super) api_key_file: Option<PathBuf>,
    /// Context lengths [default: the artifact's, or multiples of 1024 up to the model's context, at most 16384]
    #[arg(long, value_name = "TOKENS,..", value_delimiter = ',', conflicts_with = "artifact")]
    pub(super) lengths: Option<Vec<u32>>,
    /// The number of answers generated at the same time [default: 64 on a GPU, 8 on the CPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(super) lanes: Option<u32>,
    /// Memory for the KV caches of running and kept requests, as in 8GiB [default: all free memory on a GPU; on the CPU, the
    /// longest context for every answer]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(super) kv_bytes: Option<u64>,
    /// Prompt tokens read in one step; running answers wait for them [default: 256 on a GPU, 512 on the CPU]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub(super) chunk: Option<u32>,
    /// Memory for caches kept for the next turn of a conversation, at most [default: --kv-bytes]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(super) keep_bytes: Option<u64>,
    /// Seconds that a cache is kept [default: 300]
    #[arg(long, value_name = "SECONDS")]
    pub(super) keep_seconds: Option<u64>,
    /// Requests that may wait; more are refused with status 429 [default: 1024]
    #[arg(long, value_name = "N", help_heading = LIMITS)]
    pub(super) queue: Option<usize>,
    /// Connections at once; more wait to be accepted [default: 1024]
    #[arg(long, value_name = "N", help_heading = LIMITS)]
    pub(super) connections: Option<usize>,
    /// The most bytes of a request's body [default: 8MiB]
    #[arg(long, value_name = "BYTES", value_parser = bytes, help_heading = LIMITS)]
    pub(super) body_bytes: Option<u64>,
    /// The most prompts in one request [default: 128]
    #[arg(long, value_name = "N", help_heading = LIMITS)]
    pub(super) prompts: Option<usize>,
    /// The most seconds of a request, and of a shutdown [default: 600]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..), help_heading = LIMITS)]
    pub(super) timeout: Option<u64>,
    /// Seconds that a client may take to send its headers, and to read on [default: 30]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..), help_heading = LIMITS)]
    pub(super) stall: Option<u64>,
    /// The most tokens of a chat's answer where the client does not say [default: 1024]
    #[arg(long, value_name = "TOKENS", help_heading = LIMITS)]
    pub(super) chat_tokens: Option<u32>,
}

/// The heading of help that settings of the network stand under.
const LIMITS: &str = "Network and limits";

/// A number of bytes with a unit or without.
fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        other => return Err(format!("found the unit {other}, expected B, KiB, MiB or GiB")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("found {digits:?}, expected a whole number"))?;
    number.checked_mul(unit).ok_or_else(|| "out of range: expected less than 2^64 bytes".to_owned())
}

impl Settings {
    /// These, then those of variables, then those of the file.
    pub(super) fn with_other_places(self, file: Option<&Path>) -> Result<Self, Error> {
        let settings = self.or(Self::of_variables()?);
        match file {
            Some(file) => Ok(settings.or(Self::of_file(file)?)),
            None => Ok(settings),
        }
    }

    fn of_variables() -> Result<Self, Error> {
        let mut settings = Self::default();
        for setting in names() {
            let (place, value) = env::serve(&setting);
            let Some(value) = value else { continue };
            let why = |why| Error::Setting { place: place.clone(), why };
            let value = value.into_string().map_err(|_| why("is not UTF-8".to_owned()))?;
            settings = settings.or(Self::one(&setting, &value).map_err(why)?);
        }
        Ok(settings)
    }

    fn of_file(path: &Path) -> Result<Self, Error> {
        Self::of_text(&std::fs::read_to_string(path).map_err(Error::file("read", path))?, path)
    }

    fn of_text(text: &str, path: &Path) -> Result<Self, Error> {
        let wrong =
            |place: String, why| Error::Setting { place: format!("`{}`{place}", path.display()), why };
        let table: Table = toml::from_str(text).map_err(|error| wrong(String::new(), error.to_string()))?;
        let mut settings = Self::default();
        for (key, value) in &table {
            let wrong = |why| wrong(format!(", key `{key}`"), why);
            if !names().contains(key) {
                return Err(wrong(format!(
                    "there is no such setting, expected one of {}",
                    names().join(", ")
                )));
            }
            let value = plain(value).ok_or_else(|| {
                let found = value.type_str();
                wrong(format!("found a value of type {found}, expected text, a whole number, true or false"))
            })?;
            settings = settings.or(Self::one(key, &value).map_err(wrong)?);
        }
        Ok(settings)
    }

    /// One setting, whose value is read as that of the flag is.
    fn one(setting: &str, value: &str) -> Result<Self, String> {
        let matches = command().try_get_matches_from([format!("--{setting}={value}")]);
        matches.and_then(|matches| Self::from_arg_matches(&matches)).map_err(|error| {
            // The first paragraph says what is wrong, the rest speaks of help.
            let text = error.to_string();
            let lines = text.lines().take_while(|line| !line.is_empty()).map(str::trim);
            lines.collect::<Vec<_>>().join(" ").trim_start_matches("error: ").to_owned()
        })
    }

    /// These; what they do not have is taken from others.
    fn or(self, other: Self) -> Self {
        // A plan and an artifact are one choice.
        let (plan, artifact) = match (self.plan, self.artifact) {
            (None, None) => (other.plan, other.artifact),
            chosen => chosen,
        };
        Self {
            plan,
            artifact,
            model: self.model.or(other.model),
            device: self.device.or(other.device),
            random_weights: self.random_weights.or(other.random_weights),
            deterministic: self.deterministic.or(other.deterministic),
            name: self.name.or(other.name),
            host: self.host.or(other.host),
            port: self.port.or(other.port),
            api_key_file: self.api_key_file.or(other.api_key_file),
            lengths: self.lengths.or(other.lengths),
            lanes: self.lanes.or(other.lanes),
            kv_bytes: self.kv_bytes.or(other.kv_bytes),
            chunk: self.chunk.or(other.chunk),
            keep_bytes: self.keep_bytes.or(other.keep_bytes),
            keep_seconds: self.keep_seconds.or(other.keep_seconds),
            queue: self.queue.or(other.queue),
            connections: self.connections.or(other.connections),
            body_bytes: self.body_bytes.or(other.body_bytes),
            prompts: self.prompts.or(other.prompts),
            timeout: self.timeout.or(other.timeout),
            stall: self.stall.or(other.stall),
            chat_tokens: self.chat_tokens.or(other.chat_tokens),
        }
    }

    /// The key that clients must send, if there is one.
    pub(super) fn api_key(&self) -> Result<Option<String>, Error> {
        if let Some(key) = env::API_KEY.text() {
            return Ok(Some(key));
        }
        let Some(path) = &self.api_key_file else { return Ok(None) };
        let text = std::fs::read_to_string(path).map_err(Error::file("read", path))?;
        let key = text.trim();
        if key.is_empty() {
            let place = format!("--api-key-file, `{}`", path.display());
            return Err(Error::Setting { place, why: "the file is empty, expected the key".to_owned() });
        }
        Ok(Some(key.to_owned()))
    }
}

/// A parser of one setting, each of which is a flag there.
fn command() -> clap::Command {
    let command = clap::Command::new("serve").no_binary_name(true).disable_help_flag(true);
    Settings::augment_args(command).mut_arg("model", |model| model.long("model"))
}

/// The names of all settings.
fn names() -> Vec<String> {
    command().get_arguments().filter_map(|arg| arg.get_long().map(str::to_owned)).collect()
}

/// A value of the file as a flag's value; a list's parts stand between commas.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Boolean(truth) => Some(truth.to_string()),
        Value::Array(values) => Some(values.iter().map(plain).collect::<Option<Vec<_>>>()?.join(",")),
        Value::Float(_) | Value::Datetime(_) | Value::Table(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_file(text: &str) -> Result<Settings, String> {
        Settings::of_text(text, Path::new("serve.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn the_first_place_that_has_a_setting_decides() {
        let flags = Settings { port: Some(1), plan: Some("a".into()), ..Settings::default() };
        let file = of_file(
            "model = 'm'\nport = 2\nartifact = 'b.moac'\nlengths = [256, 1024]\nkv-bytes = '2MiB'\nrandom-weights = true",
        );
        let both = flags.or(file.unwrap());
        assert_eq!((both.port, both.kv_bytes, both.random_weights), (Some(1), Some(2 << 20), Some(true)));
        assert_eq!((both.model, both.lengths), (Some("m".into()), Some(vec![256, 1024])));
        assert_eq!((both.plan, both.artifact), (Some("a".into()), None));
    }

    #[test]
    fn what_is_wrong_in_a_file_is_named() {
        for (text, expected) in [
            ("prot = 1", "key `prot`: there is no such setting, expected one of plan, artifact"),
            ("port = 70000", "key `port`: invalid value '70000'"),
            ("device = 'tpu'", "key `device`: invalid value 'tpu'"),
            ("lanes = 1.5", "key `lanes`: found a value of type float"),
            ("kv-bytes = '8GB'", "expected B, KiB, MiB or GiB"),
            ("port = ", "TOML parse error at line 1"),
        ] {
            let error = of_file(text).unwrap_err();
            assert!(error.contains(expected) && error.contains("serve.toml"), "{error}");
        }
    }
}
