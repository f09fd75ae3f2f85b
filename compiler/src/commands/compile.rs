//! `moac compile`: plan to artifact.

use std::path::PathBuf;

use super::args::{PlanArgs, TargetArgs};

/// Compile a plan to an artifact
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The plan
    #[command(flatten)]
    pub plan: PlanArgs,
    /// What for
    #[command(flatten)]
    pub target: TargetArgs,
    /// The artifact [default: the plan's name with .moac, in the working folder]
    #[arg(short, long, value_name = "OUT.moac")]
    pub out: Option<PathBuf>,
    /// Compilations at once [default: one per core]
    #[arg(short, long, value_name = "N")]
    pub jobs: Option<std::num::NonZeroUsize>,
    /// Print what was compiled as JSON
    #[arg(long)]
    pub json: bool,
}
