//! A case of the engine's kernels on a device: memory by label, the launch, and what is compared afterwards.

use std::collections::BTreeMap;

use moac_runtime::arch::Arch;
use moac_runtime::element::{from_bytes, to_bytes};
use moac_runtime::glue::{Block, Sizes};
use moac_runtime::plan::DType;

use super::{GlueCandidate, GlueCase};
use crate::verify::compare::{Failure, Kind, Norms, within};
use crate::verify::device::{Counts, Device, DeviceError, Fresh, POISON};
use crate::verify::verdict::Outcome;

/// Bytes behind each output, which no kernel may touch.
const GUARD: usize = 256;

/// A case under way.
pub(super) struct Stage<'a, D> {
    pub(super) device: &'a mut D,
    pub(super) candidate: &'a GlueCandidate,
    pub(super) case: &'a GlueCase,
    pub(super) outcome: Outcome,
    counts: Option<Counts>,
    norms: Norms,
}

/// A value and how far from it an element may be before it is rounded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Near {
    pub(super) value: f64,
    pub(super) slack: f64,
}

impl<'a, D: Device> Stage<'a, D> {
    pub(super) fn new(device: &'a mut D, candidate: &'a GlueCandidate, case: &'a GlueCase) -> Self {
        let outcome = Outcome { rows: case.rows as usize, ..Outcome::default() };
        Self { device, candidate, case, outcome, counts: None, norms: Norms::default() }
    }

    pub(super) fn sizes(&self) -> Sizes {
        self.candidate.sizes
    }

    pub(super) fn dtype(&self) -> DType {
        self.candidate.dtype
    }

    /// Memory that holds `bytes` and no more.
    pub(super) fn input(&mut self, label: &str, bytes: &[u8]) -> Result<u64, DeviceError> {
        self.device.alloc(label, 0, bytes.len() as u64, Fresh::Data(bytes))
    }

    /// Memory that holds `values` in the kernel's element type.
    pub(super) fn elements(&mut self, label: &str, values: &[f32]) -> Result<u64, DeviceError> {
        let bytes = to_bytes(self.dtype(), values.iter().copied());
        self.input(label, &bytes)
    }

    /// Memory to be written: `bytes` of poison, or of values to change, and a guard.
    pub(super) fn output(&mut self, label: &str, bytes: usize) -> Result<u64, DeviceError> {
        self.device.alloc(label, 0, (bytes + GUARD) as u64, Fresh::Poison)
    }

    /// Memory to be changed in place, with a guard.
    pub(super) fn in_place(&mut self, label: &str, bytes: &[u8]) -> Result<u64, DeviceError> {
        let guarded = [bytes, &[POISON; GUARD]].concat();
        self.device.alloc(label, 0, guarded.len() as u64, Fresh::Data(&guarded))
    }

    /// Runs the launch of a block.
    pub(super) fn launch(&mut self, block: Block) -> Result<(), DeviceError> {
        let launch = self.sizes().launch(block, self.candidate.arch >= Arch::Sm90, self.device.sms());
        let seen = self.device.launch_glue(&launch)?;
        for finding in seen.findings {
            self.fail(Kind::Finding, finding);
        }
        self.counts = seen.counts;
        Ok(())
    }

    pub(super) fn fail(&mut self, kind: Kind, what: impl Into<String>) {
        self.outcome.failures.push(Failure::new(kind, what));
    }

    /// The content of an output of `bytes` bytes. Its guard must be unchanged.
    pub(super) fn read(&mut self, label: &str, address: u64, bytes: usize) -> Result<Vec<u8>, DeviceError> {
        let mut found = self.device.read(address, (bytes + GUARD) as u64)?.to_vec();
        if found[bytes..].iter().any(|&byte| byte != POISON) {
            self.fail(Kind::Stray, format!("`{label}`: written to behind its end"));
        }
        found.truncate(bytes);
        Ok(found)
    }

    /// Compares an output byte for byte.
    pub(super) fn same(&mut self, label: &str, address: u64, expected: &[u8]) -> Result<(), DeviceError> {
        let found = self.read(label, address, expected.len())?;
        if let Some(at) = found.iter().zip(expected).position(|(found, expected)| found != expected) {
            let what = format!("`{label}`: byte {at} is {:#04x}, expected {:#04x}", found[at], expected[at]);
            self.fail(Kind::Output, what);
        }
        Ok(())
    }

    /// Compares an output element by element: each is its expected value, rounded once.
    pub(super) fn near(&mut self, label: &str, address: u64, expected: &[Near]) -> Result<(), DeviceError> {
        let dtype = self.dtype();
        let found = from_bytes(dtype, &self.read(label, address, expected.len() * 2)?);
        let steps = match dtype {
            DType::Bf16 => (2f64.powi(-8), 2f64.powi(-134)),
            DType::F16 => (2f64.powi(-11), 2f64.powi(-25)),
        };
        self.compare(label, &found, expected, steps);
        Ok(())
    }

    /// The same for an output of float32.
    pub(super) fn near_floats(
        &mut self,
        label: &str,
        address: u64,
        expected: &[Near],
    ) -> Result<(), DeviceError> {
        let bytes = self.read(label, address, expected.len() * 4)?;
        let found: Vec<f32> =
            bytes.chunks_exact(4).map(|it| f32::from_le_bytes([it[0], it[1], it[2], it[3]])).collect();
        self.compare(label, &found, expected, (2f64.powi(-24), 2f64.powi(-150)));
        Ok(())
    }

    /// `half_step` is half the distance of neighbouring elements as a share of them, `tiny` half that of the smallest.
    fn compare(&mut self, label: &str, found: &[f32], expected: &[Near], (half_step, tiny): (f64, f64)) {
        let wrong = |(found, near): (&f32, &Near)| {
            let most = near.value.abs() * half_step + near.slack * (1.0 + half_step) + tiny;
            !within((f64::from(*found) - near.value).abs(), most)
        };
        let count = found.iter().zip(expected).filter(|pair| wrong(*pair)).count();
        if let Some(at) = found.iter().zip(expected).position(wrong) {
            let (found, expected) = (found[at], expected[at].value);
            let what = format!("`{label}`: {count} elements are wrong; {at} is {found}, expected {expected}");
            self.fail(Kind::Output, what);
        }
        let values: Vec<f32> = expected.iter().map(|near| near.value as f32).collect();
        self.norms.add(Norms::of(found, &values));
        self.outcome.error = self.norms.error();
        self.outcome.row_error = self.outcome.error;
    }

    /// Holds counted bytes against what the launch has to move of some labels: read, written, and distinct ones written.
    /// Nothing else may be written.
    pub(super) fn moved(&mut self, expected: &[(&str, usize, usize, usize)]) {
        let Some(counts) = self.counts.take() else { return };
        let of = |by: &BTreeMap<String, u64>, label: &str| by.get(label).copied().unwrap_or(0);
        for &(label, read, written, distinct) in expected {
            for (what, found, expected) in [
                ("read from", of(&counts.total.read, label), read),
                ("written to", of(&counts.total.written, label), written),
                ("written at least once to", of(&counts.total.unique_written, label), distinct),
            ] {
                if found != expected as u64 {
                    self.fail(Kind::Count, format!("bytes {what} `{label}`: {found}, expected {expected}"));
                }
            }
        }
        for label in counts.total.written.keys() {
            if !expected.iter().any(|(known, ..)| known == label) {
                self.fail(Kind::Stray, format!("`{label}` was written to"));
            }
        }
        self.outcome.counts.push(counts);
    }
}
