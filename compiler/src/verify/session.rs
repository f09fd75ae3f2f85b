//! Kernels one after the other: their cases, and one verdict each.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use moac_runtime::arch::Arch;
use moac_runtime::digest::Digest;
use moac_runtime::gpu;
use moac_runtime::launch::Phase;
use moac_runtime::plan::DType;
use rayon::prelude::*;
use serde::Serialize;

use super::candidate::Candidate;
use super::case::Case;
use super::cases;
use super::compare::{Failure, Kind};
use super::device::{Device, DeviceError};
use super::emulated::Emulated;
use super::gpu::Gpu;
use super::inputs::Inputs;
use super::run::{Error, Harness};

/// The seed of all inputs and samples: a verification is repeated exactly.
const SEED: u64 = 0x006d_6f61_635f_7365;

/// What a kernel's verification came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Every case passed.
    Passed,
    /// Some did not.
    Failed,
    /// It was not run.
    NotRun,
}

/// The verdict on a kernel.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// Its name.
    pub symbol: String,
    /// What its cubin was made for.
    pub arch: Arch,
    /// What it computes.
    pub phase: Phase,
    /// Element type.
    pub dtype: DType,
    /// The layers that use it.
    pub layers: Vec<u32>,
    /// The SHA-256 of its machine code.
    pub cubin: Digest,
    /// The verdict.
    pub status: Status,
    /// Why it was not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Cases that were run.
    pub cases: usize,
    /// Query rows that were compared with the reference.
    pub rows: usize,
    /// The largest relative Frobenius error of a case.
    pub error: f64,
    /// The largest relative error of a row.
    pub row_error: f64,
    /// The largest difference of a log-sum-exp.
    pub lse_error: f64,
    /// What is wrong.
    pub failures: Vec<Wrong>,
}

/// Something wrong in a case.
#[derive(Clone, Debug, Serialize)]
pub struct Wrong {
    /// The case.
    pub case: String,
    /// What is wrong.
    #[serde(flatten)]
    pub failure: Failure,
}

impl Verdict {
    fn new(candidate: &Candidate) -> Self {
        Self {
            symbol: candidate.symbol.clone(),
            arch: candidate.arch,
            phase: candidate.phase(),
            dtype: candidate.layer.dtype,
            layers: candidate.layers.clone(),
            cubin: Digest::of(&candidate.cubin),
            status: Status::Passed,
            reason: None,
            cases: 0,
            rows: 0,
            error: 0.0,
            row_error: 0.0,
            lse_error: 0.0,
            failures: Vec::new(),
        }
    }

    fn not_run(candidate: &Candidate, reason: impl Into<String>) -> Self {
        Self { status: Status::NotRun, reason: Some(reason.into()), ..Self::new(candidate) }
    }

    fn fail(&mut self, case: &str, failures: Vec<Failure>) {
        if !failures.is_empty() {
            self.status = Status::Failed;
        }
        self.failures.extend(failures.into_iter().map(|failure| Wrong { case: case.to_owned(), failure }));
    }
}

/// What a verification tells and asks while it runs.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// Called before each case, from any thread.
    pub case: &'a (dyn Fn(&Candidate, &Case) + Sync),
    /// Called after each kernel, from any thread.
    pub done: &'a (dyn Fn(&Verdict) + Sync),
    /// Set it to stop before the next case; kernels without a verdict by then are not run.
    pub stop: &'a AtomicBool,
}

/// Verifies on the emulator: kernels of short buckets whole, the others at their edges, under each schedule.
///
/// # Errors
/// If a case could not be run for a reason that is not the kernel's.
pub fn on_emulator(
    candidates: &[Candidate],
    schedules: &[u64],
    watch: &Watch<'_>,
) -> Result<Vec<Verdict>, Error> {
    candidates
        .par_iter()
        .with_max_len(1)
        .map(|candidate| {
            let mut verdict = Verdict::new(candidate);
            for &schedule in schedules {
                let mut harness = harness(Emulated::new(schedule), candidate);
                judge(&mut harness, candidate, &cases::for_emulator(candidate), watch, &mut verdict)?;
            }
            (watch.done)(&verdict);
            Ok(verdict)
        })
        .collect()
}

