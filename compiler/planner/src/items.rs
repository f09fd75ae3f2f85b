//! Calibration items: token sequences whose last part is an answer, one a line of a JSONL file.
//!
//! The first line is the [`Header`], every other line an [`Item`]. The loss is taken on the answer's tokens alone.
//! Invariants, in memory and in files: items have different names, an item is no longer than its nominal length, and
//! its answer has at least one token before it and one of its own. Files are untrusted: [`Items::read`] reports the
//! line, the field, the value found and the value expected.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use moac_model::Tokenizer;
use moac_runtime::digest::Digest;
use moac_runtime::file;
use moac_runtime::plan::MAX_LENGTH;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::tasks::FactKind;

/// The `format` of calibration files.
pub const ITEMS_FORMAT: &str = "moac.items/1";

/// Errors of reading and writing calibration items.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ItemsError {
    /// The file cannot be read or written.
    #[error("cannot {action} `{}`: {source}", path.display())]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The underlying error.
        source: std::io::Error,
    },
    /// A line is not what it must be.
    #[error("`{}`, line {line}: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line number, from 1.
        line: usize,
        /// The problem.
        problem: Problem,
    },
    /// The items were made with another vocabulary.
    #[error(
        "the calibration items were made with the vocabulary {expected} of {model}, but this model's is {found}: make new ones with `moac calibrate`"
    )]
    OtherVocabulary {
        /// The model that they were made with.
        model: String,
        /// Its vocabulary.
        expected: Digest,
        /// The vocabulary at hand.
        found: Digest,
    },
}

/// A problem in a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: found {found}, expected {expected}")]
pub struct Problem {
    /// The field, or what stands in its place.
    pub field: String,
    /// The value found.
    pub found: String,
    /// The value expected.
    pub expected: String,
}

impl Problem {
    fn new(field: impl Into<String>, found: impl fmt::Display, expected: impl Into<String>) -> Self {
        Self { field: field.into(), found: found.to_string(), expected: expected.into() }
    }
}

/// The kind of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Task {
    /// A question on a long document, answered by the model itself.
    Document,
    /// A key that was said somewhere in a long text.
    Passkey,
    /// The value of one key among many.
    Kv,
    /// Text as it is, all of it behind the first tokens.
    Text,
    /// A fact of a kind, told once in a long text.
    Fact(FactKind),
}

impl Task {
    /// Those that are not a kind of fact.
    const OTHERS: [Self; 4] = [Self::Document, Self::Passkey, Self::Kv, Self::Text];

    /// Every task, in the order of the file format's description.
    pub const ALL: [Self; Self::OTHERS.len() + FactKind::ALL.len()] = {
        let mut all = [Self::Text; Self::OTHERS.len() + FactKind::ALL.len()];
        let mut at = 0;
        while at < all.len() {
            let others = Self::OTHERS.len();
            all[at] = if at < others { Self::OTHERS[at] } else { Self::Fact(FactKind::ALL[at - others]) };
            at += 1;
        }
        all
    };

    /// Its name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Document => "document",
            Self::Passkey => "passkey",
            Self::Kv => "kv",
            Self::Text => "text",
            Self::Fact(kind) => kind.name(),
        }
    }

    /// Whether its items look up what the text tells.
    pub fn looks_up(self) -> bool {
        matches!(self, Self::Passkey | Self::Kv | Self::Fact(_))
    }

    /// The task of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|task| task.name() == name)
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Task {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Items that were asked for and are not among those at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The lengths asked for.
    pub lengths: Vec<u32>,
    /// The tasks asked for; none is all.
    pub tasks: Vec<Task>,
    /// How many items there are of each length and task.
    pub there: BTreeMap<(u32, Task), usize>,
}

