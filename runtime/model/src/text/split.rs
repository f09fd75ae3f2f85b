//! How byte-level vocabularies split text into words before merging, by the name that GGUF files give in
//! `tokenizer.ggml.pre`. The expressions are those of the models' own `tokenizer.json`.

use serde_json::{Value, json};

/// Llama 3: up to three digits at a time.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen 2: as Llama 3, but every digit alone.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Mistral's tekken: words split where capitals follow small letters.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// GPT-4o.
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The names that are known, for messages.
pub(super) const NAMES: &str = "gpt-2, default, smollm, llama-bpe, qwen2, tekken or gpt-4o, or none";

/// The rules of a name.
#[derive(Debug)]
pub(super) struct Split {
    /// The `pre_tokenizer` of a `tokenizer.json`.
    pub(super) steps: Value,
    /// Whether a word that is a token is that token, whatever the merges say.
    pub(super) ignore_merges: bool,
    /// Whether a prompt starts with the bos token, where the file does not say.
    pub(super) adds_bos: bool,
}

/// The byte-level step of a `tokenizer.json`, with the word splitting of GPT-2 or without.
pub(super) fn byte_level(regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex})
}

/// The rules of a name. Files of before the name was introduced have none, and split as GPT-2 does.
pub(super) fn by_name(name: Option<&str>) -> Option<Split> {
    let gpt2 = || (vec![byte_level(true)], false, false);
    let words = |expression: &str, ignore_merges, adds_bos| {
        let split = json!({
            "type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": false
        });
        (vec![split, byte_level(false)], ignore_merges, adds_bos)
    };
    let (steps, ignore_merges, adds_bos) = match name {
        None => gpt2(),
        Some(name) => match name {
            "default" | "gpt-2" | "phi-2" | "gigachat" | "mpt" | "olmo" | "jais" | "trillion" | "exaone4" => {
                gpt2()
            }
            "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" | "exaone" | "minerva-7b" => {
                (vec![json!({"type": "Digits", "individual_digits": true}), byte_level(true)], false, false)
            }
            "llama3" | "llama-v3" | "llama-bpe" | "falcon3" | "falcon-h1" | "pixtral" | "midm-2.0"
            | "lfm2" => words(LLAMA3, true, true),
            "dbrx" | "smaug-bpe" | "chatglm-bpe" | "glm4" => words(LLAMA3, false, false),
            "qwen2" | "deepseek-r1-qwen" | "megrez" | "stablelm2" | "hunyuan" | "grok-2" => {
                words(QWEN2, false, false)
            }
            "tekken" => words(TEKKEN, true, true),
            "gpt-4o" | "llama4" | "kanana2" => words(GPT4O, false, false),
            _ => return None,
        },
    };
    Some(Split { steps: json!({"type": "Sequence", "pretokenizers": steps}), ignore_merges, adds_bos })
}
