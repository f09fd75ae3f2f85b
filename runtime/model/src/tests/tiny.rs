//! A tiny Llama with random weights, and its files: GGUF by candle's writer, safetensors by theirs.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use serde_json::json;

use super::CHATML;

pub(super) const LAYERS: usize = 3;
pub(super) const HIDDEN: usize = 96;
pub(super) const FFN: usize = 160;
pub(super) const HEADS: usize = 4;
pub(super) const KV_HEADS: usize = 2;
pub(super) const HEAD_DIM: usize = 64;
pub(super) const CONTEXT: usize = 1024;
pub(super) const THETA: f64 = 5000.0;
pub(super) const EPS: f64 = 1e-5;

/// The bytes that the vocabulary has no token for.
pub(super) const LACKING: [u8; 2] = [0x04, 0xf2];

/// The model's weights by their Hugging Face names, `[out, in]` or `[n]`.
#[derive(Clone, Debug)]
pub(super) struct Tiny {
    pub(super) tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    pub(super) tied: bool,
}

/// Numbers in [-1, 1), the same on every run.
pub(super) fn noise(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32) / (1u64 << 23) as f32 - 1.0
    }
}

impl Tiny {
    pub(super) fn new(tied: bool) -> Self {
        let mut tensors = BTreeMap::new();
        let mut random = noise(7);
        let mut add = |name: String, shape: &[usize]| {
            let scale = (3.0 / shape[shape.len() - 1] as f32).sqrt();
            let values = (0..shape.iter().product())
                .map(|_| if shape.len() == 1 { 1.0 + 0.3 * random() } else { 2.0 * scale * random() })
                .collect();
            tensors.insert(name, (shape.to_vec(), values));
        };
        let vocab = vocabulary().len();
        add("model.embed_tokens.weight".into(), &[vocab, HIDDEN]);
        add("model.norm.weight".into(), &[HIDDEN]);
        if !tied {
            add("lm_head.weight".into(), &[vocab, HIDDEN]);
        }
        for l in 0..LAYERS {
            let at = |name: &str| format!("model.layers.{l}.{name}.weight");
            add(at("input_layernorm"), &[HIDDEN]);
            add(at("self_attn.q_proj"), &[HEADS * HEAD_DIM, HIDDEN]);
            add(at("self_attn.k_proj"), &[KV_HEADS * HEAD_DIM, HIDDEN]);
            add(at("self_attn.v_proj"), &[KV_HEADS * HEAD_DIM, HIDDEN]);
            add(at("self_attn.o_proj"), &[HIDDEN, HEADS * HEAD_DIM]);
            add(at("post_attention_layernorm"), &[HIDDEN]);
            add(at("mlp.gate_proj"), &[FFN, HIDDEN]);
            add(at("mlp.up_proj"), &[FFN, HIDDEN]);
            add(at("mlp.down_proj"), &[HIDDEN, FFN]);
        }
        Self { tensors, tied }
    }

    /// Writes a GGUF file, matrices in `dtype`.
    pub(super) fn write_gguf(&self, path: &Path, dtype: GgmlDType) {
        self.write_gguf_with(path, dtype, &[]);
    }

