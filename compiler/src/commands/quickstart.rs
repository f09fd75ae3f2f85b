//! `moac quickstart`: from nothing to generated text.

use std::path::PathBuf;

/// Fetch what is needed, compile the shipped plan, check it and show it at work
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder to keep the results in
    #[arg(short, long, value_name = "DIR", default_value = "moac-quickstart")]
    pub out: PathBuf,
}
