//! Settings and files that public reports are about: what is read as other programs read it, and what is refused by name.

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::Value as Meta;
use safetensors::Dtype;
use serde_json::{Value, json};

use super::architectures::{case, decoder, logits};
use super::tiny::*;
use crate::*;

const TOKENS: [u32; 5] = [3, 1, 4, 1, 5];

/// The error of reading a configuration with some settings replaced; null removes one.
fn read_with(name: &str, changes: &[(&str, Value)]) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let mut config = case(name).config;
    for (key, value) in changes {
        if *value == json!("missing") {
            config.as_object_mut().unwrap().remove(*key);
        } else {
            config[*key] = value.clone();
        }
    }
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    Config::from_folder(folder.path()).map_err(|error| error.to_string())
}

#[test]
fn windows_in_use_are_refused_and_others_are_not() {
    let on = ("use_sliding_window", json!(true));
    let window = |window: u64| ("sliding_window", json!(window));
    for (name, changes, refused) in [
        ("mistral", vec![window(1024)], "`sliding_window` 1024 of a context of 4096"),
        ("mistral", vec![window(4096)], ""),
        // Left out, it is 4096.
        ("mistral", vec![("sliding_window", json!("missing"))], ""),
        (
            "mistral",
            vec![("sliding_window", json!("missing")), ("max_position_embeddings", json!(8192))],
            "`sliding_window` 4096 of a context of 8192",
        ),
        ("qwen2", vec![window(32), ("use_sliding_window", json!("missing"))], ""),
        ("qwen2", vec![window(32), on.clone()], "`sliding_window` 32"),
        ("qwen3", vec![window(32), on.clone(), ("max_window_layers", json!(2))], ""),
        ("qwen3", vec![window(32), on.clone(), ("max_window_layers", json!(1))], "`sliding_window` 32"),
        (
            "qwen3",
            vec![("layer_types", json!(["full_attention", "sliding_attention"]))],
            "`layer_types` with sliding_attention",
        ),
        ("qwen3", vec![("layer_types", json!(["full_attention", "full_attention"]))], ""),
    ] {
        let result = read_with(name, &changes);
        match result {
            Ok(_) => assert!(refused.is_empty(), "{name} {changes:?}"),
            Err(error) => {
                assert!(!refused.is_empty() && error.contains(refused), "{name} {changes:?}: {error}");
            }
        }
    }
}

#[test]
fn defaults_are_those_of_the_architecture() {
    let missing = json!("missing");
    let kv = |name: &str, value: Value| {
        let heads = ("num_attention_heads", json!(32));
        read_with(name, &[heads, ("head_dim", json!(16)), ("num_key_value_heads", value)])
            .unwrap()
            .num_kv_heads
    };
    assert_eq!([kv("llama-2", missing.clone()), kv("llama-2", Value::Null)], [32, 32]);
    assert_eq!([kv("mistral", missing.clone()), kv("mistral", Value::Null)], [8, 32]);
    assert_eq!([kv("qwen2", missing.clone()), kv("qwen3", missing.clone())], [32, 32]);
    let dim = |name: &str, value: &Value| read_with(name, &[("head_dim", value.clone())]).unwrap().head_dim;
    assert_eq!(
        [dim("llama-2", &missing), dim("qwen2", &missing), dim("mistral", &Value::Null)],
        [12, 12, 12]
    );
    assert_eq!([dim("qwen3", &missing), dim("qwen3", &Value::Null)], [128, 12]);
    for (name, bias, norm) in
        [("llama-2", false, false), ("mistral", false, false), ("qwen2", true, false), ("qwen3", false, true)]
    {
        let config = read_with(name, &[]).unwrap();
        assert_eq!((config.qkv_bias, config.qk_norm), (bias, norm));
        let shape = config.engine_shape();
        assert_eq!(
            (shape.qkv_bias, shape.qk_norm, shape.frequencies.len()),
            (bias, norm, config.head_dim / 2)
        );
    }
}

