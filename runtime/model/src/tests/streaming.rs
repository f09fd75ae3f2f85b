//! Weights streamed from files: every encoding against gguf-py, every element type, the order of fused projections, and
//! what is refused on the way.

use candle_core::quantized::GgmlDType;
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};

use super::architectures::case;
use super::tiny::*;
use crate::files::Encoding;
use crate::*;

/// All elements of a weight, and the size of the largest piece.
fn collect<T: Element>(checkpoint: &Checkpoint, weight: Weight) -> (Vec<T>, usize) {
    let (mut all, mut largest) = (Vec::new(), 0);
    checkpoint
        .stream(weight, |piece: &[T]| {
            all.extend_from_slice(piece);
            largest = largest.max(piece.len());
            Ok::<_, ModelError>(())
        })
        .unwrap();
    (all, largest)
}

/// Random blocks, decoded by the official package (`tests/data/encodings.py`).
#[test]
fn every_quantised_type_is_decoded_as_gguf_py_does() {
    let data = SafeTensors::deserialize(include_bytes!("../../tests/data/encodings.safetensors")).unwrap();
    for (name, number) in [
        ("Q4_0", 2),
        ("Q4_1", 3),
        ("Q5_0", 6),
        ("Q5_1", 7),
        ("Q8_0", 8),
        ("Q2_K", 10),
        ("Q3_K", 11),
        ("Q4_K", 12),
        ("Q5_K", 13),
        ("Q6_K", 14),
    ] {
        let encoding = Encoding::of_gguf(number).unwrap();
        assert_eq!(format!("{encoding:?}"), name);
        let blocks = data.tensor(name).unwrap();
        let expected = data.tensor(&format!("{name}.decoded")).unwrap();
        let expected: Vec<f32> =
            expected.data().as_chunks().0.iter().map(|x| f32::from_le_bytes(*x)).collect();
        assert_eq!(blocks.data().len(), encoding.row_bytes(expected.len()));
        let mut found = vec![f32::NAN; expected.len()];
        encoding.decode(blocks.data(), &mut found);
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert!(
                (found - expected).abs() <= 1e-6 * expected.abs(),
                "{name} {i}: {found}, expected {expected}"
            );
        }
    }
}

/// The order of rows, un-permuted where a file has them so, and every way from one element type to another.
#[test]
fn fused_projections_are_in_order() {
    for name in ["llama-3.2", "qwen2", "qwen3"] {
        let case = case(name);
        let tensors = case.tensors();
        let cat = |names: &[&str]| -> Vec<f32> {
            names.iter().flat_map(|name| tensors[&format!("model.layers.1.{name}")].1.clone()).collect()
        };
        let [q, k, v] = ["q", "k", "v"].map(|x| format!("self_attn.{x}_proj"));
        let fused =
            |kind: &str| cat(&[&format!("{q}.{kind}"), &format!("{k}.{kind}"), &format!("{v}.{kind}")]);
        let mut expected = vec![
            (Weight::Qkv(1), fused("weight")),
            (Weight::GateUp(1), cat(&["mlp.gate_proj.weight", "mlp.up_proj.weight"])),
            (Weight::Down(1), cat(&["mlp.down_proj.weight"])),
            (Weight::Norm, tensors["model.norm.weight"].1.clone()),
        ];
        if name == "qwen2" {
            expected.push((Weight::QkvBias(1), fused("bias")));
        }
        if name == "qwen3" {
            expected.push((Weight::KNorm(1), cat(&["self_attn.k_norm.weight"])));
        }
        for files in 0..5 {
            let folder = tempfile::tempdir().unwrap();
            let path = match files {
                0 => case.write_gguf(folder.path(), GgmlDType::F32, 1),
                1 => case.write_gguf(folder.path(), GgmlDType::F16, 2),
                2 => case.write_gguf(folder.path(), GgmlDType::BF16, 1),
                _ => {
                    case.write_folder(folder.path(), [Dtype::F16, Dtype::BF16][files - 3], files - 2);
                    folder.path().to_owned()
                }
            };
            let checkpoint = Checkpoint::open(&path).unwrap();
            for (weight, expected) in &expected {
                assert_eq!(expected.len(), weight.shape(checkpoint.config()).iter().product::<usize>());
                assert_eq!(&collect::<f32>(&checkpoint, *weight).0, expected);
                let halves = collect::<f16>(&checkpoint, *weight).0;
                assert!(halves.iter().map(|x| x.to_f32()).eq(expected.iter().copied()));
                let halves = collect::<bf16>(&checkpoint, *weight).0;
                assert!(halves.iter().map(|x| x.to_f32()).eq(expected.iter().copied()));
            }
        }
    }
}

