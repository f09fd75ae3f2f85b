//! Runs the inputs of a target on several processes, and says what came of it.
//!
//! Workers are processes so that one that hangs, overflows its stack or is killed names its input and takes nothing else
//! down. Worker j of n runs every n-th number.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::mutate::Mutator;
use crate::note::{Note, Progress};
use crate::targets::Target;
use crate::worker::{Failure, LARGE_KIB, SLOW, memory_kib};

/// An input that takes longer hangs. A slow one runs twice.
const HANG: Duration = SLOW.saturating_mul(12);
/// A worker that has more memory is killed, before the machine runs out.
const HUGE_KIB: u64 = 8 * LARGE_KIB;
/// Time between two looks at the workers.
const TICK: Duration = Duration::from_millis(50);

/// The inputs to run.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// The target.
    pub target: Target,
    /// The number of the first input.
    pub from: u64,
    /// How many inputs.
    pub inputs: u64,
    /// How many processes.
    pub jobs: u64,
}

/// The result of an order.
#[derive(Debug)]
pub struct Report {
    order: Order,
    seconds: f64,
    progress: Progress,
    failure: Option<Kept>,
}

/// An input that failed.
#[derive(Debug)]
struct Kept {
    /// How it failed.
    what: String,
    number: u64,
    file: PathBuf,
}

struct Worker {
    process: Child,
    note: Note,
    /// The number that it was last seen with, and since when.
    seen: (u64, Instant),
    ended: bool,
}

impl Report {
    /// Whether an input failed.
    pub fn failed(&self) -> bool {
        self.failure.is_some()
    }

    /// The report as JSON.
    pub fn json(&self) -> Value {
        let Self { order, seconds, progress, failure } = self;
        let failure =
            failure.as_ref().map(|kept| json!({"what": kept.what, "input": kept.number, "file": kept.file}));
        json!({
            "target": order.target.name,
            "from": order.from,
            "inputs": progress.done,
            "accepted": progress.accepted,
            "jobs": order.jobs,
            "seconds": (seconds * 10.0).round() / 10.0,
            "per_second": (progress.done as f64 / seconds).round(),
            "slowest_ms": progress.slowest_us as f64 / 1e3,
            "slowest_input": progress.slowest,
            "memory_before_mib": progress.before_kib >> 10,
            "memory_peak_mib": progress.peak_kib >> 10,
            "failure": failure,
        })
    }
}

/// Runs what is ordered. The first input that fails ends it and is kept in `artifacts`.
///
/// # Errors
/// If workers cannot be started, or files not be written.
pub fn run(order: Order, artifacts: &Path) -> io::Result<Report> {
    let notes = tempfile::tempdir()?;
    let start = Instant::now();
    let mut workers = Vec::new();
    for job in 0..order.jobs {
        workers.push(Worker::start(&order, job, &notes.path().join(job.to_string()))?);
    }
    let failed = watch(&mut workers);
    for worker in &mut workers {
        let _ = worker.process.kill();
        let _ = worker.process.wait();
    }
    let seconds = start.elapsed().as_secs_f64();
    let progress = workers.iter().filter_map(|worker| worker.note.read().ok()).reduce(Progress::and);
    let keep = |(what, number): (String, u64)| {
        let file = artifacts.join(format!("{}-{what}-{number}", order.target.name));
        std::fs::create_dir_all(artifacts)?;
        std::fs::write(&file, Mutator::new(order.target.seeds(), order.target.words).input(number))?;
        Ok::<_, io::Error>(Kept { what, number, file })
    };
    let failure = failed?.map(keep).transpose()?;
    Ok(Report { order, seconds, progress: progress.unwrap_or_default(), failure })
}

impl Worker {
    fn start(order: &Order, job: u64, note: &Path) -> io::Result<Self> {
        let share = order.inputs / order.jobs + u64::from(job < order.inputs % order.jobs);
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(order.target.name).arg("--note").arg(note);
        for (flag, value) in [("--inputs", share), ("--from", order.from + job), ("--jobs", order.jobs)] {
            command.arg(flag).arg(value.to_string());
        }
        let note = Note::create(note)?;
        // The worker ends with its standard input, so it outlives nobody.
        let process = command.stdin(Stdio::piped()).spawn()?;
        Ok(Self { process, note, seen: (u64::MAX, Instant::now()), ended: false })
    }

    /// How it failed, if it did.
    fn look(&mut self) -> io::Result<Option<String>> {
        if let Some(status) = self.process.try_wait()? {
            self.ended = true;
            return Ok(why(status));
        }
        let number = self.note.read()?.number;
        if number != self.seen.0 {
            self.seen = (number, Instant::now());
        }
        if self.seen.1.elapsed() > HANG {
            return Ok(Some("hang".to_owned()));
        }
        let huge = memory_kib(&self.process.id().to_string()) > HUGE_KIB;
        Ok(huge.then(|| Failure::Large.name().to_owned()))
    }
}

/// Waits until all workers are done or one has failed: how, and at which input.
fn watch(workers: &mut [Worker]) -> io::Result<Option<(String, u64)>> {
    loop {
        for worker in workers.iter_mut().filter(|worker| !worker.ended) {
            if let Some(what) = worker.look()? {
                return Ok(Some((what, worker.note.read()?.number)));
            }
        }
        if workers.iter().all(|worker| worker.ended) {
            return Ok(None);
        }
        sleep(TICK);
    }
}

/// How a worker failed, by its exit status.
fn why(status: ExitStatus) -> Option<String> {
    if status.success() {
        return None;
    }
    let known = status.code().and_then(|code| usize::try_from(code - i32::from(Failure::FIRST_CODE)).ok());
    let failure = known.and_then(|at| Failure::ALL.get(at));
    Some(failure.map_or_else(|| "crash".to_owned(), |failure| failure.name().to_owned()))
}
