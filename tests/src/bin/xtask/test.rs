//! Every test of the workspace, with all that they need.

use std::process::Command;

use moac_compiler::fetch;
use moac_runtime::gpu::Device;
use moac_tests::proven;

use super::{Result, nvrtc, root, snapshots};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Passed on to `cargo test --workspace`; then snapshots are not checked for stale ones
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let compiler = nvrtc::ensure()?;
    eprintln!("NVRTC {}, {}", compiler.build(), compiler.path().display());
    let model = fetch::model()?;
    eprintln!("the real model, {}", model.display());
    let folder = tempfile::tempdir()?;
    let references = folder.path().join("references");
    let mut tests = cargo(&["test", "--workspace"]);
    tests.args(&args.rest).env("INSTA_SNAPSHOT_REFERENCES_FILE", &references);
    // Before anything is compiled: see `moac_tests::proven`.
    tests.env(proven::PROGRAM, proven::program()?.to_string());
    passed(&mut tests)?;
    if !args.rest.is_empty() {
        return Ok(());
    }
    snapshots::check(&root().join("tests"), &references)?;
    // The real model, as far as that takes seconds; `runtime/model/tests/smollm2.rs` says how to run the rest.
    let mut real =
        cargo(&["test", "--workspace", "--test", "smollm2", "--", "--ignored", "--nocapture", "quick"]);
    passed(real.env("MOAC_MODEL", model))?;
    match Device::all() {
        Ok(devices) if !devices.is_empty() => passed(&mut cargo(&[
            "test",
            "--workspace",
            "--test",
            "it",
            "gpu::",
            "--",
            "--ignored",
            "--test-threads",
            "1",
        ])),
        _ => {
            eprintln!("no GPU: the kernels have run on the emulator only");
            Ok(())
        }
    }
}

fn cargo(args: &[&str]) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.args(args).current_dir(root());
    cargo
}

fn passed(tests: &mut Command) -> Result<()> {
    if tests.status()?.success() { Ok(()) } else { Err("a test failed".into()) }
}
