//! Kept answers of the emulator: taken where they are whole and of this program and question, and nowhere else.

use std::fs;
use std::path::{Path, PathBuf};

use moac_runtime::digest::Digest;
use moac_tests::proven::{Answers, DECIDES, program_of};

fn program(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

/// The answer, and whether it had to be found out.
fn ask(answers: &Answers, question: &str) -> (Vec<String>, bool) {
    let mut asked = false;
    let answer = answers.recall(question, || {
        asked = true;
        vec![format!("of {question}")]
    });
    (answer, asked)
}

#[test]
fn an_answer_is_found_out_once_for_each_question_and_program() {
    let folder = tempfile::tempdir().unwrap();
    let answers = Answers::at(&folder.path().join("made"), program("a"));
    let of = |question: &str| vec![format!("of {question}")];
    assert_eq!(ask(&answers, "one"), (of("one"), true));
    assert_eq!(ask(&answers, "one"), (of("one"), false));
    assert_eq!(ask(&answers, "two"), (of("two"), true));
    let others = Answers::at(&folder.path().join("made"), program("b"));
    assert_eq!(ask(&others, "one"), (of("one"), true));
    assert_eq!(ask(&answers, "one"), (of("one"), false));
}

#[test]
fn a_damaged_or_foreign_file_is_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    let answers = Answers::at(folder.path(), program("a"));
    let file = |question| {
        let before: Vec<PathBuf> = files(folder.path());
        ask(&answers, question);
        files(folder.path()).into_iter().find(|path| !before.contains(path)).unwrap()
    };
    let (one, two) = (file("one"), file("two"));
    let whole = fs::read_to_string(&one).unwrap();
    let another = fs::read_to_string(&two).unwrap();
    let edited = whole.replace("of one", "of nil");
    assert_ne!(edited, whole);
    for damaged in ["", "{}", &whole[..whole.len() - 1], &edited, &another] {
        fs::write(&one, damaged).unwrap();
        assert_eq!(ask(&answers, "one"), (vec!["of one".to_owned()], true), "{damaged}");
        assert_eq!(fs::read_to_string(&one).unwrap(), whole, "it is replaced");
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn the_program_is_all_that_decides_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let digest = || program_of(root.path(), b"rustc 1").unwrap();
    let file_of = |path: &str| if path.contains('.') { path.to_owned() } else { format!("{path}/deep/a.rs") };
    for path in DECIDES {
        write(&file_of(path), "before");
    }
    let before = digest();
    assert_eq!(digest(), before);
    for path in DECIDES {
        write(&file_of(path), "after");
        assert_ne!(digest(), before, "{path}");
        write(&file_of(path), "before");
        assert_eq!(digest(), before, "{path}");
    }
    for path in ["runtime/src/gpu/pool.rs", "compiler/src/render.rs", "runtime/model/src/lib.rs"] {
        write(path, "anything");
        assert_eq!(digest(), before, "{path}");
    }
    assert_ne!(program_of(root.path(), b"rustc 2").unwrap(), before);
    write("runtime/src/reference/new.rs", "");
    assert_ne!(digest(), before);
}

/// Verification uses no part of the compiler that could change without the program's digest.
#[test]
fn verification_relies_on_nothing_outside_the_program() {
    let compiler = Path::new(env!("CARGO_MANIFEST_DIR")).join("../compiler/src");
    let mut folders = vec![compiler.join("verify")];
    let mut named = 0;
    while let Some(folder) = folders.pop() {
        for path in files(&folder) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let ends = |c: char| !c.is_alphanumeric() && c != '_';
            for module in text.split("crate::").skip(1).filter_map(|rest| rest.split(ends).next()) {
                assert!(["lower", "nvrtc", "verify"].contains(&module), "{}: {module}", path.display());
                named += 1;
            }
        }
    }
    assert!(named > 5);
}