impl Missing {
    /// Describes a request for `lengths` and `tasks` that `items` does not meet.
    pub fn new<'a>(lengths: &[u32], tasks: &[Task], items: impl IntoIterator<Item = &'a Item>) -> Self {
        let mut there = BTreeMap::new();
        for item in items {
            *there.entry((item.length, item.task)).or_default() += 1;
        }
        Self { lengths: lengths.to_vec(), tasks: tasks.to_vec(), there }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |parts: Vec<String>, last: &str| match parts.split_last() {
            Some((end, rest)) if !rest.is_empty() => format!("{} {last} {end}", rest.join(", ")),
            _ => parts.concat(),
        };
        let tasks = list(self.tasks.iter().map(ToString::to_string).collect(), "or");
        let lengths = list(self.lengths.iter().map(ToString::to_string).collect(), "or");
        let space = if tasks.is_empty() { "" } else { " " };
        write!(f, "there are no {tasks}{space}items of {lengths} tokens, only ")?;
        let groups = self.there.iter().map(|((length, task), count)| format!("{count} {task} of {length}"));
        f.write_str(&list(groups.collect(), "and"))
    }
}

/// A text that items were made from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Source {
    /// Its file, relative to the data folder, with `/` between parts.
    pub name: String,
    /// The SHA-256 of the file.
    pub sha256: Digest,
}

/// The header of a file of items.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Header {
    /// Always [`ITEMS_FORMAT`].
    pub format: String,
    /// The model that answered.
    pub model: String,
    /// The vocabulary that the tokens are of, by [`vocabulary`].
    pub tokenizer: Digest,
    /// The seed that the items were chosen by.
    pub seed: u64,
    /// The texts that they were made from.
    pub sources: Vec<Source>,
}

impl Header {
    /// The digest of the names and contents of all texts.
    pub fn texts(&self) -> Digest {
        let fields = self.sources.iter().flat_map(|text| [text.name.clone(), text.sha256.to_string()]);
        Digest::of_fields(fields.collect::<Vec<String>>().iter().map(String::as_bytes))
    }
}

/// A sequence of tokens that ends with an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Item {
    /// Its name, different from all others of the file.
    pub id: String,
    /// Its task.
    pub task: Task,
    /// The level of length in tokens that it was made for; the tokens fill it nearly.
    pub length: u32,
    /// Prompt and answer.
    pub tokens: Vec<u32>,
    /// Where in `tokens` the answer begins.
    pub answer: usize,
    /// The text that most of it is from.
    pub source: String,
    /// The answer as text, for people.
    pub text: String,
}

/// Calibration items and where they come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Items {
    /// The header.
    pub header: Header,
    /// The items, at least one.
    pub items: Vec<Item>,
}

/// The digest of a vocabulary: the spellings of all tokens in their order.
pub fn vocabulary(tokenizer: &Tokenizer) -> Digest {
    let spellings: Vec<String> = (0..tokenizer.vocab_size() as u32)
        .map(|token| tokenizer.spelling(token).unwrap_or_default())
        .collect();
    Digest::of_fields(spellings.iter().map(String::as_bytes))
}

impl Items {
    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self, ItemsError> {
        let text = file::read_text(path).map_err(|source| ItemsError::File {
            action: "read",
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text, path)
    }

    /// Parses the text of a file; `path` is for messages only.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ItemsError> {
        let at =
            |line: usize| move |problem| ItemsError::Line { path: path.to_owned(), line: line + 1, problem };
        let mut lines = text.lines().enumerate();
        let (_, first) =
            lines.next().ok_or_else(|| at(0)(Problem::new("the header", "nothing", "a JSON object")))?;
        let header = Fields::of(first).and_then(|fields| fields.header()).map_err(at(0))?;
        let mut items = Vec::new();
        for (line, text) in lines {
            items.push(Fields::of(text).and_then(|fields| fields.item()).map_err(at(line))?);
        }
        let items = Self { header, items };
        items.check().map_err(|(line, problem)| at(line)(problem))?;
        Ok(items)
    }

