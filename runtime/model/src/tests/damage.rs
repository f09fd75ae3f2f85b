//! Files cut short and tampered with: an error that says where, never a panic.

use std::path::Path;

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::Value;

use super::tiny::*;
use crate::*;

fn open(bytes: &[u8], path: &Path) -> Result<Model, ModelError> {
    std::fs::write(path, bytes).unwrap();
    Model::open(path)
}

/// Where the tensor data of a GGUF file of ours starts: its tensors fill the rest.
fn header_length(bytes: &[u8]) -> usize {
    let count = |t: &(Vec<usize>, Vec<f32>)| (t.1.len() * 4).next_multiple_of(32);
    bytes.len() - Tiny::new(true).tensors.values().map(count).sum::<usize>()
}

#[test]
fn a_cut_gguf_is_an_error_at_every_length() {
    let (_folder, path) = gguf_file(GgmlDType::F32);
    let bytes = std::fs::read(&path).unwrap();
    let header = header_length(&bytes);
    for cut in (0..header).step_by(13).chain(header.saturating_sub(40)..header) {
        open(&bytes[..cut], &path).unwrap_err();
    }
    // Within the data, the tensor that is cut is named with its bytes.
    let error = open(&bytes[..bytes.len() - 33], &path).unwrap_err();
    let ModelError::Tensor { name, problem: TensorProblem::Truncated { found, expected }, .. } = &error
    else {
        panic!("{error}");
    };
    assert_eq!((name.as_str(), *expected), ("output_norm.weight", HIDDEN as u64 * 4));
    assert!(found < expected, "{error}");
    assert!(error.to_string().contains("is truncated: the file ends after 351 of its 384 bytes"), "{error}");
}

#[test]
fn a_tampered_gguf_header_is_never_a_panic() {
    let (_folder, path) = gguf_file(GgmlDType::F32);
    let good = std::fs::read(&path).unwrap();
    let header = header_length(&good);
    let mut random = noise(3);
    let mut pick = |n: usize| (f32::midpoint(random(), 1.0) * n as f32) as usize % n;
    let (mut failed, rounds) = (0, 1500);
    for _ in 0..rounds {
        let mut bytes = good[..header + 64].to_vec();
        for _ in 0..=pick(3) {
            let at = pick(header);
            // Mostly extreme values, which find the unchecked sums and products.
            bytes[at] = [0x00, 0x7f, 0x80, 0xff, pick(256) as u8][pick(5)];
        }
        failed += usize::from(open(&bytes, &path).is_err());
    }
    assert_eq!(failed, rounds, "no tensor is whole, so every file is refused");
}

#[test]
fn every_lie_in_a_gguf_header_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lie.gguf");
    let text = |s: &str| [&(s.len() as u64).to_le_bytes(), s.as_bytes()].concat();
    let u32 = |n: u32| n.to_le_bytes().to_vec();
    let u64 = |n: u64| n.to_le_bytes().to_vec();
    let file = |tensors: u64, keys: u64, rest: &[Vec<u8>]| {
        [b"GGUF".to_vec(), u32(3), u64(tensors), u64(keys), rest.concat()].concat()
    };
    let alignment = |kind, value: Vec<u8>| file(0, 1, &[text("general.alignment"), u32(kind), value]);
    let tensor = |name: &str, dims: &[u64], kind, offset| {
        let dims: Vec<u8> = dims.iter().flat_map(|d| d.to_le_bytes()).collect();
        [text(name), u32(dims.len() as u32 / 8), dims, u32(kind), u64(offset)].concat()
    };
    let nested = |depth: usize| -> Vec<u8> { (0..depth).flat_map(|_| [u32(9), u64(1)].concat()).collect() };
    for (bytes, message) in [
        ([b"GGUF".to_vec(), u32(0x0300_0000)].concat(), "its GGUF version is 50331648, expected 2 or 3"),
        ([b"GGUF".to_vec(), u32(1), u64(0), u64(0)].concat(), "its GGUF version is 1"),
        (file(u64::MAX, 0, &[]), "claims 18446744073709551615 tensors, expected at most 65536"),
        (file(0, 1 << 40, &[]), "claims 1099511627776 metadata keys"),
        (file(0, 1, &[u64(u64::MAX)]), "18446744073709551615 bytes at offset 32 run past the end"),
        (file(0, 1, &[text("k"), u32(13)]), "metadata `k`: type number 13"),
        (file(0, 1, &[text("k"), u32(9), u32(0), u64(u64::MAX)]), "metadata `k`: 18446744073709551615 bytes"),
        (file(0, 1, &[text("k"), u32(9), u32(8), u64(u64::MAX)]), "metadata `k`: 8 bytes at offset"),
        (file(0, 1, &[text("k"), u32(9), nested(50)]), "metadata `k`: arrays nested deeper than 4"),
        (
            file(0, 2, &[text("k"), u32(0), vec![1], text("k"), u32(0), vec![1]]),
            "metadata `k` is there twice",
        ),
        (file(0, 1, &[u64(2), vec![0xff, 0xfe]]), "the text at offset 24 is not UTF-8"),
        (alignment(4, u32(0)), "`general.alignment` is 0, expected a multiple of 8"),
        (alignment(4, u32(4)), "`general.alignment` is 4"),
        (alignment(10, u64(0)), "`general.alignment` is of type U64, expected U32"),
        (file(1, 0, &[tensor("t", &[], 0, 0)]), "tensor `t`: 0 dimensions, expected 1 to 4"),
        (file(1, 0, &[tensor("t", &[1; 5], 0, 0)]), "tensor `t`: 5 dimensions"),
        (file(1, 0, &[tensor("t", &[4], 0, 8)]), "tensor `t` is at offset 8, expected a multiple of 32"),
        (file(2, 0, &[tensor("t", &[4], 0, 0), tensor("t", &[4], 0, 0)]), "tensor `t` is there twice"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let error = Gguf::open(&path).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    // Dimensions whose product overflows, an offset past any file, and an element type from the future.
    let big = 1u64 << 62;
    std::fs::write(
        &path,
        file(
            3,
            0,
            &[
                tensor("a", &[big, big], 0, 0),
                tensor("b", &[64], 0, u64::MAX - 31),
                tensor("c", &[64], 99, 0),
            ],
        ),
    )
    .unwrap();
    let gguf = Gguf::open(&path).unwrap();
    let problem = |name: &str, shape: &[usize]| gguf.tensor(name, shape).unwrap_err().to_string();
    assert!(
        problem("a", &[64]).contains("has shape [4611686018427387904, 4611686018427387904], expected [64]")
    );
    assert!(problem("b", &[64]).contains("is truncated: the file ends after 0 of its 256 bytes"));
    assert!(problem("c", &[64]).contains("has element type number 99"));
    assert!(
        problem("d", &[64]).contains("tensor `d` of `")
            && problem("d", &[64]).contains("is missing, expected shape [64]")
    );
}

#[test]
fn values_that_are_not_finite_are_found_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut tiny = Tiny::new(true);
    tiny.tensors.get_mut("model.layers.2.mlp.up_proj.weight").unwrap().1[77] = f32::NAN;
    tiny.write_folder(folder.path());
    let error = Model::open(folder.path()).unwrap_err().to_string();
    assert!(
        error.contains("`model.layers.2.mlp.up_proj.weight`") && error.contains("NaN or infinity"),
        "{error}"
    );
}

