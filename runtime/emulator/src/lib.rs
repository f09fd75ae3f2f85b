//! A PTX emulator that knows nothing of attention.
#![forbid(unsafe_code)]
