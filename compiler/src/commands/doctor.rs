//! `moac doctor`: what was found on this machine, and what to do about what is missing.

/// Show the driver, devices, NVRTC and caches that were found
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Fetch NVRTC through pip if none was found
    #[arg(long)]
    pub fetch: bool,
    /// Print what was found as JSON
    #[arg(long)]
    pub json: bool,
}
