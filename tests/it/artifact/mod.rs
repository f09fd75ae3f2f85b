//! Artifacts: what is written opens and says the same; [`checks`] has every way a file can be wrong.
//!
//! The tests seal and pack files with the `safetensors` and `sha2` crates themselves, not with the code under test.

mod checks;
mod damage;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use moac_runtime::arch::Arch;
use moac_runtime::artifact::{
    self, Artifact, Engine, FORMAT_VERSION, Kernel, Layer, LayerKernels, Manifest, OpenError, Producer,
    Resources, Role,
};
use moac_runtime::digest::Digest;
use moac_runtime::file;
use moac_runtime::geometry::Geometry;
use moac_runtime::glue::{EngineShape, Op};
use moac_runtime::launch::{Family, Grid, LaunchRule, Phase};
use moac_runtime::plan::{DType, ModelShape, PLAN_FORMAT, Plan};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const ARCHS: [Arch; 2] = [Arch::Sm80, Arch::Sm90a];

fn plan() -> Plan {
    Plan {
        format: PLAN_FORMAT.to_owned(),
        model: ModelShape {
            name: "tiny".to_owned(),
            num_layers: 3,
            num_heads: 6,
            num_kv_heads: 2,
            head_dim: 64,
            rope_theta: Some(10_000.0),
            context: None,
            softmax_scale: None,
        },
        sink: 64,
        min_span: 128,
        // 0.1 and 1/3 are numbers that a careless JSON reader changes in the last bit.
        alphas: vec![vec![0.0, 64.0, -128.0, 0.1, 1.0 / 3.0, 0.0]; 3],
        betas: vec![vec![1.0, 0.1, 1.0 / 3.0, 0.7, 0.5, 1.0]; 3],
        provenance: Some(json!({"zeta": 1, "alpha": [0.1, "x"]})),
    }
}

/// A manifest and tensors that only lack real machine code. Layers 0 and 2 share their kernels.
fn sample() -> (Manifest, BTreeMap<String, Vec<u8>>) {
    let plan = plan();
    let mut kernels = Vec::new();
    let mut layers = vec![Layer { kernels: BTreeMap::new() }; 3];
    for arch in ARCHS {
        for (spec, users) in [("a", vec![0, 2]), ("b", vec![1_usize])] {
            let mut ids = LayerKernels { prefill: 0, decode: 0 };
            for phase in [Phase::Prefill, Phase::Decode] {
                let family = if arch == Arch::Sm90a { Family::Sm90 } else { Family::Sm80 };
                let grid = match (phase, family) {
                    (Phase::Prefill, Family::Sm80) => Grid::Tiles { rows: 64 },
                    (Phase::Prefill, Family::Sm90) => Grid::Items { rows: 64 },
                    (Phase::Decode, _) => Grid::Split { per_sm: 2 },
                };
                match phase {
                    Phase::Prefill => ids.prefill = kernels.len(),
                    Phase::Decode => ids.decode = kernels.len(),
                }
                kernels.push(Kernel {
                    symbol: format!("moac_{}_bf16_d64_r3_{spec}", phase.name()),
                    role: Role::attention(family, phase),
                    arch,
                    abi: Role::attention(family, phase).abi(),
                    launch: LaunchRule { threads: 128, shared_bytes: 40_000, grid },
                    resources: Resources { registers: 168, barriers: 1, ..Resources::default() },
                });
            }
            for layer in users {
                layers[layer].kernels.insert(arch, ids);
            }
        }
    }
    let engine = engine(&plan, &mut kernels);
    let mut tensors = BTreeMap::from([("headers/moac/params.cuh".to_owned(), b"// params".to_vec())]);
    for kernel in &kernels {
        tensors.insert(kernel.cubin(), format!("\x7fELF {} {}", kernel.arch, kernel.symbol).into_bytes());
        tensors.insert(kernel.ptx(), format!(".visible .entry {}", kernel.symbol).into_bytes());
        tensors.insert(kernel.source(), format!("// {}", kernel.symbol).into_bytes());
    }
    let manifest = Manifest {
        format: FORMAT_VERSION,
        producer: Producer {
            moac: "0.1.0".to_owned(),
            cuda: [13, 0],
            nvrtc: "13.0.88".to_owned(),
            options: vec!["--std=c++17".to_owned()],
        },
        dtype: DType::Bf16,
        archs: ARCHS.to_vec(),
        kv_heads: 0..2,
        geometry: Geometry::new(&plan, 0..2, &[128, 192, 1024], DType::Bf16),
        plan,
        layers,
        kernels,
        engine: Some(engine),
        tensors: BTreeMap::new(),
    };
    (manifest, tensors)
}

