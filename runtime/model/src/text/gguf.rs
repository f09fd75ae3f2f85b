//! The vocabulary of a GGUF file, its special tokens, and the tokens that end an answer.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::pieces::{Piece, PieceKind, Pieces};
use super::split::{self, Split, byte_level};
use super::tokenizer::Tokenizer;
use crate::{Gguf, ModelError};

/// How control tokens that end an answer are spelled: files often name only one of a model's.
const ENDS: [&str; 15] = [
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<｜end▁of▁sentence｜>",
    "<end_of_utterance>",
    "<|eos|>",
];

/// A vocabulary by its kind.
pub(super) enum Vocabulary {
    /// `gpt2`: as the `tokenizer.json` that it would have been made from.
    ByteLevel { json: Value, start: Vec<u32> },
    /// `llama`: SentencePiece's.
    Pieces { pieces: Pieces, start: Vec<u32> },
    /// Another kind, with a `tokenizer.json` beside the file.
    Beside(PathBuf),
}

impl Vocabulary {
    pub(super) fn read(file: &Gguf) -> Result<Self, ModelError> {
        let beside = file.path().with_file_name("tokenizer.json");
        let kind = file.text("tokenizer.ggml.model")?.unwrap_or("missing");
        let pre = file.text("tokenizer.ggml.pre")?.filter(|pre| !pre.is_empty());
        match (kind, split::by_name(pre)) {
            ("gpt2", Some(split)) => {
                let json = byte_level_bpe(file, &split)?;
                Ok(Self::ByteLevel { json, start: start(file, split.adds_bos)? })
            }
            ("llama", _) => Ok(Self::Pieces { pieces: pieces(file)?, start: start(file, true)? }),
            _ if beside.is_file() => Ok(Self::Beside(beside)),
            ("gpt2", None) => {
                let expected = format!("{}, or a `tokenizer.json` beside the file", split::NAMES);
                Err(file.setting("tokenizer.ggml.pre", pre.unwrap_or("missing"), &expected))
            }
            _ => {
                let expected = "gpt2 or llama, or a `tokenizer.json` beside the file";
                Err(file.setting("tokenizer.ggml.model", kind, expected))
            }
        }
    }
}

/// A token that a key names, if it is one of the vocabulary; SentencePiece's have ids by default.
fn token(file: &Gguf, name: &str) -> Result<Option<u32>, ModelError> {
    let key = format!("tokenizer.ggml.{name}_token_id");
    let stated = file.unsigned(&key)?.and_then(|id| u32::try_from(id).ok());
    let default = match (file.text("tokenizer.ggml.model")?, name) {
        (Some("llama"), "unknown") => Some(0),
        (Some("llama"), "bos") => Some(1),
        (Some("llama"), "eos") => Some(2),
        _ => None,
    };
    Ok(stated.or(default))
}

/// The token that a prompt starts with.
fn start(file: &Gguf, default: bool) -> Result<Vec<u32>, ModelError> {
    let adds = file.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(default);
    Ok(token(file, "bos")?.filter(|_| adds).into_iter().collect())
}

/// The special tokens by the names that templates know, with their spelling.
pub(super) fn special_tokens(
    file: &Gguf,
    tokenizer: &Tokenizer,
) -> Result<Vec<(String, String)>, ModelError> {
    let mut named = Vec::new();
    for (name, key) in [
        ("bos_token", "bos"),
        ("eos_token", "eos"),
        ("unk_token", "unknown"),
        ("sep_token", "seperator"),
        ("pad_token", "padding"),
        ("cls_token", "cls"),
        ("mask_token", "mask"),
    ] {
        if let Some(spelling) = token(file, key)?.and_then(|id| tokenizer.spelling(id)) {
            named.push((name.to_owned(), spelling));
        }
    }
    Ok(named)
}

