//! NVRTC for whoever has none: the one download of the tests.

use moac::fetch;
use moac::nvrtc::{Nvrtc, NvrtcError};

use super::Result;

/// Prints where it is.
pub(super) fn run() -> Result<()> {
    println!("{}", ensure()?.path().display());
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
