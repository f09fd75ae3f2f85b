//! Every test of the workspace, with all that they need.

use std::process::Command;

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
    let folder = tempfile::tempdir()?;
    let references = folder.path().join("references");
    let status = Command::new("cargo")
        .args(["test", "--workspace"])
        .args(&args.rest)
        .current_dir(root())
        .env("INSTA_SNAPSHOT_REFERENCES_FILE", &references)
        .status()?;
    if !status.success() {
        return Err("a test failed".into());
    }
    if args.rest.is_empty() { snapshots::check(&root().join("tests"), &references) } else { Ok(()) }
}
