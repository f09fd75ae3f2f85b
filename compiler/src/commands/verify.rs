//! `moac verify`: every kernel against the float64 reference.

use std::path::PathBuf;

use super::args::{ModelArg, TargetArgs};

/// Check every kernel against the float64 reference, on this GPU or on the emulator
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A plan, which is compiled first, or an artifact
    pub file: PathBuf,
    /// The model
    #[command(flatten)]
    pub model: ModelArg,
    /// What for
    #[command(flatten)]
    pub target: TargetArgs,
    /// Run the kernels' PTX on the CPU instead of a GPU
    #[arg(long)]
    pub emulate: bool,
    /// Add the kernels that passed to this ledger
    #[arg(long, value_name = "PATH", conflicts_with = "emulate")]
    pub record: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}
