//! Whether there is a driver at all. cudarc loads the driver's library on its first call and panics where it is
//! missing; so nothing calls the driver before [`ensure`] has said that it is there.

use std::sync::OnceLock;

use cudarc::driver::{result, sys};

use super::error::Doing;
use super::{DriverVersion, GpuError};

/// The oldest driver that has every function in use: cudarc's event times are CUDA 12.8's.
const OLDEST: DriverVersion = [12, 8];

/// The driver's names, in the order in which cudarc looks for them. It takes the first that loads.
#[cfg(windows)]
const NAMES: [&str; 1] = ["nvcuda.dll"];
#[cfg(not(windows))]
const NAMES: [&str; 2] = ["libcuda.so", "libcuda.so.1"];

/// Checks that there is a driver that is new enough, starts it, and returns the CUDA version that it supports.
pub(super) fn ensure() -> Result<DriverVersion, GpuError> {
    static FOUND: OnceLock<bool> = OnceLock::new();
    if !FOUND.get_or_init(|| NAMES.into_iter().find_map(is_driver).unwrap_or(false)) {
        return Err(GpuError::NoDriver { tried: NAMES.map(str::to_owned).to_vec() });
    }
    result::init().doing("start")?;
    let mut version = 0;
    // SAFETY: the pointer is to a live integer, which the call writes.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }.result().doing("tell its version")?;
    let version = version.unsigned_abs();
    let found = [version / 1000, version % 1000 / 10];
    if found < OLDEST {
        return Err(GpuError::DriverVersion { found, expected: OLDEST });
    }
    Ok(found)
}

/// Whether the library `name` has a driver's functions; `None` where the loader does not find it.
fn is_driver(name: &str) -> Option<bool> {
    // SAFETY: loading a library runs its initialisers. Under these names it is NVIDIA's driver, which every CUDA
    // program loads, or whatever the machine's owner put in its place.
    let library = unsafe { libloading::Library::new(name) }.ok()?;
    // SAFETY: the symbol is looked up, never called or read through.
    let found = unsafe { library.get::<unsafe extern "C" fn()>("cuDriverGetVersion") }.is_ok();
    // cudarc opens it again, and the driver does not like to be unloaded.
    std::mem::forget(library);
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::is_driver;

    #[test]
    fn a_missing_library_and_a_strange_one_are_no_driver() {
        assert_eq!(is_driver("libcuda-that-is-not-there.so"), None);
        #[cfg(target_os = "linux")]
        assert_eq!(is_driver("libm.so.6"), Some(false));
    }
}
