//! No snapshot may be pending, and none may be left over from a test that is gone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::Result;

/// Checks the snapshots below `tests` against the list that insta wrote of those that the tests looked at.
pub(super) fn check(tests: &Path, referenced: &Path) -> Result<()> {
    let mut files = Vec::new();
    collect(tests, &mut files)?;
    let is = |file: &Path, ending: &str| file.to_string_lossy().ends_with(ending);
    let pending = |file: &PathBuf| is(file, ".snap.new") || is(file, ".pending-snap");
    complain(
        "pending snapshots: `cargo insta review` shows them",
        files.iter().filter(|file| pending(file)),
    )?;
    let referenced: BTreeSet<PathBuf> = std::fs::read_to_string(referenced)
        .map_err(|error| format!("the tests looked at no snapshot at all: {error}"))?
        .lines()
        .filter_map(|line| Path::new(line).canonicalize().ok())
        .collect();
    let stale = |file: &PathBuf| is(file, ".snap") && !referenced.contains(file);
    complain("snapshots that no test looks at: delete them", files.iter().filter(|file| stale(file)))
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
    for entry in folder.canonicalize()?.read_dir()? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, into)?;
        } else {
            into.push(path);
        }
    }
    into.sort();
    Ok(())
}

fn complain<'a>(what: &str, files: impl Iterator<Item = &'a PathBuf>) -> Result<()> {
    let names: Vec<String> = files.map(|file| format!("\n  {}", file.display())).collect();
    if names.is_empty() { Ok(()) } else { Err(format!("{what}{}", names.concat()).into()) }
}
