//! What the tests and the xtask share.
#![forbid(unsafe_code)]

pub mod emulate;

use std::sync::OnceLock;

use moac::nvrtc::Nvrtc;

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
