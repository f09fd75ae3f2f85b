//! The plan compiler, as a library.
