//! References in documents exist: every relative link of every Markdown file, every file that a doc comment names.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Folders that hold nothing of the repository's own.
const SKIPPED: [&str; 4] = ["target", ".git", "node_modules", "corpus"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests are a folder of the workspace")
        .to_owned()
}

/// Every file of the repository, relative to its root.
fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let hidden = name.starts_with('.') && name != ".ci" && name != ".cargo";
            if hidden || SKIPPED.contains(&name.as_str()) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(root).unwrap().to_owned());
            }
        }
    }
    found
}

fn with_extension<'a>(files: &'a [PathBuf], extensions: &'a [&str]) -> impl Iterator<Item = &'a PathBuf> {
    files.iter().filter(|path| {
        path.extension().is_some_and(|extension| extensions.iter().any(|wanted| extension == *wanted))
    })
}

/// The targets of the links of a Markdown text: `[words](target)`, images too.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next())
}

#[test]
fn every_relative_link_leads_somewhere() {
    let root = root();
    let mut missing = Vec::new();
    let mut links_found = 0;
    for file in with_extension(&files(&root), &["md"]) {
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        for link in links(&text) {
            let path = link.split('#').next().unwrap();
            if path.is_empty() || path.contains("://") || path.starts_with("mailto:") {
                continue;
            }
            links_found += 1;
            let from = root.join(file);
            if !from.parent().unwrap().join(path).exists() {
                missing.push(format!("{}: {link}", file.display()));
            }
        }
    }
    assert!(missing.is_empty(), "links to nothing: {missing:#?}");
    assert!(links_found > 10, "only {links_found} links found: the test does not see them");
}

/// The names of files in a line of a comment: words with a known extension.
fn named(line: &str) -> impl Iterator<Item = &str> {
    const EXTENSIONS: [&str; 6] = ["rs", "cuh", "md", "tera", "py", "sh"];
    line.split(|c: char| !(c.is_ascii_alphanumeric() || "_-./{},".contains(c))).filter_map(|word| {
        let word = word.trim_end_matches(['.', ',']);
        let (stem, extension) = word.rsplit_once('.')?;
        let plain = !word.contains(['{', '}', ',']) && !stem.is_empty() && !stem.starts_with('/');
        (plain && EXTENSIONS.contains(&extension)).then_some(word)
    })
}

#[test]
fn every_file_that_a_comment_names_exists() {
    let root = root();
    let files = files(&root);
    // A name may be short: any trailing part of a path stands for it.
    let known: BTreeSet<String> = files
        .iter()
        .flat_map(|path| {
            let parts: Vec<String> =
                path.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
            (0..parts.len()).map(move |from| parts[from..].join("/"))
        })
        .collect();
    let mut missing = Vec::new();
    let mut seen = 0;
    for file in with_extension(&files, &["rs", "cuh", "tera"]) {
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        for line in text.lines().map(str::trim_start) {
            let doc = line.starts_with("//!") || line.starts_with("///");
            let cuda = file.extension().is_some_and(|it| it != "rs") && line.starts_with("//");
            if !(doc || cuda) {
                continue;
            }
            for name in named(line) {
                seen += 1;
                if !known.contains(name) {
                    missing.push(format!("{}: {name}", file.display()));
                }
            }
        }
    }
    assert!(missing.is_empty(), "comments name files that do not exist: {missing:#?}");
    assert!(seen > 20, "only {seen} names found: the test does not see them");
}
