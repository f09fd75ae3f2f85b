//! The `moac` command line, built where the tests can find it.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    moac::cli::main().into()
}
