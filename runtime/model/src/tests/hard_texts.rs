//! Tokenizers of GGUF files against `tokenizers` and sentencepiece, on texts that are hard to get right
//! (`data/hard_texts.py`).

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::quantized::gguf_file::{self, Value};
use serde::Deserialize;

use crate::*;

#[derive(Deserialize)]
struct Table {
    texts: Vec<String>,
    byte_level: ByteLevel,
    spm: Spm,
}

#[derive(Deserialize)]
struct ByteLevel {
    tokens: Vec<String>,
    merges: Vec<String>,
    /// The tokens of each text, by the name of the rules.
    ids: BTreeMap<String, Vec<Vec<u32>>>,
    /// The same where control tokens count.
    chat: BTreeMap<String, Vec<Vec<u32>>>,
}

#[derive(Deserialize)]
struct Spm {
    tokens: Vec<String>,
    scores: Vec<f32>,
    kinds: Vec<i32>,
    ids: Vec<Vec<u32>>,
    decoded: Vec<String>,
}

fn table() -> Table {
    serde_json::from_str(include_str!("data/hard_texts.json")).unwrap()
}

fn texts(all: &[String]) -> Value {
    Value::Array(all.iter().cloned().map(Value::String).collect())
}

/// A GGUF file that has only metadata.
pub(super) fn vocabulary(path: &Path, metadata: &[(&str, Value)]) -> Gguf {
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    gguf_file::write(&mut std::fs::File::create(path).unwrap(), &metadata, &[]).unwrap();
    Gguf::open(path).unwrap()
}

#[test]
fn byte_level_vocabularies_of_every_kind() {
    let table = table();
    assert!(table.texts.len() >= 40 && table.byte_level.ids.len() == 8);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let known = &table.byte_level;
    let kinds = (0..known.tokens.len()).map(|id| Value::I32(if id < 3 { 3 } else { 1 })).collect();
    for (name, ids) in &known.ids {
        let mut metadata = vec![
            ("tokenizer.ggml.model", Value::String("gpt2".into())),
            ("tokenizer.ggml.tokens", texts(&known.tokens)),
            ("tokenizer.ggml.merges", texts(&known.merges)),
            ("tokenizer.ggml.token_type", Value::Array(Vec::clone(&kinds))),
        ];
        if !name.is_empty() {
            metadata.push(("tokenizer.ggml.pre", Value::String(name.clone())));
        }
        let tokenizer = Tokenizer::from_gguf(&vocabulary(&path, &metadata)).unwrap();
        for ((text, ids), chat) in table.texts.iter().zip(ids).zip(&known.chat[name]) {
            assert_eq!(&tokenizer.encode(text).unwrap(), ids, "{name}: {text:?}");
            assert_eq!(&tokenizer.encode_chat(text).unwrap(), chat, "{name}: {text:?} with control tokens");
            assert_eq!(&tokenizer.decode(ids).unwrap(), text, "{name}");
            let (before, after) = ids.split_at(ids.len() / 2);
            let begun = tokenizer.decode(before).unwrap();
            let ended = tokenizer.decode_after(before, after).unwrap();
            if !begun.contains('\u{fffd}') {
                assert_eq!(&(begun + &ended), text, "{name}");
            }
        }
    }
    let metadata = [
        ("tokenizer.ggml.model", Value::String("gpt2".into())),
        ("tokenizer.ggml.pre", Value::String("poro-chat".into())),
    ];
    let error = Tokenizer::from_gguf(&vocabulary(&path, &metadata)).unwrap_err().to_string();
    assert!(error.contains("`tokenizer.ggml.pre` is poro-chat, expected gpt-2, default, smollm"), "{error}");
}

#[test]
fn sentencepiece_vocabularies() {
    let table = table();
    let folder = tempfile::tempdir().unwrap();
    let spm = &table.spm;
    let metadata = [
        ("tokenizer.ggml.model", Value::String("llama".into())),
        ("tokenizer.ggml.tokens", texts(&spm.tokens)),
        ("tokenizer.ggml.scores", Value::Array(spm.scores.iter().map(|&s| Value::F32(s)).collect())),
        ("tokenizer.ggml.token_type", Value::Array(spm.kinds.iter().map(|&k| Value::I32(k)).collect())),
    ];
    let file = vocabulary(&folder.path().join("m.gguf"), &metadata);
    let tokenizer = Tokenizer::from_gguf(&file).unwrap();
    let mut fallbacks = 0;
    for ((text, ids), decoded) in table.texts.iter().zip(&spm.ids).zip(&spm.decoded) {
        assert_eq!(&tokenizer.encode(text).unwrap(), ids, "{text:?}");
        assert_eq!(&tokenizer.decode(ids).unwrap(), decoded);
        fallbacks += ids.iter().filter(|&&id| spm.kinds[id as usize] == 6).count();
        let (before, after) = ids.split_at(ids.len() / 2);
        let begun = tokenizer.decode(before).unwrap();
        if !before.is_empty() && !begun.contains('\u{fffd}') {
            assert_eq!(&(begun + &tokenizer.decode_after(before, after).unwrap()), decoded);
        }
    }
    assert!(fallbacks > 100, "{fallbacks}");
    // Control tokens count in a chat, each stretch of text starts with a space, and a prompt with the bos token.
    let hi = tokenizer.encode("hi").unwrap();
    assert_eq!(tokenizer.encode_chat("<s>hi</s>hi").unwrap(), [&[1][..], &hi, &[2], &hi].concat());
    assert_eq!(tokenizer.encode_prompt("hi").unwrap(), [&[1][..], &hi].concat());
    assert_eq!(tokenizer.encode_prompt("<s>hi").unwrap(), [&[1][..], &hi].concat());
}