    /// Writes the file, whole or not at all. The same items give the same bytes.
    pub fn write(&self, path: &Path) -> Result<(), ItemsError> {
        let line = |line: usize, problem| ItemsError::Line { path: path.to_owned(), line: line + 1, problem };
        let file = |source| ItemsError::File { action: "write", path: path.to_owned(), source };
        self.check().map_err(|(at, problem)| line(at, problem))?;
        let mut text = serde_json::to_string(&self.header).map_err(|error| file(error.into()))?;
        text.push('\n');
        for item in &self.items {
            text += &serde_json::to_string(item).map_err(|error| file(error.into()))?;
            text.push('\n');
        }
        file::write(path, text.as_bytes()).map_err(file)
    }

    /// Whether they are of this vocabulary, so that their tokens mean to the model what they meant to their maker.
    pub fn belongs_to(&self, tokenizer: &Tokenizer) -> Result<(), ItemsError> {
        let found = vocabulary(tokenizer);
        if found == self.header.tokenizer {
            return Ok(());
        }
        let Header { model, tokenizer: expected, .. } = &self.header;
        Err(ItemsError::OtherVocabulary { model: model.clone(), expected: *expected, found })
    }

    /// The levels of length, ascending.
    pub fn lengths(&self) -> Vec<u32> {
        self.items.iter().map(|item| item.length).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Checks the invariants of header and items; a problem comes with its line, from 0.
    fn check(&self) -> Result<(), (usize, Problem)> {
        if self.header.format != ITEMS_FORMAT {
            let found = format!("`{}`", self.header.format);
            return Err((0, Problem::new("`format`", found, format!("`{ITEMS_FORMAT}`"))));
        }
        if self.items.is_empty() {
            return Err((1, Problem::new("the items", "none", "at least one")));
        }
        let mut names = BTreeSet::new();
        for (at, item) in self.items.iter().enumerate() {
            let problem = item.check().err().or_else(|| {
                let known = !names.insert(&item.id);
                known.then(|| Problem::new("`id`", format!("`{}` again", item.id), "a name not used before"))
            });
            if let Some(problem) = problem {
                return Err((at + 1, problem));
            }
        }
        Ok(())
    }
}

impl Item {
    /// An item from the fields of a JSON object, checked.
    pub(crate) fn from_fields(fields: Map<String, Value>) -> Result<Self, Problem> {
        let item = Fields(fields).item()?;
        item.check().map(|()| item)
    }

    fn check(&self) -> Result<(), Problem> {
        let tokens = self.tokens.len();
        if !(2..=MAX_LENGTH).contains(&self.length) {
            return Err(Problem::new("`length`", self.length, format!("2 to {MAX_LENGTH}")));
        }
        if !(2..=self.length as usize).contains(&tokens) {
            let expected = format!("2 to {}, the item's length", self.length);
            return Err(Problem::new("`tokens`", format!("{tokens} of them"), expected));
        }
        if !(1..tokens).contains(&self.answer) {
            let expected = format!("1 to {}, a place in `tokens` behind the first", tokens - 1);
            return Err(Problem::new("`answer`", self.answer, expected));
        }
        Ok(())
    }
}

/// The fields of a line.
struct Fields(Map<String, Value>);

impl Fields {
    fn of(line: &str) -> Result<Self, Problem> {
        match serde_json::from_str(line) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(other) => Err(Problem::new("the line", show(&other), "a JSON object")),
            Err(error) => Err(Problem::new("the line", format!("no JSON ({error})"), "a JSON object")),
        }
    }

    fn header(&self) -> Result<Header, Problem> {
        let format = self.text("format")?;
        if format != ITEMS_FORMAT {
            return Err(Problem::new("`format`", format!("`{format}`"), format!("`{ITEMS_FORMAT}`")));
        }
        let sources = self.list("sources", "a list of sources")?.iter().enumerate().map(|(at, source)| {
            let field = |name: &str| format!("`sources[{at}].{name}`");
            let text = |name: &str| {
                let value = source.get(name);
                value.and_then(Value::as_str).ok_or_else(|| Problem::new(field(name), shown(value), "a text"))
            };
            Ok(Source { name: text("name")?.to_owned(), sha256: digest(&field("sha256"), text("sha256")?)? })
        });
        Ok(Header {
            format,
            model: self.text("model")?,
            tokenizer: digest("`tokenizer`", &self.text("tokenizer")?)?,
            seed: self.number("seed")?,
            sources: sources.collect::<Result<_, _>>()?,
        })
    }

