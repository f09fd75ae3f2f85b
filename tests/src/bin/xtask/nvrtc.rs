//! Fetches NVRTC where it is missing: the only download of the tests.

use moac_compiler::fetch;
use moac_compiler::nvrtc::{Nvrtc, NvrtcError, Search};

use super::Result;

#[derive(clap::Args)]
pub(super) struct Args {
    /// The pinned build and no other: fetch it even where there is one already, and print its folder
    #[arg(long)]
    pinned: bool,
}

/// Prints where it is.
pub(super) fn run(args: &Args) -> Result<()> {
    if args.pinned {
        let fetched = fetch::NVRTC.fetch()?;
        let search = Search { fetched: Some(fetched), ..Search::default() };
        println!("{}", search.run()?.0.path().display());
    } else {
        println!("{}", ensure()?.path().display());
    }
    Ok(())
}

/// The one that is found, or else the pinned one, fetched.
pub(super) fn ensure() -> Result<Nvrtc> {
    match Nvrtc::find() {
        Err(NvrtcError::NotFound { .. }) => {
            eprintln!("fetching {}=={}", fetch::NVRTC.package, fetch::NVRTC.version);
            fetch::NVRTC.fetch()?;
            Ok(Nvrtc::find()?)
        }
        found => Ok(found?),
    }
}
