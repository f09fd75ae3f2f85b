//! The operations on rows of activations, as float64 has them.

use std::collections::BTreeSet;
use std::f64::consts::TAU;

use moac_runtime::element::to_bytes;
use moac_runtime::glue::{Activate, Block, Embed, Norm, Rotate, Row, Sample};

use super::Kind;
use super::noise::Noise;
use super::stage::{Near, Stage};
use crate::verify::device::{Device, DeviceError, Fresh};
use crate::verify::verdict::Outcome;

/// Float32 sums and products along the way, as a share of the terms.
const SLACK: f64 = 1e-6;
/// The tolerance of a float32 angle, in radians.
const ANGLE: f64 = 1e-6;

const LANES: u32 = 5;

/// A table of rows that has everything: first and last tokens, tokens that are on the device only, padding, a lane that
/// there is none of, positions up to the last.
fn table(rows: u32, vocab: u32, noise: &mut Noise) -> Vec<Row> {
    let row = |at: u32| {
        let token = match at % 4 {
            0 => Row::NEWEST,
            1 => vocab - 1,
            _ => noise.below(vocab),
        };
        let lane = match at % 6 {
            4 => Row::IDLE,
            5 => LANES + at,
            _ => noise.below(LANES),
        };
        let position = [1_048_575, 0, 1, 131_071, 7, 524_287, 262_144][at as usize % 7];
        Row { token, position, lane, reserved: 0 }
    };
    (0..rows).map(row).collect()
}

