//! `moac verify`, as a shell runs it: verdicts and exit codes.

use moac_compiler::ledger::Ledger;
use moac_runtime::arch::Arch;
use moac_runtime::gpu::Device;
use moac_runtime::plan::DType;
use serde_json::Value;

use crate::compile::{finish, moac};
use crate::devices;

#[test]
fn a_plan_is_compiled_and_its_kernels_pass_on_the_emulator() {
    let folder = tempfile::tempdir().unwrap();
    let plan = devices::plan(&[vec![128, 256], vec![256, 256], vec![128, 256]], 1, 64);
    std::fs::write(folder.path().join("tiny.json"), serde_json::to_string(&plan).unwrap()).unwrap();
    let args = ["verify", "tiny.json", "--emulate", "--arch", "sm_80", "--lengths", "192,256", "--json"];
    let (code, stdout, stderr) = finish(&mut moac(folder.path(), &args));
    assert_eq!(code, Some(0), "{stderr}{stdout}");
    let json: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&json["passed"], &json["device"]), (&Value::Bool(true), &Value::from("emulator")));
    let kernels = json["files"][0]["kernels"].as_array().unwrap();
    assert_eq!(kernels.len(), 4, "two layers differ, and each has two phases");
    assert_eq!(kernels[0]["layers"], serde_json::json!([0, 2]));
    for kernel in kernels {
        assert_eq!(kernel["status"], "passed");
        assert!(kernel["rows"].as_u64().unwrap() > 50 && kernel["error"].as_f64().unwrap() > 1e-4);
    }
}

#[test]
fn an_artifact_has_its_own_target_but_for_the_architectures_to_verify() {
    let folder = tempfile::tempdir().unwrap();
    let plan = devices::plan(&[vec![128]], 1, 64);
    let artifact = devices::artifact(&plan, &[128], DType::F16, Arch::Sm86);
    moac_runtime::file::write(&folder.path().join("a.moac"), artifact.bytes()).unwrap();
    let run = |args: &[&str]| {
        finish(&mut moac(folder.path(), &[&["verify", "a.moac", "--emulate"], args].concat()))
    };
    let (code, stdout, _) = run(&["--arch", "sm_86"]);
    assert!(code == Some(0) && stdout.contains("2 passed, 0 failed, 0 not run"), "{stdout}");
    let (code, stdout, stderr) = run(&["--arch", "sm_90"]);
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    assert!(
        stderr.contains("`a.moac` has no kernel for the given architectures, only for sm_86"),
        "{stderr}"
    );
    let (code, _, stderr) = run(&["--dtype", "bf16"]);
    assert!(code == Some(2) && stderr.contains("--dtype cannot be used with an artifact"), "{stderr}");
}

#[test]
fn without_a_gpu_it_is_an_error_never_a_pass() {
    if Device::open(0).is_ok() {
        return; // what it does there is the GPU's tests' business
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tiny.json"), "{}").unwrap();
    let (code, stdout, stderr) = finish(&mut moac(folder.path(), &["verify", "tiny.json"]));
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    assert!(stderr.contains("--emulate"), "{stderr}");
}

#[test]
fn the_committed_ledger_is_one() {
    let path = crate::plans::folder().join("../tests/gpu/ledger.json");
    assert!(path.exists());
    Ledger::read(&path).unwrap();
}
