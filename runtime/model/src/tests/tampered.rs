//! Files of every kind with some bytes changed or cut off: an error or a model, never a panic, and never more memory than the
//! file accounts for, since nothing is read before every shape is checked against it.

use std::path::Path;

use candle_core::quantized::GgmlDType;
use candle_core::{Device, Tensor};
use safetensors::Dtype;
use serde_json::{Value, json};

use super::architectures::{Case, case};
use super::tiny::noise;
use crate::*;

/// Numbers below a bound.
fn picker(seed: u64) -> impl FnMut(usize) -> usize {
    let mut random = noise(seed);
    move |below| (f32::midpoint(random(), 1.0) * below as f32) as usize % below
}

/// Opens a model and reads all of it.
fn read(path: &Path) -> Result<(), ModelError> {
    let checkpoint = Checkpoint::open(path)?;
    let mut last = 0;
    checkpoint.stream_all(
        &mut |done, total| {
            assert!(last < done && done <= total);
            last = done;
        },
        |_, piece: &[f32]| {
            assert!(piece.iter().all(|x| x.is_finite()));
            Ok(())
        },
    )
}

/// A model whose rows are whole blocks of 256.
fn wide() -> Case {
    let mut wide = case("qwen3");
    for (key, value) in
        [("hidden_size", 256), ("intermediate_size", 256), ("head_dim", 64), ("num_hidden_layers", 1)]
    {
        wide.config[key] = json!(value);
    }
    wide
}

const K_QUANTS: [GgmlDType; 5] =
    [GgmlDType::Q2K, GgmlDType::Q3K, GgmlDType::Q4K, GgmlDType::Q5K, GgmlDType::Q6K];

#[test]
fn k_quants_are_what_candle_makes_of_them() {
    let wide = wide();
    for dtype in K_QUANTS {
        let folder = tempfile::tempdir().unwrap();
        let path = wide.write_gguf(folder.path(), dtype, 1);
        let mut found = Vec::new();
        Checkpoint::open(&path)
            .unwrap()
            .stream(Weight::Down(0), |piece: &[f32]| {
                found.extend_from_slice(piece);
                Ok::<_, ModelError>(())
            })
            .unwrap();
        let (shape, values) = wide.tensors()["model.layers.0.mlp.down_proj.weight"].clone();
        let tensor = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
        let quantised = candle_core::quantized::QTensor::quantize(&tensor, dtype).unwrap();
        let expected =
            quantised.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(found.len() == expected.len() && worst <= 1e-6, "{dtype:?}: {worst:e}");
    }
}

#[test]
fn k_quants_cut_short_or_changed() {
    let (wide, mut pick) = (wide(), picker(1));
    for dtype in K_QUANTS {
        let folder = tempfile::tempdir().unwrap();
        let path = wide.write_gguf(folder.path(), dtype, 1);
        let good = std::fs::read(&path).unwrap();
        read(&path).unwrap();
        for _ in 0..25 {
            // The last tensor ends with the file, so that every cut is a loss.
            std::fs::write(&path, &good[..pick(good.len() - 31)]).unwrap();
            read(&path).unwrap_err();
            let mut bytes = good.clone();
            for _ in 0..3 {
                let at = bytes.len() / 2 + pick(bytes.len() / 2);
                bytes[at] = [0x7c, 0xff, 0x00][pick(3)];
            }
            std::fs::write(&path, bytes).unwrap();
            if let Err(error) = read(&path) {
                let problem = matches!(&error, ModelError::Tensor { problem: TensorProblem::NotFinite, .. });
                assert!(problem, "{error}");
            }
        }
    }
}

#[test]
fn shards_with_changed_headers() {
    let (case, mut pick) = (case("qwen2"), picker(2));
    let folder = tempfile::tempdir().unwrap();
    let first = case.write_gguf(folder.path(), GgmlDType::F32, 2);
    let second = folder.path().join("model-00002-of-00002.gguf");
    let good = [&first, &second].map(|path| std::fs::read(path).unwrap());
    let mut failed = 0;
    for round in 0..600 {
        let shard = round % 2;
        let mut bytes = good[shard].clone();
        // Its header has some 60 bytes a tensor.
        let header = bytes.len().min(1200);
        for _ in 0..=pick(2) {
            bytes[pick(header)] = [0x00, 0x01, 0x7f, 0x80, 0xff, pick(256) as u8][pick(6)];
        }
        std::fs::write([&first, &second][shard], bytes).unwrap();
        failed += usize::from(read([&first, &second][pick(2)]).is_err());
        std::fs::write([&first, &second][shard], &good[shard]).unwrap();
    }
    assert!(failed > 300, "{failed}");
    read(&first).unwrap();
}

