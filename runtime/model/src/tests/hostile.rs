//! Tokenizers that somebody made to hurt: an error that names the file, never a panic or any amount of memory.

use std::path::Path;

use candle_core::quantized::gguf_file::Value;
use serde_json::json;

use super::hard_texts::vocabulary;
use crate::*;

fn tokenizer(change: impl FnOnce(&mut serde_json::Value)) -> Result<Tokenizer, ModelError> {
    let mut json = json!({
        "version": "1.0", "normalizer": null, "post_processor": null, "added_tokens": [],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "Ġ": 2, "ab": 3}, "merges": [["a", "b"]]},
    });
    change(&mut json);
    Tokenizer::from_json(json.to_string().as_bytes(), Path::new("t/tokenizer.json"))
}

#[test]
fn tokenizer_files_that_break_the_library() {
    assert!(tokenizer(|_| ()).is_ok());
    let charsmap = |base64: &str| json!({"type": "Precompiled", "precompiled_charsmap": base64});
    let replace =
        |from: &str, to: &str| json!({"type": "Replace", "pattern": {"String": from}, "content": to});
    let doubling = vec![replace("a", "aa"); 40];
    let many = vec![json!({"type": "NFC"}); 100];
    for (part, value) in [
        ("normalizer", charsmap("AAAA")),
        ("normalizer", charsmap("/////w==")),
        ("normalizer", charsmap("////fw==")),
        ("normalizer", charsmap("BAAAAP////8A")),
        ("normalizer", charsmap("BAAAAAD8//8A")),
        ("normalizer", charsmap("no base64!")),
        ("normalizer", replace("", "x")),
        ("normalizer", replace("a", &"a".repeat(5000))),
        ("normalizer", json!({"type": "Sequence", "normalizers": doubling})),
        ("normalizer", json!({"type": "Sequence", "normalizers": many})),
        ("normalizer", json!({"type": "Prepend", "prepend": "x".repeat(5000)})),
        ("pre_tokenizer", json!({"type": "FixedLength", "length": 0})),
        ("decoder", replace("a", &"a".repeat(5000))),
        ("decoder", json!("x")),
        (
            "post_processor",
            json!({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "[X]", "type_id": 0}}], "pair": [], "special_tokens": {}}),
        ),
        ("post_processor", json!({"type": "BertProcessing", "sep": ["a", 1], "cls": ["b", -1]})),
        (
            "model",
            json!({"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]], "continuing_subword_prefix": "abcdefghijk"}),
        ),
        (
            "model",
            json!({"type": "BPE", "vocab": {"a": 0}, "merges": [], "end_of_word_suffix": "x".repeat(5000)}),
        ),
        ("model", json!({"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "zzz"]]})),
        ("model", json!({"type": "Unigram", "vocab": [], "unk_id": 3})),
    ] {
        let found = tokenizer(|json| json[part] = value.clone());
        match found {
            Err(ModelError::Tokenizer { path, .. }) => assert_eq!(path, Path::new("t/tokenizer.json")),
            Err(other) => panic!("{value}: {other}"),
            // What is read must work.
            Ok(tokenizer) => panic!("{value}: {:?}", tokenizer.encode("ab a")),
        }
    }
    for json in [r#"{"decoder":"\ud800"}"#, "", "[]", "{", "null", "{\"model\": {}}"] {
        let error = Tokenizer::from_json(json.as_bytes(), Path::new("t")).unwrap_err();
        assert!(matches!(error, ModelError::Tokenizer { .. }), "{error}");
    }
    let deep = "[".repeat(100_000);
    assert!(Tokenizer::from_json(deep.as_bytes(), Path::new("t")).is_err());
}

#[test]
fn merges_of_a_gguf_file_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let text = |text: &str| Value::String(text.to_owned());
    let list = |all: &[&str]| Value::Array(all.iter().map(|one| text(one)).collect());
    for merge in ["a b", "a", "", " ", "a  ", "a bcdefghijklmnop", "ab ab"] {
        let metadata = [
            ("tokenizer.ggml.model", text("gpt2")),
            ("tokenizer.ggml.tokens", list(&["a", "b", "c"])),
            ("tokenizer.ggml.merges", list(&[merge])),
        ];
        let file = vocabulary(&folder.path().join("m.gguf"), &metadata);
        let error = Tokenizer::from_gguf(&file).unwrap_err().to_string();
        assert!(error.contains("tokenizer.ggml.merges"), "{merge:?}: {error}");
    }
}

#[test]
fn pieces_of_a_gguf_file_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let open = |tokens: &[&str], scores: &[f32], kinds: &[i32]| {
        let metadata = [
            ("tokenizer.ggml.model", Value::String("llama".into())),
            (
                "tokenizer.ggml.tokens",
                Value::Array(tokens.iter().map(|t| Value::String((*t).into())).collect()),
            ),
            ("tokenizer.ggml.scores", Value::Array(scores.iter().map(|&s| Value::F32(s)).collect())),
            ("tokenizer.ggml.token_type", Value::Array(kinds.iter().map(|&k| Value::I32(k)).collect())),
        ];
        Tokenizer::from_gguf(&vocabulary(&folder.path().join("m.gguf"), &metadata))
    };
    let good = open(&["<unk>", "a", "▁a"], &[0.0, -1.0, -2.0], &[2, 1, 1]).unwrap();
    assert_eq!(good.encode("aa b").unwrap(), [2, 1, 0, 0]);
    assert!(open(&["<unk>", "a"], &[0.0], &[2, 1]).is_err());
    assert!(open(&["<unk>", "a"], &[0.0, 0.0], &[2]).is_err());
    assert!(open(&["<unk>", "a", "a"], &[0.0; 3], &[2, 1, 1]).is_err());
    assert!(open(&["<unk>", "<0xZZ>"], &[0.0; 2], &[2, 6]).is_err());
    assert!(open(&["<unk>", "a"], &[0.0, f32::NAN], &[2, 1]).is_err());
    assert!(open(&["<unk>", "", "a"], &[f32::INFINITY; 3], &[2, 3, 1]).unwrap().encode("aaa").is_ok());
    assert!(good.encode(&"a".repeat(1 << 18)).is_ok());
}
