//! The emulator's own attention kernel: tensor copies into rings, `wgmma`, overlapped softmax, a sink and a window.

use crate::support::{Numbers, bytes_of, from_bf16, to_bf16, words_of};
use moac_emulator::{Launch, Memory, Module, OobFill, Report, Swizzle, TensorMap, TensorType, launch};

pub(crate) const PTX: &str = include_str!("../ptx/attention.ptx");
const DIM: usize = 64;

/// A problem: tokens, span, sink, query heads, key heads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) tokens: usize,
    pub(crate) span: usize,
    pub(crate) sink: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
}

pub(crate) struct Inputs {
    q: Vec<u16>,
    k: Vec<u16>,
    v: Vec<u16>,
}

impl Case {
    pub(crate) fn inputs(self) -> Inputs {
        let mut n = Numbers::new(7);
        let mut make = |heads: usize, scale: f32| -> Vec<u16> {
            (0..heads * self.tokens * DIM).map(|_| to_bf16(n.unit() * scale)).collect()
        };
        Inputs { q: make(self.heads, 2.0), k: make(self.kv_heads, 2.0), v: make(self.kv_heads, 1.0) }
    }

    /// The output in f64, head by head.
    pub(crate) fn reference(self, x: &Inputs) -> Vec<f64> {
        let mut out = Vec::new();
        for h in 0..self.heads {
            let kv = h / (self.heads / self.kv_heads) * self.tokens;
            for r in 0..self.tokens {
                let q = &x.q[(h * self.tokens + r) * DIM..][..DIM];
                let seen: Vec<usize> = (0..=r).filter(|&c| c + self.span > r || c < self.sink).collect();
                let dot = |c: usize| -> f64 {
                    let k = &x.k[(kv + c) * DIM..][..DIM];
                    q.iter().zip(k).map(|(&a, &b)| from_bf16(a) * from_bf16(b)).sum::<f64>()
                        / (DIM as f64).sqrt()
                };
                let scores: Vec<f64> = seen.iter().map(|&c| dot(c)).collect();
                let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
                let sum: f64 = weights.iter().sum();
                for d in 0..DIM {
                    let all = seen
                        .iter()
                        .zip(&weights)
                        .map(|(&c, w)| w * from_bf16(x.v[(kv + c) * DIM + d]))
                        .sum::<f64>();
                    out.push(all / sum);
                }
            }
        }
        out
    }

    /// Runs the kernel; the report and the output.
    pub(crate) fn run(self, module: &Module, x: &Inputs, seed: u64) -> (Report, Vec<f64>) {
        let mut memory = Memory::new();
        let [q, k, v] =
            [("q", &x.q), ("k", &x.k), ("v", &x.v)].map(|(label, d)| memory.alloc_from(label, &bytes_of(d)));
        let bytes = self.heads * self.tokens * DIM * 2;
        let o = memory.alloc("o", bytes as u64);
        let map = |address, heads: usize| {
            let row = DIM as u64 * 2;
            TensorMap::tiled(
                TensorType::Bf16,
                address,
                &[DIM as u64, self.tokens as u64, heads as u64],
                &[row, row * self.tokens as u64],
                &[DIM as u32, 64, 1],
                &[1, 1, 1],
                Swizzle::B128,
                OobFill::Zeros,
            )
            .unwrap()
            .bytes()
        };
        let scale = std::f32::consts::LOG2_E / (DIM as f32).sqrt();
        let ints = [self.tokens, self.span, self.sink, self.heads / self.kv_heads];
        let mut l = Launch::new("attention", self.tokens.div_ceil(128) as u32, 384)
            .param(&map(q, self.heads))
            .param(&map(k, self.kv_heads))
            .param(&map(v, self.kv_heads))
            .param(&map(o, self.heads))
            .param(&scale.to_le_bytes())
            .dynamic_shared(48 << 10)
            .schedule(seed);
        for n in ints {
            l = l.param(&(n as i32).to_le_bytes());
        }
        l.grid.1 = self.heads as u32;
        l.max_instructions = 1 << 22;
        let report = launch(module, &mut memory, &l).unwrap();
        let out = words_of(&memory.read(o, bytes).unwrap()).into_iter().map(from_bf16).collect();
        (report, out)
    }
}

/// Largest distance from the reference, relative to the size of the outputs.
pub(crate) fn error(got: &[f64], expected: &[f64]) -> f64 {
    let worst = got
        .iter()
        .zip(expected)
        .map(|(a, b)| if (a - b).is_nan() { f64::INFINITY } else { (a - b).abs() })
        .fold(0.0, f64::max);
    worst / expected.iter().fold(0.0, |m, v| f64::max(m, v.abs()))
}

/// The tolerance for bf16 weights and outputs.
pub(crate) const TOLERANCE: f64 = 1.0 / 64.0;

#[test]
fn attention_is_right() {
    let module = Module::parse(PTX).unwrap();
    for case in [
        Case { tokens: 256, span: 1 << 20, sink: 0, heads: 2, kv_heads: 1 },
        Case { tokens: 437, span: 100, sink: 70, heads: 1, kv_heads: 1 },
        Case { tokens: 40, span: 7, sink: 3, heads: 2, kv_heads: 2 },
    ] {
        let x = case.inputs();
        let (report, out) = case.run(&module, &x, 1);
        for f in &report.findings {
            println!("{f}");
        }
        assert!(report.clean(), "{case:?}");
        let e = error(&out, &case.reference(&x));
        assert!(e < TOLERANCE, "{case:?}: {e}");
    }
}
