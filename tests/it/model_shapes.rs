//! `--model`: presets, configurations, folders, and what is refused.

use std::path::Path;

use candle_core::quantized::gguf_file;
use moac::shape::shape as shape_of;
use moac_compiler::hint::report;
use moac_compiler::plan::{self, Error};
use moac_model::Model;
use moac_runtime::plan::ModelShape;
use serde_json::{Value, json};

use crate::generate::write_gguf;

fn config() -> Value {
    // As Meta-Llama-3-8B has it, shortened.
    json!({
        "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 8192,
        "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05, "rope_scaling": null, "rope_theta": 500_000.0, "vocab_size": 128_256
    })
}

/// The shape of the configuration with `changes` made; null takes a field away.
fn shape(changes: &Value) -> Result<ModelShape, Error> {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config();
    for (field, value) in changes.as_object().unwrap() {
        config[field] = value.clone();
    }
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let mut shape = plan::shape(folder.path().to_str().unwrap())?;
    "model".clone_into(&mut shape.name); // it was the folder's
    Ok(shape)
}

fn message(changes: &Value) -> String {
    let text = report(&shape(changes).unwrap_err());
    let (start, end) = (text.find('`').unwrap(), text.rfind("config.json").unwrap());
    format!("{}`{}", &text[..start], &text[end..])
}

#[test]
fn a_configuration_is_read() {
    let expected = ModelShape {
        name: "model".to_owned(),
        num_layers: 32,
        num_heads: 32,
        num_kv_heads: 8,
        head_dim: 128,
        rope_theta: Some(500_000.0),
        context: Some(8192),
        softmax_scale: None,
    };
    assert_eq!(shape(&json!({})).unwrap(), expected);
    // Left out, KV heads are as many as heads; a stated head_dim counts.
    let mha = shape(&json!({ "num_key_value_heads": null, "head_dim": 64 })).unwrap();
    assert_eq!((mha.num_kv_heads, mha.head_dim), (32, 64));
    let newer = shape(
        &json!({ "rope_theta": null, "rope_parameters": { "rope_type": "default", "rope_theta": 1e6 } }),
    );
    assert_eq!(newer.unwrap().rope_theta, Some(1e6));
}

#[test]
fn a_configuration_that_names_a_scale_is_heard() {
    assert_eq!(shape(&json!({ "attention_multiplier": 0.015_625 })).unwrap().softmax_scale, Some(0.015_625));
    assert_eq!(shape(&json!({ "query_pre_attn_scalar": 256 })).unwrap().softmax_scale, Some(0.0625));
}

#[test]
fn a_sliding_window_bounds_the_context() {
    assert_eq!(shape(&json!({ "sliding_window": 4096 })).unwrap().context, Some(4096));
    let off = json!({ "sliding_window": 4096, "use_sliding_window": false });
    assert_eq!(shape(&off).unwrap().context, Some(8192));
}

/// The compiler's reader and the model's: what is missing means the same to both.
#[test]
fn both_readers_of_a_configuration_agree() {
    let folder = tempfile::tempdir().unwrap();
    let qwen = |kind: &str| json!({ "model_type": kind, "sliding_window": 512, "hidden_size": 2048 });
    for mut changes in [
        json!({}),
        json!({ "rope_theta": null, "rope_parameters": { "rope_type": "default", "rope_theta": 1e6 } }),
        json!({ "rope_theta": null, "head_dim": 64 }),
        json!({ "max_sequence_length": 32_768, "rope_scaling": { "type": "linear", "factor": 4.0 } }),
        json!({ "model_type": "mistral", "sliding_window": null }),
        json!({ "model_type": "mistral", "max_position_embeddings": 4096 }),
        qwen("qwen2"),
        qwen("qwen3"),
        json!({ "model_type": "qwen3", "sliding_window": 512, "use_sliding_window": true, "max_window_layers": 32 }),
    ] {
        for lacks in [&[][..], &["num_key_value_heads"], &["head_dim"]] {
            let mut config = config();
            for (field, value) in changes.as_object_mut().unwrap() {
                config[field] = value.clone();
            }
            for field in lacks {
                config.as_object_mut().unwrap().remove(*field);
            }
            let path = folder.path().join("config.json");
            std::fs::write(&path, config.to_string()).unwrap();
            let mut of_compiler = plan::shape(path.to_str().unwrap()).unwrap();
            let of_model = moac_model::read_config(&path).unwrap().shape();
            of_compiler.name.clone_from(&of_model.name); // the folder's, to the compiler
            if config.get("rope_theta").is_none_or(Value::is_null) && config["rope_parameters"].is_null() {
                assert_eq!(of_compiler.rope_theta.take(), None);
                of_compiler.rope_theta = Some(10_000.0);
            }
            assert_eq!(of_compiler, of_model, "{config}");
        }
    }
}

