//! The code shared by the tests and the xtask.
#![forbid(unsafe_code)]

pub mod emulate;
pub mod glue;
pub mod proven;

use std::path::PathBuf;
use std::sync::OnceLock;

use moac_compiler::fetch;
use moac_compiler::nvrtc::Nvrtc;

/// The NVRTC of this machine. A test that needs one fails without it: nothing is skipped.
///
/// # Panics
/// If there is none; the message says how to get it.
pub fn nvrtc() -> &'static Nvrtc {
    static NVRTC: OnceLock<Nvrtc> = OnceLock::new();
    NVRTC.get_or_init(|| match Nvrtc::find() {
        Ok(nvrtc) => nvrtc,
        Err(error) => panic!("{error}\nhint: `cargo xtask test` fetches it and runs the tests"),
    })
}

/// The folder of the fetched real model. A test that needs it fails without it: nothing is skipped.
///
/// # Panics
/// If it is not there; the message says how to get it.
pub fn model_folder() -> PathBuf {
    let folder = fetch::MODEL.folder().filter(|folder| folder.is_dir());
    folder.expect("the real model is fetched: `cargo xtask test` does that and runs the tests")
}