#[test]
fn settings_that_change_the_result_are_refused_by_name() {
    for (name, key, value, message) in [
        ("qwen3", "attention_bias", json!(true), "`attention_bias`, which is not supported"),
        ("mistral", "attention_bias", json!(true), "`attention_bias`"),
        ("llama-2", "mlp_bias", json!(true), "`mlp_bias`"),
        (
            "qwen2",
            "dual_chunk_attention_config",
            json!({"chunk_size": 262_144}),
            "`dual_chunk_attention_config`",
        ),
        ("qwen3", "num_experts", json!(128), "`num_experts`"),
        ("llama-2", "quantization_config", json!({"bits": 4}), "`quantization_config`"),
        ("llama-2", "partial_rotary_factor", json!(0.5), "`partial_rotary_factor`"),
        ("llama-2", "logits_scaling", json!(8), "`logits_scaling`"),
        ("llama-2", "is_causal", json!(false), "`is_causal` false"),
        ("llama-2", "rope_scaling", json!({"factor": 4.0}), "`rope_scaling.factor` 4 without a type"),
        (
            "llama-2",
            "rope_parameters",
            json!({"rope_type": "default", "factor": 4.0}),
            "`rope_parameters.factor` 4 of type default",
        ),
        (
            "llama-2",
            "rope_scaling",
            json!({"type": "linear", "rope_type": "llama3", "factor": 4.0}),
            "`rope_scaling.rope_type` llama3 and `rope_scaling.type` linear at once",
        ),
        (
            "llama-2",
            "rope_scaling",
            json!({"type": "linear", "factor": 4.0, "mrope_section": [1, 2]}),
            "`rope_scaling.mrope_section`",
        ),
        (
            "llama-2",
            "rope_parameters",
            json!({"rope_type": "default", "partial_rotary_factor": 0.25}),
            "`rope_parameters.partial_rotary_factor`",
        ),
        (
            "llama-2",
            "rope_scaling",
            json!({"type": "dynamic", "factor": 4.0}),
            "`rope_scaling` of type dynamic",
        ),
        (
            "qwen3-untied",
            "rope_scaling",
            json!({"type": "linear", "factor": 4.0}),
            "a `rope_scaling` that is not its `rope_parameters`",
        ),
    ] {
        let error = read_with(name, &[(key, value)]).unwrap_err();
        assert!(error.contains(message), "{error}");
    }
    for (name, key, value) in [
        ("qwen2", "attention_bias", json!(true)),
        ("llama-2", "partial_rotary_factor", json!(1.0)),
        ("llama-2", "num_experts", json!(0)),
        ("llama-2", "no_rope_layers", json!([])),
        ("llama-2", "rope_scaling", json!({"type": "default", "factor": 1.0})),
        ("llama-2", "pretraining_tp", json!(2)),
    ] {
        read_with(name, &[(key, value)]).unwrap();
    }
}

#[test]
fn unknown_keys_of_a_gguf_are_refused_unless_they_say_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    let tiny = Tiny::new(true);
    let text = |text: &str| Meta::String(text.into());
    for (key, value, message) in [
        ("llama.attention.scale", Meta::F32(0.3), "`llama.attention.scale`"),
        ("llama.rope.scaling.attn_factor", Meta::F32(1.2), "`llama.rope.scaling.attn_factor` 1.2"),
        (
            "llama.rope.dimension_sections",
            Meta::Array(vec![Meta::I32(8); 4]),
            "`llama.rope.dimension_sections`",
        ),
        ("llama.attention.value_length", Meta::U32(32), "`llama.attention.value_length` 32 of 64"),
        ("llama.attention.causal", Meta::Bool(false), "`llama.attention.causal` false"),
        ("llama.attention.sliding_window", Meta::U32(512), "`llama.attention.sliding_window` 512"),
        ("llama.use_parallel_residual", Meta::Bool(true), "`llama.use_parallel_residual`"),
        ("llama.nextn_predict_layers", Meta::U32(1), "`llama.nextn_predict_layers`"),
        ("llama.not_thought_of_yet", text("on"), "`llama.not_thought_of_yet`"),
        ("general.type", text("adapter"), "`general.type` adapter"),
        ("general.architecture", text("mistral"), "`general.architecture` mistral"),
    ] {
        tiny.write_gguf_with(&path, GgmlDType::F32, &[(key, value)]);
        let error = read_config(&path).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    tiny.write_gguf_with(
        &path,
        GgmlDType::F32,
        &[
            ("llama.expert_count", Meta::U32(0)),
            ("llama.logit_scale", Meta::F32(0.0)),
            ("llama.use_parallel_residual", Meta::Bool(false)),
            ("llama.attention.causal", Meta::Bool(true)),
            ("llama.attention.sliding_window", Meta::U32(4096)),
            ("llama.rope.scaling.attn_factor", Meta::F32(1.0)),
            ("llama.tensor_data_layout", text("Meta AI original pth")),
            ("llama.not_thought_of_yet", text("")),
            ("qwen2.attention.scale", Meta::F32(0.3)),
            ("general.type", text("model")),
        ],
    );
    read_config(&path).unwrap();
}

#[test]
fn a_single_file_counts_and_an_index_beside_it_is_left_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut stale = case("llama-2");
    stale.write_folder(folder.path(), Dtype::F32, 2);
    // The same tensors with other values.
    let shard = folder.path().join("model-00001-of-00002.safetensors");
    let mut bytes = std::fs::read(&shard).unwrap();
    let end = bytes.len();
    bytes[end - 4000..].fill(0);
    std::fs::write(&shard, bytes).unwrap();
    let left_over = logits(&decoder(folder.path()), &TOKENS);
    stale.config["torch_dtype"] = json!("float32");
    stale.write_folder(folder.path(), Dtype::F32, 1);
    let found = logits(&decoder(folder.path()), &TOKENS);
    let alone = tempfile::tempdir().unwrap();
    stale.write_folder(alone.path(), Dtype::F32, 1);
    assert_eq!(found, logits(&decoder(alone.path()), &TOKENS));
    assert_ne!(found, left_over);
}

