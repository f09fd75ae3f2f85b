//! Times and counts, as JSON and as tables for a terminal.

use moac_compiler::bench::counters::Counters;
use moac_compiler::bench::time::{Missing, Timed};
use moac_compiler::bench::{Ceilings, Point, Useful};
use moac_runtime::arch::Arch;
use moac_runtime::launch::Phase;
use moac_runtime::plan::DType;
use serde::Serialize;

use super::{bytes_text, ranges_text, table};

/// A bench on a GPU.
#[derive(Debug, Serialize)]
pub struct Times {
    /// The device's name.
    pub device: String,
    /// The architecture whose kernels ran.
    pub arch: Arch,
    /// Element type.
    pub dtype: DType,
    /// The device's ceilings, measured in the same run.
    pub ceilings: Ceilings,
    /// The points timed.
    pub points: Vec<PointTime>,
    /// The points that did not fit in memory.
    pub skipped: Vec<Skipped>,
}

/// The time of a point.
#[derive(Debug, Serialize)]
pub struct PointTime {
    /// The points timed.
    #[serde(flatten)]
    pub point: Point,
    /// All layers together.
    #[serde(flatten)]
    pub rate: Rate,
    /// Each layer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<LayerTime>,
}

/// The time of a layer.
#[derive(Debug, Serialize)]
pub struct LayerTime {
    /// Its index.
    pub layer: usize,
    /// Its time.
    #[serde(flatten)]
    pub rate: Rate,
}

/// A time, and the rate achieved.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Rate {
    /// Milliseconds.
    pub ms: f64,
    /// The useful work.
    pub useful: Useful,
    /// Decode: useful bytes of K and V, in GB/s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gb_per_s: Option<f64>,
    /// Prefill: useful operations, in TFLOP/s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tflop_per_s: Option<f64>,
    /// The rate over its ceiling, if that is known.
    pub share: Option<f64>,
}

/// A point that did not fit into device memory.
#[derive(Debug, Serialize)]
pub struct Skipped {
    /// The point that was not timed.
    #[serde(flatten)]
    pub point: Point,
    /// The memory that it lacked.
    #[serde(flatten)]
    pub missing: Missing,
}

impl Rate {
    /// The rates of `useful` work in `ms` milliseconds: memory bounds decode, arithmetic bounds prefill.
    pub fn new(phase: Phase, ms: f64, useful: Useful, ceilings: &Ceilings) -> Self {
        let rate = Self { ms, useful, gb_per_s: None, tflop_per_s: None, share: None };
        let share = |rate: f64, ceiling: Option<f64>| ceiling.map(|ceiling| rate / ceiling);
        match phase {
            Phase::Decode => {
                let found = useful.kv_bytes as f64 / ms / 1e6;
                Self { gb_per_s: Some(found), share: share(found, ceilings.read_gb_per_s), ..rate }
            }
            Phase::Prefill => {
                let found = useful.flops as f64 / ms / 1e9;
                Self { tflop_per_s: Some(found), share: share(found, ceilings.matrix_tflop_per_s), ..rate }
            }
        }
    }
}

impl PointTime {
    /// A point's time against the ceilings.
    pub fn new(point: Point, timed: &Timed, ceilings: &Ceilings) -> Self {
        let rate = |ms, useful| Rate::new(point.phase, ms, useful, ceilings);
        let layers = (0..)
            .zip(&timed.layers)
            .map(|(layer, &(ms, useful))| LayerTime { layer, rate: rate(ms, useful) });
        Self { point, rate: rate(timed.ms, timed.useful), layers: layers.collect() }
    }
}

impl Skipped {
    /// A note for the user.
    pub fn note(&self) -> String {
        let Self { point: Point { phase, batch, context }, missing } = self;
        let Missing { needed_bytes, free_bytes } = *missing;
        format!(
            "{} of {batch} x {context} tokens is left out: it takes {} of device memory, {} more than is free",
            phase.name(),
            bytes_text(needed_bytes),
            bytes_text(needed_bytes.saturating_sub(free_bytes))
        )
    }
}

