//! Texts from files, and filler cut from them.

use std::ops::Range;
use std::path::{Path, PathBuf};

use moac_runtime::digest::Digest;
use moac_runtime::file;
use serde_json::Value;

use super::{Random, TaskError};
use crate::items::Source;

/// Files of a folder that are taken for texts.
const EXTENSIONS: [&str; 4] = ["txt", "rst", "md", "jsonl"];
/// Characters of a unit of filler: from the first count on it ends with a sentence, at the second it ends anyway.
const UNIT: Range<usize> = 60..220;

/// A text, in which no line ends in spaces and no two empty lines follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its file, relative to the folder that was read, and its line if it is one of several there.
    pub name: String,
    /// The text.
    pub text: String,
    /// A question about it that came with it.
    pub question: Option<String>,
    /// Where it may be cut: ranges of whole words, each with the space before it, that together are the text.
    pub units: Vec<Range<usize>>,
}

/// Texts, in the order of their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corpus {
    /// The texts, at least one, none empty.
    pub documents: Vec<Document>,
    /// The files that they are from.
    pub sources: Vec<Source>,
}

impl Corpus {
    /// Reads text files and folders of them, and folders within. Of a folder only names ending in .txt, .rst, .md or
    /// .jsonl are read, and hidden ones are not.
    ///
    /// A line of a .jsonl file is an object with `text`, or with `document` and `question`.
    pub fn read(paths: &[PathBuf]) -> Result<Self, TaskError> {
        let mut corpus = Self { documents: Vec::new(), sources: Vec::new() };
        for path in paths {
            let before = corpus.documents.len();
            if path.is_dir() {
                for file in files(path)? {
                    let name = file.strip_prefix(path).unwrap_or(&file);
                    let parts: Vec<_> = name.iter().map(|part| part.to_string_lossy()).collect();
                    corpus.add(&file, &parts.join("/"))?;
                }
            } else {
                let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
                corpus.add(path, &name)?;
            }
            if corpus.documents.len() == before {
                return Err(TaskError::NoTexts { path: path.clone() });
            }
        }
        if corpus.documents.is_empty() {
            return Err(TaskError::NoTexts { path: PathBuf::new() });
        }
        Ok(corpus)
    }

    /// Without the texts of a file, by its name as [`Source`] has it.
    pub fn without(mut self, file: &str) -> Result<Self, TaskError> {
        let before = self.sources.len();
        self.sources.retain(|source| source.name != file);
        // A document of several in a file has its line behind the file's name.
        self.documents.retain(|document| {
            !document.name.strip_prefix(file).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
        });
        if self.sources.len() == before {
            return Err(TaskError::NoSuchText { file: file.to_owned() });
        }
        if self.documents.is_empty() {
            return Err(TaskError::NoTexts { path: PathBuf::from(file) });
        }
        Ok(self)
    }

    fn add(&mut self, path: &Path, name: &str) -> Result<(), TaskError> {
        let bytes =
            std::fs::read(path).map_err(|source| TaskError::Read { path: path.to_owned(), source })?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|error| TaskError::NotText { path: path.to_owned(), at: error.valid_up_to() })?;
        let text = file::without_mark(text);
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
                let (text, question) = document(line).map_err(|found| TaskError::NotADocument {
                    path: path.to_owned(),
                    line: at + 1,
                    found,
                })?;
                self.documents.extend(Document::new(format!("{name}:{}", at + 1), &text, question));
            }
        } else {
            self.documents.extend(Document::new(name.to_owned(), text, None));
        }
        self.sources.push(Source { name: name.to_owned(), sha256: Digest::of(&bytes) });
        Ok(())
    }
}

/// The files of a folder and of those within, in the order of their names.
fn files(folder: &Path) -> Result<Vec<PathBuf>, TaskError> {
    let error = |source| TaskError::Read { path: folder.to_owned(), source };
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(error)? {
        let entry = entry.map_err(error)?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            entries.push(entry.path());
        }
    }
    entries.sort();
    let mut found = Vec::new();
    for path in entries {
        let link = path.symlink_metadata().map_err(error)?.is_symlink();
        if path.is_dir() {
            // A link to a folder may lead in a circle.
            if !link {
                found.extend(files(&path)?);
            }
        } else if path.extension().is_some_and(|known| EXTENSIONS.iter().any(|&wanted| known == wanted)) {
            found.push(path);
        }
    }
    Ok(found)
}

/// The text and the question of a line of JSONL, or what is there instead.
fn document(line: &str) -> Result<(String, Option<String>), String> {
    let value: Value = serde_json::from_str(line).map_err(|error| format!("no JSON ({error})"))?;
    let text = |field: &str| value.get(field).and_then(Value::as_str).map(str::to_owned);
    match (text("text"), text("document"), text("question")) {
        (Some(text), None, None) => Ok((text, None)),
        (None, Some(text), Some(question)) => Ok((text, Some(question))),
        _ => {
            let fields = value.as_object().map(|fields| fields.keys().cloned().collect::<Vec<_>>());
            Err(fields.map_or("no object".to_owned(), |fields| format!("the fields {fields:?}")))
        }
    }
}

impl Document {
    /// A text cut into units; none if there is nothing but space.
    fn new(name: String, text: &str, question: Option<String>) -> Option<Self> {
        let text = tidy(text);
        let units = units(&text);
        (!units.is_empty()).then_some(Self { name, text, question, units })
    }

    /// The text of all units, one after the other.
    pub fn units(&self) -> impl Iterator<Item = &str> {
        self.units.iter().map(|unit| &self.text[unit.clone()])
    }

