//! The items of an unfinished run: a JSONL file beside the output.
//!
//! The first line identifies the run. A file of another run is ignored, as is a truncated line.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use moac_runtime::digest::Digest;
use serde::Serialize;
use serde_json::Value;

use super::{CalibrateError, Options, Tally};
use crate::items::{Header, Item};

/// One item that was made, or could not be.
#[derive(Debug, Serialize)]
pub(super) struct Done {
    pub(super) id: String,
    pub(super) item: Option<Item>,
    pub(super) tally: Tally,
}

impl Done {
    fn parse(line: &str) -> Option<Self> {
        let mut line: Value = serde_json::from_str(line).ok()?;
        let tally = serde_json::from_value(line.get_mut("tally")?.take()).ok()?;
        let id = line.get("id")?.as_str()?.to_owned();
        let item = match line.get_mut("item")?.take() {
            Value::Null => None,
            Value::Object(fields) => Some(Item::from_fields(fields).ok().filter(|item| item.id == id)?),
            _ => return None,
        };
        Some(Self { id, item, tally })
    }
}

/// The file of an unfinished run.
#[derive(Debug)]
pub(super) struct Part {
    path: PathBuf,
    file: File,
}

impl Part {
    /// Opens the file of a run that writes `out`, and returns what is done already.
    pub(super) fn open(
        out: &Path,
        model: Digest,
        header: &Header,
        options: &Options,
    ) -> Result<(Self, BTreeMap<String, Done>), CalibrateError> {
        let mut path = out.as_os_str().to_owned();
        path.push(".part");
        let path = PathBuf::from(path);
        let error = |action| {
            let path = path.clone();
            move |source| CalibrateError::Part { action, path, source }
        };
        let run =
            serde_json::json!({"part_of": header, "model": model, "answer_tokens": options.answer_tokens});
        let first = run.to_string();
        let known = match std::fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(source) if source.kind() == ErrorKind::NotFound => String::new(),
            Err(source) => return Err(error("read")(source)),
        };
        // Every line ends with a line feed, or it was cut.
        let mut lines = known.split_inclusive('\n').take_while(|line| line.ends_with('\n'));
        let mut whole = 0;
        let mut done = BTreeMap::new();
        if let Some(line) = lines.next().filter(|line| line.trim_end() == first) {
            whole = line.len();
            for (line, result) in lines.map_while(|line| Some((line, Done::parse(line)?))) {
                whole += line.len();
                done.insert(result.id.clone(), result);
            }
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(error("write"))?;
        file.set_len(whole as u64).map_err(error("write"))?;
        file.seek(std::io::SeekFrom::End(0)).map_err(error("write"))?;
        let mut part = Self { path: path.clone(), file };
        if whole == 0 {
            part.line(&first)?;
        }
        Ok((part, done))
    }

    /// Adds what was done.
    pub(super) fn add(&mut self, done: &Done) -> Result<(), CalibrateError> {
        let line = serde_json::to_string(done).map_err(|error| self.error("write", error.into()))?;
        self.line(&line)
    }

    /// Ends the file's life: what it held is in a better place.
    pub(super) fn remove(self) -> Result<(), CalibrateError> {
        std::fs::remove_file(&self.path).map_err(|source| self.error("remove", source))
    }

    fn line(&mut self, line: &str) -> Result<(), CalibrateError> {
        self.file.write_all(format!("{line}\n").as_bytes()).map_err(|source| self.error("write", source))
    }

    fn error(&self, action: &'static str, source: std::io::Error) -> CalibrateError {
        CalibrateError::Part { action, path: self.path.clone(), source }
    }
}