    /// The same with some metadata put in or replaced.
    pub(super) fn write_gguf_with(&self, path: &Path, dtype: GgmlDType, extra: &[(&str, Value)]) {
        let tensors: Vec<(String, QTensor)> = self
            .tensors
            .iter()
            .map(|(name, (shape, values))| {
                let (name, heads) = gguf_name(name, HEADS, KV_HEADS);
                let values = heads.map_or_else(|| values.clone(), |heads| interleave(values, HIDDEN, heads));
                let tensor = Tensor::from_vec(values, shape.as_slice(), &Device::Cpu).unwrap();
                let dtype = if shape.len() == 1 { GgmlDType::F32 } else { dtype };
                (name, QTensor::quantize(&tensor, dtype).unwrap())
            })
            .collect();
        let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(n, t)| (n.as_str(), t)).collect();
        let mut metadata = metadata();
        for (key, value) in extra {
            metadata.insert((*key).to_owned(), value.clone());
        }
        let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(k, v)| (k.as_str(), v)).collect();
        gguf_file::write(&mut File::create(path).unwrap(), &metadata, &tensors).unwrap();
    }

    /// Writes a Hugging Face folder with two shards.
    pub(super) fn write_folder(&self, folder: &Path) {
        let config = json!({
            "model_type": "llama", "architectures": ["LlamaForCausalLM"], "_name_or_path": "tiny",
            "vocab_size": vocabulary().len(), "hidden_size": HIDDEN, "intermediate_size": FFN,
            "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
            "head_dim": HEAD_DIM, "rms_norm_eps": EPS, "max_position_embeddings": CONTEXT, "rope_theta": THETA,
            "rope_scaling": null, "tie_word_embeddings": self.tied, "bos_token_id": 1, "eos_token_id": 2,
            "hidden_act": "silu", "attention_bias": false, "torch_dtype": "float32", "use_cache": true,
        });
        std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
        std::fs::write(folder.join("generation_config.json"), r#"{"eos_token_id": [2, 0]}"#).unwrap();
        let template = json!({"chat_template": CHATML});
        std::fs::write(folder.join("tokenizer_config.json"), template.to_string()).unwrap();
        std::fs::write(folder.join("tokenizer.json"), tokenizer_json().to_string()).unwrap();
        let mut weight_map = BTreeMap::new();
        let names: Vec<&String> = self.tensors.keys().collect();
        for (shard, names) in names.chunks(names.len().div_ceil(2)).enumerate() {
            let file = format!("model-{:05}-of-00002.safetensors", shard + 1);
            let bytes: Vec<Vec<u8>> = names
                .iter()
                .map(|&name| self.tensors[name].1.iter().flat_map(|x| x.to_le_bytes()).collect())
                .collect();
            let views = names.iter().zip(&bytes).map(|(&name, bytes)| {
                let shape = self.tensors[name].0.clone();
                (name, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, bytes).unwrap())
            });
            safetensors::serialize_to_file(views, None, &folder.join(&file)).unwrap();
            weight_map.extend(names.iter().map(|&name| (name.clone(), file.clone())));
        }
        let index = json!({"metadata": {}, "weight_map": weight_map});
        std::fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
    }
}

/// A GGUF file of the tiny model in a temporary folder.
pub(super) fn gguf_file(dtype: GgmlDType) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    Tiny::new(true).write_gguf(&path, dtype);
    (folder, path)
}

/// A tensor's name in GGUF files, and the heads whose rows are interleaved there.
pub(super) fn gguf_name(name: &str, heads: usize, kv_heads: usize) -> (String, Option<usize>) {
    let plain = match name {
        "model.embed_tokens.weight" => Some("token_embd.weight"),
        "model.norm.weight" => Some("output_norm.weight"),
        "lm_head.weight" => Some("output.weight"),
        "rope_freqs.weight" => Some("rope_freqs.weight"),
        _ => None,
    };
    if let Some(plain) = plain {
        return (plain.to_owned(), None);
    }
    let mut parts = name.strip_prefix("model.layers.").unwrap().splitn(2, '.');
    let (layer, part) = (parts.next().unwrap(), parts.next().unwrap());
    let (part, kind) = part.rsplit_once('.').unwrap();
    let (part, heads) = match part {
        "input_layernorm" => ("attn_norm", None),
        "self_attn.q_proj" => ("attn_q", Some(heads)),
        "self_attn.k_proj" => ("attn_k", Some(kv_heads)),
        "self_attn.v_proj" => ("attn_v", None),
        "self_attn.q_norm" => ("attn_q_norm", None),
        "self_attn.k_norm" => ("attn_k_norm", None),
        "self_attn.o_proj" => ("attn_output", None),
        "post_attention_layernorm" => ("ffn_norm", None),
        "mlp.gate_proj" => ("ffn_gate", None),
        "mlp.up_proj" => ("ffn_up", None),
        "mlp.down_proj" => ("ffn_down", None),
        other => panic!("{other}"),
    };
    (format!("blk.{layer}.{part}.{kind}"), heads)
}