/// The tokens that end an answer: those that keys name, and control tokens of a known spelling.
pub(super) fn ends(file: &Gguf) -> Result<Vec<u32>, ModelError> {
    let mut ends = Vec::new();
    for key in ["eos", "eot", "eom"] {
        ends.extend(token(file, key)?);
    }
    let tokens = file.texts("tokenizer.ggml.tokens")?.unwrap_or_default();
    let kinds = file.integers("tokenizer.ggml.token_type")?.unwrap_or_default();
    // 3 is a control token, 4 one that was added.
    let added = tokens.iter().zip(0..).filter(|(_, id)| matches!(kinds.get(*id as usize), Some(3 | 4)));
    ends.extend(added.filter(|(token, _)| ENDS.contains(token)).map(|(_, id)| id));
    Ok(ends)
}

/// A list of texts that must be there.
fn texts<'f>(file: &'f Gguf, key: &str) -> Result<Vec<&'f str>, ModelError> {
    file.texts(key)?.ok_or_else(|| file.setting(key, "missing", "a list of texts"))
}

/// The `tokenizer.json` of a file with a byte-level vocabulary.
fn byte_level_bpe(file: &Gguf, split: &Split) -> Result<Value, ModelError> {
    let tokens = texts(file, "tokenizer.ggml.tokens")?;
    let mut vocab = Map::new();
    for (id, &token) in tokens.iter().enumerate() {
        if vocab.insert(token.to_owned(), id.into()).is_some() {
            let found = format!("{token:?} twice");
            return Err(file.setting("tokenizer.ggml.tokens", &found, "tokens that differ"));
        }
    }
    let mut merges = Vec::new();
    for merge in texts(file, "tokenizer.ggml.merges")? {
        // The first part may be a space itself.
        let at = merge.char_indices().skip(1).find(|(_, c)| *c == ' ').map(|(at, _)| at);
        let parts = at.map(|at| (&merge[..at], &merge[at + 1..]));
        let known =
            parts.filter(|(a, b)| [*a, *b, &format!("{a}{b}")].iter().all(|t| vocab.contains_key(*t)));
        let Some(parts) = known else {
            let expected = "two tokens that make a third";
            return Err(file.setting("tokenizer.ggml.merges", &format!("{merge:?}"), expected));
        };
        merges.push(parts);
    }
    // GGUF numbers the kinds of tokens: 3 is a control token, 4 one that was added to the vocabulary.
    let kinds = file.integers("tokenizer.ggml.token_type")?.unwrap_or_default();
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
        "pre_tokenizer": split.steps,
        "decoder": byte_level(true),
        "model": {"type": "BPE", "ignore_merges": split.ignore_merges, "vocab": vocab, "merges": merges},
    }))
}

/// The vocabulary of a SentencePiece model.
fn pieces(file: &Gguf) -> Result<Pieces, ModelError> {
    let tokens = texts(file, "tokenizer.ggml.tokens")?;
    let key = "tokenizer.ggml.scores";
    let scores = file.numbers(key)?.ok_or_else(|| file.setting(key, "missing", "a score per token"))?;
    let kinds = file.integers("tokenizer.ggml.token_type")?.unwrap_or_else(|| vec![1; tokens.len()]);
    for (key, found) in [(key, scores.len()), ("tokenizer.ggml.token_type", kinds.len())] {
        if found != tokens.len() {
            let expected = format!("{}, as many as tokens", tokens.len());
            return Err(file.setting(key, &format!("a list of {found}"), &expected));
        }
    }
    if let Some(wrong) = scores.iter().find(|score| score.is_nan()) {
        return Err(file.setting(key, &wrong.to_string(), "numbers"));
    }
    let pieces = tokens.iter().zip(&scores).zip(&kinds).map(|((text, &score), kind)| Piece {
        text: (*text).to_owned(),
        score: score as f32,
        kind: match kind {
            2 => PieceKind::Unknown,
            3 => PieceKind::Control,
            4 => PieceKind::Added,
            5 => PieceKind::Unused,
            6 => PieceKind::Byte,
            _ => PieceKind::Normal,
        },
    });
    let space = file.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let squeeze = file.flag("tokenizer.ggml.remove_extra_whitespaces")?.unwrap_or(false);
    Pieces::new(pieces.collect(), token(file, "unknown")?, space, squeeze)
        .map_err(|found| file.setting("tokenizer.ggml.tokens", &found, "the pieces of a SentencePiece model"))
}
