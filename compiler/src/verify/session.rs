//! Kernels one after the other: their cases, and one verdict each.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use moac_runtime::arch::Arch;
use moac_runtime::digest::Digest;
use moac_runtime::gpu;
use moac_runtime::plan::DType;
use rayon::prelude::*;
use serde::Serialize;

use super::candidate::Candidate;
use super::case::Case;
use super::cases;
use super::compare::{Failure, Kind};
use super::device::{Device, DeviceError};
use super::emulated::Emulated;
use super::glue::{self, GlueCandidate};
use super::gpu::Gpu;
use super::inputs::Inputs;
use super::run::{Error, Harness};
use super::verdict::Outcome;

/// The seed of all inputs and samples: a verification is repeated exactly.
const SEED: u64 = 0x006d_6f61_635f_7365;

/// The reason for not running the kernels after one that broke the device.
const BROKEN: &str = "the device failed in an earlier kernel";

/// The status of a kernel's verification.
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
    /// The architecture of its cubin.
    pub arch: Arch,
    /// The phase of attention, or the operation of the engine, that it computes.
    pub role: &'static str,
    /// Element type.
    pub dtype: DType,
    /// The layers that use it; none where it is the engine's.
    pub layers: Vec<u32>,
    /// The SHA-256 of its machine code.
    pub cubin: Digest,
    /// The verdict.
    pub status: Status,
    /// The reason it was not run.
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
    /// The problem.
    pub failures: Vec<Wrong>,
}

/// Something wrong in a case.
#[derive(Clone, Debug, Serialize)]
pub struct Wrong {
    /// The case.
    pub case: String,
    /// The problem.
    #[serde(flatten)]
    pub failure: Failure,
}

impl Verdict {
    fn new(candidate: &Candidate) -> Self {
        Self {
            symbol: candidate.symbol.clone(),
            arch: candidate.arch,
            role: candidate.phase().name(),
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

    fn of_glue(candidate: &GlueCandidate) -> Self {
        Self {
            symbol: candidate.symbol.clone(),
            arch: candidate.arch,
            role: candidate.op.name(),
            dtype: candidate.dtype,
            layers: Vec::new(),
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

    fn not_run(self, reason: impl Into<String>) -> Self {
        Self { status: Status::NotRun, reason: Some(reason.into()), ..self }
    }

    /// Takes in what came of a case.
    fn take(&mut self, case: &str, outcome: Outcome) {
        self.cases += 1;
        self.rows += outcome.rows;
        self.error = self.error.max(outcome.error);
        self.row_error = self.row_error.max(outcome.row_error);
        self.lse_error = self.lse_error.max(outcome.lse_error);
        self.fail(case, outcome.failures);
    }

    fn fail(&mut self, case: &str, failures: Vec<Failure>) {
        if !failures.is_empty() {
            self.status = Status::Failed;
        }
        self.failures.extend(failures.into_iter().map(|failure| Wrong { case: case.to_owned(), failure }));
    }
}

/// The callbacks of a verification.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// Called before each case with the kernel's name and the case's, from any thread.
    pub case: &'a (dyn Fn(&str, &str) + Sync),
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
                Verdict::new(candidate).not_run(format!("this device is sm_{major}{minor}"))
            } else if broken {
                Verdict::new(candidate).not_run(BROKEN)
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

/// Verifies the engine's kernels on the emulator, under each schedule.
///
/// # Errors
/// If a case could not be run for a reason that is not the kernel's.
pub fn glue_on_emulator(
    candidates: &[GlueCandidate],
    schedules: &[u64],
    watch: &Watch<'_>,
) -> Result<Vec<Verdict>, Error> {
    candidates
        .par_iter()
        .with_max_len(1)
        .map(|candidate| {
            let mut verdict = Verdict::of_glue(candidate);
            for &schedule in schedules {
                judge_glue(&mut Emulated::new(schedule), candidate, watch, &mut verdict)?;
            }
            (watch.done)(&verdict);
            Ok(verdict)
        })
        .collect()
}

/// Verifies the engine's kernels on a GPU. Kernels of architectures that it does not run are not run.
///
/// # Errors
/// If a case could not be run for a reason that is not the kernel's.
pub fn glue_on_gpu(
    device: &gpu::Device,
    candidates: &[GlueCandidate],
    watch: &Watch<'_>,
) -> Result<Vec<Verdict>, Error> {
    let [major, minor] = device.info().capability;
    let mut own = Gpu::new(device)
        .map_err(|source| DeviceError::Memory { label: "a stream".to_owned(), source: source.into() })?;
    let mut broken = false;
    let mut verdicts = Vec::new();
    for candidate in candidates {
        let mut verdict = Verdict::of_glue(candidate);
        if !candidate.arch.runs_on(major, minor) {
            verdict = verdict.not_run(format!("this device is sm_{major}{minor}"));
        } else if broken {
            verdict = verdict.not_run(BROKEN);
        } else {
            judge_glue(&mut own, candidate, watch, &mut verdict)?;
            broken = verdict.failures.iter().any(|wrong| wrong.failure.kind == Kind::Launch);
        }
        (watch.done)(&verdict);
        verdicts.push(verdict);
    }
    Ok(verdicts)
}

/// Runs the cases of a kernel of the engine into its verdict.
fn judge_glue(
    device: &mut impl Device,
    candidate: &GlueCandidate,
    watch: &Watch<'_>,
    verdict: &mut Verdict,
) -> Result<(), Error> {
    match device.load_glue(candidate) {
        Ok(()) => {}
        Err(DeviceError::Kernel { source, .. }) => {
            verdict.fail("loading", vec![Failure::new(Kind::Load, source.to_string())]);
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    }
    for case in glue::cases(candidate.op) {
        if watch.stop.load(Ordering::Relaxed) {
            *verdict = Verdict::of_glue(candidate).not_run("interrupted");
            return Ok(());
        }
        (watch.case)(&candidate.symbol, case.name);
        match glue::run(device, candidate, &case) {
            Ok(outcome) => verdict.take(case.name, outcome),
            Err(DeviceError::Kernel { source, .. }) => {
                verdict.fail(case.name, vec![Failure::new(Kind::Launch, source.to_string())]);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
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
            *verdict = Verdict::new(candidate).not_run("interrupted");
            return Ok(());
        }
        (watch.case)(&candidate.symbol, &case.name);
        let start = Instant::now();
        match harness.run(candidate, case) {
            Ok(outcome) => {
                tracing::debug!(symbol = candidate.symbol, case = case.name, rows = outcome.rows, elapsed = ?start.elapsed());
                verdict.take(&case.name, outcome);
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
