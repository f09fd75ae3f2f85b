//! Linear layers of few rows, as float64 has them.

use moac_runtime::element::to_bytes;
use moac_runtime::glue::{After, Block, Layer, Linear};
use moac_runtime::plan::DType;

use super::noise::Noise;
use super::stage::{Near, Stage};
use crate::verify::device::{Device, DeviceError, Fresh};
use crate::verify::verdict::Outcome;

/// Float32 sums along the way, as a share of the terms.
const SLACK: f64 = 1e-6;

/// Rows of weights that differ; the others repeat them. A prime, so that no tile or part of a wave does.
const DISTINCT: usize = 509;

/// The product of a row of weights and a row of x: the value, and its tolerance.
#[derive(Clone, Copy, Debug)]
struct Dot {
    value: f64,
    slack: f64,
}

/// Products of a row's float64 operand with rows of weights. `rounding` is what each term may be off by, as a share of it:
/// with random signs the sum is off by that of the root of the sum of squares, and seldom by more than some of them.
fn dots(operand: &[f64], weights: &[f32], rounding: f64) -> Vec<Dot> {
    let of_row = |row: &[f32]| {
        let (mut value, mut sizes, mut squares) = (0.0, 0.0, 0.0);
        for (x, &w) in operand.iter().zip(row) {
            let term = x * f64::from(w);
            value += term;
            sizes += term.abs();
            squares += term * term;
        }
        Dot { value, slack: sizes * SLACK + 6.0 * rounding * f64::sqrt(squares) }
    };
    weights.chunks_exact(operand.len()).map(of_row).collect()
}

/// A row of x as the product takes it.
fn operand(x: &[f32], norm: Option<&[f32]>, epsilon: f64) -> Vec<f64> {
    let x: Vec<f64> = x.iter().copied().map(f64::from).collect();
    let Some(norm) = norm else { return x };
    let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
    let scale = 1.0 / (mean + epsilon).sqrt();
    x.iter().zip(norm).map(|(x, &by)| x * scale * f64::from(by)).collect()
}

/// `silu(gate) * up`. The derivative of silu is at most 1.1.
fn activate(gate: Dot, up: Dot) -> Near {
    let silu = gate.value / (1.0 + (-gate.value).exp());
    let value = silu * up.value;
    let of_exponential = value.abs() * SLACK * (1.0 + gate.value.abs());
    let slack = 1.1 * gate.slack * (up.value.abs() + up.slack) + silu.abs() * up.slack;
    Near { value, slack: slack + of_exponential + 1e-36 }
}

pub(super) fn linear<D: Device>(mut stage: Stage<'_, D>, layer: &Layer) -> Result<Outcome, DeviceError> {
    let (rows, dtype) = (stage.case.rows, stage.dtype());
    let [depth, out, results] = [layer.depth, layer.out, layer.results()].map(|size| size as usize);
    let mut noise = Noise::new(5);
    // With a norm rows of very different sizes, one of zeros.
    let spreads = if layer.norm { [1.0, 30.0, 1e-3, 0.0, 5.0] } else { [1.0; 5] };
    let x: Vec<f32> = (0..rows as usize)
        .flat_map(|row| noise.elements(dtype, depth, 0.0, spreads[row % spreads.len()]))
        .collect();
    let norm = layer.norm.then(|| noise.elements(dtype, depth, 1.0, 0.3));
    let distinct = noise.elements(dtype, DISTINCT.min(out) * depth, 0.0, (depth as f64).powf(-0.5));
    let before =
        (layer.after == After::Add).then(|| noise.elements(dtype, rows as usize * results, 0.0, 1.0));

    let rounding = match (layer.norm, dtype) {
        (false, _) => 0.0,
        (true, DType::Bf16) => 2f64.powi(-9),
        (true, DType::F16) => 2f64.powi(-12),
    };
    let epsilon = f64::from(stage.candidate.shape.norm_eps);
    let mut expected: Vec<Near> = Vec::with_capacity(rows as usize * results);
    for x in x.chunks_exact(depth) {
        let dots = dots(&operand(x, norm.as_deref(), epsilon), &distinct, rounding);
        let of = |row: usize| dots[row % dots.len()];
        expected.extend((0..results).map(|at| match layer.after {
            After::Activate => activate(of(at), of(results + at)),
            _ => Near { value: of(at).value, slack: of(at).slack },
        }));
    }
    for (near, &before) in expected.iter_mut().zip(before.iter().flatten()) {
        near.value += f64::from(before);
        near.slack += near.value.abs() * SLACK;
    }

    let row_bytes = depth * 2;
    let weights = stage.device.alloc("weights", 0, (out * row_bytes) as u64, Fresh::Unwritten)?;
    let repeated = to_bytes(dtype, distinct.iter().copied());
    for first in (0..out).step_by(repeated.len() / row_bytes) {
        let bytes = &repeated[..repeated.len().min((out - first) * row_bytes)];
        stage.device.write(weights + (first * row_bytes) as u64, bytes)?;
    }
    let bytes = expected.len() * layer.result_bytes() as usize;
    let y = match &before {
        Some(before) => stage.in_place("y", &to_bytes(dtype, before.iter().copied()))?,
        None => stage.output("y", bytes)?,
    };
    let block = Linear {
        x: stage.elements("x", &x)?,
        weights,
        norm: norm.map_or(Ok(0), |norm| stage.elements("norm", &norm))?,
        y,
        rows,
        reserved: 0,
    };
    stage.launch(Block::Linear(stage.candidate.op, block))?;
    if layer.after == After::StoreFloats {
        stage.near_floats("y", y, &expected)?;
    } else {
        stage.near("y", y, &expected)?;
    }
    // A last tile that is not full repeats rows.
    let read = results.div_ceil(layer.tile_results() as usize) * 16 * row_bytes;
    stage.moved(&[("weights", read, 0, 0), ("y", before.map_or(0, |_| bytes), bytes, bytes)]);
    Ok(stage.outcome)
}
