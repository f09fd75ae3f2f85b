//! `moac compile` and `moac doctor`, as a shell runs them: the artifact, the cache, exit codes, and nothing partial.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use moac_runtime::arch::Arch;
use moac_runtime::artifact::Artifact;
use moac_runtime::launch::Phase;
use moac_runtime::plan::DType;
use serde_json::Value;

use crate::plans;

/// A run in `folder`, which also holds the cache.
pub(crate) fn moac(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moac-under-test"));
    command.args(args).current_dir(folder).stdin(Stdio::null());
    for var in moac_compiler::env::ALL {
        if ![moac_compiler::env::NVRTC.name, moac_compiler::env::HOME.name].contains(&var.name) {
            command.env_remove(var.name);
        }
    }
    // The fetched NVRTC, if that is the one in use, is in the user's cache; the kernels are in the test's.
    let library = moac_tests::nvrtc().path();
    if library.is_absolute() {
        command.env("MOAC_NVRTC", library);
    }
    command.env("MOAC_CACHE_DIR", folder.join("cache"));
    command
}

/// (exit code, stdout, stderr)
pub(crate) fn finish(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// The names in a folder, without the cache.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != "cache");
    names.sort();
    names
}

fn plan(name: &str) -> String {
    plans::folder().join(name).canonicalize().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn a_plan_becomes_an_artifact_and_the_second_time_comes_from_the_cache() {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan("dense.json");
    let args =
        ["compile", plan.as_str(), "--arch", "sm_90a,sm_80", "--dtype", "f16", "--heads", "2..4", "-j", "2"];
    let (code, stdout, stderr) =
        finish(moac(folder.path(), &args).args(["--lengths", "1000,2048", "--json"]));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("note: length 1000 rounded up to 1024"), "{stderr}");
    assert_eq!(names(folder.path()), ["dense.moac"]);
    let summary: Value = serde_json::from_str(&stdout).unwrap();
    // One distinct layer: a kernel for each phase and architecture.
    assert_eq!((&summary["compiled"], &summary["cached"]), (&4.into(), &0.into()));
    assert_eq!(summary["artifact"], "dense.moac");

    let path = folder.path().join("dense.moac");
    let first = Artifact::open(&path).unwrap();
    let manifest = first.manifest();
    assert_eq!(summary["sha256"], first.digest().to_string());
    assert_eq!((manifest.dtype, manifest.kv_heads.clone()), (DType::F16, 2..4));
    assert_eq!(manifest.archs, [Arch::Sm80, Arch::Sm90a]);
    assert_eq!(manifest.geometry.lengths, [1024, 2048]);
    assert_eq!(manifest.kernels.len(), 4);
    for layer in 0..manifest.plan.model.num_layers {
        for arch in [Arch::Sm80, Arch::Sm90a] {
            let kernel = first.kernel(layer, Phase::Decode, arch).unwrap();
            assert!(first.ptx(kernel).unwrap().contains(&format!(".entry {}(", kernel.symbol)));
            assert!(first.source(kernel).unwrap().contains(&kernel.symbol));
            assert!(kernel.resources.registers > 0 && first.cubin(kernel).starts_with(b"\x7fELF"));
        }
    }
    assert!(first.tensor("headers/moac/params.cuh").is_some());

    let (code, stdout, _) =
        finish(moac(folder.path(), &args).args(["--lengths", "1024,2048", "-o", "again.moac"]));
    assert_eq!(code, Some(0));
    assert!(stdout.ends_with("(0 compiled, 4 from the cache)\n"), "{stdout}");
    assert_eq!(std::fs::read(folder.path().join("again.moac")).unwrap(), first.bytes(), "the same bytes");
}