    /// The text of a unit, with the space before it.
    pub fn unit(&self, at: usize) -> &str {
        &self.text[self.units[at].clone()]
    }
}

/// Without spaces at the ends of lines, and with at most one empty line at a time.
fn tidy(text: &str) -> String {
    let mut tidy = String::with_capacity(text.len());
    let mut empty = 0;
    for line in text.trim_start().lines().map(str::trim_end) {
        if line.is_empty() {
            empty += 1;
            continue;
        }
        if !tidy.is_empty() {
            tidy.push_str(if empty > 0 { "\n\n" } else { "\n" });
        }
        empty = 0;
        tidy.push_str(line);
    }
    tidy
}

/// Ranges of whole words that end with a paragraph, with a sentence, or where they get long.
fn units(text: &str) -> Vec<Range<usize>> {
    let mut units = Vec::new();
    let mut start = 0;
    let mut at = 0;
    while at < text.len() {
        // A word and the space before it.
        let space = text[at..].len() - text[at..].trim_start().len();
        let word = text[at + space..].find(char::is_whitespace).unwrap_or(text.len() - at - space);
        let end = at + space + word;
        let next = &text[end..];
        let length = end - start;
        let sentence =
            text[..end].trim_end_matches(['"', '\'', ')', '_', '”', '’']).ends_with(['.', '!', '?']);
        if next.starts_with("\n\n")
            || length >= UNIT.end
            || (sentence && length >= UNIT.start)
            || next.is_empty()
        {
            units.push(start..end);
            start = end;
        }
        at = end;
    }
    units
}

/// Text without an end, unit after unit: from a random place of the corpus to the end of that text, then on with
/// others.
#[derive(Clone, Debug)]
pub struct Filler<'a> {
    corpus: &'a Corpus,
    random: Random,
    document: usize,
    unit: usize,
}

impl<'a> Filler<'a> {
    /// Starts at a random unit: every unit of the corpus is as likely.
    pub fn new(corpus: &'a Corpus, mut random: Random) -> Self {
        let units = corpus.documents.iter().map(|document| document.units.len()).sum();
        let mut unit = random.below(units);
        let mut document = 0;
        while document + 1 < corpus.documents.len() && unit >= corpus.documents[document].units.len() {
            unit -= corpus.documents[document].units.len();
            document += 1;
        }
        Self { corpus, random, document, unit }
    }

    /// Another random unit to go on from.
    #[must_use]
    pub fn elsewhere(self) -> Self {
        Self::new(self.corpus, self.random)
    }

    /// The text that the next unit is from.
    pub fn document(&self) -> &'a Document {
        &self.corpus.documents[self.document]
    }
}

impl<'a> Iterator for Filler<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let document = self.document();
        if self.unit >= document.units.len() {
            self.document = self.random.below(self.corpus.documents.len());
            self.unit = 0;
        }
        let document = self.document();
        self.unit += 1;
        Some(document.unit(self.unit - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corpus(texts: &[&str]) -> Corpus {
        let document = |(at, text): (usize, &&str)| Document::new(at.to_string(), text, None);
        Corpus { documents: texts.iter().enumerate().filter_map(document).collect(), sources: Vec::new() }
    }

    #[test]
    fn texts_are_tidied_and_cut_into_whole_words() {
        let sentence = "One two three four five six seven eight nine ten eleven, said he. ";
        let text =
            format!("\r\n\n  Title  \r\n\n\n\n{sentence}{sentence}\n\tx  \nlast {}", "long ".repeat(100));
        let document = Document::new(String::new(), &text, None).unwrap();
        assert!(document.text.starts_with("Title\n\nOne two"), "{}", document.text);
        assert!(document.text.contains("said he.\n\tx\nlast long"));
        let units: Vec<&str> = document.units().collect();
        assert_eq!(units.concat(), document.text);
        assert_eq!(units[0], "Title");
        assert_eq!(units[1], format!("\n\n{}", sentence.trim_end()));
        assert_eq!(units[2], format!(" {}", sentence.trim_end()));
        for unit in &units[3..] {
            assert!(unit.starts_with(char::is_whitespace) && unit.len() <= UNIT.end + 6, "{unit:?}");
        }
        assert_eq!(Document::new(String::new(), " \n\n ", None), None);
    }

    #[test]
    fn filler_is_the_text_and_goes_on_with_another() {
        let corpus = corpus(&["a a\n\nb b\n\nc c", "d d"]);
        let filler = |seed| Filler::new(&corpus, Random::new(seed, &[])).take(9).collect::<Vec<_>>();
        let mut starts = std::collections::BTreeSet::new();
        for seed in 0..40 {
            let units = filler(seed);
            assert_eq!(units, filler(seed));
            for pair in units.windows(2) {
                let next: &[&str] = match pair[0] {
                    "a a" => &["\n\nb b"],
                    "\n\nb b" => &["\n\nc c"],
                    _ => &["a a", "d d"],
                };
                assert!(next.contains(&pair[1]), "{units:?}");
            }
            starts.insert(units[0]);
        }
        assert_eq!(starts.len(), 4);
    }

    #[test]
    fn lines_that_hold_no_document_say_what_they_hold() {
        assert_eq!(document(r#"{"text": "a", "id": 3}"#), Ok(("a".to_owned(), None)));
        let both = document(r#"{"document": "a", "question": "b"}"#);
        assert_eq!(both, Ok(("a".to_owned(), Some("b".to_owned()))));
        assert_eq!(document(r#"{"document": "a"}"#), Err("the fields [\"document\"]".to_owned()));
        assert_eq!(document("3"), Err("no object".to_owned()));
        assert!(document("{").unwrap_err().starts_with("no JSON"));
    }
}
