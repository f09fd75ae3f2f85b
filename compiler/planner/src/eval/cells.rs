//! Measurements, saved by content: nothing is measured twice.
//!
//! A cell is a JSON file `<task>-<length>/<sha256 of its key>.json` that holds its key, the result, and a description
//! for people. It is written to a temporary name, synced and renamed, so none is ever partial; a cell that cannot be
//! read, or that holds another key, is measured again. Folders of cells can be copied together.

use std::io;
use std::path::{Path, PathBuf};

use moac_runtime::digest::Digest;
use moac_runtime::file;
use serde::{Deserialize, Serialize};

use super::Task;

/// The layout of a cell, and what is computed for it. Raised when either changes, or when the forward pass begins to
/// give other numbers: old cells are then never looked at.
pub const FORMAT: &str = "moac.cell/1";

/// Everything that a measurement depends on, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// [`FORMAT`].
    pub format: String,
    /// The model's files.
    pub model: Digest,
    /// The task measured.
    pub task: Task,
    /// The context length, which is the bucket.
    pub length: u32,
    /// The spans of every head there.
    pub spans: Digest,
    /// The tokens.
    pub input: Digest,
}

impl Key {
    /// The digest of its canonical JSON.
    pub fn digest(&self) -> Digest {
        // Fields are written in their order, and all of them are text and whole numbers.
        Digest::of(&serde_json::to_vec(self).unwrap_or_default())
    }
}

/// The result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The loss in nats of every token but the first.
    Losses(Vec<f32>),
    /// Every question of a context.
    Answers(Vec<Answer>),
    /// What the model says, turn by turn.
    Said(Vec<String>),
}

/// The answer to a question.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Where in the context its fact lies, from 0 to 1.
    pub depth: f64,
    /// Whether greedy decoding gives exactly the answer.
    pub right: bool,
    /// The mean loss in nats of the answer's tokens.
    pub loss: f64,
}

/// For people who read a cell: its first owner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// The model's name.
    pub model: String,
    /// The item's name.
    pub item: String,
    /// The method's name.
    pub method: String,
}

/// A measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The inputs it depends on.
    pub key: Key,
    /// A description for people.
    pub about: About,
    /// The result.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// A folder of cells.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// The cells below `folder`, which is made when one is written.
    pub fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Where the cell of a key is, or would be.
    pub fn path(&self, key: &Key) -> PathBuf {
        self.folder.join(format!("{}-{}", key.task, key.length)).join(format!("{}.json", key.digest()))
    }

    /// The result, if it was measured.
    pub fn load(&self, key: &Key) -> Option<Outcome> {
        let path = self.path(key);
        let bytes = std::fs::read(&path).ok()?;
        match serde_json::from_slice::<Cell>(&bytes) {
            Ok(cell) if cell.key == *key => Some(cell.outcome),
            Ok(_) => {
                tracing::warn!(path = %path.display(), "the cell is another one's: it is measured again");
                None
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the cell is damaged: it is measured again");
                None
            }
        }
    }

    /// Writes a cell, whole or not at all.
    pub fn save(&self, cell: &Cell) -> io::Result<()> {
        let path = self.path(&cell.key);
        let folder = path.parent().unwrap_or(&self.folder);
        std::fs::create_dir_all(folder)?;
        let mut text = serde_json::to_vec(cell)?;
        text.push(b'\n');
        file::write(&path, &text)
    }
}
