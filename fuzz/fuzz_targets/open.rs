//! Any bytes: an artifact or an error, never a panic, a hang or more memory than the file is worth.
#![no_main]

use libfuzzer_sys::fuzz_target;
use moac_runtime::artifact::Artifact;

fuzz_target!(|data: &[u8]| {
    let _ = Artifact::from_bytes(data.to_vec());
});
