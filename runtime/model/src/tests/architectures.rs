//! Tiny models of every architecture, from both kinds of file and in every layout, against logits of Hugging Face
//! transformers (`tests/data/architectures.py`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::{self, Value as Meta};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde::Deserialize;
use serde_json::{Value, json};

use super::tiny::{gguf_name, interleave, noise};
use crate::*;

#[derive(Deserialize)]
struct Reference {
    tokens: Vec<u32>,
    rows: Vec<usize>,
    cases: Vec<Case>,
}

/// A model: its configuration, and the logits of some rows.
#[derive(Deserialize)]
pub(super) struct Case {
    name: String,
    pub(super) config: Value,
    logits: Vec<Vec<f32>>,
}

fn reference() -> Reference {
    serde_json::from_str(include_str!("../../tests/data/architectures.json")).unwrap()
}

pub(super) fn case(name: &str) -> Case {
    reference().cases.into_iter().find(|case| case.name == name).unwrap()
}

/// FNV-1a.
fn hash(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// Elements that float16 and bfloat16 hold exactly.
fn elements(name: &str, shape: &[usize]) -> Vec<f32> {
    let mut random = noise(hash(name));
    let [bias, norm, embedding] =
        [".bias", "norm.weight", "embed_tokens.weight"].map(|ending| name.ends_with(ending));
    let value = |x: f32| {
        if norm {
            1.0 + (x * 32.0).floor() / 64.0
        } else if embedding {
            (x * 64.0).floor() / 64.0
        } else if bias {
            (x * 64.0).floor() / 128.0
        } else {
            (x * 64.0).floor() / 256.0
        }
    };
    (0..shape.iter().product()).map(|_| value(random())).collect()
}

impl Case {
    fn size(&self, key: &str) -> Option<usize> {
        self.config[key].as_u64().map(|size| size as usize)
    }

    fn kind(&self) -> &str {
        self.config["model_type"].as_str().unwrap()
    }

    /// Heads, KV heads and elements of a head.
    fn heads(&self) -> [usize; 3] {
        let heads = self.size("num_attention_heads").unwrap();
        let dim = self.size("head_dim").unwrap_or(self.size("hidden_size").unwrap() / heads);
        [heads, self.size("num_key_value_heads").unwrap(), dim]
    }

    /// The tensors by their Hugging Face names.
    pub(super) fn tensors(&self) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
        let [heads, kv_heads, dim] = self.heads();
        let [hidden, ffn, vocab] =
            ["hidden_size", "intermediate_size", "vocab_size"].map(|key| self.size(key).unwrap());
        let (q, kv) = (heads * dim, kv_heads * dim);
        let mut shapes = vec![
            ("model.embed_tokens.weight".into(), vec![vocab, hidden]),
            ("model.norm.weight".into(), vec![hidden]),
        ];
        if self.config["tie_word_embeddings"] == json!(false) {
            shapes.push(("lm_head.weight".into(), vec![vocab, hidden]));
        }
        for l in 0..self.size("num_hidden_layers").unwrap() {
            let mut add = |name: &str, shape: &[usize]| {
                shapes.push((format!("model.layers.{l}.{name}"), shape.to_vec()));
            };
            add("input_layernorm.weight", &[hidden]);
            add("post_attention_layernorm.weight", &[hidden]);
            for (name, rows) in [("q", q), ("k", kv), ("v", kv)] {
                add(&format!("self_attn.{name}_proj.weight"), &[rows, hidden]);
                if self.kind() == "qwen2" {
                    add(&format!("self_attn.{name}_proj.bias"), &[rows]);
                }
                if self.kind() == "qwen3" && name != "v" {
                    add(&format!("self_attn.{name}_norm.weight"), &[dim]);
                }
            }
            add("self_attn.o_proj.weight", &[hidden, q]);
            add("mlp.gate_proj.weight", &[ffn, hidden]);
            add("mlp.up_proj.weight", &[ffn, hidden]);
            add("mlp.down_proj.weight", &[hidden, ffn]);
        }
        shapes
            .into_iter()
            .map(|(name, shape)| (name.clone(), (shape.clone(), elements(&name, &shape))))
            .collect()
    }

    /// Writes a folder in so many files.
    pub(super) fn write_folder(&self, folder: &Path, dtype: Dtype, shards: usize) {
        std::fs::write(folder.join("config.json"), self.config.to_string()).unwrap();
        let tensors = self.tensors();
        let names: Vec<&String> = tensors.keys().collect();
        let mut weight_map = BTreeMap::new();
        for (shard, names) in names.chunks(names.len().div_ceil(shards)).enumerate() {
            let file = match shards {
                1 => "model.safetensors".to_owned(),
                _ => format!("model-{:05}-of-{shards:05}.safetensors", shard + 1),
            };
            let bytes: Vec<Vec<u8>> = names.iter().map(|&name| to_bytes(&tensors[name].1, dtype)).collect();
            let views = names.iter().zip(&bytes).map(|(&name, bytes)| {
                (name, TensorView::new(dtype, tensors[name].0.clone(), bytes).unwrap())
            });
            safetensors::serialize_to_file(views, None, &folder.join(&file)).unwrap();
            weight_map.extend(names.iter().map(|&name| (name.clone(), file.clone())));
        }
        if shards > 1 {
            let index = json!({"metadata": {}, "weight_map": weight_map});
            std::fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
        }
    }

    fn metadata(&self) -> Vec<(String, Meta)> {
        let arch = if self.kind() == "mistral" { "llama" } else { self.kind() };
        let [heads, kv_heads, dim] = self.heads();
        let size = |size: usize| Meta::U32(size as u32);
        let number = |key: &str| self.config[key].as_f64().map(|x| x as f32);
        let own = |key: &str, value| (format!("{arch}.{key}"), value);
        let mut metadata = vec![
            ("general.architecture".into(), Meta::String(arch.into())),
            own("block_count", size(self.size("num_hidden_layers").unwrap())),
            own("context_length", size(self.size("max_position_embeddings").unwrap())),
            own("embedding_length", size(self.size("hidden_size").unwrap())),
            own("feed_forward_length", size(self.size("intermediate_size").unwrap())),
            own("vocab_size", size(self.size("vocab_size").unwrap())),
            own("attention.head_count", size(heads)),
            own("attention.head_count_kv", size(kv_heads)),
            own("attention.key_length", size(dim)),
            own("attention.value_length", size(dim)),
            own("attention.layer_norm_rms_epsilon", Meta::F32(number("rms_norm_eps").unwrap())),
        ];
        let theta =
            number("rope_theta").or(self.config["rope_parameters"]["rope_theta"].as_f64().map(|x| x as f32));
        metadata.extend(theta.map(|theta| own("rope.freq_base", Meta::F32(theta))));
        if self.config["rope_scaling"]["type"] == "linear" {
            let factor = self.config["rope_scaling"]["factor"].as_f64().unwrap();
            metadata.push(own("rope.scaling.type", Meta::String("linear".into())));
            metadata.push(own("rope.scaling.factor", Meta::F32(factor as f32)));
        }
        metadata
    }

    /// Writes a GGUF file, or several, matrices in `dtype`; the path of the first.
    pub(super) fn write_gguf(&self, folder: &Path, dtype: GgmlDType, shards: usize) -> PathBuf {
        let [heads, kv_heads, dim] = self.heads();
        let mut tensors = self.tensors();
        if self.config["rope_scaling"]["rope_type"] == "llama3" {
            // As converters do it: the scaled frequencies as divisors of the plain ones.
            let path = folder.join("config.json");
            std::fs::write(&path, self.config.to_string()).unwrap();
            let rope = Config::from_json(&path).unwrap().rope;
            let plain = Rope { scaling: RopeScaling::None, ..rope.clone() }.frequencies(dim);
            let divisors = plain.iter().zip(rope.frequencies(dim)).map(|(plain, f)| (plain / f) as f32);
            tensors.insert("rope_freqs.weight".into(), (vec![dim / 2], divisors.collect()));
        }
        let permuted = matches!(self.kind(), "llama" | "mistral");
        let tensors: Vec<(String, QTensor)> = tensors
            .into_iter()
            .map(|(name, (shape, values))| {
                let (name, rotary) = gguf_name(&name, heads, kv_heads);
                let values = match rotary.filter(|_| permuted && shape.len() == 2) {
                    Some(heads) => interleave(&values, shape[1], heads),
                    None => values,
                };
                let dtype = if shape.len() == 1 { GgmlDType::F32 } else { dtype };
                let tensor = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
                (name, QTensor::quantize(&tensor, dtype).unwrap())
            })
            .collect();
        let path = |shard: usize| match shards {
            1 => folder.join("model.gguf"),
            _ => folder.join(format!("model-{:05}-of-{shards:05}.gguf", shard + 1)),
        };
        for (shard, part) in tensors.chunks(tensors.len().div_ceil(shards)).enumerate() {
            let mut metadata = if shard == 0 { self.metadata() } else { Vec::new() };
            if shards > 1 {
                metadata.push(("split.no".into(), Meta::U16(shard as u16)));
                metadata.push(("split.count".into(), Meta::U16(shards as u16)));
                metadata.push(("split.tensors.count".into(), Meta::I32(tensors.len() as i32)));
            }
            let metadata: Vec<(&str, &Meta)> = metadata.iter().map(|(k, v)| (k.as_str(), v)).collect();
            let part: Vec<(&str, &QTensor)> = part.iter().map(|(n, t)| (n.as_str(), t)).collect();
            let mut file = std::fs::File::create(path(shard)).unwrap();
            gguf_file::write(&mut file, &metadata, &part).unwrap();
        }
        path(0)
    }
}

