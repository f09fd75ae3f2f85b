//! Prompts from files, for `moac generate`: a prompt per line, or an object per line in a .jsonl file.

use std::io::{self, BufRead as _};
use std::path::Path;

use moac_runtime::file;
use serde::Deserialize;

use crate::error::Error;

#[derive(Deserialize)]
struct Line {
    prompt: String,
}

/// The prompts of a file, at least one.
pub fn prompts(path: &Path) -> Result<Vec<String>, Error> {
    let text = file::read_text(path).map_err(Error::file("read", path))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    if lines.clone().next().is_none() {
        return Err(Error::NoPrompts { path: path.to_owned() });
    }
    if path.extension().is_none_or(|extension| extension != "jsonl") {
        return Ok(lines.map(|(_, line)| line.to_owned()).collect());
    }
    lines
        .map(|(at, line)| {
            let parsed: Result<Line, _> = serde_json::from_str(line);
            parsed.map(|line| line.prompt).map_err(|source| Error::Line {
                path: path.to_owned(),
                line: at + 1,
                source,
            })
        })
        .collect()
}

/// The prompt that `text` is, or all of standard input where it is `-`, without the line ends behind it.
pub fn prompt(text: &str, stdin: &Path) -> Result<String, Error> {
    if text != "-" {
        return Ok(text.to_owned());
    }
    let text = file::read_text(stdin).map_err(Error::file("read", stdin))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// The lines of standard input, the first without a byte order mark.
pub fn turns() -> impl Iterator<Item = io::Result<String>> {
    let lines = io::stdin().lock().lines().enumerate();
    lines.map(|(at, line)| line.map(|line| if at == 0 { file::without_mark(&line).to_owned() } else { line }))
}
