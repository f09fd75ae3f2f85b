//! Runs a case on a device and checks all that came of it.

use std::collections::BTreeSet;

use moac_runtime::abi::Task;
use moac_runtime::backend::LayerError;
use moac_runtime::element::from_bytes;
use moac_runtime::launch::{Phase, counters_bytes};
use rayon::prelude::*;
use thiserror::Error;

use super::candidate::Candidate;
use super::case::{Case, Work};
use super::compare::{Kind, Norms};
use super::device::{Device, DeviceError};
use super::expect::{Expectations, Query};
use super::image::Image;
use super::inputs::Inputs;
use super::outputs::{self, digests};
use super::stage::{Kept, Staged, stage};
use super::verdict::{Outcome, Run};

/// Requests whose slabs are compared after attention too, not only after the append.
const FEW: usize = 12;

/// Errors of running a case. A wrong result of a kernel is not such an error.
#[derive(Debug, Error)]
pub enum Error {
    /// The device refused.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The oracle refused.
    #[error("the CPU reference: {0}")]
    Reference(#[from] LayerError),
}

/// Runs cases on one device. All candidates have one element type and one `head_dim`, the inputs'.
#[derive(Debug)]
pub struct Harness<D> {
    /// The device.
    pub device: D,
    inputs: Inputs,
    expectations: Expectations,
    kept: Kept,
    pub(super) seed: u64,
}

impl<D: Device> Harness<D> {
    /// A harness with inputs of its own.
    pub fn new(device: D, inputs: Inputs, seed: u64) -> Self {
        Self { device, inputs, expectations: Expectations::default(), kept: Kept::default(), seed }
    }

    /// Computes the answers that cases of many candidates will ask for, all at once. Only a saving of time.
    ///
    /// # Errors
    /// The errors of the reference.
    pub fn prepare<'a>(
        &mut self,
        cases: impl IntoIterator<Item = (&'a Candidate, &'a Case)>,
    ) -> Result<(), Error> {
        let mut queries = BTreeSet::new();
        let mut layer = None;
        for (candidate, case) in cases.into_iter().filter(|(_, case)| case.work != Work::Fill) {
            let run = Run::new(candidate, case);
            queries.extend(run.checked(self.seed).iter().map(|row| run.query(row)));
            layer = Some(&candidate.layer);
        }
        match layer {
            Some(layer) => Ok(self.expectations.prepare(layer, &self.inputs, queries)?),
            None => Ok(()),
        }
    }

    /// Runs a case of the candidate that the device has loaded.
    ///
    /// # Errors
    /// If it could not be run.
    pub fn run(&mut self, candidate: &Candidate, case: &Case) -> Result<Outcome, Error> {
        let staged = stage(&mut self.device, &mut self.kept, &self.inputs, candidate, case)?;
        let mut run = Run::new(candidate, case);
        if case.work != Work::Fill {
            self.launch(&mut run, &staged, Task::Attend)?;
            self.check_outputs(&mut run, &staged)?;
        }
        let appends = matches!(case.work, Work::Prefill | Work::Fill);
        if appends {
            // A few slabs are enough to see that attention alone writes to none of them.
            if case.work == Work::Prefill && case.requests.len() <= FEW {
                self.check_slabs(&mut run, &staged, false)?;
            }
            self.launch(&mut run, &staged, Task::Fill)?;
        }
        if !matches!(case.work, Work::Tiles(_)) {
            self.check_slabs(&mut run, &staged, appends || candidate.phase() == Phase::Decode)?;
        }
        self.check_counters(&mut run, &staged)?;
        Ok(run.finish())
    }

    /// Runs the launches of `task`.
    fn launch(&mut self, run: &mut Run<'_>, staged: &Staged, task: Task) -> Result<(), DeviceError> {
        for launch in staged.launches.iter().filter(|launch| launch.task == task) {
            let Run { candidate, case, .. } = run;
            let ctas: Option<Vec<_>> = match &case.work {
                Work::Tiles(tiles) => {
                    Some(tiles.iter().map(|&tile| candidate.prefill_cta(case, launch.grid, tile)).collect())
                }
                _ => None,
            };
            let seen = self.device.launch(launch, ctas.as_deref())?;
            run.look_at(seen, task, launch.grid);
        }
        Ok(())
    }

    fn check_outputs(&mut self, run: &mut Run<'_>, staged: &Staged) -> Result<(), Error> {
        let rows = run.checked(self.seed);
        let found = match &run.case.work {
            Work::Tiles(_) => outputs::read_rows(&mut self.device, run, staged, &rows)?,
            _ => outputs::read_all(&mut self.device, run, staged, &rows)?,
        };
        run.outcome.digests = digests(&rows, &found, run.case.requests.len());
        let queries: Vec<Query> = rows.iter().map(|row| run.query(row)).collect();
        let answers = self.expectations.answers(&run.candidate.layer, &self.inputs, &queries)?;
        let dtype = run.candidate.layer.dtype;
        let compared: Vec<(Norms, Option<f64>)> = found
            .par_iter()
            .zip(answers)
            .map(|((o, lse), answer)| {
                let norms = Norms::of(&from_bytes(dtype, o), &answer.o);
                (norms, lse.map(|lse| (f64::from(lse) - answer.lse).abs()))
            })
            .collect();
        let slack = self.device.lse_slack();
        let mut all = Norms::default();
        for (row, (norms, lse_error)) in rows.iter().zip(compared) {
            all.add(norms);
            run.row(row, norms.error(), lse_error, slack);
        }
        run.total(rows.len(), all.error());
        Ok(())
    }

    /// Every slab holds what it held, and what was appended if `appended`; byte for byte.
    fn check_slabs(&mut self, run: &mut Run<'_>, staged: &Staged, appended: bool) -> Result<(), DeviceError> {
        let layer = &run.candidate.layer;
        let blank = self.device.blank();
        let when = if appended { "the append" } else { "attention alone" };
        for (index, (request, slab)) in run.case.requests.iter().zip(&staged.slabs).enumerate() {
            let Some(slab) = slab else { continue };
            let len = if appended { request.cached + request.chunk } else { request.cached };
            let image = Image { sequence: request.sequence, bucket: request.bucket, len, blank };
            let found = self.device.read(slab.address, slab.bytes)?;
            let (before, rest) = found.split_at(slab.base as usize);
            let (rings, behind) = rest.split_at(layer.ring_bytes(request.bucket) as usize);
            if before.iter().chain(behind).any(|&byte| byte != blank) {
                let what = format!("slab of request {index}: written to outside of the layer's rings");
                run.fail(Kind::Stray, what);
            }
            if let Some((count, first)) = image.compare(layer, &self.inputs, rings) {
                let what = format!(
                    "slab of request {index}: {count} slots are not what they must be after {when}; the first is {first}"
                );
                run.fail(Kind::Slab, what);
            }
        }
        Ok(())
    }

    /// The counters are zero again.
    fn check_counters(&mut self, run: &mut Run<'_>, staged: &Staged) -> Result<(), DeviceError> {
        let bytes = counters_bytes(run.case.requests.len() as u32, run.candidate.layer.kv_heads());
        let found = self.device.read(staged.scratch.counters, bytes)?;
        if found.iter().any(|&byte| byte != 0) {
            run.fail(Kind::Scratch, "the counters are not zero after the launch");
        }
        Ok(())
    }
}
