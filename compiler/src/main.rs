//! The `moac` binary.
fn main() {}
