//! The cache of compiled kernels: a key for every input, whole entries or none, and writers that do not mind each other.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use moac_compiler::cache::Cache;
use moac_compiler::names::cache_key;
use moac_compiler::nvrtc::{Allowance, Compiled, Source};
use moac_runtime::arch::Arch;
use moac_runtime::artifact::Resources;

fn source() -> Source {
    Source {
        symbol: "moac_decode_x".to_owned(),
        text: "// text".to_owned(),
        headers: vec![("a".to_owned(), "b".to_owned()), ("c".to_owned(), "d".to_owned())],
        arch: Arch::Sm90a,
        allowance: Allowance::default(),
    }
}

fn compiled() -> Compiled {
    Compiled {
        cubin: vec![7; 5000],
        ptx: ".version 9.0".repeat(100),
        resources: Resources { registers: 99, ..Resources::default() },
        warnings: vec!["w".to_owned()],
    }
}

#[test]
fn every_input_changes_the_key() {
    // Exhaustive on purpose: a new field does not compile until somebody perturbs it below.
    let Source { symbol: _, text: _, headers: _, arch: _, allowance } = source();
    let Allowance { stack_bytes: _, spill_bytes: _, serialised: _ } = allowance;
    let changes: [fn(&mut Source); 10] = [
        |it| it.symbol.push('y'),
        |it| it.text.push(' '),
        |it| it.headers[0].0.push('x'),
        |it| it.headers[1].1.push('x'),
        |it| it.headers[0] = ("ab".to_owned(), String::new()),
        |it| drop(it.headers.pop()),
        |it| it.arch = Arch::Sm90,
        |it| it.allowance.stack_bytes = 8,
        |it| it.allowance.spill_bytes = 8,
        |it| it.allowance.serialised = true,
    ];
    let mut keys = BTreeSet::from([cache_key(&source(), "13.0.88"), cache_key(&source(), "13.0.89")]);
    assert_eq!(keys.len(), 2, "the build of NVRTC is in the key");
    for (index, change) in changes.iter().enumerate() {
        let mut changed = source();
        change(&mut changed);
        assert!(keys.insert(cache_key(&changed, "13.0.88")), "change {index}");
    }
    assert_eq!(cache_key(&source(), "13.0.88"), cache_key(&source(), "13.0.88"));
}

#[test]
fn what_is_stored_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::at(folder.path());
    let key = cache_key(&source(), "1");
    assert_eq!(cache.load(&source(), key), None);
    cache.store(&source(), key, &compiled()).unwrap();
    assert_eq!(cache.load(&source(), key), Some(compiled()));
    assert_eq!(cache.load(&source(), cache_key(&source(), "2")), None);
    assert_eq!(
        files(folder.path())
            .iter()
            .map(|file| file.file_name().unwrap().to_str().unwrap())
            .collect::<Vec<_>>(),
        ["kernel.cu", "kernel.cubin", "kernel.ptx", "meta.json"]
    );
    assert!(files(folder.path())[0].starts_with(folder.path().join("cubin-v1/sm_90a")));

    let none = Cache::none();
    none.store(&source(), key, &compiled()).unwrap();
    assert_eq!(none.load(&source(), key), None);
}

#[test]
fn a_damaged_entry_is_a_miss_and_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::at(folder.path());
    let key = cache_key(&source(), "1");
    cache.store(&source(), key, &compiled()).unwrap();
    for file in files(folder.path()) {
        let whole = std::fs::read(&file).unwrap();
        let mut flipped = whole.clone();
        // In the digits of a digest, for meta.json; anywhere will do for the others.
        flipped[whole.len() / 2] ^= 1;
        let damages: [&dyn Fn(); 4] = [
            &|| std::fs::write(&file, &whole[..whole.len() - 1]).unwrap(),
            &|| std::fs::write(&file, b"").unwrap(),
            &|| std::fs::write(&file, &flipped).unwrap(),
            &|| std::fs::remove_file(&file).unwrap(),
        ];
        for (index, damage) in damages.iter().enumerate() {
            damage();
            assert_eq!(cache.load(&source(), key), None, "damage {index} to {}", file.display());
            cache.store(&source(), key, &compiled()).unwrap();
            assert_eq!(cache.load(&source(), key), Some(compiled()));
        }
    }
}

#[test]
fn twelve_equal_digits_are_not_a_hit() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::at(folder.path());
    let key = cache_key(&source(), "1");
    cache.store(&source(), key, &compiled()).unwrap();
    let mut digits = key.to_string();
    digits.replace_range(63.., if digits.ends_with('0') { "1" } else { "0" });
    assert_eq!(cache.load(&source(), digits.parse().unwrap()), None);
}

#[test]
fn racing_writers_leave_one_whole_entry() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::at(folder.path());
    let key = cache_key(&source(), "1");
    for _ in 0..10 {
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    cache.store(&source(), key, &compiled()).unwrap();
                    assert_eq!(cache.load(&source(), key), Some(compiled()));
                });
            }
        });
        assert_eq!(files(folder.path()).len(), 4, "no temporary folder stays behind");
        std::fs::remove_dir_all(folder.path().join("cubin-v1")).unwrap();
    }
}

#[test]
fn a_cache_that_cannot_be_written_to_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let cache = Cache::at(&file);
    assert!(cache.store(&source(), cache_key(&source(), "1"), &compiled()).is_err());
}

/// All files below a folder, sorted.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}
