//! Errors of reading and running a model: the place, the value found, the value expected, and how to fix it.

use std::path::PathBuf;

use moac_runtime::backend::LayerError;
use thiserror::Error;

/// The errors of this module.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A file could not be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The underlying error.
        source: std::io::Error,
    },
    /// The path is neither of the two things a model can be.
    #[error(
        "`{}` is not a model: expected a GGUF file, or a folder with `config.json` and `*.safetensors`{}",
        path.display(),
        meant.as_ref().map(|meant| format!(": is `{}` meant?", meant.display())).unwrap_or_default()
    )]
    NotAModel {
        /// The path.
        path: PathBuf,
        /// A model beside it or in it.
        meant: Option<PathBuf>,
    },
    /// A git-lfs pointer: the placeholder of a large file where git-lfs is not installed.
    #[error(
        "`{}` is a git-lfs pointer, not the file itself: install git-lfs and run `git lfs pull` where it was cloned, or download \
         the file",
        path.display()
    )]
    LfsPointer {
        /// The file.
        path: PathBuf,
    },
    /// A file is damaged, or not of the format that it is read as.
    #[error("`{}` is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it, what was found and what was expected.
        what: String,
    },
    /// A setting of the model is missing or has a value that cannot be.
    #[error("`{}`: `{key}` is {found}, expected {expected}", path.display())]
    Setting {
        /// The file.
        path: PathBuf,
        /// The setting's name in the file.
        key: String,
        /// Its value, or `missing`.
        found: String,
        /// The values allowed.
        expected: String,
    },
    /// The model asks for something that this implementation does not compute.
    #[error("`{}` asks for {what}, which is not supported", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The unsupported setting, by its name in the file.
        what: String,
    },
    /// A tensor is missing, cut short, or not what the configuration says it is.
    #[error("tensor `{name}` of `{}` {problem}", path.display())]
    Tensor {
        /// The tensor's name in the file.
        name: String,
        /// The file that holds it, or should.
        path: PathBuf,
        /// The problem.
        problem: TensorProblem,
    },
    /// The tokenizer could not be built or failed.
    #[error("the tokenizer of `{}`: {what}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// The problem.
        what: String,
    },
    /// The vocabulary has no token for a character, so encoding would lose it.
    #[error(
        "the model's vocabulary has no token for {character:?} (byte {byte:#04x}) at byte {at} of the text: remove the \
         character or replace it"
    )]
    NotInVocabulary {
        /// The character.
        character: char,
        /// The byte of its UTF-8 form that no token holds.
        byte: u8,
        /// Where the character starts in the text.
        at: usize,
    },
    /// The chat template is missing or failed.
    #[error("the model's chat template: {0}")]
    Template(String),
    /// Token ids, positions or sampling parameters that make no sense.
    #[error("{what} is {found}, expected {expected}")]
    Argument {
        /// The name.
        what: &'static str,
        /// Its value.
        found: String,
        /// The values allowed.
        expected: String,
    },
    /// Attention failed: most often because the context is full.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The engine's thread could not be started.
    #[error("cannot start the engine's thread")]
    Thread(#[source] std::io::Error),
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// A GPU could not do what was asked.
    #[cfg(feature = "gpu")]
    #[error(transparent)]
    Gpu(#[from] moac_runtime::gpu::GpuError),
    /// There is nothing to multiply matrices with on the GPU.
    #[cfg(feature = "gpu")]
    #[error(
        "the loader finds no libcublasLt, which multiplies matrices on the GPU: install it, or name its folder in LD_LIBRARY_PATH"
    )]
    NoProducts,
}

/// A problem of a tensor.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TensorProblem {
    /// Not in the file.
    #[error("is missing, expected shape {expected:?}")]
    Missing {
        /// The shape it should have.
        expected: Vec<usize>,
    },
    /// The wrong shape.
    #[error("has shape {found:?}, expected {expected:?}")]
    Shape {
        /// Its shape.
        found: Vec<usize>,
        /// The shape the configuration asks for.
        expected: Vec<usize>,
    },
    /// Its bytes are not all in the file.
    #[error("is truncated: the file ends after {found} of its {expected} bytes")]
    Truncated {
        /// Bytes there are.
        found: u64,
        /// Bytes there should be.
        expected: u64,
    },
    /// An element type that is not read.
    #[error("has element type {found}, expected one of {expected}")]
    ElementType {
        /// The type.
        found: String,
        /// Those that are read.
        expected: &'static str,
    },
    /// Not a part of the model that is computed.
    #[error(
        "is not a tensor of a Llama-family model: this is another kind of model, or its configuration has fewer layers than the file"
    )]
    Unknown,
    /// A value that its type here does not hold.
    #[error("holds {found}, which {dtype} cannot represent: choose another element type")]
    TooLarge {
        /// The largest magnitude of some elements.
        found: String,
        /// The type that they were to be rounded to.
        dtype: String,
    },
    /// The head of a tied model is not its embedding.
    #[error("is not the embedding, although `tie_word_embeddings` is true: the file or the setting is wrong")]
    NotTied,
    /// Values that are not finite.
    #[error("holds a NaN or infinity: the file is damaged, or the weights diverged in training")]
    NotFinite,
}