/// The engine's section, whose kernels it adds.
fn engine(plan: &Plan, kernels: &mut Vec<Kernel>) -> Engine {
    let shape = EngineShape {
        hidden: 384,
        intermediate: 1024,
        vocab: 1001,
        norm_eps: 1e-5,
        frequencies: (0..32).map(|pair| 10_000f64.powf(f64::from(pair) / -32.0)).collect(),
        qkv_bias: true,
        qk_norm: false,
    };
    let sizes = shape.sizes(&plan.model, 2);
    let mut ids = BTreeMap::<_, BTreeMap<_, _>>::new();
    for arch in ARCHS {
        for op in Op::ALL {
            ids.entry(arch).or_default().insert(op, kernels.len());
            kernels.push(Kernel {
                symbol: format!("moac_{}_bf16", op.name()),
                role: Role::Glue(op),
                arch,
                abi: op.abi(),
                launch: sizes.rule(op),
                resources: Resources { registers: 40, ..Resources::default() },
            });
        }
    }
    Engine { shape, kernels: ids }
}

pub(crate) fn bytes() -> Vec<u8> {
    let (manifest, tensors) = sample();
    artifact::encode(manifest, &tensors).unwrap()
}

/// A file as anybody could make one: any manifest, sealed with a digest that fits it.
fn pack(manifest: &str, tensors: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let bytes: [u8; 32] = Sha256::digest(manifest).into();
    let sha256 = bytes.map(|byte| format!("{byte:02x}")).concat();
    let moac = format!(r#"{{"manifest":{manifest},"sha256":"{sha256}"}}"#);
    let views = tensors
        .iter()
        .map(|(name, data)| (name.as_str(), TensorView::new(Dtype::U8, vec![data.len()], data).unwrap()));
    safetensors::serialize(views, Some(HashMap::from([("moac".to_owned(), moac)]))).unwrap()
}

/// The manifest of the sample as JSON, with the digests of its tensors.
fn manifest_json() -> Value {
    serde_json::to_value(Artifact::from_bytes(bytes()).unwrap().manifest()).unwrap()
}

fn refusal(bytes: Vec<u8>) -> OpenError {
    Artifact::from_bytes(bytes).expect_err("the file must not open")
}

#[test]
fn what_is_written_opens_and_says_the_same() {
    let (manifest, tensors) = sample();
    let artifact = Artifact::from_bytes(bytes()).unwrap();
    assert_eq!(artifact.tensor_names().collect::<Vec<_>>(), tensors.keys().collect::<Vec<_>>());
    for (name, data) in &tensors {
        assert_eq!(artifact.tensor(name), Some(&data[..]), "{name}");
    }
    let digests = tensors.iter().map(|(name, data)| (name.clone(), Digest::of(data))).collect();
    assert_eq!(artifact.manifest(), &Manifest { tensors: digests, ..manifest });
    assert_eq!(artifact.tensor("sm_80/nothing.cubin"), None);

    let kernel = artifact.kernel(2, Phase::Decode, Arch::Sm90a).unwrap();
    assert_eq!((kernel.symbol.as_str(), kernel.arch), ("moac_decode_bf16_d64_r3_a", Arch::Sm90a));
    assert_eq!(artifact.cubin(kernel), b"\x7fELF sm_90a moac_decode_bf16_d64_r3_a");
    assert_eq!(artifact.source(kernel), Ok("// moac_decode_bf16_d64_r3_a"));
    assert_eq!(artifact.ptx(kernel), Ok(".visible .entry moac_decode_bf16_d64_r3_a"));
    assert_eq!(artifact.kernel(3, Phase::Decode, Arch::Sm90a), None);
    assert_eq!(artifact.kernel(0, Phase::Decode, Arch::Sm100), None);
    let kernel = artifact.engine_kernel(Op::Norm, Arch::Sm80).unwrap();
    assert_eq!(artifact.cubin(kernel), b"\x7fELF sm_80 moac_norm_bf16");
    assert_eq!(artifact.engine_kernel(Op::Norm, Arch::Sm100), None);
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    assert_eq!(bytes(), bytes());
}

/// A file of each format version, as it was written when the version was new.
fn golden(version: u32) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("it/artifact/golden");
    std::fs::read(folder.join(format!("format-{version}.moac"))).unwrap()
}

