//! `moac-fuzz TARGET|all`: runs inputs of a target on all cores and prints a report as JSON. It ends at the first input that
//! panics, crashes, hangs, or takes too long or too much memory; that input is then in `fuzz/artifacts/`.

#![forbid(unsafe_code)]

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::available_parallelism;

use clap::Parser;
use moac_fuzz::{Failure, Mutator, Note, Order, TARGETS, Target, home, run, work};

/// Runs random inputs of a target: each must return a result or an error, in seconds, with little memory.
#[derive(Parser)]
#[command(name = "moac-fuzz", after_help = targets())]
struct Arguments {
    /// The target, or `all`.
    target: String,
    /// How many inputs of each target.
    #[arg(long, default_value = "1e5", value_parser = count)]
    inputs: u64,
    /// How many processes run them [default: one for each core].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1024))]
    jobs: Option<u64>,
    /// The number of the first input.
    #[arg(long, default_value = "0", value_parser = count)]
    from: u64,
    /// Runs as one of the processes and writes its progress to this file.
    #[arg(long, hide = true)]
    note: Option<PathBuf>,
}

fn targets() -> String {
    format!("Targets: {}", TARGETS.map(|target| target.name).join(", "))
}

/// A whole number, which may be written as `1e7`.
fn count(text: &str) -> Result<u64, String> {
    let whole = |value: f64| (value.fract() == 0.0 && (0.0..=1e15).contains(&value)).then_some(value as u64);
    let value = text.parse().ok().or_else(|| text.parse().ok().and_then(whole));
    value.ok_or_else(|| "expected a whole number, such as 100000 or 1e5".to_owned())
}

#[allow(clippy::print_stdout, clippy::print_stderr)] // a tool of our own; nothing else prints
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let chosen: Vec<Target> = TARGETS
        .into_iter()
        .filter(|target| arguments.target == "all" || target.name == arguments.target)
        .collect();
    if chosen.is_empty() {
        eprintln!("error: there is no target `{}`\n\n{}", arguments.target, targets());
        return ExitCode::from(2);
    }
    let jobs =
        arguments.jobs.unwrap_or_else(|| available_parallelism().map_or(1, |cores| cores.get() as u64));
    let Arguments { inputs, from, .. } = arguments;
    let artifacts = home().join("artifacts");
    for target in chosen {
        let end = match &arguments.note {
            Some(note) => worker(target, (from..).step_by(jobs as usize).take(inputs as usize), note),
            None => run(Order { target, from, inputs, jobs }, &artifacts).map(|report| {
                println!("{}", report.json());
                if report.failed() { ExitCode::from(1) } else { ExitCode::SUCCESS }
            }),
        };
        match end {
            Ok(code) if code == ExitCode::SUCCESS => (),
            Ok(code) => return code,
            Err(error) => {
                eprintln!("error: {}: {error}", target.name);
                return ExitCode::from(2);
            }
        }
    }
    ExitCode::SUCCESS
}

/// One of the processes. Its exit code says how an input failed.
fn worker(target: Target, numbers: impl Iterator<Item = u64>, note: &Path) -> io::Result<ExitCode> {
    std::thread::spawn(|| {
        // Nothing is written to it: it ends with the process that started this one.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(2);
    });
    let mutator = Mutator::new(target.seeds(), target.words);
    let end = work(target.run, &mutator, numbers, &Note::open(note)?)?;
    let failure = end.err().and_then(|failure| Failure::ALL.iter().position(|&one| one == failure));
    Ok(failure.map_or(ExitCode::SUCCESS, |at| ExitCode::from(Failure::FIRST_CODE + at as u8)))
}
