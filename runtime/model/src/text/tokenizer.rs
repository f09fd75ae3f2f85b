//! Text to tokens and back.
//!
//! The tokenizer of a Hugging Face folder is its `tokenizer.json`. A GGUF file carries a vocabulary, merges and the name
//! of the rules that split text before merging; those of the byte-level kind are rebuilt here. A file with another
//! kind is read with a `tokenizer.json` beside it.
//!
//! What must hold: a byte-level tokenizer gives back every text that it encodes, byte for byte. A vocabulary can lack
//! the token of a rare byte; such a text is refused, never changed.

use std::path::Path;

use serde_json::{Map, Value, json};
use tokenizers::decoders::DecoderWrapper;

use crate::Gguf;
use crate::ModelError;

/// How Llama 3 splits text into words.
const LLAMA3_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// A model's tokenizer.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    /// Takes the spelling of a control token for that token.
    control: tokenizers::Tokenizer,
    /// Takes it for text.
    plain: tokenizers::Tokenizer,
    file: std::path::PathBuf,
    /// Tokens that every prompt starts with.
    start: Vec<u32>,
    /// The bytes that no token holds, of a byte-level vocabulary.
    missing: Vec<u8>,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    pub fn from_file(path: &Path) -> Result<Self, ModelError> {
        let json =
            std::fs::read(path).map_err(|source| ModelError::Read { path: path.to_owned(), source })?;
        // Before the library looks at it: in a file that is no JSON it takes some parts for granted.
        serde_json::from_slice::<serde::de::IgnoredAny>(&json).map_err(|error| failed(path, &error))?;
        let mut inner =
            tokenizers::Tokenizer::from_bytes(json).map_err(|error| failed(path, error.as_ref()))?;
        // Settings of the training run; a prompt is never cut or padded behind the caller's back.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| failed(path, error.as_ref()))?;
        let start = inner.encode("", true).map_err(|error| failed(path, error.as_ref()))?.get_ids().to_vec();
        Ok(Self::new(inner, path, start))
    }

    /// Rebuilds the tokenizer of a GGUF file, or reads the `tokenizer.json` beside it.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, ModelError> {
        let beside = gguf.path().with_file_name("tokenizer.json");
        let kind = gguf.text("tokenizer.ggml.model")?.unwrap_or("missing");
        let pre = gguf.text("tokenizer.ggml.pre")?.unwrap_or("missing");
        let (split, ignore_merges) = match (kind, pre) {
            ("gpt2", "smollm") => {
                (vec![json!({"type": "Digits", "individual_digits": true}), byte_level(true)], false)
            }
            ("gpt2", "gpt-2") => (vec![byte_level(true)], false),
            ("gpt2", "llama-bpe") => {
                let words = json!({
                    "type": "Split", "pattern": {"Regex": LLAMA3_SPLIT}, "behavior": "Isolated", "invert": false
                });
                (vec![words, byte_level(false)], true)
            }
            _ if beside.is_file() => return Self::from_file(&beside),
            _ => {
                let found = format!("{kind} with `tokenizer.ggml.pre` {pre}");
                let expected = "gpt2 with smollm, gpt-2 or llama-bpe, or a `tokenizer.json` beside the file";
                return Err(gguf.setting("tokenizer.ggml.model", &found, expected));
            }
        };
        let json = byte_level_bpe(gguf, &split, ignore_merges)?;
        let inner = tokenizers::Tokenizer::from_bytes(json.to_string())
            .map_err(|error| failed(gguf.path(), error.as_ref()))?;
        let adds_bos = gguf.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(pre == "llama-bpe");
        let bos = gguf.unsigned("tokenizer.ggml.bos_token_id")?.and_then(|id| u32::try_from(id).ok());
        Ok(Self::new(inner, gguf.path(), bos.filter(|_| adds_bos).into_iter().collect()))
    }

    fn new(control: tokenizers::Tokenizer, path: &Path, start: Vec<u32>) -> Self {
        let mut plain = control.clone();
        plain.set_encode_special_tokens(true);
        let missing = match control.get_decoder() {
            Some(DecoderWrapper::ByteLevel(_)) => (0..=u8::MAX)
                .filter(|&byte| control.token_to_id(&byte_character(byte).to_string()).is_none())
                .collect(),
            _ => Vec::new(),
        };
        Self { control, plain, file: path.to_owned(), start, missing }
    }

    /// The tokens of a text, in which control tokens have no special meaning; nothing is put before it.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        self.run(&self.plain, text)
    }

    /// The tokens of a prompt: spelled-out control tokens count as such, and the model's start token comes first if
    /// it wants one and the prompt does not have it.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let tokens = self.run(&self.control, text)?;
        if tokens.starts_with(&self.start) {
            return Ok(tokens);
        }
        Ok([self.start.as_slice(), &tokens].concat())
    }

    fn run(&self, tokenizer: &tokenizers::Tokenizer, text: &str) -> Result<Vec<u32>, ModelError> {
        if let Some(at) = text.bytes().position(|byte| self.missing.contains(&byte)) {
            let byte = text.as_bytes()[at];
            let at = text.floor_char_boundary(at);
            let character = text[at..].chars().next().unwrap_or_default();
            return Err(ModelError::NotInVocabulary { character, byte, at });
        }
        let encoding =
            tokenizer.encode_fast(text, false).map_err(|error| failed(&self.file, error.as_ref()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of tokens, control tokens spelled out.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, ModelError> {
        self.control.decode(tokens, false).map_err(|error| failed(&self.file, error.as_ref()))
    }

    /// The spelling of one token, as the vocabulary has it.
    pub fn spelling(&self, token: u32) -> Option<String> {
        self.control.id_to_token(token)
    }

    /// Tokens in the vocabulary.
    pub fn vocab_size(&self) -> usize {
        self.control.get_vocab_size(true)
    }

    /// Decodes tokens as they come.
    pub fn stream(&self) -> TextStream<'_> {
        TextStream { tokenizer: self, tokens: Vec::new(), start: 0, end: 0 }
    }
}

/// The byte-level step of a `tokenizer.json`, with the word splitting of GPT-2 or without.
fn byte_level(regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex})
}