#[test]
fn an_index_and_shards_of_different_saves_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let case = case("llama-2");
    case.write_folder(folder.path(), Dtype::F32, 2);
    let index = folder.path().join("model.safetensors.index.json");
    let good: Value = serde_json::from_slice(&std::fs::read(&index).unwrap()).unwrap();
    let mut moved = good.clone();
    moved["weight_map"]["lm_head.weight"] = json!("model-00002-of-00002.safetensors");
    std::fs::write(&index, moved.to_string()).unwrap();
    let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(
        error.contains("tensor `lm_head.weight` should be in `model-00002-of-00002.safetensors`"),
        "{error}"
    );
    assert!(error.contains("different saves"), "{error}");
    // No index, and weights of another kind.
    std::fs::remove_file(&index).unwrap();
    let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("`model-00001-of-00002.safetensors` is a shard, but"), "{error}");
    for shard in 1..3 {
        std::fs::remove_file(folder.path().join(format!("model-0000{shard}-of-00002.safetensors"))).unwrap();
    }
    std::fs::write(folder.path().join("pytorch_model.bin"), "").unwrap();
    let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("its weights are in `pytorch_model.bin`"), "{error}");
    case.write_folder(folder.path(), Dtype::F32, 1);
    Checkpoint::open(folder.path()).unwrap();
    std::fs::write(folder.path().join("adapter_config.json"), "{}").unwrap();
    let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("adapter_config.json` asks for an adapter"), "{error}");
}

#[test]
fn a_tied_head_that_is_not_the_embedding_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut tiny = Tiny::new(true);
    let mut head = tiny.tensors["model.embed_tokens.weight"].clone();
    head.1[5] += 1.0;
    tiny.tensors.insert("lm_head.weight".into(), head);
    tiny.write_folder(folder.path());
    let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("tensor `lm_head.weight`") && error.contains("is not the embedding"), "{error}");
}

#[test]
fn names_that_stand_twice_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let case = case("llama-3.1");
    case.write_folder(folder.path(), Dtype::F32, 1);
    let path = folder.path().join("config.json");
    let good = case.config.to_string();
    for (of, again) in [
        ("{", r#"{"rms_norm_eps":1e-3,"#),
        ("{", r#"{"torch_dtype":"float16","torch_dtype":"float32","#),
        (r#""factor":8.0"#, r#""factor":8.0,"factor":2.0"#),
    ] {
        std::fs::write(&path, good.replacen(of, again, 1)).unwrap();
        let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
        let twice = error.contains("stands there twice") || error.contains("duplicate field");
        assert!(twice && error.contains("config.json"), "{error}");
    }
    std::fs::write(&path, &good).unwrap();
    let weights = folder.path().join("model.safetensors");
    let file = std::fs::read(&weights).unwrap();
    let length = u64::from_le_bytes(*file.first_chunk().unwrap()) as usize;
    let header = std::str::from_utf8(&file[8..8 + length]).unwrap().trim_end();
    let entry = header.split("},").next().unwrap().trim_start_matches('{');
    let header = format!("{{{entry}}},{}", &header[1..]);
    let damaged = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &file[8 + length..]].concat();
    std::fs::write(&weights, damaged).unwrap();
    let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("stands there twice") && error.contains("model.safetensors"), "{error}");
}

#[test]
fn a_byte_order_mark_is_skipped_in_every_json_file() {
    let folder = tempfile::tempdir().unwrap();
    case("qwen2").write_folder(folder.path(), Dtype::F32, 2);
    std::fs::write(folder.path().join("generation_config.json"), r#"{"eos_token_id": [7]}"#).unwrap();
    for name in ["config.json", "generation_config.json", "model.safetensors.index.json"] {
        let path = folder.path().join(name);
        let text = std::fs::read(&path).unwrap();
        std::fs::write(&path, [b"\xef\xbb\xbf", &text[..]].concat()).unwrap();
    }
    assert_eq!(Checkpoint::open(folder.path()).unwrap().config().eos, [7]);
    let path = folder.path().join("config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let wide: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    std::fs::write(&path, wide).unwrap();
    let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("it is text in UTF-16, expected UTF-8"), "{error}");
}

#[test]
fn git_lfs_pointers_are_named() {
    const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n";
    let folder = tempfile::tempdir().unwrap();
    let case = case("qwen2");
    case.write_folder(folder.path(), Dtype::F32, 2);
    for name in ["model-00002-of-00002.safetensors", "model.safetensors.index.json", "config.json"] {
        std::fs::write(folder.path().join(name), POINTER).unwrap();
        let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("{name}` is a git-lfs pointer")), "{error}");
    }
    let gguf = folder.path().join("m.gguf");
    std::fs::write(&gguf, POINTER).unwrap();
    for error in [Model::open(&gguf).unwrap_err(), read_config(&gguf).unwrap_err()] {
        assert!(error.to_string().contains("m.gguf` is a git-lfs pointer"), "{error}");
    }
}