    fn item(&self) -> Result<Item, Problem> {
        let task = self.text("task")?;
        let tokens = self.list("tokens", "a list of tokens")?.iter().enumerate().map(|(at, token)| {
            let small = token.as_u64().and_then(|token| u32::try_from(token).ok());
            small
                .ok_or_else(|| Problem::new(format!("`tokens[{at}]`"), show(token), "a token: 0 to 2^32 - 1"))
        });
        let length = self.number("length")?;
        Ok(Item {
            id: self.text("id")?,
            task: Task::from_name(&task).ok_or_else(|| {
                let names = Task::ALL.map(|task| format!("`{task}`"));
                let expected = format!("one of {}", names.join(", "));
                Problem::new("`task`", format!("`{task}`"), expected)
            })?,
            length: u32::try_from(length)
                .map_err(|_| Problem::new("`length`", length, format!("2 to {MAX_LENGTH}")))?,
            tokens: tokens.collect::<Result<_, _>>()?,
            answer: usize::try_from(self.number("answer")?).unwrap_or(usize::MAX),
            source: self.text("source")?,
            text: self.text("text")?,
        })
    }

    fn text(&self, field: &str) -> Result<String, Problem> {
        let value = self.0.get(field);
        let text = value.and_then(Value::as_str);
        text.map(str::to_owned).ok_or_else(|| Problem::new(format!("`{field}`"), shown(value), "a text"))
    }

    fn number(&self, field: &str) -> Result<u64, Problem> {
        let value = self.0.get(field);
        let number = value.and_then(Value::as_u64);
        number.ok_or_else(|| Problem::new(format!("`{field}`"), shown(value), "a whole number from 0 on"))
    }

    fn list(&self, field: &str, expected: &str) -> Result<&[Value], Problem> {
        let value = self.0.get(field);
        let list = value.and_then(Value::as_array);
        list.map(Vec::as_slice).ok_or_else(|| Problem::new(format!("`{field}`"), shown(value), expected))
    }
}

fn digest(field: &str, text: &str) -> Result<Digest, Problem> {
    text.parse().map_err(|_| Problem::new(field, format!("`{text}`"), "a sha256: 64 hexadecimal digits"))
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "nothing".to_owned(), show)
}