/// The `tokenizer.json` of a GGUF file with a byte-level vocabulary.
fn byte_level_bpe(gguf: &Gguf, split: &[Value], ignore_merges: bool) -> Result<Value, ModelError> {
    let texts = |key: &str| gguf.texts(key)?.ok_or_else(|| gguf.setting(key, "missing", "a list of texts"));
    let tokens = texts("tokenizer.ggml.tokens")?;
    let merges: Option<Vec<_>> =
        texts("tokenizer.ggml.merges")?.into_iter().map(|merge| merge.split_once(' ')).collect();
    let merges = merges
        .ok_or_else(|| gguf.setting("tokenizer.ggml.merges", "an entry of one part", "two parts each"))?;
    let mut vocab = Map::new();
    for (id, &token) in tokens.iter().enumerate() {
        if vocab.insert(token.to_owned(), id.into()).is_some() {
            return Err(gguf.setting(
                "tokenizer.ggml.tokens",
                &format!("{token:?} twice"),
                "tokens that differ",
            ));
        }
    }
    // GGUF numbers the kinds of tokens: 3 is a control token, 4 one that was added to the vocabulary.
    let kinds = gguf.integers("tokenizer.ggml.token_type")?.unwrap_or_default();
    let added: Vec<Value> = (kinds.iter().zip(&tokens).enumerate())
        .filter(|(_, (kind, _))| matches!(kind, 3 | 4))
        .map(|(id, (&kind, token))| {
            json!({
                "id": id, "content": token, "special": kind == 3,
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            })
        })
        .collect();
    Ok(json!({
        "version": "1.0",
        "added_tokens": added,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": split},
        "decoder": byte_level(true),
        "model": {"type": "BPE", "ignore_merges": ignore_merges, "vocab": vocab, "merges": merges},
    }))
}

/// The character that stands for a byte in byte-level vocabularies: itself where it prints, else one of a block above.
fn byte_character(byte: u8) -> char {
    let prints = |b: &u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if prints(&byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|b| !prints(b)).count() as u32;
    char::from_u32(0x100 + before).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn failed(path: &Path, error: &dyn std::error::Error) -> ModelError {
    ModelError::Tokenizer { path: path.to_owned(), what: error.to_string() }
}

/// Text from tokens that come one by one: never half a character.
#[derive(Clone, Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    tokens: Vec<u32>,
    /// The text of `start..end` has been handed out. It is decoded again with what follows, since the text of a token
    /// may depend on the one before it.
    start: usize,
    end: usize,
}

impl TextStream<'_> {
    /// Takes a token; returns the text that it completes, perhaps none.
    pub fn push(&mut self, token: u32) -> Result<String, ModelError> {
        self.tokens.push(token);
        let text = self.rest()?;
        if text.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        (self.start, self.end) = (self.end, self.tokens.len());
        Ok(text)
    }

    /// The text still held back: bytes that form no character.
    pub fn finish(self) -> Result<String, ModelError> {
        self.rest()
    }

    fn rest(&self) -> Result<String, ModelError> {
        let known = self.tokenizer.decode(&self.tokens[self.start..self.end])?;
        let mut text = self.tokenizer.decode(&self.tokens[self.start..])?;
        Ok(text.split_off(text.floor_char_boundary(known.len())))
    }
}
