//! `moac bench`: counters without a time on the emulator, and what it says where there is no GPU.

use std::path::Path;
use std::process::{Command, Stdio};

use moac_compiler::nvrtc::{Allowance, Source};
use moac_emulator::{Launch, Memory, Module, launch};
use moac_runtime::arch::Arch;
use moac_runtime::gpu::Device;
use moac_runtime::gpu::ceiling::{READ_SOURCE, READ_SYMBOL};
use serde_json::Value;

/// Two layers, one of them dense, so that a prefill has tiles whose span ends before its context.
const PLAN: &str = r#"{"format": "moac.plan/1", "alphas": [[0, 0, 0, 0], [0, 0, 64, 0]],
    "betas": [[1, 1, 1, 1], [0, 0.25, 0, 0.5]],
    "model": {"name": "tiny", "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "head_dim": 64}}"#;

/// (exit code, stdout, stderr)
fn moac(folder: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moac-under-test"));
    command.args(args).current_dir(folder).stdin(Stdio::null());
    command.env("MOAC_NVRTC", moac_tests::nvrtc().path()).env("MOAC_CACHE_DIR", folder.join("cache"));
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A folder with `tiny.moac`, for `archs`.
fn compiled(archs: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tiny.json"), PLAN).unwrap();
    let args = ["compile", "tiny.json", "--arch", archs, "--lengths", "256,512"];
    let (code, _, stderr) = moac(folder.path(), &args);
    assert_eq!(code, Some(0), "{stderr}");
    folder
}

#[test]
fn the_emulator_counts_and_knows_no_time() {
    let folder = compiled("sm_80");
    let args = ["bench", "tiny.moac", "--emulate"];
    let (code, stdout, stderr) = moac(folder.path(), &args);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(
        stdout.lines().count(),
        2 + 2 * 2 * 2,
        "two kernels for each of two layers, two contexts:\n{stdout}"
    );
    for time in [" ms", " us", "/s", " s "] {
        assert!(!stdout.contains(time), "no {time}:\n{stdout}");
    }

    let (code, stdout, _) =
        moac(folder.path(), &[&args[..], &["--json", "--batch", "2", "--context", "500"]].concat());
    assert_eq!(code, Some(0));
    let counted: Value = serde_json::from_str(&stdout).unwrap();
    let counted = counted.as_array().unwrap();
    assert_eq!(counted.len(), 4);
    for it in counted {
        assert_eq!(it["failures"], serde_json::json!([]));
        let number = |value: &Value| value.as_u64().unwrap();
        let (found, needed) = (number(&it["kv_bytes"]), number(&it["useful"]["kv_bytes"]));
        assert!(number(&it["matrix_flops"]) >= number(&it["useful"]["flops"]) && needed > 0, "{it}");
        // Spans at 512 tokens: all of them dense in layer 0; 128, 128 and 128, 256 in layer 1. Rows are 128 bytes.
        let rows = |tokens: [u64; 2]| 2 * tokens.iter().sum::<u64>() * 2 * 128;
        match (it["phase"].as_str().unwrap(), number(&it["layers"][0])) {
            ("decode", 0) => {
                assert_eq!((found, needed), (rows([500, 500]), rows([500, 500])));
                // Few tiles for many CTAs: the busiest has whole ones, of 64 rows, but for the last of a head.
                let busiest = it["imbalance"].as_f64().unwrap() * found as f64 / number(&it["ctas"]) as f64;
                let rows = (busiest / 256.0).round() as u64;
                assert!((64..=256).contains(&rows) && matches!(rows % 64, 0 | 52), "{it}");
            }
            ("decode", _) => assert_eq!((found, needed), (rows([128, 256]), rows([128, 256]))),
            _ => assert!(found >= needed && found <= needed + number(&it["ctas"]) * 2 * 2 * 64 * 128, "{it}"),
        }
        assert!(!it.as_object().unwrap().keys().any(|key| key.contains("ms") || key.contains("per_s")));
    }

    let (code, stdout, stderr) = moac(folder.path(), &[&args[..], &["--context", "513"]].concat());
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    assert!(
        stderr.starts_with("error: a request of 513 tokens is beyond the largest bucket, 512"),
        "{stderr}"
    );
}

/// Where there is a GPU, the times are numbers; where there is none, that is an error and never a silent emulation.
#[test]
fn a_gpu_is_timed_and_none_is_an_error_that_names_the_emulator() {
    let folder = compiled("sm_80,sm_90,sm_100");
    let (code, stdout, stderr) =
        moac(folder.path(), &["bench", "tiny.moac", "--json", "--batch", "1", "--context", "256"]);
    if Device::open(0).is_ok() {
        assert_eq!(code, Some(0), "{stderr}");
        let times: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(times["points"].as_array().unwrap().len(), 2);
        assert!(times["points"].as_array().unwrap().iter().all(|point| point["ms"].as_f64().unwrap() > 0.0));
        return;
    }
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    assert!(stderr.starts_with("error: ") && stderr.contains("`moac bench --emulate`"), "{stderr}");
    let (code, stdout, stderr) = moac(folder.path(), &["bench", "nowhere.moac"]);
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    assert!(stderr.starts_with("error: cannot use `nowhere.moac`"), "{stderr}");
}

/// The read ceiling is only one if its pass reads everything, once, and nothing else.
#[test]
fn the_read_pass_reads_every_byte_once() {
    for arch in Arch::ALL {
        let source = Source {
            symbol: READ_SYMBOL.to_owned(),
            text: READ_SOURCE.to_owned(),
            headers: Vec::new(),
            arch,
            allowance: Allowance::default(),
        };
        let compiled = moac_tests::nvrtc().compile(&source).unwrap();
        if arch != Arch::Sm90 {
            continue;
        }
        let module = Module::parse(&compiled.ptx).unwrap();
        // 64 threads: whole rounds of 8 words, then single ones, then some that not every thread has.
        for words in [0_u64, 5, 64 * 8, 64 * 8 * 3 + 64 * 5 + 11] {
            let mut memory = Memory::new();
            let values: Vec<u8> = (0..words * 16).map(|n| (n * 7 % 251) as u8).collect();
            let data = memory.alloc_from("data", &values);
            let sink = memory.alloc_filled("sink", 16, 0);
            let mut params = Vec::new();
            for param in [data, words, sink] {
                params.extend(param.to_le_bytes());
            }
            let mut asked = Launch::new(READ_SYMBOL, 2, 32);
            for param in params.chunks_exact(8) {
                asked = asked.param(param);
            }
            let report = launch(&module, &mut memory, &asked).unwrap();
            assert!(report.completed && report.findings.is_empty(), "{:?}", report.findings);
            let read =
                report.counters.global.get("data").map_or((0, 0), |t| (t.read.bytes, t.read.unique_bytes));
            assert_eq!(read, (words * 16, words * 16));
            assert!(report.counters.global.get("sink").is_none_or(|traffic| traffic.written.bytes == 0));
        }
    }
}