/// Verifies on a GPU, at every bucket. Kernels of architectures that it does not run are not run.
///
/// # Errors
/// If a case could not be run for a reason that is not the kernel's.
pub fn on_gpu(
    device: &gpu::Device,
    candidates: &[Candidate],
    watch: &Watch<'_>,
) -> Result<Vec<Verdict>, Error> {
    let [major, minor] = device.info().capability;
    // One harness per element type and head size: all its kernels share inputs and right answers.
    let mut shapes = BTreeMap::<(DType, u32), Vec<usize>>::new();
    for (index, candidate) in candidates.iter().enumerate() {
        shapes.entry((candidate.layer.dtype, candidate.layer.head_dim)).or_default().push(index);
    }
    let mut verdicts: Vec<Option<Verdict>> = vec![None; candidates.len()];
    let mut broken = false;
    for indices in shapes.into_values() {
        let own = Gpu::new(device)
            .map_err(|source| DeviceError::Memory { label: "a stream".to_owned(), source: source.into() })?;
        let mut harness = harness(own, &candidates[indices[0]]);
        let runs = |candidate: &Candidate| candidate.arch.runs_on(major, minor);
        let all: Vec<(&Candidate, Vec<Case>)> = indices
            .iter()
            .map(|&index| &candidates[index])
            .map(|candidate| (candidate, cases::every_bucket(candidate, device.info().sms)))
            .collect();
        // The layers of a plan see the same rows through a few windows each.
        let here = all.iter().filter(|(candidate, _)| runs(candidate));
        harness
            .prepare(here.flat_map(|(candidate, cases)| cases.iter().map(move |case| (*candidate, case))))?;
        for (index, (candidate, cases)) in indices.into_iter().zip(&all) {
            let verdict = if !runs(candidate) {
                Verdict::not_run(candidate, format!("this device is sm_{major}{minor}"))
            } else if broken {
                Verdict::not_run(candidate, "the device failed in a kernel before it")
            } else {
                let mut verdict = Verdict::new(candidate);
                judge(&mut harness, candidate, cases, watch, &mut verdict)?;
                // A kernel that traps or strays takes the context with it.
                broken = verdict.failures.iter().any(|wrong| wrong.failure.kind == Kind::Launch);
                verdict
            };
            (watch.done)(&verdict);
            verdicts[index] = Some(verdict);
        }
    }
    Ok(verdicts.into_iter().flatten().collect())
}

fn harness<D: Device>(device: D, candidate: &Candidate) -> Harness<D> {
    let inputs = Inputs::new(candidate.layer.dtype, candidate.layer.head_dim, SEED);
    Harness::new(device, inputs, SEED)
}

/// Runs the cases of a kernel into its verdict.
fn judge<D: Device>(
    harness: &mut Harness<D>,
    candidate: &Candidate,
    cases: &[Case],
    watch: &Watch<'_>,
    verdict: &mut Verdict,
) -> Result<(), Error> {
    match harness.device.load(candidate) {
        Ok(()) => {}
        Err(DeviceError::Kernel { source, .. }) => {
            verdict.fail("loading", vec![Failure::new(Kind::Load, source.to_string())]);
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    }
    for case in cases {
        if watch.stop.load(Ordering::Relaxed) {
            *verdict = Verdict::not_run(candidate, "interrupted");
            return Ok(());
        }
        (watch.case)(candidate, case);
        let start = Instant::now();
        match harness.run(candidate, case) {
            Ok(outcome) => {
                tracing::debug!(symbol = candidate.symbol, case = case.name, rows = outcome.rows, elapsed = ?start.elapsed());
                verdict.cases += 1;
                verdict.rows += outcome.rows;
                verdict.error = verdict.error.max(outcome.error);
                verdict.row_error = verdict.row_error.max(outcome.row_error);
                verdict.lse_error = verdict.lse_error.max(outcome.lse_error);
                verdict.fail(&case.name, outcome.failures);
            }
            Err(Error::Device(DeviceError::Kernel { source, .. })) => {
                verdict.fail(&case.name, vec![Failure::new(Kind::Launch, source.to_string())]);
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
