//! Inputs as files, for readers that map theirs.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// Stands between the parts of an input that is several files; the first line of each part is its name.
pub(crate) const NEXT: &str = "\n=== ";

/// The files of a folder that are read.
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

thread_local! {
    /// A folder of this thread's own, in memory where there is such a place.
    static FOLDER: TempDir = {
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        folder.expect("a temporary folder can be made")
    };
    /// The contents of the files of [`NAMES`] in it.
    static WRITTEN: RefCell<[Option<Vec<u8>>; NAMES.len()]> = const { RefCell::new([const { None }; NAMES.len()]) };
}

fn folder() -> PathBuf {
    FOLDER.with(|folder| folder.path().to_owned())
}

/// The result of `read` on a file with these bytes.
pub(crate) fn with_file(name: &str, bytes: &[u8], read: impl FnOnce(&Path) -> bool) -> bool {
    let path = folder().join(name);
    std::fs::write(&path, bytes).expect("a file of this thread's own can be written");
    read(&path)
}

/// The result of `read` on a folder with the files of an input, and those of `given` that it does not have.
pub(crate) fn with_folder(input: &[u8], given: &[(&str, &[u8])], read: impl FnOnce(&Path) -> bool) -> bool {
    let mut files = [None; NAMES.len()];
    let mut put = |name: &[u8], bytes| {
        if let Some(at) = NAMES.iter().position(|known| known.as_bytes() == name) {
            files[at] = Some(bytes);
        }
    };
    for (name, bytes) in given {
        put(name.as_bytes(), *bytes);
    }
    let mut rest = input;
    while let Some(start) = find(rest, NEXT.as_bytes()) {
        rest = &rest[start + NEXT.len()..];
        let end = find(rest, NEXT.as_bytes()).unwrap_or(rest.len());
        let part = &rest[..end];
        if let Some(line) = part.iter().position(|&b| b == b'\n') {
            put(&part[..line], &part[line + 1..]);
        }
        rest = &rest[end..];
    }
    let folder = folder();
    WRITTEN.with_borrow_mut(|written| {
        for ((name, new), old) in NAMES.into_iter().zip(files).zip(written) {
            // Most files are those of the input before.
            if old.as_deref() == new {
                continue;
            }
            let path = folder.join(name);
            match new {
                Some(bytes) => std::fs::write(path, bytes),
                None => std::fs::remove_file(path),
            }
            .expect("a folder of this thread's own can be changed");
            *old = new.map(<[u8]>::to_vec);
        }
    });
    read(&folder)
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