/// Sums up to the total, in order, and an error of the sink ends it.
#[test]
fn progress_counts_the_bytes_of_the_files() {
    let (_folder, path) = gguf_file(GgmlDType::Q4_0);
    let checkpoint = Checkpoint::open(&path).unwrap();
    let (mut last, mut weights) = (0, Vec::new());
    let data: u64 = std::fs::metadata(&path).unwrap().len();
    checkpoint
        .stream_all(
            &mut |done, total| {
                assert!(last < done && done <= total && total == checkpoint.bytes());
                last = done;
            },
            |weight, _: &[bf16]| {
                if weights.last() != Some(&weight) {
                    weights.push(weight);
                }
                Ok::<_, ModelError>(())
            },
        )
        .unwrap();
    assert_eq!((last, weights), (checkpoint.bytes(), Weight::all(checkpoint.config())));
    assert!(last < data && last > data / 2);
    let stop = || ModelError::Template("stop".into());
    let mut pieces = 0;
    let stopped = checkpoint.stream_all(&mut |_, _| (), |_, _: &[f32]| {
        pieces += 1;
        if pieces == 3 { Err(stop()) } else { Ok(()) }
    });
    assert!(stopped.unwrap_err().to_string().contains("stop"));
    assert_eq!(pieces, 3);
}

/// Pieces stay small however large a tensor is.
#[test]
fn pieces_are_a_few_megabytes_of_whole_rows() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = case("qwen2").config;
    config["vocab_size"] = 60_000.into();
    let path = folder.path().join("config.json");
    std::fs::write(&path, config.to_string()).unwrap();
    let checkpoint = Checkpoint::random(Config::from_json(&path).unwrap(), 1);
    let (all, largest) = collect::<f32>(&checkpoint, Weight::Embedding);
    assert_eq!(all.len(), 60_000 * 48);
    assert!(largest * 4 <= 4 << 20, "{largest}");
    let bytes: Vec<u8> = all.iter().flat_map(|x| x.to_le_bytes()).collect();
    let view = safetensors::tensor::TensorView::new(Dtype::F32, vec![60_000, 48], &bytes).unwrap();
    case("qwen2").write_folder(folder.path(), Dtype::F32, 1);
    let single = std::fs::read(folder.path().join("model.safetensors")).unwrap();
    let single = SafeTensors::deserialize(&single).unwrap();
    let mut tensors: Vec<_> = single.tensors().into_iter().filter(|(n, _)| !n.contains("embed")).collect();
    tensors.push(("model.embed_tokens.weight".into(), view));
    safetensors::serialize_to_file(tensors, None, &folder.path().join("model.safetensors")).unwrap();
    std::fs::write(&path, config.to_string()).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let (read, largest) = collect::<f32>(&checkpoint, Weight::Embedding);
    assert_eq!(read, all);
    assert!(largest * 4 <= 4 << 20 && largest.is_multiple_of(48), "{largest}");
}