#[test]
fn what_attention_cannot_do_is_refused_by_name() {
    insta::assert_snapshot!(message(&json!({
        "model_type": "gpt_oss", "attn_logit_softcapping": 50.0, "alibi": true, "attention_sinks": true,
        "is_causal": false, "position_embedding_type": "alibi"
    })), @r#"
    error: `config.json` is not a valid model configuration: 6 problems
      $.attn_logit_softcapping: found 50.0, expected no soft-capped scores, which kernels do not have
      $.alibi: found true, expected no ALiBi, which kernels do not have
      $.attention_sinks: found true, expected no learned sinks, which kernels do not have
      $.position_embedding_type: found text "alibi", expected no ALiBi, which kernels do not have
      $.is_causal: found false, expected causal attention
      $.model_type: found "gpt_oss", expected a model without learned sinks, which kernels do not have
    "#);
    // Asked not to have it, a configuration is as good as one that is silent.
    shape(&json!({ "attn_logit_softcapping": null, "alibi": false, "position_embedding_type": "rope" }))
        .unwrap();
}

#[test]
fn shapes_without_kernels_are_refused() {
    insta::assert_snapshot!(message(&json!({ "num_attention_heads": 51, "num_key_value_heads": 3, "hidden_size": 4080 })), @r"
    error: `config.json` is not a valid model configuration: 2 problems
      $.num_attention_heads: found 51, 17 for each KV head, expected at most 16 for each of the 3 KV heads
      $.hidden_size: found 80, expected 64 or 128
    ");
    insta::assert_snapshot!(message(&json!({ "num_hidden_layers": null, "hidden_size": 4097, "num_key_value_heads": [8] })), @r"
    error: `config.json` is not a valid model configuration: 3 problems
      $.num_hidden_layers: found nothing, expected a whole number from 1 to 1024
      $.num_key_value_heads: found a list, expected a whole number from 1 to 512
      $.hidden_size: found 4097, expected a multiple of the 32 attention heads
    ");
}

#[test]
fn presets_are_the_public_shapes() {
    let rows: Vec<String> = plan::presets::names()
        .into_iter()
        .map(|name| {
            let shape = plan::shape(name).unwrap();
            assert_eq!(shape.name, name);
            let ModelShape { num_layers, num_heads, num_kv_heads, head_dim, .. } = shape;
            let (theta, context) = (shape.rope_theta.unwrap(), shape.context.unwrap());
            format!("{name}: {num_layers} x {num_heads}/{num_kv_heads} x {head_dim}, {theta}, {context}")
        })
        .collect();
    insta::assert_snapshot!(rows.join("\n"), @r"
    llama-3-8b: 32 x 32/8 x 128, 283461213, 262144
    llama-3-70b: 80 x 64/8 x 128, 207112184, 262144
    llama-3.2-1b: 16 x 32/8 x 64, 500000, 131072
    llama-3.2-3b: 28 x 24/8 x 128, 500000, 131072
    vicuna-7b: 32 x 32/32 x 128, 10000, 16384
    vicuna-13b: 40 x 40/40 x 128, 10000, 16384
    mistral-7b: 32 x 32/8 x 128, 1000000, 32768
    qwen2.5-0.5b: 24 x 14/2 x 64, 1000000, 32768
    qwen2.5-1.5b: 28 x 12/2 x 128, 1000000, 32768
    qwen2.5-7b: 28 x 28/4 x 128, 1000000, 32768
    qwen3-0.6b: 28 x 16/8 x 128, 1000000, 40960
    qwen3-8b: 36 x 32/8 x 128, 1000000, 40960
    qwen3-32b: 64 x 64/8 x 128, 1000000, 40960
    smollm2-135m: 30 x 9/3 x 64, 100000, 8192
    ");
}

#[test]
fn a_gguf_file_states_a_shape() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    let write = |extra: &[(&str, gguf_file::Value)]| {
        write_gguf(&path, extra);
        shape_of(path.to_str().unwrap()).map_err(|error| report(&error))
    };
    let shape = write(&[]).unwrap();
    let config = Model::open(&path).unwrap().decoder.config().shape();
    assert_eq!((shape.clone(), shape.name.as_str()), (config, "tiny"));
    // A shape without kernels, and a name that no terminal should get.
    let text = write(&[
        ("llama.attention.key_length", gguf_file::Value::U32(96)),
        ("llama.rope.dimension_count", gguf_file::Value::U32(96)),
    ])
    .unwrap_err();
    assert!(text.contains("the head dimension") && text.contains("expected 64 or 128"), "{text}");
    let text = write(&[("llama.block_count", gguf_file::Value::U32(2000))]).unwrap_err();
    assert!(text.contains("the layers") && text.contains("at most 1024"), "{text}");
    let named = write(&[("general.name", gguf_file::Value::String("\u{1b}[2J".into()))]);
    assert_eq!(named.unwrap().name, "tiny", "by its file");
}

#[test]
fn what_is_no_model_is_said() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(plan::shape(folder.path().to_str().unwrap()), Err(Error::NoConfig { .. })));
    let gguf = folder.path().join("model.gguf");
    std::fs::write(&gguf, b"GGUF\x03\0\0\0").unwrap();
    let text = report(&shape_of(gguf.to_str().unwrap()).unwrap_err());
    assert!(text.starts_with("error: --model: `") && text.contains("model.gguf"), "{text}");
    std::fs::write(&gguf, b"GG").unwrap();
    assert!(matches!(plan::shape(gguf.to_str().unwrap()), Err(Error::NotJson { .. })));
    let text = report(&plan::shape("llama-9").unwrap_err());
    assert!(text.starts_with("error: --model: `llama-9` is neither a preset nor a file or folder\nhint: the presets are llama-3-8b, "), "{text}");
    assert!(!Path::new("llama-9").exists());
}
