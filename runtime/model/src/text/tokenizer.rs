//! Text to tokens and back.
//!
//! The tokenizer of a Hugging Face folder is its `tokenizer.json`. A GGUF file carries a vocabulary and the name of its
//! kind: byte-level ones (`gpt2`) are rebuilt for the `tokenizers` crate, SentencePiece's (`llama`) run here
//! ([`pieces`](super::pieces)). A file with another kind is read with a `tokenizer.json` beside it.
//!
//! What must hold: a byte-level tokenizer gives back every text that it encodes, byte for byte. A vocabulary can lack
//! the token of a rare byte; such a text is refused, never changed.

use std::path::{Path, PathBuf};

use super::gguf;
use super::library::Library;
use super::pieces::Pieces;
use super::stream::TextStream;
use crate::files::refuse_pointer;
use crate::{Gguf, ModelError};

/// A model's tokenizer.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    kind: Kind,
    file: PathBuf,
    /// Tokens that every prompt starts with.
    start: Vec<u32>,
    /// The bytes that no token holds, of a byte-level vocabulary.
    missing: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Kind {
    Library(Box<Library>),
    Pieces(Box<Pieces>),
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    pub fn from_file(path: &Path) -> Result<Self, ModelError> {
        let json =
            std::fs::read(path).map_err(|source| ModelError::Read { path: path.to_owned(), source })?;
        refuse_pointer(path, &json)?;
        Self::from_json(&json, path)
    }

    /// Builds the tokenizer of the bytes of a `tokenizer.json`; errors name `path`.
    pub fn from_json(json: &[u8], path: &Path) -> Result<Self, ModelError> {
        let (library, start) =
            Library::new(json).map_err(|what| ModelError::Tokenizer { path: path.to_owned(), what })?;
        Ok(Self::new(Kind::Library(Box::new(library)), path, start))
    }

    /// Rebuilds the tokenizer of a GGUF file, or reads the `tokenizer.json` beside it.
    pub fn from_gguf(file: &Gguf) -> Result<Self, ModelError> {
        match gguf::Vocabulary::read(file)? {
            gguf::Vocabulary::ByteLevel { json, start } => {
                let mut tokenizer = Self::from_json(json.to_string().as_bytes(), file.path())?;
                tokenizer.start = start;
                Ok(tokenizer)
            }
            gguf::Vocabulary::Pieces { pieces, start } => {
                Ok(Self::new(Kind::Pieces(Box::new(pieces)), file.path(), start))
            }
            gguf::Vocabulary::Beside(path) => Self::from_file(&path),
        }
    }

    fn new(kind: Kind, path: &Path, start: Vec<u32>) -> Self {
        let missing = match &kind {
            Kind::Library(library) if library.is_byte_level() => (0..=u8::MAX)
                .filter(|&byte| library.id(&byte_character(byte).to_string()).is_none())
                .collect(),
            _ => Vec::new(),
        };
        Self { kind, file: path.to_owned(), start, missing }
    }

    /// Sets the token that every prompt starts with; `None` for no such token.
    pub(super) fn set_start(&mut self, token: Option<u32>) {
        self.start = token.into_iter().collect();
    }

    /// The tokens of a text, in which control tokens have no special meaning; nothing is put before it.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        self.run(text, false)
    }

    /// The tokens of a rendered conversation: spelled-out control tokens count as such, and nothing is added.
    pub fn encode_chat(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        self.run(text, true)
    }

    /// The tokens of a prompt: spelled-out control tokens count as such, and the model's start token comes first if
    /// it wants one and the prompt does not have it.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let tokens = self.run(text, true)?;
        if tokens.starts_with(&self.start) {
            return Ok(tokens);
        }
        Ok([self.start.as_slice(), &tokens].concat())
    }

    fn run(&self, text: &str, control: bool) -> Result<Vec<u32>, ModelError> {
        if let Some(at) = text.bytes().position(|byte| self.missing.contains(&byte)) {
            let byte = text.as_bytes()[at];
            let at = text.floor_char_boundary(at);
            let character = text[at..].chars().next().unwrap_or_default();
            return Err(ModelError::NotInVocabulary { character, byte, at });
        }
        match &self.kind {
            Kind::Library(library) => library.encode(text, control).map_err(|what| self.failed(what)),
            Kind::Pieces(pieces) => Ok(pieces.encode(text, control)),
        }
    }

    /// The text of tokens, control tokens spelled out.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, ModelError> {
        match &self.kind {
            Kind::Library(library) => library.decode(tokens).map_err(|what| self.failed(what)),
            Kind::Pieces(pieces) => Ok(pieces.decode(tokens)),
        }
    }

    /// The text of tokens that follow `before`.
    pub fn decode_after(&self, before: &[u32], tokens: &[u32]) -> Result<String, ModelError> {
        let mut stream = self.stream_after(before);
        let mut text = String::new();
        for &token in tokens {
            text.push_str(&stream.push(token)?);
        }
        Ok(text + &stream.finish()?)
    }

    /// The spelling of one token, as the vocabulary has it.
    pub fn spelling(&self, token: u32) -> Option<String> {
        match &self.kind {
            Kind::Library(library) => library.spelling(token),
            Kind::Pieces(pieces) => pieces.spelling(token).map(str::to_owned),
        }
    }

    /// The token of a spelling.
    pub fn id(&self, spelling: &str) -> Option<u32> {
        match &self.kind {
            Kind::Library(library) => library.id(spelling),
            Kind::Pieces(pieces) => pieces.id(spelling),
        }
    }

    /// Tokens in the vocabulary.
    pub fn vocab_size(&self) -> usize {
        match &self.kind {
            Kind::Library(library) => library.vocab_size(),
            Kind::Pieces(pieces) => pieces.vocab_size(),
        }
    }

    /// Decodes tokens as they come, from the start of a text.
    pub fn stream(&self) -> TextStream<'_> {
        self.stream_after(&[])
    }

    /// Decodes tokens as they come, of a text that goes on after `before`.
    pub fn stream_after(&self, before: &[u32]) -> TextStream<'_> {
        TextStream::new(self, before)
    }

    fn failed(&self, what: String) -> ModelError {
        ModelError::Tokenizer { path: self.file.clone(), what }
    }
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
