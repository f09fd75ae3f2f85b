//! A model's files, opened: what it is, and its weights, streamed from where they lie.
//!
//! What must hold: a tensor of a file is used or the file is refused, and every weight has the shape that the
//! configuration asks for. Host memory stays at some megabytes beside the page cache, however large the model is.

use std::collections::BTreeSet;
use std::path::Path;

use super::config::{Config, ROPE_DIVISORS};
use super::element::Element;
use super::gguf::Gguf;
use super::mmap::Mapped;
use super::parts::{Part, Weight};
use super::random;
use super::shards::Shards;
use super::stored::{Order, Stored};
use crate::ModelError;
use crate::error::TensorProblem;

/// Where the weights of a model come from.
#[derive(Debug)]
enum Source {
    Gguf(Gguf),
    Folder(Shards),
    /// Made from a seed.
    Random(u64),
}

/// A model whose weights are not read yet.
#[derive(Debug)]
pub struct Checkpoint {
    config: Config,
    source: Source,
    /// Bytes of all weights, as they are stored.
    bytes: u64,
}

impl Checkpoint {
    /// Opens a GGUF file, or a folder with `config.json` and safetensors. Headers are checked and the shapes of all
    /// tensors; their elements are when they are read.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let (config, source) = if path.is_dir() {
            if !path.join("config.json").is_file() {
                return Err(not_a_model(path));
            }
            (Config::from_folder(path)?, Source::Folder(Shards::open(path)?))
        } else {
            let gguf = open_gguf(path)?;
            (Config::from_gguf(&gguf)?, Source::Gguf(gguf))
        };
        let mut opened = Self { config, source, bytes: 0 };
        opened.check_complete()?;
        Ok(opened)
    }

    /// A model of a shape with weights made from a seed.
    pub fn random(config: Config, seed: u64) -> Self {
        let elements = |weight: Weight| weight.shape(&config).iter().map(|&d| d as u64).product::<u64>();
        let bytes = 4 * Weight::all(&config).into_iter().map(elements).sum::<u64>();
        Self { config, source: Source::Random(seed), bytes }
    }

    /// The model's configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Sets the tokens that end an answer, which the tokenizer's files name too.
    pub(crate) fn set_ends(&mut self, tokens: Vec<u32>) {
        self.config.eos = tokens;
    }

    /// The GGUF file, if it is one: its metadata has more than the weights.
    pub fn gguf(&self) -> Option<&Gguf> {
        match &self.source {
            Source::Gguf(gguf) => Some(gguf),
            Source::Folder(_) | Source::Random(_) => None,
        }
    }

    /// Bytes of all weights as they are stored.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Hands on all elements of a weight in order, some megabytes at a time and in whole rows, rounded to the nearest of
    /// their type. Ends with the first error of the sink or of the file.
    pub fn stream<T: Element, E: From<ModelError>>(
        &self,
        weight: Weight,
        mut sink: impl FnMut(&[T]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.pieces(weight, |piece, _| sink(piece))
    }

    /// Hands on all weights of the model, one after the other in the order of [`Weight::all`]. `progress` is called with how many
    /// bytes of [`bytes`](Self::bytes) are done.
    pub fn stream_all<T: Element, E: From<ModelError>>(
        &self,
        progress: &mut dyn FnMut(u64, u64),
        mut sink: impl FnMut(Weight, &[T]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut done = 0;
        for weight in Weight::all(&self.config) {
            self.pieces(weight, |piece, bytes| {
                sink(weight, piece)?;
                done += bytes;
                progress(done, self.bytes);
                Ok::<(), E>(())
            })?;
        }
        Ok(())
    }

    /// The pieces of a weight, each with the stored bytes that it took.
    fn pieces<T: Element, E: From<ModelError>>(
        &self,
        weight: Weight,
        mut sink: impl FnMut(&[T], u64) -> Result<(), E>,
    ) -> Result<(), E> {
        if let Source::Random(seed) = self.source {
            return random::stream(&self.config, seed, weight, |piece| sink(piece, 4 * piece.len() as u64));
        }
        for part in weight.parts() {
            self.stored(part)?.stream(self.order(part), &mut sink)?;
        }
        Ok(())
    }

    /// The tensor of a part.
    fn stored(&self, part: Part) -> Result<Stored<'_>, ModelError> {
        let shape = part.shape(&self.config);
        match &self.source {
            Source::Gguf(gguf) => gguf.tensor(&part.gguf_name(), &shape),
            Source::Folder(shards) => shards.tensor(&part.folder_name(), &shape),
            Source::Random(_) => unreachable!("random weights have no tensors"),
        }
    }

    /// GGUF files of Llama interleave the rows of a rotary pair; those of other architectures have them as they are.
    fn order(&self, part: Part) -> Order {
        match (&self.source, part) {
            (Source::Gguf(gguf), Part::Q(_) | Part::K(_)) if gguf.interleaves_rotary_rows() => {
                Order::Halves(self.config.head_dim)
            }
            _ => Order::Plain,
        }
    }

    /// Checks that every part is there and that every tensor is one of them: one that is left out would change the result
    /// in silence.
    fn check_complete(&mut self) -> Result<(), ModelError> {
        let name = |part: Part| match &self.source {
            Source::Folder(_) => part.folder_name(),
            _ => part.gguf_name(),
        };
        let mut used = BTreeSet::new();
        let mut bytes = 0;
        for part in Weight::all(&self.config).into_iter().flat_map(Weight::parts) {
            used.insert(name(part));
            bytes += self.stored(part)?.size();
        }
        let (path, names): (&Path, Vec<&str>) = match &self.source {
            Source::Gguf(gguf) => (gguf.path(), gguf.tensor_names().collect()),
            Source::Folder(shards) => (shards.folder(), shards.tensor_names().collect()),
            Source::Random(_) => return Ok(()),
        };
        // Tied models may keep a copy of the embedding all the same.
        let head = name(Part::Head);
        if self.config.tied_embeddings && names.contains(&head.as_str()) {
            let head_tensor = self.stored(Part::Head)?;
            if !head_tensor.same(&self.stored(Part::Embedding)?) {
                return Err(head_tensor.error(TensorProblem::NotTied));
            }
            used.insert(head);
        }
        if let Some(&unknown) = names.iter().find(|&&name| !used.contains(name) && !is_derived(name)) {
            let (name, path) = (unknown.to_owned(), path.to_owned());
            return Err(ModelError::Tensor { name, path, problem: TensorProblem::Unknown });
        }
        self.bytes = bytes;
        Ok(())
    }
}