#[test]
fn damaged_folders() {
    let folder = tempfile::tempdir().unwrap();
    let error = || Model::open(folder.path()).unwrap_err();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let tiny = Tiny::new(false);

    // Every shard cut at many places.
    tiny.write_folder(folder.path());
    let shard = folder.path().join("model-00002-of-00002.safetensors");
    let good = std::fs::read(&shard).unwrap();
    for cut in (0..good.len()).step_by(good.len() / 97) {
        std::fs::write(&shard, &good[..cut]).unwrap();
        error();
    }
    std::fs::write(&shard, &good[..good.len() - 1]).unwrap();
    let cut = error();
    assert!(matches!(&cut, ModelError::Tensor { problem: TensorProblem::Truncated { .. }, .. }), "{cut}");
    std::fs::write(&shard, [&good[..], &[0; 8]].concat()).unwrap();
    assert!(error().to_string().contains("is damaged"));

    // A header whose length or offsets overflow.
    let shard_of = |header: &str| [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
    std::fs::write(&shard, [0xff; 16]).unwrap();
    assert!(error().to_string().contains("its header takes 18446744073709551615 bytes"));
    let overflow =
        r#"{"t":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,18446744073709551615]}}"#;
    std::fs::write(&shard, shard_of(overflow)).unwrap();
    assert!(error().to_string().contains("tensor `t`"), "{}", error());

    // A shard that is missing, one outside the folder, and a tensor that no shard has.
    std::fs::remove_file(&shard).unwrap();
    assert!(error().to_string().contains("model-00002-of-00002.safetensors"));
    write("model.safetensors.index.json", r#"{"weight_map": {"a": "../secret.safetensors"}}"#);
    assert!(error().to_string().contains("`../secret.safetensors` is not the plain name"));
    write("model.safetensors.index.json", r#"{"weight_map": {"a": "model-00001-of-00002.safetensors"}}"#);
    let missing = error().to_string();
    assert!(
        missing.contains("tensor `a` should be in `model-00001-of-00002.safetensors` but is in no shard"),
        "{missing}"
    );
    write(
        "model.safetensors.index.json",
        r#"{"weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}"#,
    );
    let missing = error().to_string();
    assert!(missing.contains("is missing, expected shape"), "{missing}");

    // A tensor of the wrong shape.
    let mut wrong = tiny.clone();
    wrong.tensors.get_mut("model.layers.0.mlp.down_proj.weight").unwrap().0 = vec![FFN, HIDDEN];
    wrong.write_folder(folder.path());
    let shape = error().to_string();
    assert!(shape.contains("`model.layers.0.mlp.down_proj.weight`"), "{shape}");
    assert!(shape.contains("has shape [160, 96], expected [96, 160]"), "{shape}");

    // An element type that is not read.
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::I64, vec![1], &[0; 8]).unwrap();
    safetensors::serialize_to_file([("t", view)], None, &shard).unwrap();
    write("model.safetensors.index.json", r#"{"weight_map": {"t": "model-00002-of-00002.safetensors"}}"#);
    let shards = Shards::open(folder.path()).unwrap();
    assert!(
        shards
            .tensor("t", &[1])
            .unwrap_err()
            .to_string()
            .contains("has element type I64, expected one of F32")
    );

    // Files beside the weights.
    tiny.write_folder(folder.path());
    write("tokenizer.json", "{}");
    assert!(error().to_string().contains("the tokenizer of"));
    write("config.json", "{");
    assert!(error().to_string().contains("config.json` is damaged: EOF"));
}

#[test]
fn a_tensor_of_the_wrong_shape_in_a_gguf() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    Tiny::new(true).write_gguf_with(&path, GgmlDType::F32, &[("llama.feed_forward_length", Value::U32(192))]);
    let error = Model::open(&path).unwrap_err().to_string();
    assert!(error.contains("tensor `blk.0.ffn_gate.weight` of"), "{error}");
    assert!(error.contains("has shape [160, 96], expected [192, 96]"), "{error}");
}
