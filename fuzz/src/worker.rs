//! Runs inputs of a target one after the other, until one fails.

use std::collections::VecDeque;
use std::io;
use std::panic::catch_unwind;
use std::time::{Duration, Instant};

use crate::mutate::Mutator;
use crate::note::{Note, Progress};

/// An input that takes longer fails.
pub(crate) const SLOW: Duration = Duration::from_secs(5);
/// The most memory in KiB that a process may have beside what it had before the first input.
pub(crate) const LARGE_KIB: u64 = 256 << 10;
/// Inputs between two looks at the memory, which costs as much as some inputs.
const EVERY: usize = 64;

/// The ways in which an input fails without ending the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It panics.
    Panic,
    /// It takes longer than five seconds.
    Slow,
    /// It takes more than 256 MiB of memory.
    Large,
}

impl Failure {
    /// All of them, each at the place of its exit code less [`Failure::FIRST_CODE`].
    pub const ALL: [Self; 3] = [Self::Panic, Self::Slow, Self::Large];
    /// The exit code of a worker for the first of them.
    pub const FIRST_CODE: u8 = 10;

    /// Its name in reports and in names of files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Slow => "slow",
            Self::Large => "large",
        }
    }
}

/// The most memory in KiB that this process had.
fn peak_kib() -> u64 {
    memory_kib("self")
}

/// The most memory in KiB that a process had, by its number or `self`: 0 where the system does not say.
pub(crate) fn memory_kib(process: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Runs the inputs with these numbers and notes each. The first that fails ends the run.
///
/// # Errors
/// If the note cannot be written.
pub fn work(
    run: fn(&[u8]) -> bool,
    mutator: &Mutator,
    numbers: impl Iterator<Item = u64>,
    note: &Note,
) -> io::Result<Result<Progress, Failure>> {
    let before_kib = peak_kib();
    let mut progress = Progress { before_kib, peak_kib: before_kib, ..Progress::default() };
    let mut recent = VecDeque::with_capacity(EVERY);
    for number in numbers {
        progress.number = number;
        note.write(&progress)?;
        let Ok((mut took, accepted)) = timed(run, mutator, number) else { return Ok(Err(Failure::Panic)) };
        if took > SLOW {
            // Once more, in case that the machine was busy.
            let Ok((again, _)) = timed(run, mutator, number) else { return Ok(Err(Failure::Panic)) };
            took = took.min(again);
            if took > SLOW {
                return Ok(Err(Failure::Slow));
            }
        }
        progress.done += 1;
        progress.accepted += u64::from(accepted);
        if took.as_micros() as u64 > progress.slowest_us {
            (progress.slowest_us, progress.slowest) = (took.as_micros() as u64, number);
        }
        recent.push_back(number);
        if recent.len() >= EVERY || took > Duration::from_millis(20) {
            progress.peak_kib = progress.peak_kib.max(peak_kib());
            if progress.peak_kib > before_kib + LARGE_KIB {
                progress.number = largest(run, mutator, &recent);
                note.write(&progress)?;
                return Ok(Err(Failure::Large));
            }
            recent.clear();
        }
    }
    progress.peak_kib = progress.peak_kib.max(peak_kib());
    note.write(&progress)?;
    Ok(Ok(progress))
}

/// Runs an input: how long it took and whether it was accepted. Its panic is an error.
fn timed(run: fn(&[u8]) -> bool, mutator: &Mutator, number: u64) -> std::thread::Result<(Duration, bool)> {
    let input = mutator.input(number);
    let start = Instant::now();
    let accepted = catch_unwind(|| run(&input))?;
    Ok((start.elapsed(), accepted))
}

/// The input that takes the most memory of some that have all run without panics.
fn largest(run: fn(&[u8]) -> bool, mutator: &Mutator, numbers: &VecDeque<u64>) -> u64 {
    let peak = |number: u64| {
        // Starts the count of the most memory again.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        let _ = timed(run, mutator, number);
        peak_kib()
    };
    numbers.iter().copied().max_by_key(|&number| peak(number)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work_on(
        run: fn(&[u8]) -> bool,
        numbers: std::ops::Range<u64>,
    ) -> (Result<Progress, Failure>, Progress) {
        let folder = tempfile::tempdir().unwrap();
        let note = Note::create(&folder.path().join("note")).unwrap();
        let mutator = Mutator::new((0..200).map(|byte| vec![byte; 4]).collect(), &[]);
        let end = work(run, &mutator, numbers, &note).unwrap();
        (end, note.read().unwrap())
    }

    #[test]
    fn all_inputs_run_and_are_counted() {
        let (end, noted) = work_on(|input| input[0] < 60, 10..110);
        let progress = end.unwrap();
        assert_eq!((progress.done, progress.accepted, progress.number), (100, 50, 109));
        assert_eq!(noted, progress);
        assert!(progress.before_kib > 0 && progress.peak_kib >= progress.before_kib, "{progress:?}");
    }

    fn all_but_42(input: &[u8]) -> bool {
        assert_ne!(input, [42; 4]);
        true
    }

    #[test]
    fn a_panic_ends_the_run_at_its_input() {
        let (end, noted) = work_on(all_but_42, 0..100);
        assert_eq!((end, noted.number, noted.done), (Err(Failure::Panic), 42, 42));
    }

    #[test]
    fn the_input_that_takes_memory_is_found_among_its_neighbours() {
        let run = |input: &[u8]| {
            let bytes = if input == [42; 4] { (LARGE_KIB as usize + (64 << 10)) << 10 } else { 1 << 10 };
            std::hint::black_box(vec![1_u8; bytes]).len() == bytes
        };
        let (end, noted) = work_on(run, 0..100);
        assert_eq!((end, noted.number), (Err(Failure::Large), 42));
    }
}
