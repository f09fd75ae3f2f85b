//! Inputs as files, for readers that map theirs.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// Stands between the parts of an input that is several files; the first line of each part is its name.
pub(crate) const NEXT: &str = "\n=== ";

thread_local! {
    static FOLDER: RefCell<Option<TempDir>> = const { RefCell::new(None) };
}

/// A folder of this thread's own, in memory where there is such a place.
fn folder() -> Option<PathBuf> {
    FOLDER.with_borrow_mut(|folder| {
        if folder.is_none() {
            let memory = Path::new("/dev/shm");
            *folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.ok();
        }
        folder.as_ref().map(|folder| folder.path().to_owned())
    })
}

/// Runs `read` on a file with these bytes.
pub(crate) fn with_file(name: &str, bytes: &[u8], read: impl FnOnce(&Path)) {
    let Some(path) = folder().map(|folder| folder.join(name)) else { return };
    if std::fs::write(&path, bytes).is_ok() {
        read(&path);
    }
}

/// Runs `read` on a folder with the files of an input, and those of `given` that it does not have.
pub(crate) fn with_folder(input: &[u8], given: &[(&str, &[u8])], read: impl FnOnce(&Path)) {
    const NAMES: [&str; 9] = [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "chat_template.jinja",
        "chat_template.json",
        "model.safetensors.index.json",
        "model.safetensors",
    ];
    let Some(folder) = folder().map(|folder| folder.join("model")) else { return };
    let _ = std::fs::remove_dir_all(&folder);
    if std::fs::create_dir(&folder).is_err() {
        return;
    }
    let write = |name: &str, bytes: &[u8]| {
        if NAMES.contains(&name) {
            let _ = std::fs::write(folder.join(name), bytes);
        }
    };
    for (name, bytes) in given {
        write(name, bytes);
    }
    let mut rest = input;
    while let Some(start) = find(rest, NEXT.as_bytes()) {
        rest = &rest[start + NEXT.len()..];
        let end = find(rest, NEXT.as_bytes()).unwrap_or(rest.len());
        let part = &rest[..end];
        let Some(line) = part.iter().position(|&b| b == b'\n') else { continue };
        if let Ok(name) = std::str::from_utf8(&part[..line]) {
            write(name, &part[line + 1..]);
        }
        rest = &rest[end..];
    }
    read(&folder);
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