#[test]
fn safetensors_and_indices_with_changed_bytes() {
    let (case, mut pick) = (case("qwen3"), picker(3));
    let folder = tempfile::tempdir().unwrap();
    case.write_folder(folder.path(), Dtype::BF16, 2);
    let names = ["model.safetensors.index.json", "model-00001-of-00002.safetensors", "config.json"];
    let mut failed = 0;
    for round in 0..600 {
        let path = folder.path().join(names[round % 3]);
        let good = std::fs::read(&path).unwrap();
        let mut bytes = good.clone();
        for _ in 0..=pick(2) {
            let at = pick(bytes.len().min(1200));
            bytes[at] = [b'9', b'"', b'-', b'}', b'e', 0x00, 0xff, pick(256) as u8][pick(8)];
        }
        if pick(8) == 0 {
            bytes.truncate(pick(good.len()));
        }
        std::fs::write(&path, bytes).unwrap();
        failed += usize::from(read(folder.path()).is_err());
        std::fs::write(&path, good).unwrap();
    }
    assert!(failed > 300, "{failed}");
    read(folder.path()).unwrap();
}

/// Every setting with every kind of value: an accepted model is at most as large as its files.
#[test]
fn configurations_with_other_values() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["llama-3.1", "mistral", "qwen2", "qwen3-untied"] {
        let case = case(name);
        case.write_folder(folder.path(), Dtype::F32, 1);
        let path = folder.path().join("config.json");
        let values = [
            json!(null),
            json!(true),
            json!(-1),
            json!(0),
            json!(1),
            json!(1u64 << 20),
            json!(u64::MAX),
            json!(1e308),
            json!(1e-320),
            json!("x"),
            json!([]),
            json!([1, "full_attention"]),
            json!({}),
            json!({"rope_type": "linear", "factor": 1e-300}),
            json!({"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4,
                   "original_max_position_embeddings": 0}),
        ];
        let keys: Vec<String> = case.config.as_object().unwrap().keys().cloned().collect();
        for key in keys.iter().map(String::as_str).chain(["layer_types", "eos_token_id", "max_window_layers"])
        {
            for value in &values {
                let mut config: Value = case.config.clone();
                config[key] = value.clone();
                std::fs::write(&path, config.to_string()).unwrap();
                // Either is right; a model that is read has the frequencies of its rotary embedding.
                if read(folder.path()).is_ok() {
                    let config = read_config(&path).unwrap();
                    let frequencies = config.rope.frequencies(config.head_dim);
                    assert!(frequencies.iter().all(|f| f.is_finite() && *f > 0.0), "{key} {value}");
                }
            }
        }
    }
}

#[test]
fn headers_that_claim_too_much() {
    let folder = tempfile::tempdir().unwrap();
    case("qwen2").write_folder(folder.path(), Dtype::F32, 1);
    let weights = folder.path().join("model.safetensors");
    // A header of many gigabytes that is not there, in a file that is sparse.
    std::fs::write(&weights, 200_000_000u64.to_le_bytes()).unwrap();
    std::fs::File::options().write(true).open(&weights).unwrap().set_len(1 << 30).unwrap();
    let error = read(folder.path()).unwrap_err().to_string();
    assert!(error.contains("its header takes 200000000 bytes, expected at most 100000000"), "{error}");
    // A configuration of endless blanks.
    let config = folder.path().join("config.json");
    std::fs::File::options().write(true).open(&config).unwrap().set_len(1 << 30).unwrap();
    let error = read(folder.path()).unwrap_err().to_string();
    assert!(error.contains("config.json` is damaged: it has more than 67108864 bytes"), "{error}");
}
