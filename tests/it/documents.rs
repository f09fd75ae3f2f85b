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

/// The command line of `moac`, with the global options at every command.
fn command_line() -> clap::Command {
    let mut command = moac::cli::command();
    command.build();
    command
}

/// The commands that SPEC.md lists, each with the code of its row.
fn specified() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(root().join("SPEC.md")).unwrap();
    let section = text.split("\n## ").find(|section| section.starts_with("4. Commands")).unwrap();
    // A bar inside a cell is escaped.
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `moac "));
    rows.map(|row| {
        let cell = row.replace("\\|", "/").split(" | ").next().unwrap().to_owned();
        (cell.split([' ', '`']).next().unwrap().to_owned(), cell)
    })
    .collect()
}

/// The long flags in the code of a row, each with whether it is only planned.
fn flags(cell: &str) -> impl Iterator<Item = (String, bool)> {
    cell.split(" --").flat_map(|part| part.split("[--")).flat_map(|part| part.split("/--")).skip(1).map(
        |part| {
            let name = part.split(|c: char| !(c.is_ascii_lowercase() || c == '-')).next().unwrap();
            let own = part.split([']', '/']).next().unwrap();
            (name.to_owned(), own.contains("*(planned)*"))
        },
    )
}

#[test]
fn the_commands_of_the_specification_are_those_of_the_binary() {
    let command = command_line();
    let specified = specified();
    let mut listed: Vec<&str> = specified.iter().map(|(name, _)| name.as_str()).collect();
    let mut known: Vec<&str> =
        command.get_subcommands().map(clap::Command::get_name).filter(|&name| name != "help").collect();
    listed.sort_unstable();
    known.sort_unstable();
    assert_eq!(listed, known);
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (name, cell) in &specified {
        let command = command.find_subcommand(name).unwrap();
        for (flag, planned) in flags(cell) {
            seen += 1;
            let exists = command.get_arguments().any(|argument| argument.get_long() == Some(&flag));
            if exists == planned {
                wrong.push(format!(
                    "moac {name} --{flag}: {}",
                    if planned { "is there" } else { "is missing" }
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(seen > 40, "only {seen} flags found: the test does not see them");
    let text = std::fs::read_to_string(root().join("SPEC.md")).unwrap();
    for argument in command.get_arguments().filter(|argument| argument.is_global_set()) {
        let flag = format!("`--{}", argument.get_long().unwrap());
        assert!(text.contains(&flag), "{flag} is in no table");
    }
}

/// The words of a command line: what stands between double quotes is one.
fn words(line: &str) -> Vec<String> {
    let parts = line.split('"').enumerate();
    parts
        .flat_map(|(at, part)| {
            if at % 2 == 1 {
                vec![part.to_owned()]
            } else {
                part.split_whitespace().map(str::to_owned).collect()
            }
        })
        .collect()
}

#[test]
fn the_command_lines_of_the_readme_parse() {
    let text = std::fs::read_to_string(root().join("README.md")).unwrap();
    // In blocks of code, and in the text between backticks.
    let lines = text.lines().filter(|line| line.starts_with("moac ") && line.contains(" #"));
    let inline = text.split('`').skip(1).step_by(2).filter(|code| code.starts_with("moac "));
    let mut seen = 0;
    for line in lines.chain(inline) {
        let line = line.split(" #").next().unwrap();
        if let Err(error) = command_line().try_get_matches_from(words(line)) {
            // Help is not a mistake.
            assert!(!error.use_stderr(), "`{line}`: {error}");
        }
        seen += 1;
    }
    assert!(seen > 5, "only {seen} command lines found: the test does not see them");
}
