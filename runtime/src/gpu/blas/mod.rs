//! Matrix products of cuBLASLt, where the machine has it.
//!
//! cudarc loads the library on its first call and panics where it is missing, so nothing calls it before [`present`] has
//! said that it is there. The library is looked for here, and not by cudarc's own test: that one is left out when another
//! crate of the program has cudarc link CUDA instead of loading it.

mod algorithms;
mod description;
mod products;

use std::sync::OnceLock;

use cudarc::cublaslt::result::CublasError;

pub use products::{Product, Products, ResultType};

use super::GpuError;

/// The library's names, all of them among those that cudarc tries.
#[cfg(windows)]
const NAMES: [&str; 3] = ["cublasLt.dll", "cublasLt64_13.dll", "cublasLt64_12.dll"];
#[cfg(not(windows))]
const NAMES: [&str; 3] = ["libcublasLt.so", "libcublasLt.so.13", "libcublasLt.so.12"];

/// Whether the loader finds cuBLASLt.
pub fn present() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| NAMES.into_iter().any(loads))
}

fn loads(name: &str) -> bool {
    // SAFETY: loading a library runs its initialisers. Under these names it is NVIDIA's, or whatever the machine's owner
    // put in its place.
    let library = unsafe { libloading::Library::new(name) };
    // cudarc opens it again: unloading it in between would only cost time.
    library.map(std::mem::forget).is_ok()
}

trait Refused<T> {
    fn refused(self, what: &'static str) -> Result<T, GpuError>;
}

impl<T> Refused<T> for Result<T, CublasError> {
    fn refused(self, what: &'static str) -> Result<T, GpuError> {
        self.map_err(|error| GpuError::Library { library: "cuBLASLt", what, reason: error.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::loads;

    #[test]
    fn a_library_that_is_not_there_is_not_found() {
        assert!(!loads("libcublasLt-that-is-not-there.so"));
        #[cfg(target_os = "linux")]
        assert!(loads("libm.so.6"));
    }
}
