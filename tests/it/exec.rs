//! `moac exec`: one layer on the caller's tensors, on the CPU and on the emulator, and every wrong input.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use moac_runtime::arch::Arch;
use moac_runtime::backend::Qkv;
use moac_runtime::element::{f32_from_bytes, from_bytes, to_bytes};
use moac_runtime::file;
use moac_runtime::geometry::LayerGeometry;
use moac_runtime::plan::{DType, Plan};
use moac_runtime::reference::{Spans, oracle};
use ndarray::{Array3, Axis, Slice};
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};

use crate::compile::{finish, moac};
use crate::devices::{self, plan, tolerance};

const TOKENS: usize = 150;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const DIM: usize = 64;
const LENGTHS: [usize; 3] = [150, 97, 130];

/// A folder with an artifact of two layers, `model.moac`, and inputs, `in.safetensors`.
struct Fixture {
    folder: tempfile::TempDir,
    plan: Plan,
    tensors: BTreeMap<&'static str, (Dtype, Vec<usize>, Vec<u8>)>,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let plan = plan(&[vec![128, 256, 192, 128], vec![256; 4]], KV_HEADS, DIM as u32);
        let artifact = devices::artifact(&plan, &[128, 192, 256], DType::Bf16, Arch::Sm90);
        file::write(&folder.path().join("model.moac"), artifact.bytes()).unwrap();
        let mut tensors = BTreeMap::new();
        for (seed, (name, heads)) in [("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)].into_iter().enumerate()
        {
            let shape = vec![LENGTHS.len(), TOKENS, heads, DIM];
            let values = wave(seed as u64, shape.iter().product());
            tensors.insert(name, (Dtype::BF16, shape, to_bytes(DType::Bf16, values)));
        }
        let lengths = LENGTHS.iter().flat_map(|&length| (length as i32).to_le_bytes()).collect();
        tensors.insert("lengths", (Dtype::I32, vec![LENGTHS.len()], lengths));
        Self { folder, plan, tensors }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self) {
        let views = self.tensors.iter().map(|(name, (dtype, shape, bytes))| {
            (*name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        std::fs::write(self.path("in.safetensors"), serialize(views, None).unwrap()).unwrap();
    }

    /// Runs the command on layer 0 with more arguments: exit code and stderr.
    fn exec(&self, args: &[&str]) -> (i32, String) {
        self.write();
        let first = [
            "exec",
            "model.moac",
            "--layer",
            "0",
            "--inputs",
            "in.safetensors",
            "--outputs",
            "out.safetensors",
        ];
        let (code, stdout, stderr) = finish(&mut moac(self.folder.path(), &[&first, args].concat()));
        assert_eq!(stdout, "");
        (code.unwrap(), stderr)
    }

    /// The message of a run that must fail and leave nothing.
    fn refused(&self, args: &[&str]) -> String {
        let (code, stderr) = self.exec(args);
        assert_eq!(code, 2, "{stderr}");
        assert!(!self.path("out.safetensors").exists());
        stderr
    }

    /// The right answer for tokens `first..` of a row that lives in the bucket of `length`: o and lse.
    fn expected(&self, row: usize, first: usize, length: u32) -> (Vec<f32>, Vec<f32>) {
        let geometry = LayerGeometry::new(&self.plan, 0, 0..KV_HEADS as u32, &[length]);
        let spans = Spans::new(&self.plan, &geometry, 0);
        let part = |name: &str, heads: usize| {
            let bytes = &self.tensors[name].2;
            let row_bytes = TOKENS * heads * DIM * 2;
            let values = from_bytes(DType::Bf16, &bytes[row * row_bytes..][..LENGTHS[row] * heads * DIM * 2]);
            Array3::from_shape_vec((LENGTHS[row], heads, DIM), values).unwrap()
        };
        let (q, k, v) = (part("q", HEADS), part("k", KV_HEADS), part("v", KV_HEADS));
        let out = oracle::attend(&spans, Qkv::new(&q, &k, &v)).unwrap();
        let rows = |it: ndarray::ArrayD<f64>| -> Vec<f32> {
            it.slice_axis(Axis(0), Slice::from(first..)).iter().map(|&x| x as f32).collect()
        };
        (rows(out.o.into_dyn()), rows(out.lse.into_dyn()))
    }

    /// Checks the outputs of tokens `first..` of every row, each in the bucket given.
    fn check(&self, first: usize, buckets: [u32; 3], dtype: Dtype, tolerance: f64) {
        let bytes = std::fs::read(self.path("out.safetensors")).unwrap();
        std::fs::remove_file(self.path("out.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let (o, lse) = (file.tensor("o").unwrap(), file.tensor("lse").unwrap());
        let tokens = TOKENS - first;
        assert_eq!((o.dtype(), o.shape()), (dtype, &[3, tokens, HEADS, DIM][..]));
        assert_eq!((lse.dtype(), lse.shape()), (Dtype::F32, &[3, HEADS, tokens][..]));
        let all =
            if dtype == Dtype::F32 { f32_from_bytes(o.data()) } else { from_bytes(DType::Bf16, o.data()) };
        let all_lse = f32_from_bytes(lse.data());
        for (row, bucket) in buckets.into_iter().enumerate() {
            let (expected, expected_lse) = self.expected(row, first, bucket);
            let own = &all[row * tokens * HEADS * DIM..][..tokens * HEADS * DIM];
            let (found, rest) = own.split_at(expected.len());
            let norm =
                |it: &mut dyn Iterator<Item = f32>| it.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            let error = norm(&mut found.iter().zip(&expected).map(|(a, b)| a - b))
                / norm(&mut expected.iter().copied());
            // A row that ends with the prompt has nothing to compare.
            assert!(expected.is_empty() || error <= tolerance, "row {row}: {error}");
            assert!(rest.iter().all(|&x| x == 0.0), "row {row} is 0 beyond its length");
            for head in 0..HEADS {
                for t in 0..tokens {
                    let found = all_lse[(row * HEADS + head) * tokens + t];
                    let expected = expected_lse.get(t * HEADS + head).copied().unwrap_or(0.0);
                    assert!((found - expected).abs() < 1e-5, "lse of row {row}, head {head}, token {t}");
                }
            }
        }
    }
}

/// About normal values.
fn wave(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (0..4).map(|part| ((state >> (part * 16)) & 0xffff) as f32 / 65536.0 - 0.5).sum::<f32>() * 1.7
    };
    (0..count).map(|_| next()).collect()
}

#[test]
fn prefill_in_buckets_of_their_own_and_in_one() {
    let fixture = Fixture::new();
    for (device, dtype, tolerance) in
        [("cpu", Dtype::F32, 1e-6), ("emulator", Dtype::BF16, tolerance(DType::Bf16))]
    {
        let (code, stderr) = fixture.exec(&["--phase", "prefill", "--device", device]);
        assert_eq!(code, 0, "{stderr}");
        fixture.check(0, [192, 128, 192], dtype, tolerance);
        let args = ["--phase", "prefill", "--device", device, "--chunk", "37", "--bucket", "256"];
        let (code, stderr) = fixture.exec(&args);
        assert_eq!(code, 0, "{stderr}");
        fixture.check(0, [256; 3], dtype, tolerance);
    }
}

#[test]
fn decode_behind_a_prompt() {
    let fixture = Fixture::new();
    let args = ["--phase", "decode", "--prompt", "90", "--chunk", "64", "--device", "cpu"];
    assert_eq!(fixture.exec(&args).0, 0);
    fixture.check(90, [192, 128, 192], Dtype::F32, 1e-6);
    let args = ["--phase", "decode", "--prompt", "97", "--device", "emulator"];
    let (code, stderr) = fixture.exec(&args);
    assert_eq!(code, 0, "{stderr}");
    fixture.check(97, [192, 128, 192], Dtype::BF16, tolerance(DType::Bf16));
}

#[test]
fn other_types_are_refused_or_cast() {
    let mut fixture = Fixture::new();
    let (dtype, _, bytes) = fixture.tensors.get_mut("q").unwrap();
    *dtype = Dtype::F32;
    *bytes = from_bytes(DType::Bf16, bytes).iter().flat_map(|x| x.to_le_bytes()).collect();
    let refused = fixture.refused(&["--phase", "prefill", "--device", "cpu"]);
    assert!(refused.contains("tensor `q` is F32, expected BF16 (--cast converts it)"), "{refused}");
    assert_eq!(fixture.exec(&["--phase", "prefill", "--device", "cpu", "--cast"]).0, 0);
    fixture.tensors.insert("q", Fixture::new().tensors["q"].clone());
    fixture.check(0, [192, 128, 192], Dtype::F32, 1e-6);
}

/// The way a fixture is spoiled.
type Change = fn(&mut Fixture);

#[test]
fn what_does_not_fit_is_refused_in_words() {
    let fixture = Fixture::new;
    let cpu = ["--phase", "prefill", "--device", "cpu"];
    let with = |change: Change| {
        let mut fixture = fixture();
        change(&mut fixture);
        fixture.refused(&cpu)
    };
    let cases: [(Change, &str); 9] = [
        (|it| drop(it.tensors.remove("k")), "tensor `k` is missing; the file has lengths, q, v"),
        (
            |it| drop(it.tensors.insert("length", it.tensors["lengths"].clone())),
            "unknown tensor `length`: expected q, k, v and optionally lengths",
        ),
        (
            |it| it.tensors.get_mut("q").unwrap().1 = vec![3, 150, 8, 32],
            "tensor `q` has shape [3, 150, 8, 32], expected [rows, tokens, 4, 64] with at least one row and token",
        ),
        (
            |it| it.tensors.get_mut("v").unwrap().1 = vec![3, 75, 4, 64],
            "tensor `v` has shape [3, 75, 4, 64], expected [3, 150, 2, 64], like q",
        ),
        (|it| it.tensors.get_mut("k").unwrap().0 = Dtype::I16, "tensor `k` is I16, expected BF16\n"),
        (
            |it| it.tensors.get_mut("lengths").unwrap().0 = Dtype::F32,
            "tensor `lengths` is F32, expected I32\n",
        ),
        (
            |it| it.tensors.get_mut("lengths").unwrap().1 = vec![3, 1],
            "tensor `lengths` has shape [3, 1], expected [3], a length for each row of q",
        ),
        (
            |it| it.tensors.get_mut("lengths").unwrap().2[4..8].copy_from_slice(&151_i32.to_le_bytes()),
            "lengths[1] is 151, expected 0 to 150, the tokens of q",
        ),
        (
            |it| it.tensors.get_mut("v").unwrap().2[128 * 2..130 * 2].copy_from_slice(&[0x80, 0x7f, 0, 0]),
            "tensor `v`: element [0, 1, 0, 0] is inf, expected a finite number",
        ),
    ];
    for (change, message) in cases {
        let refused = with(change);
        assert!(refused.contains(message), "{refused}\nexpected: {message}");
    }
    let cases: [(&[&str], &str); 6] = [
        (
            &["--phase", "prefill", "--device", "cpu", "--bucket", "128"],
            "row 0 has 150 tokens, more than the bucket of 128",
        ),
        (
            &["--phase", "prefill", "--device", "cpu", "--bucket", "100"],
            "the artifact has no --bucket 100, only 128, 192, 256",
        ),
        (&["--phase", "prefill", "--device", "cpu", "--prompt", "3"], "--prompt needs --phase decode"),
        (
            &["--phase", "decode", "--device", "cpu", "--prompt", "98"],
            "--prompt 98: row 1 has only 97 tokens",
        ),
        (&["--phase", "both", "--device", "cpu"], "`both` is not a phase: expected prefill or decode"),
        (&["--phase", "prefill", "--device", "cpu", "--layer", "2"], "--layer"),
    ];
    for (args, message) in cases {
        let refused = fixture().refused(args);
        assert!(refused.contains(message), "{refused}\nexpected: {message}");
    }
    let fixture = fixture();
    std::fs::write(fixture.path("bad"), [7; 100]).unwrap();
    let path: &Path = fixture.folder.path();
    for (args, message) in [
        (
            ["model.moac", "2", "in.safetensors"],
            "--layer 2 is out of range: the artifact has 2 layers, counted from 0",
        ),
        (["bad", "0", "in.safetensors"], "cannot use `bad`: not a moac artifact"),
        (["model.moac", "0", "bad"], "`bad` is not a safetensors file"),
        (["model.moac", "0", "nowhere"], "cannot read `nowhere`"),
    ] {
        let [file, layer, inputs] = args;
        let all = [
            "exec",
            file,
            "--layer",
            layer,
            "--phase",
            "prefill",
            "--inputs",
            inputs,
            "--outputs",
            "o",
            "--device",
            "cpu",
        ];
        let (code, _, stderr) = finish(&mut moac(path, &all));
        assert!(code == Some(2) && stderr.contains(message), "{stderr}\nexpected: {message}");
    }
}