/// Row j * half + i of each head goes to row 2 i + j, as converters to GGUF do it.
pub(super) fn interleave(values: &[f32], columns: usize, heads: usize) -> Vec<f32> {
    let half = values.len() / columns / heads / 2;
    let mut out = vec![0.0; values.len()];
    for head in 0..heads {
        for i in 0..half {
            for j in 0..2 {
                let from = (head * 2 * half + j * half + i) * columns;
                let to = (head * 2 * half + 2 * i + j) * columns;
                out[to..to + columns].copy_from_slice(&values[from..from + columns]);
            }
        }
    }
    out
}

/// Three control tokens, the bytes but two, and a few merges.
pub(super) fn vocabulary() -> Vec<String> {
    let mut vocab: Vec<String> = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(str::to_owned).into();
    // The table of byte-level BPE, written out: printable bytes stand for themselves, the others for 256 and up.
    let mut next = 256;
    for byte in 0..=255u8 {
        let printable = (33..=126).contains(&byte) || (161..=172).contains(&byte) || byte >= 174;
        let character = if printable { char::from(byte) } else { char::from_u32(next).unwrap() };
        if !printable {
            next += 1;
        }
        if !LACKING.contains(&byte) {
            vocab.push(character.to_string());
        }
    }
    vocab.extend(MERGES.map(|(a, b)| format!("{a}{b}")));
    vocab
}

const MERGES: [(&str, &str); 6] = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("i", "n"), ("1", "2"), ("Ã", "©")];

fn tokenizer_json() -> serde_json::Value {
    let vocab: BTreeMap<String, usize> = vocabulary().into_iter().zip(0..).collect();
    let special = |(id, content): (usize, &str)| {
        json!({"id": id, "content": content, "special": true, "single_word": false, "lstrip": false,
               "rstrip": false, "normalized": false})
    };
    let added: Vec<_> =
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].into_iter().enumerate().map(special).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": added,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]},
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": vocab, "merges": MERGES.map(|(a, b)| [a, b])},
    })
}

fn metadata() -> BTreeMap<String, Value> {
    let size = |n: usize| Value::U32(n as u32);
    let text = |s: &str| Value::String(s.to_owned());
    let texts = |all: Vec<String>| Value::Array(all.into_iter().map(Value::String).collect());
    let vocab = vocabulary();
    let kinds = (0..vocab.len()).map(|id| Value::I32(if id < 3 { 3 } else { 1 })).collect();
    let merges = MERGES.map(|(a, b)| format!("{a} {b}")).to_vec();
    [
        ("general.architecture", text("llama")),
        ("general.name", text("tiny")),
        ("llama.block_count", size(LAYERS)),
        ("llama.context_length", size(CONTEXT)),
        ("llama.embedding_length", size(HIDDEN)),
        ("llama.feed_forward_length", size(FFN)),
        ("llama.attention.head_count", size(HEADS)),
        ("llama.attention.head_count_kv", size(KV_HEADS)),
        ("llama.attention.key_length", size(HEAD_DIM)),
        ("llama.rope.dimension_count", size(HEAD_DIM)),
        ("llama.rope.freq_base", Value::F32(THETA as f32)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(EPS as f32)),
        ("llama.vocab_size", size(vocab.len())),
        ("tokenizer.ggml.model", text("gpt2")),
        ("tokenizer.ggml.pre", text("smollm")),
        ("tokenizer.ggml.tokens", texts(vocab)),
        ("tokenizer.ggml.token_type", Value::Array(kinds)),
        ("tokenizer.ggml.merges", texts(merges)),
        ("tokenizer.ggml.bos_token_id", size(1)),
        ("tokenizer.ggml.eos_token_id", size(2)),
        ("tokenizer.chat_template", text(CHATML)),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}