fn to_bytes(values: &[f32], dtype: Dtype) -> Vec<u8> {
    match dtype {
        Dtype::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Dtype::F16 => values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
        Dtype::BF16 => values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
        other => panic!("{other:?}"),
    }
}

pub(super) fn decoder(path: &Path) -> Decoder {
    let checkpoint = Checkpoint::open(path).unwrap();
    let weights = Weights::read(&checkpoint, &mut |_, _| ()).unwrap();
    Decoder::new(checkpoint.config().clone(), weights)
}

/// The logits of every row.
pub(super) fn logits(decoder: &Decoder, tokens: &[u32]) -> Vec<Vec<f32>> {
    let mut cache = Cache::new(&dense_plan(&decoder.config().shape()), 128).unwrap();
    let hidden = decoder.forward(tokens, &mut Batch::one(&mut cache, tokens.len())).unwrap();
    decoder.logits(&hidden).unwrap().to_vec2().unwrap()
}

#[test]
fn logits_agree_with_transformers() {
    let Reference { tokens, rows, cases } = reference();
    for case in cases {
        let check = |path: &Path, what: &str| {
            let found = logits(&decoder(path), &tokens);
            for (&row, expected) in rows.iter().zip(&case.logits) {
                let worst = found[row].iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(worst < 1e-4, "{}, {what}, row {row}: {worst:e}", case.name);
            }
        };
        for (dtype, shards) in [(Dtype::F32, 1), (Dtype::F16, 3), (Dtype::BF16, 1)] {
            let folder = tempfile::tempdir().unwrap();
            case.write_folder(folder.path(), dtype, shards);
            check(folder.path(), &format!("{dtype:?} in {shards} files"));
        }
        for (dtype, shards) in [(GgmlDType::F32, 1), (GgmlDType::F16, 1), (GgmlDType::BF16, 3)] {
            let folder = tempfile::tempdir().unwrap();
            check(
                &case.write_gguf(folder.path(), dtype, shards),
                &format!("GGUF of {dtype:?} in {shards} files"),
            );
        }
    }
}

/// Row by row what it is in one piece, so that a decode step norms and turns its heads as a prefill does.
#[test]
fn decode_steps_agree_with_prefill() {
    for name in ["qwen2", "qwen3", "mistral"] {
        let folder = tempfile::tempdir().unwrap();
        case(name).write_folder(folder.path(), Dtype::F32, 1);
        let decoder = decoder(folder.path());
        let tokens = reference().tokens;
        let expected = logits(&decoder, &tokens);
        let mut cache = Cache::new(&dense_plan(&decoder.config().shape()), 128).unwrap();
        for (token, expected) in tokens.iter().zip(expected) {
            let hidden = decoder.forward(&[*token], &mut Batch::one(&mut cache, 1)).unwrap();
            let found = decoder.logits(&hidden).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 2e-5, "{name}: {worst:e}");
        }
    }
}