#[test]
fn errors_end_with_two_and_write_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let dense = plan("dense.json");
    let ragged = plan("invalid/ragged-rows.json");
    let refused = |args: &[&str], expected: &str| {
        let (code, stdout, stderr) = finish(&mut moac(folder.path(), args));
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{args:?}: {stderr}");
        assert!(stderr.contains(expected), "{args:?}: {stderr}");
        assert_eq!(names(folder.path()), [""; 0], "{args:?}");
    };
    refused(&["compile", &ragged], "error: ");
    refused(&["compile", "nowhere.json"], "nowhere.json");
    refused(
        &["compile", &dense, "-o", "no/where.moac"],
        "cannot write `no/where.moac`: its folder does not exist",
    );
    refused(&["compile", &dense, "-o", "."], "cannot write `.`: it is a folder");
    refused(&["compile", &dense, "-o", &dense], "it is the plan");
    refused(&["compile", &dense, "--arch", "sm_75"], "unknown architecture `sm_75`");
    refused(&["compile", &dense, "--heads", "3..3"], "--heads: 3..3");
    refused(&["compile", &dense, "--lengths", "999999999"], "--lengths");

    let (code, _, stderr) =
        finish(moac(folder.path(), &["compile", &dense]).env("MOAC_NVRTC", "/nowhere/libnvrtc.so"));
    assert_eq!(code, Some(2));
    assert!(
        stderr.starts_with("error: `MOAC_NVRTC` names /nowhere/libnvrtc.so, which is unusable"),
        "{stderr}"
    );
    assert!(stderr.contains("hint: "), "{stderr}");
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn a_cache_that_cannot_be_written_is_no_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("cache"), b"a file").unwrap();
    let dense = plan("dense.json");
    let args = ["compile", &dense, "--arch", "sm_80", "--lengths", "1024"];
    let (code, _, stderr) = finish(&mut moac(folder.path(), &args));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("could not be cached"), "{stderr}");
    assert!(Artifact::open(folder.path().join("dense.moac")).is_ok());
}

#[test]
fn an_interrupt_leaves_nothing_partial() {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan("llama-3-8b.json");
    let args = ["compile", &plan, "-j", "1"];
    let mut child = moac(folder.path(), &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // In the middle: at least one kernel is done, and there are twelve.
    let begun = folder.path().join("cache/cubin-v1");
    let deadline = Instant::now() + Duration::from_mins(2);
    while !begun.exists() {
        assert!(child.try_wait().unwrap().is_none() && Instant::now() < deadline, "it should be compiling");
        std::thread::sleep(Duration::from_millis(5));
    }
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "error: interrupted; nothing was written\n");
    assert_eq!(names(folder.path()), [""; 0]);
    let temporary = |name: &str| name.starts_with('.');
    for arch in begun.read_dir().unwrap() {
        assert!(!names(&arch.unwrap().path()).iter().any(|name| temporary(name)));
    }
}

#[test]
fn doctor_says_what_it_found_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) = finish(&mut moac(folder.path(), &["doctor", "--json"]));
    assert_eq!(code, Some(0), "{stderr}");
    let found: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(found["nvrtc"]["build"], moac_tests::nvrtc().build());
    assert_eq!(found["caches"]["entries"], 0);
    assert!(found["driver"]["devices"].is_array());

    let missing = folder.path().join("libnvrtc.so");
    let (code, stdout, _) = finish(moac(folder.path(), &["doctor"]).env("MOAC_NVRTC", &missing));
    assert_eq!(code, Some(1), "without NVRTC nothing can be compiled: the answer is no");
    assert!(stdout.contains("NVRTC    not found: plans cannot be compiled"), "{stdout}");
    assert!(stdout.contains("advice   set `MOAC_NVRTC` to a libnvrtc.so"), "{stdout}");
}

#[test]
fn fetching_without_python_or_pip_says_what_to_install() {
    let folder = tempfile::tempdir().unwrap();
    let fetch = |path: &Path| finish(moac(folder.path(), &["doctor", "--fetch"]).env("PATH", path));
    let (code, stdout, stderr) = fetch(Path::new("/nowhere"));
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    assert!(stderr.starts_with("error: cannot run python3: "), "{stderr}");
    assert!(stderr.contains("hint: install python3 and its pip"), "{stderr}");

    let python = folder.path().join("python3");
    std::fs::write(&python, "#!/bin/sh\necho \"$0: No module named pip\" >&2\nexit 1\n").unwrap();
    std::fs::set_permissions(&python, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (code, _, stderr) = fetch(folder.path());
    assert_eq!(code, Some(2));
    assert!(stderr.starts_with("error: python3 has no pip\nhint: install pip"), "{stderr}");

    // A download that is not the pinned one is refused and not kept.
    let script = "#!/bin/sh\nwhile [ \"$1\" != --dest ]; do shift; done\necho other > \"$2/other.whl\"\n";
    std::fs::write(&python, script).unwrap();
    let (code, _, stderr) = fetch(folder.path());
    assert_eq!(code, Some(2));
    assert!(stderr.contains("error: nvidia-cuda-nvrtc==13.0.88 has sha256 "), "{stderr}");
    assert_eq!(names(&folder.path().join("cache")), [""; 0]);
}
