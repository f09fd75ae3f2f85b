//! The error of a command, which wraps the errors of all libraries.

use std::io;
use std::path::{Path, PathBuf};

use moac_compiler::hint::Hint;
use moac_runtime::gpu::GpuError;
use thiserror::Error;

/// An error of a command.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The plan or the model's shape is not usable.
    #[error(transparent)]
    Plan(#[from] moac_compiler::plan::Error),
    /// The plan cannot be lowered as asked.
    #[error(transparent)]
    Lower(#[from] moac_compiler::lower::Error),
    /// A kernel could not be rendered.
    #[error(transparent)]
    Render(#[from] moac_compiler::render::Error),
    /// The model could not be read or run.
    #[error(transparent)]
    Model(#[from] moac_model::ModelError),
    /// A plan for another model.
    #[error("`{}` is for {found}, whose shape differs from that of {expected}", path.display())]
    OtherModel {
        /// The plan or artifact.
        path: PathBuf,
        /// The model that it is for.
        found: String,
        /// The model at hand.
        expected: String,
    },
    /// The GGUF file of `--model` is damaged, or of a model that is not supported.
    #[error("--model: {0}")]
    Gguf(#[source] moac_model::ModelError),
    /// A line of a JSONL file is not what it should be.
    #[error("`{}`, line {line}: {source}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line number, from 1.
        line: usize,
        /// The underlying error.
        source: serde_json::Error,
    },
    /// A repeatable flag that sets one thing twice.
    #[error("{flag} is given twice for `{key}`")]
    Twice {
        /// The flag.
        flag: &'static str,
        /// The key that is given twice.
        key: String,
    },
    /// Two things for standard output.
    #[error("`-` and --json would both write to standard output: give a file, or leave --json out")]
    StdoutTwice,
    /// An artifact for the screen.
    #[error("an artifact is binary, and standard output is a terminal: give a file, or redirect it")]
    Terminal,
    /// An output without a name.
    #[error("the plan comes from standard input, so the artifact has no name: give one with --out")]
    Unnamed,
    /// `moac man` of a command that does not exist.
    #[error("there is no command `{name}`")]
    Command {
        /// As given.
        name: String,
    },
    /// A file without a prompt in it.
    #[error("`{}` contains no prompt", path.display())]
    NoPrompts {
        /// The file.
        path: PathBuf,
    },
    /// As many requests as fit, of attention alone.
    #[error("--batch max needs a whole model: name one with --model")]
    LargestBatch,
    /// A context length that neither the model nor the artifact has.
    #[error("--context: found {found} tokens, expected at most {longest}, the longest context available")]
    Context {
        /// As asked for.
        found: u32,
        /// The model's own, or the artifact's largest bucket.
        longest: u32,
    },
    /// The engine did not take a request.
    #[error(transparent)]
    Refused(#[from] moac_model::Refused),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] moac_model::EngineError),
    /// The server failed.
    #[error(transparent)]
    Serve(#[from] moac_server::ServeError),
    /// Nothing to serve.
    #[error("no model: give MODEL, set MOAC_SERVE_MODEL, or put `model` into the file of --config")]
    NoModel,
    /// A setting of the server that is not what it should be.
    #[error("{place}: {why}")]
    Setting {
        /// The variable, or the file and its key.
        place: String,
        /// The problem.
        why: String,
    },
    /// Answers that do not depend on others at all, on a GPU.
    #[error("--deterministic: not supported on a GPU, where products depend on how many requests run")]
    DeterministicGpu,
    /// There is no NVRTC.
    #[error(transparent)]
    Nvrtc(#[from] moac_compiler::nvrtc::NvrtcError),
    /// The kernels could not be compiled or packed.
    #[error(transparent)]
    Build(#[from] moac_compiler::build::Error),
    /// A package could not be fetched.
    #[error(transparent)]
    Fetch(#[from] moac_compiler::fetch::FetchError),
    /// The file is not an artifact that this version can use.
    #[error("cannot use `{}`: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The underlying error.
        source: moac_runtime::artifact::OpenError,
    },
    /// The CPU reference refused.
    #[error("the CPU reference: {0}")]
    Reference(#[from] moac_runtime::backend::LayerError),
    /// A flag that only means something for a plan.
    #[error("{flag} cannot be used with an artifact: `{}` was compiled for its own", path.display())]
    Fixed {
        /// The flag.
        flag: &'static str,
        /// The artifact.
        path: PathBuf,
    },
    /// An artifact whose PTX is not UTF-8 text.
    #[error("the PTX in `{}` is not UTF-8: {source}", path.display())]
    Ptx {
        /// The artifact.
        path: PathBuf,
        /// Where it stops being text.
        source: std::str::Utf8Error,
    },
    /// An artifact without a kernel for the architectures asked for.
    #[error(
        "`{}` has no kernel for the given architectures, only for {}", path.display(),
        found.iter().map(|arch| arch.name()).collect::<Vec<_>>().join(", ")
    )]
    NoKernels {
        /// The artifact.
        path: PathBuf,
        /// The architectures that it has.
        found: Vec<moac_runtime::arch::Arch>,
    },
    /// The GPU cannot be used.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// Kernels could not be run.
    #[error(transparent)]
    Verify(#[from] moac_compiler::verify::Error),
    /// A layer cannot be run on these inputs.
    #[error(transparent)]
    Exec(#[from] moac_compiler::exec::ExecError),
    /// The caller's tensors are wrong.
    #[error(transparent)]
    Tensors(#[from] moac_compiler::exec::tensors::TensorError),
    /// The emulator cannot run a layer.
    #[error(transparent)]
    Emulator(#[from] moac_compiler::exec::emulator::EmulatorError),
    /// The ledger cannot be read or written.
    #[error(transparent)]
    Ledger(#[from] moac_compiler::ledger::LedgerError),
    /// An evaluation could not be made.
    #[error(transparent)]
    Eval(Box<moac_planner::eval::EvalError>),
    /// Plans cannot be validated.
    #[error(transparent)]
    Validate(#[from] moac_planner::validate::ValidateError),
    /// A plan cannot be refined.
    #[error(transparent)]
    Refine(#[from] moac_planner::refine::RefineError),
    /// The profile could not be made.
    #[error(transparent)]
    Profile(#[from] moac_planner::profile::ProfileError),
    /// The influence cannot be read.
    #[error(transparent)]
    Influence(#[from] moac_planner::search::influence::InfluenceError),
    /// The calibration items cannot be read or written.
    #[error(transparent)]
    Items(#[from] moac_planner::items::ItemsError),
    /// A task could not be made from the texts.
    #[error(transparent)]
    Task(#[from] moac_planner::tasks::TaskError),
    /// The calibration items could not be made.
    #[error(transparent)]
    Calibrate(#[from] moac_planner::calibrate::CalibrateError),
    /// A plan could not be made.
    #[error(transparent)]
    Pipeline(#[from] moac_planner::pipeline::PipelineError),
    /// The search found no plan.
    #[error(transparent)]
    Search(#[from] moac_planner::search::outcome::SearchError),
    /// `CUDA_COMPUTE_CAP` names no architecture.
    #[error("CUDA_COMPUTE_CAP: {0}")]
    ComputeCap(#[source] moac_runtime::arch::UnknownArch),
    /// A file could not be read or written.
    #[error("cannot {action} `{}`: {source}", path.display())]
    File {
        /// The action that failed: `read`, `write` or `create`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The underlying error.
        source: io::Error,
    },
    /// Standard output is gone.
    #[error("cannot write to standard output: {0}")]
    Output(#[source] io::Error),
}

impl From<moac_planner::eval::EvalError> for Error {
    fn from(error: moac_planner::eval::EvalError) -> Self {
        Self::Eval(Box::new(error))
    }
}

impl Error {
    /// A closure for `map_err`: `action` on `path` failed.
    pub fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }
}

impl Hint for Error {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Plan(error) => error.hints(),
            Self::Model(error) => model_hints(error),
            Self::Refused(error) => refused_hints(error),
            Self::DeterministicGpu => vec!["use --device cpu".to_owned()],
            Self::Lower(error) => error.hints(),
            Self::Nvrtc(error) => error.hints(),
            Self::Build(error) => error.hints(),
            Self::Fetch(error) => error.hints(),
            Self::Gpu(
                GpuError::NoDriver { .. }
                | GpuError::NoDevice { .. }
                // The error of a driver without a device.
                | GpuError::Driver { what: "start", .. },
            ) => {
                vec![
                    "without a GPU: `moac verify --emulate`, `moac bench --emulate`, `moac exec --device cpu` or `--device emulator`"
                        .to_owned(),
                ]
            }
            Self::Render(_)
            | Self::Open { .. }
            | Self::OtherModel { .. }
            | Self::Gguf(_)
            | Self::Line { .. }
            | Self::NoPrompts { .. }
            | Self::LargestBatch
            | Self::Command { .. }
            | Self::StdoutTwice
            | Self::NoModel
            | Self::Setting { .. }
            | Self::Terminal
            | Self::Unnamed
            | Self::Twice { .. }
            | Self::Context { .. }
            | Self::Engine(_)
            | Self::Serve(_)
            | Self::Reference(_)
            | Self::Fixed { .. }
            | Self::Ptx { .. }
            | Self::NoKernels { .. }
            | Self::Verify(_)
            | Self::Exec(_)
            | Self::Tensors(_)
            | Self::Emulator(_)
            | Self::Ledger(_)
            | Self::Eval(_)
            | Self::Refine(_)
            | Self::Profile(_)
            | Self::Validate(_)
            | Self::Influence(_)
            | Self::Items(_)
            | Self::Task(_)
            | Self::Calibrate(_)
            | Self::Pipeline(_)
            | Self::Search(_)
            | Self::ComputeCap(_)
            | Self::File { .. }
            | Self::Gpu(_)
            | Self::Output(_) => Vec::new(),
        }
    }
}

fn model_hints(error: &moac_model::ModelError) -> Vec<String> {
    use moac_model::ModelError;
    match error {
        ModelError::Template(_) => vec!["use --raw to pass the prompt without the template".to_owned()],
        _ => Vec::new(),
    }
}

fn refused_hints(error: &moac_model::Refused) -> Vec<String> {
    use moac_model::Refused;
    match error {
        Refused::PromptTooLong { .. } => {
            vec!["set a longer one with --context, up to that of the model or the artifact".to_owned()]
        }
        Refused::Argument(error) => model_hints(error),
        _ => Vec::new(),
    }
}