fn bytes_of(table: &[Row]) -> Vec<u8> {
    table.iter().flat_map(Row::to_bytes).collect()
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

pub(super) fn embed<D: Device>(mut stage: Stage<'_, D>) -> Result<Outcome, DeviceError> {
    let (sizes, rows) = (stage.sizes(), stage.case.rows);
    let hidden = sizes.hidden as usize;
    let mut noise = Noise::new(1);
    let table = table(rows, sizes.vocab, &mut noise);
    let newest: Vec<u32> = (0..LANES).map(|_| noise.below(sizes.vocab)).collect();
    let mut seen: Vec<u32> =
        (0..LANES * sizes.seen_words()).map(|_| noise.bits() as u32 & 0x1111_0000).collect();
    // Only the rows that are read are there: a whole embedding may be too large for the emulator.
    let row_bytes = hidden * 2;
    let bytes = u64::from(sizes.vocab) * row_bytes as u64;
    let embedding = stage.device.alloc("embedding", 0, bytes, Fresh::Unwritten)?;
    let seen_before = words(&seen);
    let (mut expected, mut marks, mut read) = (Vec::new(), Vec::new(), 0);
    for row in &table {
        let lane = Some(row.lane).filter(|&lane| lane < LANES);
        let token = match (row.token, lane) {
            (Row::NEWEST, Some(lane)) => newest[lane as usize],
            (Row::NEWEST, None) => 0,
            (token, _) => token,
        };
        let row_of_token =
            to_bytes(stage.dtype(), Noise::new(u64::from(token)).elements(stage.dtype(), hidden, 0.0, 1.0));
        stage.device.write(embedding + u64::from(token) * row_bytes as u64, &row_of_token)?;
        if row.lane == Row::IDLE {
            expected.extend(vec![0; row_bytes]);
        } else {
            expected.extend(row_of_token);
            read += row_bytes;
        }
        if let Some(lane) = lane {
            let word = lane * sizes.seen_words() + token / 32;
            seen[word as usize] |= 1 << (token % 32);
            marks.push(word);
        }
    }
    let has_bits = stage.case.kind != Kind::Other;
    let bits = stage.in_place("seen", &seen_before)?;
    let x = stage.output("x", expected.len())?;
    let block = Embed {
        table: stage.input("table", &bytes_of(&table))?,
        embedding,
        x,
        newest: stage.input("newest", &words(&newest))?,
        seen: if has_bits { bits } else { 0 },
        lanes: LANES,
        rows,
    };
    stage.launch(Block::Embed(block))?;
    stage.same("x", x, &expected)?;
    stage.same("seen", bits, &if has_bits { words(&seen) } else { seen_before })?;
    let (marks, words) =
        if has_bits { (marks.len() * 4, marks.iter().collect::<BTreeSet<_>>().len() * 4) } else { (0, 0) };
    let bytes = expected.len();
    stage.moved(&[("embedding", read, 0, 0), ("x", 0, bytes, bytes), ("seen", marks, marks, words)]);
    Ok(stage.outcome)
}

pub(super) fn norm<D: Device>(mut stage: Stage<'_, D>) -> Result<Outcome, DeviceError> {
    let (sizes, rows, dtype) = (stage.sizes(), stage.case.rows, stage.dtype());
    let hidden = sizes.hidden as usize;
    let mut noise = Noise::new(2);
    let gathers = stage.case.kind == Kind::Other;
    let of_rows = if gathers { rows - 2 } else { rows };
    // Rows of very different sizes, one of zeros.
    let spreads = [1.0, 30.0, 1e-3, 0.0, 5.0];
    let x: Vec<f32> = (0..of_rows as usize)
        .flat_map(|row| noise.elements(dtype, hidden, 0.0, spreads[row % spreads.len()]))
        .collect();
    let weight = noise.elements(dtype, hidden, 1.0, 0.5);
    let samples: Vec<Sample> = (0..rows)
        .map(|at| match at {
            0 => Sample { row: of_rows + 7, ..Sample::PADDING }, // behind the last: takes that
            _ => Sample::greedy((at * 3 + 1) % of_rows, at),
        })
        .collect();
    let from = |row: u32| if gathers { samples[row as usize].row.min(of_rows - 1) } else { row } as usize;
    let mut expected = Vec::new();
    for row in 0..rows {
        let x = &x[from(row) * hidden..][..hidden];
        let mean = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / hidden as f64;
        let scale = 1.0 / (mean + f64::from(stage.candidate.shape.norm_eps)).sqrt();
        expected.extend(x.iter().zip(&weight).map(|(&x, &weight)| {
            let value = f64::from(x) * scale * f64::from(weight);
            Near { value, slack: value.abs() * SLACK }
        }));
    }
    let y = stage.output("y", expected.len() * 2)?;
    let table: Vec<u8> = samples.iter().flat_map(Sample::to_bytes).collect();
    let block = Norm {
        x: stage.elements("x", &x)?,
        weight: stage.elements("weight", &weight)?,
        y,
        samples: if gathers { stage.input("samples", &table)? } else { 0 },
        of_rows,
        rows,
    };
    stage.launch(Block::Norm(block))?;
    stage.near("y", y, &expected)?;
    let bytes = expected.len() * 2;
    stage.moved(&[("x", bytes, 0, 0), ("weight", bytes, 0, 0), ("y", 0, bytes, bytes)]);
    Ok(stage.outcome)
}

pub(super) fn rotate<D: Device>(mut stage: Stage<'_, D>) -> Result<Outcome, DeviceError> {
    let (sizes, rows, dtype) = (stage.sizes(), stage.case.rows, stage.dtype());
    let shape = &stage.candidate.shape;
    let [heads, kv_heads, dim] = [sizes.heads, sizes.kv_heads, sizes.head_dim].map(|size| size as usize);
    let width = sizes.qkv() as usize;
    let mut noise = Noise::new(3);
    let table = table(rows, sizes.vocab, &mut noise);
    let qkv = noise.elements(dtype, rows as usize * width, 0.0, 2.0);
    let bias = noise.elements(dtype, width, 0.0, 1.0);
    let norms = [noise.elements(dtype, dim, 1.0, 0.3), noise.elements(dtype, dim, 1.0, 0.3)];
    let mut expected = Vec::new();
    for (row, of) in table.iter().zip(qkv.chunks_exact(width)) {
        for (head, of) in of.chunks_exact(dim).enumerate() {
            let mut values: Vec<f64> = of.iter().copied().map(f64::from).collect();
            if sizes.qkv_bias {
                values
                    .iter_mut()
                    .zip(&bias[head * dim..])
                    .for_each(|(value, &bias)| *value += f64::from(bias));
            }
            if head >= heads + kv_heads {
                // Without a bias, v is unchanged bit for bit.
                expected.extend(values.into_iter().map(|value| Near { value, slack: value.abs() * SLACK }));
                continue;
            }
            if sizes.qk_norm {
                let mean = values.iter().map(|value| value * value).sum::<f64>() / dim as f64;
                let scale = 1.0 / (mean + f64::from(shape.norm_eps)).sqrt();
                let norm = &norms[usize::from(head >= heads)];
                values.iter_mut().zip(norm).for_each(|(value, &by)| *value *= scale * f64::from(by));
            }
            let turned = |at: usize| {
                let pair = at % (dim / 2);
                let (x, y) = (values[pair], values[pair + dim / 2]);
                let angle = (f64::from(row.position) * shape.frequencies[pair]).rem_euclid(TAU);
                let value = if at < dim / 2 {
                    x * angle.cos() - y * angle.sin()
                } else {
                    y * angle.cos() + x * angle.sin()
                };
                Near { value, slack: (ANGLE + SLACK) * x.hypot(y) }
            };
            expected.extend((0..dim).map(turned));
        }
    }
    let bytes = expected.len() * 2;
    let x = stage.in_place("qkv", &to_bytes(dtype, qkv))?;
    let block = Rotate {
        table: stage.input("table", &bytes_of(&table))?,
        qkv: x,
        bias: if sizes.qkv_bias { stage.elements("bias", &bias)? } else { 0 },
        q_norm: if sizes.qk_norm { stage.elements("q_norm", &norms[0])? } else { 0 },
        k_norm: if sizes.qk_norm { stage.elements("k_norm", &norms[1])? } else { 0 },
        rows,
        reserved: 0,
    };
    stage.launch(Block::Rotate(block))?;
    stage.near("qkv", x, &expected)?;
    // v stays where it is, unless it has a bias.
    let touched = if sizes.qkv_bias { bytes } else { bytes / width * (heads + kv_heads) * dim };
    stage.moved(&[("qkv", touched, touched, touched)]);
    Ok(stage.outcome)
}

pub(super) fn activate<D: Device>(mut stage: Stage<'_, D>) -> Result<Outcome, DeviceError> {
    let (sizes, rows, dtype) = (stage.sizes(), stage.case.rows, stage.dtype());
    let inner = sizes.intermediate as usize;
    let mut noise = Noise::new(4);
    let spreads = [1.0, 8.0, 100.0, 1e-3];
    let gate_up: Vec<f32> = (0..rows as usize)
        .flat_map(|row| {
            let gate = noise.elements(dtype, inner, 0.0, spreads[row % spreads.len()]);
            [gate, noise.elements(dtype, inner, 0.0, 2.0)].concat()
        })
        .collect();
    let expected: Vec<Near> = gate_up
        .chunks_exact(2 * inner)
        .flat_map(|row| {
            let (gate, up) = row.split_at(inner);
            gate.iter().zip(up).map(|(&gate, &up)| {
                let (gate, up) = (f64::from(gate), f64::from(up));
                let value = gate / (1.0 + (-gate).exp()) * up;
                // An exponential of a large number is as far off as the number's last bit; denormal ones are 0.
                Near { value, slack: value.abs() * SLACK * (1.0 + gate.abs()) + 1e-34 }
            })
        })
        .collect();
    let bytes = expected.len() * 2;
    let y = stage.output("y", bytes)?;
    let gate_up = stage.elements("gate_up", &gate_up)?;
    stage.launch(Block::Activate(Activate { gate_up, y, rows, reserved: 0 }))?;
    stage.near("y", y, &expected)?;
    stage.moved(&[("gate_up", 2 * bytes, 0, 0), ("y", 0, bytes, bytes)]);
    Ok(stage.outcome)
}