#[test]
fn a_file_of_this_version_is_read_and_written_as_on_its_first_day() {
    let golden = golden(FORMAT_VERSION);
    let (manifest, tensors) = sample();
    let artifact = Artifact::from_bytes(golden.clone()).unwrap();
    assert_eq!(Manifest { tensors: BTreeMap::new(), ..artifact.manifest().clone() }, manifest);
    assert!(tensors.iter().all(|(name, data)| artifact.tensor(name) == Some(data)));
    assert!(bytes() == golden, "what is written has changed: raise FORMAT_VERSION and add a golden file");
}

#[test]
fn files_of_earlier_versions_are_refused_by_name() {
    for version in [1, 2] {
        let error = refusal(golden(version)).to_string();
        let expected =
            format!("format version {version}, expected 3: compile the plan again with this version of moac");
        assert_eq!(error, expected);
    }
}

#[test]
fn an_artifact_without_an_engine_opens_and_has_none() {
    let (mut manifest, mut tensors) = sample();
    manifest.engine = None;
    manifest.kernels.retain(|kernel| kernel.facts().is_some());
    tensors.retain(|name, _| name.starts_with("headers/") || name.contains("_d64_"));
    let artifact = Artifact::from_bytes(artifact::encode(manifest, &tensors).unwrap()).unwrap();
    assert_eq!((&artifact.manifest().engine, artifact.engine_kernel(Op::Embed, Arch::Sm80)), (&None, None));
}

/// Writes the golden file of the current version; run once, when the version is new.
#[test]
#[ignore = "writes tests/it/artifact/golden"]
fn write_the_golden_file() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("it/artifact/golden");
    std::fs::write(folder.join(format!("format-{FORMAT_VERSION}.moac")), bytes()).unwrap();
}

#[test]
fn any_safetensors_reader_reads_it() {
    let bytes = bytes();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("headers/moac/params.cuh").unwrap().data(), b"// params");
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = header.metadata().as_ref().unwrap();
    assert_eq!(metadata.keys().collect::<Vec<_>>(), ["moac"]);
    let moac: Value = serde_json::from_str(&metadata["moac"]).unwrap();
    assert_eq!(moac["manifest"]["plan"]["betas"][1][2], json!(1.0 / 3.0));
}

#[test]
fn fields_that_a_reader_does_not_know_are_ignored() {
    let mut manifest = manifest_json();
    manifest["future"] = json!({"anything": [1, 2]});
    manifest["kernels"][0]["future"] = json!(7);
    assert!(Artifact::from_bytes(pack(&manifest.to_string(), &sample().1)).is_ok());
}

#[test]
fn a_file_is_replaced_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.moac");
    std::fs::write(&path, b"something older").unwrap();
    file::write(&path, &bytes()).unwrap();
    assert!(Artifact::open(&path).is_ok());
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "no temporary file stays behind");

    let nowhere = folder.path().join("missing/x.moac");
    assert!(file::write(&nowhere, &bytes()).is_err());
    assert!(!nowhere.exists());
    assert_eq!(file::target(&path).unwrap(), path.canonicalize().unwrap());
    assert!(file::target(folder.path()).is_err());
}

#[cfg(unix)]
#[test]
fn a_link_stays_one_and_devices_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let [path, link] = ["x", "link"].map(|name| folder.path().join(name));
    std::fs::write(&path, b"something older").unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    file::write(&link, b"new").unwrap();
    assert!(link.is_symlink());
    assert_eq!(std::fs::read(&path).unwrap(), b"new");
    let refused = file::target(Path::new("/dev/null")).unwrap_err();
    assert_eq!(refused.to_string(), "it is not a regular file");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let missing = Artifact::open("no/such.moac").unwrap_err().to_string();
    assert_eq!(missing, "cannot read no/such.moac: No such file or directory (os error 2)");
    let folder = Artifact::open(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap_err().to_string();
    assert!(folder.ends_with(": not a regular file"), "{folder}");
}
