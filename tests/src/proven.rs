//! Results of the emulator, kept so that kernels that a change cannot have touched are not emulated again.
//!
//! An answer is kept under the digest of its question and of the program that answered: the sources of the emulator,
//! of verification and of all that they rely on, the versions of the dependencies, and the compiler of Rust. Questions
//! hold everything else in full: the kernel's code, its layer, the cases, the schedule.
//!
//! `cargo xtask test` states the digest of the program before anything is compiled. Only where the sources are still
//! the same when a test asks is an answer taken or kept: nothing is believed of code that was edited meanwhile. Tests
//! that anything else starts emulate everything. A file that is damaged, or of another question, is ignored; deleting
//! the folder is always safe.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use moac_compiler::env;
use moac_runtime::digest::Digest;
use moac_runtime::file;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The variable in which `cargo xtask test` states the digest of the [`program`].
pub const PROGRAM: &str = "MOAC_TESTS_PROGRAM";

/// The folder of the answers in the cache folder.
const FOLDER: &str = "proven-v1";

/// The files that decide an answer, below the repository's root, beside what the questions hold. The rest of the compiler makes
/// kernels, and kernels are in the questions.
pub const DECIDES: [&str; 12] = [
    "Cargo.lock",
    "Cargo.toml",
    "compiler/Cargo.toml",
    "compiler/src/lower",
    "compiler/src/nvrtc",
    "compiler/src/verify",
    "runtime/Cargo.toml",
    "runtime/src",
    "runtime/emulator",
    "tests/it/glue.rs",
    "tests/it/mutants/mod.rs",
    "tests/src",
];

/// The part of the runtime that no emulated launch reaches.
const EXCEPT: &str = "runtime/src/gpu";

/// The digest of the program that answers, as its sources are now.
///
/// # Errors
/// If a source cannot be read, or there is no `rustc`.
pub fn program() -> io::Result<Digest> {
    let compiler = Command::new("rustc").arg("-vV").output()?.stdout;
    program_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), &compiler)
}

/// The digest of the program in the repository at `root`, compiled by the compiler that describes itself so.
///
/// # Errors
/// If a source cannot be read.
pub fn program_of(root: &Path, compiler: &[u8]) -> io::Result<Digest> {
    let mut paths = Vec::new();
    for path in DECIDES {
        files(root, Path::new(path), &mut paths)?;
    }
    let mut fields = vec![compiler.to_vec()];
    for path in paths {
        fields.push(path.to_string_lossy().into_owned().into_bytes());
        fields.push(std::fs::read(root.join(path))?);
    }
    Ok(Digest::of_fields(fields.iter().map(Vec::as_slice)))
}

/// The files at or below `path`, in order.
fn files(root: &Path, path: &Path, into: &mut Vec<PathBuf>) -> io::Result<()> {
    if path == Path::new(EXCEPT) {
        return Ok(());
    }
    if !root.join(path).is_dir() {
        into.push(path.to_owned());
        return Ok(());
    }
    let names: io::Result<Vec<_>> = root.join(path).read_dir()?.map(|entry| Ok(entry?.file_name())).collect();
    let mut names = names?;
    names.sort();
    names.iter().try_for_each(|name| files(root, &path.join(name), into))
}

/// The answer to `question`: what `find` finds, or what it found before.
pub fn recall<T: Serialize + DeserializeOwned>(question: &str, find: impl FnOnce() -> T) -> T {
    static ANSWERS: OnceLock<Option<Answers>> = OnceLock::new();
    match ANSWERS.get_or_init(Answers::of_this_run) {
        Some(answers) => answers.recall(question, find),
        None => find(),
    }
}

/// Answers of one program.
#[derive(Clone, Debug)]
pub struct Answers {
    folder: PathBuf,
    program: Digest,
}

/// An answer in its file.
#[derive(Serialize, Deserialize)]
struct Entry {
    key: Digest,
    /// The answer as JSON, and the digest of that text.
    answer: String,
    check: Digest,
}

impl Answers {
    /// The answers of the program `program` in `folder`, which is made when something is kept.
    pub fn at(folder: &Path, program: Digest) -> Self {
        Self { folder: folder.to_owned(), program }
    }

    /// The answers in the cache folder, if the program that started the tests stated their digest and it still holds.
    #[expect(clippy::disallowed_methods, reason = "what runs the tests sets it; moac itself never reads it")]
    fn of_this_run() -> Option<Self> {
        let stated: Digest = std::env::var(PROGRAM).ok()?.parse().ok()?;
        let now = program().ok()?;
        (now == stated).then(|| Some(Self::at(&env::cache_folder()?.join(FOLDER), now)))?
    }

    /// As [`recall`], among these.
    pub fn recall<T: Serialize + DeserializeOwned>(&self, question: &str, find: impl FnOnce() -> T) -> T {
        let key = Digest::of_fields([self.program.to_string().as_bytes(), question.as_bytes()]);
        let path = self.folder.join(format!("{key}.json"));
        if let Some(answer) = load(&path, key) {
            return answer;
        }
        let answer = find();
        if let Err(error) = store(&path, key, &answer) {
            eprintln!("{}: what was found is not kept: {error}", path.display());
        }
        answer
    }
}

/// The answer in a file, if it is whole and of this key.
fn load<T: DeserializeOwned>(path: &Path, key: Digest) -> Option<T> {
    let entry: Entry = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    let whole = entry.key == key && entry.check == Digest::of(entry.answer.as_bytes());
    if whole { serde_json::from_str(&entry.answer).ok() } else { None }
}

fn store<T: Serialize>(path: &Path, key: Digest, answer: &T) -> io::Result<()> {
    let answer = serde_json::to_string(answer)?;
    let check = Digest::of(answer.as_bytes());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    file::write(path, &serde_json::to_vec(&Entry { key, answer, check })?)
}
