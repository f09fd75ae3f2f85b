//! The influence file: what is written is read, and what is wrong is named.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};

use crate::search::influence::{Influence, InfluenceError, LengthInfluence};
use crate::search::synthetic::{Synthetic, shape};

fn sample() -> Influence {
    Synthetic::new(shape("small", 2, 4, 2), 3).influence(&[128, 256])
}

#[test]
fn a_file_is_read_as_it_was_written_and_written_the_same_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let (a, b) = (folder.path().join("a.safetensors"), folder.path().join("b.safetensors"));
    let influence = sample();
    influence.write(&a).expect("written");
    influence.write(&b).expect("written");
    assert_eq!(std::fs::read(&a).expect("read"), std::fs::read(&b).expect("read"));
    assert_eq!(Influence::read(&a).expect("valid"), influence);
    assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 2, "no temporary file is left");
}

/// A file with the sample's header, edited, and tensors of the given shapes, types and values.
fn file(
    header: impl Fn(&mut serde_json::Value),
    tensor: impl Fn(&str, &mut Vec<usize>, &mut Vec<f32>),
) -> Vec<u8> {
    let influence = sample();
    let mut json = serde_json::to_value(influence.header()).expect("serialisable");
    header(&mut json);
    let mut tensors = Vec::new();
    for at in &influence.lengths {
        for (half, values) in [("far", &at.far), ("near", &at.near)] {
            let name = format!("{half}.{}", at.length);
            let n = (at.length / 64) as usize;
            let (mut dims, mut values) = (vec![2, 4, n, n], values.clone());
            tensor(&name, &mut dims, &mut values);
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            tensors.push((name, dims, bytes));
        }
    }
    let views: Vec<_> = tensors
        .iter()
        .filter(|(_, dims, _)| !dims.is_empty())
        .map(|(name, dims, bytes)| {
            (name, TensorView::new(Dtype::F32, dims.clone(), bytes).expect("a tensor"))
        })
        .collect();
    let metadata = HashMap::from([("moac".to_owned(), json.to_string())]);
    safetensors::serialize(views, Some(metadata)).expect("a file")
}

type HeaderEdit<'a> = &'a dyn Fn(&mut serde_json::Value);
type TensorEdit<'a> = &'a dyn Fn(&str, &mut Vec<usize>, &mut Vec<f32>);

fn message(file: &[u8]) -> String {
    Influence::parse(file, Path::new("x.safetensors")).expect_err("must be refused").to_string()
}

#[test]
fn every_defect_is_named() {
    let same = |_: &mut serde_json::Value| {};
    let keep = |_: &str, _: &mut Vec<usize>, _: &mut Vec<f32>| {};
    assert!(Influence::parse(&file(same, keep), Path::new("x")).is_ok());
    let headers: [(HeaderEdit<'_>, &str); 7] = [
        (&|json| json["format"] = "moac.influence/9".into(), "found the format `moac.influence/9`"),
        (&|json| json["model"]["num_kv_heads"] = 3.into(), "found 2 layers, 4 heads and 3 KV heads"),
        (&|json| json["model"]["num_layers"] = 0.into(), "found 0 layers"),
        (&|json| json["lengths"] = serde_json::json!([]), "found no lengths"),
        (&|json| json["lengths"][0]["length"] = 100.into(), "found the length 100"),
        (
            &|json| json["lengths"][1]["length"] = 128.into(),
            "found the lengths [128, 128], expected ascending",
        ),
        (&|json| json["lengths"][0]["items"] = 0.into(), "found no items at length 128"),
    ];
    for (edit, expected) in headers {
        let message = message(&file(edit, keep));
        assert!(message.contains(expected), "{message}");
    }
    assert!(message(&file(|json| json["seed"] = "x".into(), keep)).contains("no usable `moac` header"));
    let tensors: [(TensorEdit<'_>, &str); 5] = [
        (
            &|name, dims, _| {
                if name == "near.256" {
                    dims.clear();
                }
            },
            "tensor `near.256`: it is missing",
        ),
        (
            &|name, dims, _| {
                if name == "far.256" {
                    *dims = vec![4, 2, 4, 4];
                }
            },
            "found the shape [4, 2, 4, 4]",
        ),
        (
            &|name, _, values| {
                if name == "far.128" {
                    values[6] = f32::NAN;
                }
            },
            "found NaN at [0][1][1][0]",
        ),
        (
            &|name, _, values| {
                if name == "far.128" {
                    values[1] = 1.0;
                }
            },
            "found 1 at [0][0][0][1], expected 0 above",
        ),
        (
            &|name, _, values| {
                if name == "near.128" {
                    values[3] = 1.0;
                }
            },
            "found 1 at [0][0][1][1], expected 0 above",
        ),
    ];
    for (edit, expected) in tensors {
        let message = message(&file(same, edit));
        assert!(message.contains(expected), "{message}");
    }
    let good = file(same, keep);
    for cut in [0, 7, 50, good.len() - 1] {
        assert!(message(&good[..cut]).contains("not a complete safetensors file"));
    }
    let bare = safetensors::serialize(Vec::<(String, TensorView<'_>)>::new(), None).expect("a file");
    assert!(message(&bare).contains("it is missing"));
    assert!(matches!(Influence::read(Path::new("/nowhere/x")), Err(InfluenceError::Io { .. })));
}

#[test]
fn merging_weighs_by_items_and_refuses_strangers() {
    let (mut a, mut b) = (sample(), sample());
    a.lengths.truncate(1);
    (a.lengths[0].items, b.lengths[0].items) = (1, 3);
    for value in &mut b.lengths[0].far {
        *value *= 5.0;
    }
    let merged = Influence::merge(vec![a.clone(), b.clone()]).expect("one model");
    assert_eq!(
        merged.lengths.iter().map(|at| (at.length, at.items)).collect::<Vec<_>>(),
        [(128, 4), (256, 1)]
    );
    for (value, once) in merged.lengths[0].far.iter().zip(&a.lengths[0].far) {
        assert!((value - 4.0 * once).abs() <= 1e-6 * once.abs());
    }
    assert_eq!(merged.lengths[0].near, a.lengths[0].near);
    b.absolute = false;
    assert!(matches!(Influence::merge(vec![a.clone(), b]), Err(InfluenceError::Merge { .. })));
    let other = Synthetic::new(shape("other", 2, 4, 2), 3).influence(&[128]);
    assert!(matches!(Influence::merge(vec![a, other]), Err(InfluenceError::Merge { .. })));
    assert!(matches!(Influence::merge(Vec::new()), Err(InfluenceError::Merge { .. })));
}

#[test]
fn the_narrowest_windows_hide_what_is_a_block_away() {
    let model = shape("small", 1, 2, 1);
    let mut at = LengthInfluence::zeros(&model, 64 * 4, 1);
    let place = |head: usize, query: usize, key: usize| (head * 4 + query) * 4 + key;
    // Hidden: the far half at one block's distance, both halves beyond it.
    at.far[place(0, 2, 1)] = 1.0;
    at.far[place(1, 3, 1)] = 2.0;
    at.near[place(1, 3, 1)] = 4.0;
    // Seen: the sink block, the diagonal, and the near half at one block's distance.
    at.far[place(0, 3, 0)] = 8.0;
    at.far[place(1, 2, 2)] = 16.0;
    at.near[place(0, 2, 1)] = 32.0;
    assert!((at.most() - 7.0).abs() < 1e-12, "{}", at.most());
}