/// The same elements every time, as rounded ones too, of the right scale and different from tensor to tensor.
#[test]
fn random_weights_follow_from_the_seed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    std::fs::write(&path, case("qwen3").config.to_string()).unwrap();
    let config = Config::from_json(&path).unwrap();
    let one = Checkpoint::random(config.clone(), 1);
    let other = Checkpoint::random(config.clone(), 2);
    let mut seen = std::collections::BTreeSet::new();
    for weight in Weight::all(&config) {
        let (all, _) = collect::<f32>(&one, weight);
        assert_eq!(all, collect::<f32>(&one, weight).0);
        assert_ne!(all, collect::<f32>(&other, weight).0);
        assert!(seen.insert(format!("{:?}", &all[..4])), "{weight:?}");
        let rounded: Vec<bf16> = all.iter().map(|&x| bf16::from_f32(x)).collect();
        assert_eq!(rounded, collect::<bf16>(&one, weight).0);
        let count = all.len() as f64;
        let mean = all.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
        let deviation = (all.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / count).sqrt();
        let (centre, expected) = match (weight, weight.shape(&config).as_slice()) {
            (_, [_]) => (1.0, 0.1),
            (_, shape) => (0.0, (shape[1] as f64).powf(-0.5)),
        };
        assert!((mean - centre).abs() < 4.0 * expected / count.sqrt(), "{weight:?}: {mean}");
        assert!((deviation / expected - 1.0).abs() < 2.0 / count.sqrt(), "{weight:?}: {deviation}");
    }
    // A model of them computes something.
    let weights = Weights::read(&one, &mut |_, _| ()).unwrap();
    let logits = super::architectures::logits(&Decoder::new(config, weights), &[1, 2, 3]);
    assert!(logits.iter().flatten().all(|x| x.is_finite() && x.abs() < 100.0));
    assert!(logits[0] != logits[1]);
}

/// An answer does not repeat one token, although embedding and head are one tensor; another seed gives another answer.
#[test]
fn a_random_model_answers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    std::fs::write(&path, case("llama-3.2").config.to_string()).unwrap();
    let config = Config::from_json(&path).unwrap();
    let answer = |seed: u64| {
        let weights = Weights::read(&Checkpoint::random(config.clone(), seed), &mut |_, _| ()).unwrap();
        let decoder = Decoder::new(config.clone(), weights);
        let mut tokens = vec![1, 2, 3];
        for _ in 0..24 {
            let last = super::architectures::logits(&decoder, &tokens).pop().unwrap();
            tokens.push((0..last.len()).max_by(|&a, &b| last[a].total_cmp(&last[b])).unwrap() as u32);
        }
        tokens.split_off(3)
    };
    let answers: Vec<Vec<u32>> = (0..4).map(answer).collect();
    for (seed, tokens) in answers.iter().enumerate() {
        let distinct: std::collections::BTreeSet<_> = tokens.iter().collect();
        assert!(distinct.len() > 2, "{seed}: {tokens:?}");
        assert!(answers[..seed].iter().all(|other| other != tokens));
    }
}

/// Every value is looked at: large ones whose sum overflows are fine, but not in a type that does not hold them.
#[test]
fn values_are_looked_at_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut tiny = Tiny::new(true);
    tiny.tensors.get_mut("model.layers.1.self_attn.o_proj.weight").unwrap().1[40..80].fill(3e38);
    tiny.write_folder(folder.path());
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    Weights::read(&checkpoint, &mut |_, _| ()).unwrap();
    let error = checkpoint.stream(Weight::Output(1), |_: &[f16]| Ok::<_, ModelError>(())).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("`model.layers.1.self_attn.o_proj.weight`"), "{message}");
    assert!(message.contains("holds 3e38, which F16 cannot represent"), "{message}");
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        tiny.tensors.get_mut("model.layers.1.self_attn.o_proj.weight").unwrap().1[77] = bad;
        tiny.write_folder(folder.path());
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        let full = checkpoint.stream(Weight::Output(1), |_: &[f32]| Ok::<_, ModelError>(())).unwrap_err();
        let half = checkpoint.stream(Weight::Output(1), |_: &[bf16]| Ok::<_, ModelError>(())).unwrap_err();
        for error in [full.to_string(), half.to_string()] {
            assert!(error.contains("NaN or infinity"), "{error}");
        }
    }
}
