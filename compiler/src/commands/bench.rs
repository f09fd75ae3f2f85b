//! `moac bench`: time and rates per phase.

use std::path::PathBuf;

/// Time the kernels of an artifact against the ceiling measured in the same run
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The artifact
    pub file: PathBuf,
    /// Batch sizes
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,8,32")]
    pub batch: Vec<u32>,
    /// Context lengths [default: the buckets]
    #[arg(long, value_name = "TOKENS", value_delimiter = ',')]
    pub context: Vec<u32>,
    /// Count bytes and instructions on the emulator instead; never a time
    #[arg(long)]
    pub emulate: bool,
    /// Print the table as JSON
    #[arg(long)]
    pub json: bool,
}