#[test]
fn all_shards_of_a_split_gguf_are_read_from_any_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let case = case("qwen3");
    let whole = case.write_gguf(folder.path(), GgmlDType::F32, 1);
    let first = case.write_gguf(folder.path(), GgmlDType::F32, 3);
    let shard = |n: usize| folder.path().join(format!("model-0000{n}-of-00003.gguf"));
    assert_eq!(first, shard(1));
    let expected = logits(&decoder(&whole), &TOKENS);
    for n in 1..=3 {
        assert_eq!(logits(&decoder(&shard(n)), &TOKENS), expected);
        assert_eq!(read_config(&shard(n)).unwrap(), read_config(&whole).unwrap());
    }
    let error = |path: &std::path::Path| Checkpoint::open(path).unwrap_err().to_string();
    // One has another name, is another one, has lost a tensor, is missing.
    let renamed = folder.path().join("renamed.gguf");
    std::fs::copy(shard(2), &renamed).unwrap();
    let message = error(&renamed);
    assert!(
        message.contains("it is shard 2 of 3") && message.contains("`-00002-of-00003.gguf`"),
        "{message}"
    );
    let good = std::fs::read(shard(2)).unwrap();
    std::fs::copy(shard(3), shard(2)).unwrap();
    let message = error(&shard(1));
    assert!(
        message.contains("00002-of-00003.gguf`: `split.no` is 2, expected 1, as the file's name says"),
        "{message}"
    );
    std::fs::copy(&whole, shard(2)).unwrap();
    assert!(error(&shard(1)).contains("`split.count` is missing, expected 3"));
    std::fs::write(shard(2), &good[..good.len() - 100]).unwrap();
    let message = error(&shard(1));
    assert!(message.contains("00002-of-00003.gguf` is truncated"), "{message}");
    std::fs::remove_file(shard(2)).unwrap();
    for n in [1, 3] {
        let message = error(&shard(n));
        assert!(
            message.contains("split in 3 files, and `model-00002-of-00003.gguf` is missing"),
            "{message}"
        );
    }
}

#[test]
fn a_split_that_cannot_be_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny-00001-of-00002.gguf");
    let tiny = Tiny::new(true);
    let no = |n: u64| ("split.no", Meta::U64(n));
    let count = |n: u64| ("split.count", Meta::U64(n));
    for (extra, message) in [
        (vec![no(0), count(u64::MAX)], "`split.count` is 18446744073709551615, expected at most 4096"),
        (vec![no(2), count(2)], "`split.no` is 2, expected below the 2 of `split.count`"),
        (vec![count(2)], "`split.no` is missing"),
        (vec![no(0), count(2)], "`tiny-00002-of-00002.gguf` is missing"),
        (vec![no(0), count(3)], "its name does not end in `-00001-of-00003.gguf`"),
        (vec![no(0), ("split.count", Meta::String("2".into()))], "`split.count` is of type String"),
    ] {
        tiny.write_gguf_with(&path, GgmlDType::F32, &extra);
        let error = Checkpoint::open(&path).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    // A tensor in both, and a count of tensors that is not theirs.
    tiny.write_gguf_with(&path, GgmlDType::F32, &[no(0), count(2)]);
    tiny.write_gguf_with(&folder.path().join("tiny-00002-of-00002.gguf"), GgmlDType::F32, &[no(1), count(2)]);
    let error = Checkpoint::open(&path).unwrap_err().to_string();
    assert!(error.contains("is in another shard too"), "{error}");
    case("qwen3").write_gguf(folder.path(), GgmlDType::F32, 2);
    let first = folder.path().join("model-00001-of-00002.gguf");
    let mut bytes = std::fs::read(&first).unwrap();
    let at = bytes.windows(19).position(|bytes| bytes == b"split.tensors.count").unwrap();
    bytes[at + 19 + 4] += 1;
    std::fs::write(&first, bytes).unwrap();
    let error = Checkpoint::open(&first).unwrap_err().to_string();
    assert!(
        error.contains("`split.tensors.count` is 25, expected the 24 tensors of the 2 shards"),
        "{error}"
    );
    // One of one is whole.
    tiny.write_gguf_with(&path, GgmlDType::F32, &[no(0), count(1)]);
    Checkpoint::open(&path).unwrap();
}
