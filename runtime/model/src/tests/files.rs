//! The two file formats: the same model from both, and settings that are read or refused.

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::Value;
use candle_core::{Device, Tensor};
use serde_json::json;

use super::architectures::case;
use super::tiny::*;
use crate::*;

fn logits(model: &Model) -> Vec<f32> {
    let plan = dense_plan(&model.decoder.config().shape());
    let mut cache = Cache::new(&plan, 128).unwrap();
    let tokens: Vec<u32> = (0..70).map(|i| i * 37 % 260).collect();
    let hidden = model.decoder.prefill(&tokens, &mut cache).unwrap();
    model.decoder.logits(&hidden).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn both_formats_hold_the_same_model() {
    for tied in [true, false] {
        let tiny = Tiny::new(tied);
        let folder = tempfile::tempdir().unwrap();
        tiny.write_folder(folder.path());
        let path = folder.path().join("tiny.gguf");
        tiny.write_gguf(&path, GgmlDType::F32);
        let (gguf, folder) = (Model::open(&path).unwrap(), Model::open(folder.path()).unwrap());
        assert_eq!(gguf.decoder.config().tied_embeddings, tied);
        assert_eq!(logits(&gguf), logits(&folder));
        let (a, b) = (gguf.decoder.config(), folder.decoder.config());
        let same_eos = Config { eos: b.eos.clone(), norm_eps: b.norm_eps, ..a.clone() };
        assert_eq!(&same_eos, b);
        assert_eq!((&a.eos, &b.eos), (&vec![0, 2], &vec![0, 2]));
        let count: usize = tiny.tensors.values().map(|(_, values)| values.len()).sum();
        assert_eq!(a.parameters(), count as u64);
    }
}

#[test]
fn every_element_type_is_dequantised_to_its_precision() {
    let exact = Tiny::new(true);
    for (dtype, tolerance) in [
        (GgmlDType::F32, 0.0),
        (GgmlDType::F16, 5e-4),
        (GgmlDType::BF16, 4e-3),
        (GgmlDType::Q8_0, 5e-3),
        (GgmlDType::Q5_1, 0.034),
        (GgmlDType::Q5_0, 0.065),
        (GgmlDType::Q4_1, 0.069),
        (GgmlDType::Q4_0, 0.13),
    ] {
        let (_folder, path) = gguf_file(dtype);
        let weights = Weights::read(&Checkpoint::open(&path).unwrap(), &mut |_, _| ()).unwrap();
        let of = |name: &str| {
            let (shape, values) = &exact.tensors[name];
            Tensor::from_vec(values.clone(), shape.as_slice(), &Device::Cpu).unwrap()
        };
        let at = |name: &str| of(&format!("model.layers.1.{name}.weight"));
        let layer = &weights.layers[1];
        let qkv = [at("self_attn.q_proj"), at("self_attn.k_proj"), at("self_attn.v_proj")];
        let gate_up = [at("mlp.gate_proj"), at("mlp.up_proj")];
        for (found, expected) in [
            (&weights.embedding, of("model.embed_tokens.weight")),
            (&layer.qkv, Tensor::cat(&qkv, 0).unwrap()),
            (&layer.output, at("self_attn.o_proj")),
            (&layer.gate_up, Tensor::cat(&gate_up, 0).unwrap()),
            (&layer.down, at("mlp.down_proj")),
            (&layer.mlp_norm, at("post_attention_layernorm")),
        ] {
            let error =
                (found - &expected).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            let largest = expected.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(error <= tolerance * largest, "{dtype:?}: {error} of {largest}");
        }
    }
}

#[test]
fn what_is_not_computed_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    Tiny::new(true).write_folder(folder.path());
    let path = folder.path().join("config.json");
    let good: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let error_of = |key: &str, value: serde_json::Value| {
        let mut config = good.clone();
        config[key] = value;
        std::fs::write(&path, config.to_string()).unwrap();
        Config::from_folder(folder.path()).map_err(|error| error.to_string())
    };
    for (key, value, message) in [
        ("model_type", json!("mamba"), "`model_type` \"mamba\", which is not supported"),
        ("sliding_window", json!(512), "`sliding_window` 512 of a context of 1024, which is not supported"),
        ("attn_logit_softcapping", json!(50.0), "`attn_logit_softcapping`, which"),
        ("attention_bias", json!(true), "`attention_bias`, which"),
        ("hidden_act", json!("gelu"), "`hidden_act` gelu, which"),
        ("rope_scaling", json!({"type": "yarn", "factor": 2.0}), "`rope_scaling` of type yarn, which"),
        ("rope_scaling", json!({"type": "linear"}), "`rope_scaling.factor` is missing"),
        ("num_hidden_layers", json!(0), "`num_hidden_layers` is 0, expected 1 to 4096"),
        ("hidden_size", json!(1u64 << 40), "`hidden_size` is 1099511627776, expected 1 to 1048576"),
        ("num_key_value_heads", json!(3), "`KV heads` is 3, expected a divisor of 4 heads"),
        ("head_dim", json!(31), "`head_dim` is 31, expected an even number"),
        ("rope_theta", json!(0.0), "`rotary embedding` is theta 0"),
        ("rms_norm_eps", json!(-1.0), "`RMS norm epsilon` is -1"),
        ("vocab_size", json!("many"), "invalid type: string"),
    ] {
        let error = error_of(key, value).unwrap_err();
        assert!(error.contains(message), "{error}");
    }
    assert!(error_of("sliding_window", json!(null)).is_ok());
    let llama3 = json!({"rope_type": "llama3", "type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192});
    let scaling = error_of("rope_scaling", llama3).unwrap().rope.scaling;
    assert!(matches!(scaling, RopeScaling::Llama3 { factor: 8.0, .. }), "{scaling:?}");
    let parameters = json!({"rope_type": "default", "rope_theta": 77.0});
    assert_eq!(error_of("rope_parameters", parameters).unwrap().rope.theta.to_bits(), 77f64.to_bits());
}

#[test]
fn llama3_scales_the_long_wavelengths_only() {
    // Wavelengths of 2 pi / f: those beyond 8192 tokens are divided by 8, those below 2048 are left, and one at
    // 8192 / 2.5 turns is half way (2.5 - 1) / (4 - 1) = 0.5 between the two.
    let tau = std::f64::consts::TAU;
    let theta: f64 = 500_000.0;
    let scaling = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_context: 8192.0,
    };
    let plain = Rope { theta, scaling: RopeScaling::None }.frequencies(128);
    let scaled = Rope { theta, scaling: scaling.clone() }.frequencies(128);
    for (f, s) in plain.iter().zip(&scaled) {
        let wavelength = tau / f;
        let expected = if wavelength > 8192.0 {
            f / 8.0
        } else if wavelength < 2048.0 {
            *f
        } else {
            let smooth = (8192.0 / wavelength - 1.0) / 3.0;
            (1.0 - smooth) * f / 8.0 + smooth * f
        };
        assert!((s / expected - 1.0).abs() < 1e-12);
    }
    // The pair of theta^(-1/2) has this frequency, chosen to turn 2.5 times in 8192 tokens.
    let f = 2.5 * tau / 8192.0;
    let half = Rope { theta: f.powi(-2), scaling }.frequencies(4)[1];
    assert!((half / (f * (0.5 + 0.5 / 8.0)) - 1.0).abs() < 1e-12);
    let linear = Rope { theta, scaling: RopeScaling::Linear { factor: 4.0 } }.frequencies(128);
    assert!(plain.iter().zip(&linear).all(|(f, l)| (f / l - 4.0).abs() < 1e-12));
}

#[test]
fn gguf_settings_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    let tiny = Tiny::new(true);
    for (key, value, message) in [
        ("general.architecture", Value::String("mamba".into()), "`general.architecture` mamba, which"),
        ("llama.expert_count", Value::U32(8), "`llama.expert_count`, which"),
        ("llama.attn_logit_softcapping", Value::F32(50.0), "`llama.attn_logit_softcapping`, which"),
        ("llama.attention.max_alibi_bias", Value::F32(8.0), "`llama.attention.max_alibi_bias`, which"),
        ("llama.rope.scaling.type", Value::String("yarn".into()), "`llama.rope.scaling.type` yarn, which"),
        ("llama.block_count", Value::U32(2), "tensor `blk.2.attn_k.weight` of"),
        ("llama.rope.dimension_count", Value::U32(16), "`llama.rope.dimension_count` 16 of 64, which"),
        (
            "llama.block_count",
            Value::U64(u64::MAX),
            "`llama.block_count` is 18446744073709551615, expected 1 to",
        ),
        ("llama.block_count", Value::I32(-1), "`llama.block_count` is of type I32 or out of range"),
        ("llama.block_count", Value::String("3".into()), "`llama.block_count` is of type String"),
        ("llama.embedding_length", Value::U32(64), "tensor `token_embd.weight`"),
        ("llama.block_count", Value::U32(4), "tensor `blk.3.attn_norm.weight`"),
        ("tokenizer.ggml.pre", Value::String("deepseek".into()), "`tokenizer.ggml.pre` is deepseek"),
        ("tokenizer.ggml.merges", Value::Array(vec![Value::String("ab".into())]), "`tokenizer.ggml.merges`"),
        (
            "tokenizer.ggml.merges",
            Value::Array(vec![Value::String("zz y".into())]),
            "two tokens that make a third",
        ),
        ("tokenizer.ggml.tokens", Value::Array(vec![Value::String("a".into()); 2]), "\"a\" twice"),
    ] {
        tiny.write_gguf_with(&path, GgmlDType::F32, &[(key, value)]);
        let error = Model::open(&path).unwrap_err().to_string();
        assert!(error.contains(message), "{key}: {error}");
    }
    // A template that cannot be read does not make the model unusable.
    let template = Value::String("{% if %}".into());
    tiny.write_gguf_with(&path, GgmlDType::F32, &[("tokenizer.chat_template", template)]);
    let error = Model::open(&path).unwrap().chat(&[Message::new("user", "in")]).unwrap_err().to_string();
    assert!(error.contains("chat template"), "{error}");
    assert_eq!(read_config(&path).unwrap().shape().head_dim as usize, HEAD_DIM);
    // A factor without a type means linear scaling, under the new key and the old one. A missing factor, or 0, means none.
    let (kind, factor, old) =
        ("llama.rope.scaling.type", "llama.rope.scaling.factor", "llama.rope.scale_linear");
    let text = |text: &str| Value::String(text.into());
    for (extra, expected) in [
        (&[(kind, text("linear"))][..], RopeScaling::None),
        (&[(kind, text("linear")), (factor, Value::F32(4.0))], RopeScaling::Linear { factor: 4.0 }),
        (&[(factor, Value::F32(4.0))], RopeScaling::Linear { factor: 4.0 }),
        (&[(old, Value::F32(4.0))], RopeScaling::Linear { factor: 4.0 }),
        (&[(factor, Value::F32(2.0)), (old, Value::F32(4.0))], RopeScaling::Linear { factor: 2.0 }),
        (&[(factor, Value::F32(0.0))], RopeScaling::None),
        (&[(kind, text("none")), (factor, Value::F32(4.0))], RopeScaling::None),
    ] {
        tiny.write_gguf_with(&path, GgmlDType::F32, extra);
        assert_eq!(read_config(&path).unwrap().rope.scaling, expected);
    }
    // Divisors of rotary pairs say how they are scaled, so nothing else may.
    let mut scaled = Tiny::new(true);
    scaled.tensors.insert("rope_freqs.weight".into(), (vec![HEAD_DIM / 2], vec![2.0; HEAD_DIM / 2]));
    scaled.write_gguf(&path, GgmlDType::F32);
    assert_eq!(
        Model::open(&path).unwrap().decoder.config().rope.scaling,
        RopeScaling::Divisors(vec![2.0; HEAD_DIM / 2])
    );
    for (extra, message) in [
        ((factor, Value::F32(4.0)), "`llama.rope.scaling.factor` 4 beside the tensor `rope_freqs.weight`"),
        ((kind, text("yarn")), "`llama.rope.scaling.type` yarn"),
    ] {
        scaled.write_gguf_with(&path, GgmlDType::F32, &[extra]);
        let error = Model::open(&path).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn a_tensor_that_would_be_left_out_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut tiny = Tiny::new(true);
    tiny.tensors.insert("model.layers.1.self_attn.q_proj.bias".into(), (vec![4], vec![0.5; 4]));
    tiny.write_folder(folder.path());
    let error = Model::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("tensor `model.layers.1.self_attn.q_proj.bias`"), "{error}");
    // Frequencies follow from the configuration, and a tied model may hold its head all the same.
    let mut tiny = Tiny::new(true);
    tiny.tensors.insert("model.layers.1.self_attn.rotary_emb.inv_freq".into(), (vec![4], vec![0.5; 4]));
    let head = tiny.tensors["model.embed_tokens.weight"].clone();
    tiny.tensors.insert("lm_head.weight".into(), head);
    tiny.write_folder(folder.path());
    assert!(Model::open(folder.path()).unwrap().decoder.config().tied_embeddings);
}

#[test]
fn paths_that_are_no_models() {
    let folder = tempfile::tempdir().unwrap();
    let error = |path: &std::path::Path| Model::open(path).unwrap_err().to_string();
    assert!(error(folder.path()).contains("is not a model: expected a GGUF file, or a folder"));
    assert!(error(&folder.path().join("none.gguf")).contains("cannot read"));
    // A model beside it is named.
    case("qwen3").write_gguf(folder.path(), GgmlDType::F32, 1);
    assert!(error(folder.path()).contains("model.gguf` meant?"), "{}", error(folder.path()));
    case("qwen3").write_folder(folder.path(), safetensors::Dtype::F32, 1);
    let message = error(&folder.path().join("model.safetensors"));
    assert!(message.ends_with(&format!(": is `{}` meant?", folder.path().display())), "{message}");
    let text = folder.path().join("text.gguf");
    std::fs::write(&text, "hello").unwrap();
    assert!(error(&text).contains("is not a model"));
    std::fs::write(&text, "").unwrap();
    assert!(error(&text).contains("text.gguf"));
}
