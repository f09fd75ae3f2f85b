//! A tiny Llama with random weights, as a Hugging Face folder, and a text to read to it.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::json;

pub(super) const LAYERS: usize = 2;
pub(super) const HEADS: usize = 4;
pub(super) const KV_HEADS: usize = 2;
const HIDDEN: usize = 64;
const FFN: usize = 96;
const HEAD_DIM: usize = 64;

/// Numbers in [0, n), the same on every run.
pub(super) fn numbers(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move |n| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) * n) >> 31
    }
}

/// Sentences of a small vocabulary.
pub(super) fn text(seed: u64, words: usize) -> String {
    const WORDS: [&str; 12] =
        ["the", "garden", "was", "quiet", "and", "she", "walked", "along", "a", "path", "of", "stones"];
    let mut random = numbers(seed);
    let mut text = String::new();
    for at in 0..words {
        text += WORDS[random(12) as usize];
        text += if at % 11 == 10 { ". " } else { " " };
    }
    text.trim_end().to_owned() + "."
}

/// Writes the model.
pub(super) fn write_model(folder: &Path, seed: u64) {
    let vocab = vocabulary();
    let config = json!({
        "model_type": "llama", "_name_or_path": "tiny", "vocab_size": vocab.len(), "hidden_size": HIDDEN,
        "intermediate_size": FFN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 4096, "rope_theta": 10000.0, "tie_word_embeddings": true, "bos_token_id": 1,
        "eos_token_id": 2, "hidden_act": "silu",
    });
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let ids: BTreeMap<&String, usize> = vocab.iter().zip(0..).collect();
    let added: Vec<_> = (0..3)
        .map(|id| {
            json!({"id": id, "content": vocab[id], "special": true, "single_word": false, "lstrip": false,
                   "rstrip": false, "normalized": false})
        })
        .collect();
    let bytes =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": added, "pre_tokenizer": bytes, "decoder": bytes,
        "model": {"type": "BPE", "vocab": ids, "merges": []},
    });
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();

    let mut random = numbers(seed);
    let mut tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)> = BTreeMap::new();
    let mut add = |name: String, shape: &[usize]| {
        let scale = 2.0 * (3.0 / shape[shape.len() - 1] as f32).sqrt();
        let value = |random: f32| if shape.len() == 1 { 1.0 + 0.3 * random } else { scale * random };
        let values = (0..shape.iter().product()).flat_map(|_| {
            let random = random(1 << 24) as f32 / (1 << 23) as f32 - 1.0;
            value(random).to_le_bytes()
        });
        tensors.insert(name, (shape.to_vec(), values.collect()));
    };
    add("model.embed_tokens.weight".into(), &[vocab.len(), HIDDEN]);
    add("model.norm.weight".into(), &[HIDDEN]);
    for layer in 0..LAYERS {
        for (name, shape) in [
            ("input_layernorm", &[HIDDEN][..]),
            ("self_attn.q_proj", &[HEADS * HEAD_DIM, HIDDEN]),
            ("self_attn.k_proj", &[KV_HEADS * HEAD_DIM, HIDDEN]),
            ("self_attn.v_proj", &[KV_HEADS * HEAD_DIM, HIDDEN]),
            ("self_attn.o_proj", &[HIDDEN, HEADS * HEAD_DIM]),
            ("post_attention_layernorm", &[HIDDEN]),
            ("mlp.gate_proj", &[FFN, HIDDEN]),
            ("mlp.up_proj", &[FFN, HIDDEN]),
            ("mlp.down_proj", &[HIDDEN, FFN]),
        ] {
            add(format!("model.layers.{layer}.{name}.weight"), shape);
        }
    }
    let views = tensors
        .iter()
        .map(|(name, (shape, bytes))| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, &folder.join("model.safetensors")).unwrap();
}

/// Three control tokens and the bytes, by the table of byte-level BPE.
fn vocabulary() -> Vec<String> {
    let mut vocab: Vec<String> = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(str::to_owned).into();
    let mut next = 256;
    for byte in 0..=255u8 {
        let printable = (33..=126).contains(&byte) || (161..=172).contains(&byte) || byte >= 174;
        let character = if printable { char::from(byte) } else { char::from_u32(next).unwrap() };
        next += u32::from(!printable);
        vocab.push(character.to_string());
    }
    vocab
}
