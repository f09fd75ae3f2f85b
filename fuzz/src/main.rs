//! `moac-fuzz TARGET|all N [--from I]`: runs N inputs of a target and says what it found.
//!
//! An input that panics, takes more than [`SLOW`] or more memory than it may is written to `fuzz/artifacts/`. One that hangs
//! or takes the process down is the one whose number stands in `fuzz/artifacts/TARGET.at`: `--from` that number runs it
//! again.

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use moac_fuzz::{Mutator, TARGETS, Target};

/// An input that takes longer is kept.
const SLOW: Duration = Duration::from_secs(5);
/// One that takes longer hangs, and ends the run.
const HANG: Duration = Duration::from_mins(2);
/// Memory in MiB beyond which an input is kept.
const LARGE: u64 = 512;
/// Inputs between two looks at the memory, and two notes of the number.
const EVERY: u64 = 256;

#[allow(clippy::print_stderr)] // a tool of our own; nothing else prints
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let from =
        arguments.iter().position(|a| a == "--from").and_then(|at| arguments.get(at + 1)?.parse().ok());
    let (Some(name), Some(count)) = (arguments.first(), arguments.get(1).and_then(|n| n.parse::<f64>().ok()))
    else {
        let names = TARGETS.map(|target| target.name).join(", ");
        eprintln!("usage: moac-fuzz TARGET|all N [--from I]\ntargets: {names}");
        return ExitCode::from(2);
    };
    let chosen: Vec<Target> =
        TARGETS.into_iter().filter(|target| name == "all" || target.name == name).collect();
    if chosen.is_empty() {
        eprintln!("there is no target `{name}`");
        return ExitCode::from(2);
    }
    let mut found = 0;
    for target in chosen {
        let (line, kept) = run(target, count as u64, from.unwrap_or(0));
        eprintln!("{line}");
        found += kept;
    }
    if found == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn artifacts() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("artifacts");
    let _ = std::fs::create_dir_all(&folder);
    folder
}

/// Memory of this process in MiB: what it has, and the most it had.
fn memory() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
    };
    (field("VmRSS:"), field("VmHWM:"))
}

fn run(target: Target, count: u64, from: u64) -> (String, usize) {
    let mutator = Mutator::new(target.seeds(), target.words);
    let note = artifacts().join(format!("{}.at", target.name));
    let keep = |why: &str, number: u64| {
        let path = artifacts().join(format!("{}-{why}-{number}", target.name));
        let _ = std::fs::write(path, mutator.input(number));
    };
    // Ends the process when an input hangs: nothing else can.
    let at = AtomicU64::new(0);
    let done = AtomicU64::new(0);
    let (mut panics, mut slow, mut large, mut slowest) = (0, 0, 0, Duration::ZERO);
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut last, mut since) = (u64::MAX, Instant::now());
            while done.load(Ordering::Relaxed) == 0 {
                std::thread::sleep(Duration::from_millis(100));
                let now = at.load(Ordering::Relaxed);
                if now != last {
                    (last, since) = (now, Instant::now());
                } else if since.elapsed() > HANG {
                    keep("hang", now);
                    std::process::abort();
                }
            }
        });
        let mut most = memory().1;
        for number in from..from + count {
            at.store(number, Ordering::Relaxed);
            if number % EVERY == 0 {
                let _ = std::fs::write(&note, number.to_string());
            }
            let input = mutator.input(number);
            let began = Instant::now();
            if catch_unwind(|| (target.run)(&input)).is_err() {
                panics += 1;
                keep("panic", number);
            }
            let took = began.elapsed();
            slowest = slowest.max(took);
            if took > SLOW {
                slow += 1;
                keep("slow", number);
            }
            if number % 16 == 0 || took > Duration::from_millis(20) {
                let (has, had) = memory();
                if had > most.max(LARGE) {
                    large += 1;
                    keep("large", number);
                }
                most = most.max(had).max(has);
            }
        }
        done.store(1, Ordering::Relaxed);
    });
    let line = format!(
        "{}: {count} inputs from {from} in {:.0} s, {panics} panics, {slow} slow, {large} large, slowest {:.0} ms, at most {} MiB",
        target.name,
        start.elapsed().as_secs_f64(),
        slowest.as_secs_f64() * 1e3,
        memory().1
    );
    (line, panics + slow + large)
}