impl Times {
    /// A row per point, and the ceilings.
    pub fn text(&self) -> String {
        let known = |value: Option<f64>, unit: &str| {
            value.map_or_else(|| "unknown".to_owned(), |value| format!("{value:.0} {unit}"))
        };
        let Ceilings { read_gb_per_s, matrix_tflop_per_s, .. } = self.ceilings;
        let mut rows = table(&["phase", "batch", "context", "time", "useful", "rate", "of ceiling"], 1);
        for PointTime { point, rate, .. } in &self.points {
            let (useful, achieved) = match point.phase {
                Phase::Decode => (bytes_text(rate.useful.kv_bytes), known(rate.gb_per_s, "GB/s")),
                Phase::Prefill => (flops_text(rate.useful.flops), known(rate.tflop_per_s, "TFLOP/s")),
            };
            rows.add_row([
                point.phase.name().to_owned(),
                point.batch.to_string(),
                point.context.to_string(),
                format!("{:.3} ms", rate.ms),
                useful,
                achieved,
                rate.share.map_or_else(|| "unknown".to_owned(), |share| format!("{:.1}%", 100.0 * share)),
            ]);
        }
        format!(
            "{}, {}, {}: all layers, once each\nceilings: reading {}, bf16 matrix product {}\n\n{}",
            self.device,
            self.arch,
            self.dtype,
            known(read_gb_per_s, "GB/s"),
            known(matrix_tflop_per_s, "TFLOP/s"),
            rows.trim_fmt()
        )
    }
}

/// A row per kernel and point.
pub fn counters_table(counters: &[Counters]) -> String {
    let header = [
        "kernel", "arch", "layers", "batch", "context", "CTAs", "K, V", "needed", "ratio", "q", "o",
        "splits", "busiest", "matrix", "needed", "ratio",
    ];
    let mut rows = table(&header, 3);
    for it in counters {
        rows.add_row([
            it.kernel.clone(),
            it.arch.to_string(),
            ranges_text(&it.layers),
            it.point.batch.to_string(),
            it.point.context.to_string(),
            format!("{} of {}", it.ctas, it.ctas_in_all),
            bytes_text(it.kv_bytes),
            bytes_text(it.useful.kv_bytes),
            ratio(it.kv_bytes, it.useful.kv_bytes),
            bytes_text(it.q_bytes),
            bytes_text(it.o_bytes),
            bytes_text(it.partials_bytes),
            it.imbalance.map_or_else(|| "-".to_owned(), |imbalance| format!("{imbalance:.2}")),
            flops_text(it.matrix_flops),
            flops_text(it.useful.flops),
            ratio(it.matrix_flops, it.useful.flops),
        ]);
    }
    rows.trim_fmt()
}

fn ratio(found: u64, needed: u64) -> String {
    format!("{:.3}", found as f64 / needed as f64)
}

fn flops_text(flops: u64) -> String {
    let mut value = flops as f64;
    let mut unit = "FLOP";
    for larger in ["kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP"] {
        if value < 1000.0 {
            break;
        }
        value /= 1000.0;
        unit = larger;
    }
    if unit == "FLOP" { format!("{flops} FLOP") } else { format!("{value:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_in_the_unit_of_what_bounds_the_phase() {
        let useful = Useful { kv_bytes: 4_000_000_000, flops: 3_000_000_000_000 };
        let ceilings = Ceilings { read_gb_per_s: Some(4000.0), ..Ceilings::default() };
        let near = |found: Option<f64>, expected: f64| (found.unwrap() - expected).abs() < 1e-9;
        let decode = Rate::new(Phase::Decode, 2.0, useful, &ceilings);
        assert!(near(decode.gb_per_s, 2000.0) && near(decode.share, 0.5) && decode.tflop_per_s.is_none());
        let prefill = Rate::new(Phase::Prefill, 10.0, useful, &ceilings);
        assert!(near(prefill.tflop_per_s, 300.0) && prefill.gb_per_s.is_none());
        assert_eq!(prefill.share, None, "no share of an unknown ceiling");
    }

    #[test]
    fn what_does_not_fit_says_how_much_is_missing() {
        let point = Point { phase: Phase::Decode, batch: 8, context: 4096 };
        let missing = Missing { needed_bytes: 5 << 30, free_bytes: 3 << 30 };
        let note = Skipped { point, missing }.note();
        assert!(note.contains("decode of 8 x 4096") && note.contains("takes 5.0 GiB"), "{note}");
        assert!(note.contains("2.0 GiB more than is free"), "{note}");
    }
}
