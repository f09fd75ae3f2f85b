//! The `moac` binary.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    moac::cli::main().into()
}