/// A value as a message quotes it: its first characters.
fn show(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items() -> Items {
        let item = |id: &str, task, answer| Item {
            id: id.to_owned(),
            task,
            length: 8,
            tokens: vec![5, 6, 7, u32::MAX, 9],
            answer,
            source: "a/b.txt".to_owned(),
            text: "ein \"Wort\"\n".to_owned(),
        };
        let sources = vec![Source { name: "a/b.txt".to_owned(), sha256: Digest::of(b"b") }];
        Items {
            header: Header {
                format: ITEMS_FORMAT.to_owned(),
                model: "tiny".to_owned(),
                tokenizer: Digest::of(b"t"),
                seed: u64::MAX,
                sources,
            },
            items: vec![
                item("0", Task::Document, 1),
                item("1", Task::Fact(FactKind::Uuid), 4),
                item("2", Task::Kv, 3),
            ],
        }
    }

    #[test]
    fn files_round_trip_and_the_same_items_give_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a.jsonl"), folder.path().join("b.jsonl"));
        items().write(&a).unwrap();
        let read = Items::read(&a).unwrap();
        assert_eq!(read, items());
        read.write(&b).unwrap();
        assert_eq!(std::fs::read(&a).unwrap(), std::fs::read(&b).unwrap());
        assert_eq!(read.lengths(), [8]);
        let text = std::fs::read_to_string(&a).unwrap();
        assert_eq!(text.lines().count(), 4);
        assert!(text.starts_with(r#"{"format":"moac.items/1","model":"tiny","tokenizer":""#));
        assert!(
            text.contains(r#"{"id":"2","task":"kv","length":8,"tokens":[5,6,7,4294967295,9],"answer":3,"#)
        );
    }

    #[test]
    fn items_that_break_a_rule_are_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        let mut wrong = items();
        wrong.items[2].answer = 5;
        let error = wrong.write(&path).unwrap_err().to_string();
        assert!(error.contains("line 4: `answer`: found 5, expected 1 to 4"), "{error}");
        assert!(!path.exists());
    }

    /// Every kind of damage: what is replaced, and what the message must say.
    #[test]
    fn a_damaged_file_names_line_field_found_and_expected() {
        let whole = {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.jsonl");
            items().write(&path).unwrap();
            std::fs::read_to_string(path).unwrap()
        };
        let cases = [
            (
                "moac.items/1",
                "moac.items/2",
                "line 1: `format`: found `moac.items/2`, expected `moac.items/1`",
            ),
            (
                "\"seed\":18446744073709551615",
                "\"seed\":-1",
                "line 1: `seed`: found -1, expected a whole number",
            ),
            ("\"model\":\"tiny\",", "", "line 1: `model`: found nothing, expected a text"),
            ("\"tokenizer\":\"", "\"tokenizer\":\"x", "line 1: `tokenizer`: found `x"),
            ("\"sha256\":\"", "\"sha256\":\"x", "line 1: `sources[0].sha256`: found `x"),
            ("\"sources\":[", "\"sources\":[3,", "line 1: `sources[0].name`: found nothing, expected a text"),
            (
                "{\"id\":\"1\"",
                "{\"id\":\"0\"",
                "line 3: `id`: found `0` again, expected a name not used before",
            ),
            ("{\"id\":\"1\"", "{\"id\":1", "line 3: `id`: found 1, expected a text"),
            (
                "\"kv\"",
                "\"needle\"",
                "line 4: `task`: found `needle`, expected one of `document`, `passkey`, `kv`, `text`, `number`",
            ),
            ("\"length\":8,", "\"length\":4,", "line 2: `tokens`: found 5 of them, expected 2 to 4"),
            (
                "\"length\":8,",
                "\"length\":99999999999,",
                "line 2: `length`: found 99999999999, expected 2 to",
            ),
            ("\"length\":8,", "\"length\":0,", "line 2: `length`: found 0, expected 2 to"),
            ("[5,6", "[5,-6", "line 2: `tokens[1]`: found -6, expected a token"),
            ("[5,6", "[5,4294967296", "line 2: `tokens[1]`: found 4294967296, expected a token"),
            ("\"tokens\":[", "\"tokens\":0,\"x\":[", "line 2: `tokens`: found 0, expected a list of tokens"),
            ("\"answer\":1", "\"answer\":0", "line 2: `answer`: found 0, expected 1 to 4"),
            ("\"answer\":1", "\"answer\":1.5", "line 2: `answer`: found 1.5, expected a whole number"),
            ("{\"id\":\"1\"", "[\"id\":\"1\"", "line 3: the line: found no JSON"),
            ("{\"id\":\"1\"", "\n{\"id\":\"1\"", "line 3: the line: found no JSON"),
        ];
        for (from, to, expected) in cases {
            let damaged = whole.replacen(from, to, 1);
            assert_ne!(damaged, whole, "{from}");
            let error = Items::parse(&damaged, Path::new("x.jsonl")).unwrap_err().to_string();
            assert!(
                error.starts_with("`x.jsonl`, ") && error.contains(expected),
                "{error}\nis not\n{expected}"
            );
        }
        for text in ["", whole.lines().next().unwrap(), "7"] {
            assert!(matches!(Items::parse(text, Path::new("x")), Err(ItemsError::Line { .. })));
        }
    }
}