/// Opens a GGUF file.
pub(crate) fn open_gguf(path: &Path) -> Result<Gguf, ModelError> {
    if !Gguf::is_gguf(&Mapped::open(path)?) {
        return Err(not_a_model(path));
    }
    Gguf::open(path)
}

/// The error for a path that is not a model. If there are model files beside it, the error names one.
fn not_a_model(path: &Path) -> ModelError {
    let entries = if path.is_dir() { std::fs::read_dir(path).ok() } else { None };
    let inside = entries.into_iter().flatten().flatten().map(|entry| entry.path());
    let mut ggufs: Vec<_> =
        inside.filter(|path| path.extension().is_some_and(|kind| kind == "gguf")).collect();
    ggufs.sort();
    let meant = if path.extension().is_some_and(|kind| kind == "safetensors") {
        path.parent().filter(|folder| folder.join("config.json").is_file()).map(Path::to_owned)
    } else {
        ggufs.into_iter().next()
    };
    ModelError::NotAModel { path: path.to_owned(), meant }
}

/// Tensors that hold no weights of their own: what they say follows from the configuration, or has been read with it.
fn is_derived(name: &str) -> bool {
    name == ROPE_DIVISORS || name.ends_with(".rotary_emb.inv_freq") || name.ends_with(".attn_rot_embd.weight")
}
