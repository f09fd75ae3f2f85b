//! Products of a matrix with a few vectors, which is what a decode step consists of. Rows are read once and as they lie,
//! at the speed of memory; a general matrix product packs them first.

// As in `simd`: code that is not inlined into the function with the wide vectors is compiled without them.
#![allow(clippy::inline_always)]

use pulp::{Arch, Simd, WithSimd};

/// The vectors of a product. Fewer are padded with zeros, which costs little beside the reading of the matrix.
pub const FEW: usize = 4;

/// Writes to each of `out`, `[rows]`, the dot products of a row of `a`, `[rows, depth]`, with the vectors `b`, `[FEW, depth]`.
pub fn dots(a: &[f32], b: &[f32], out: &mut [[f32; FEW]]) {
    Arch::new().dispatch(Dots { a, b, out });
}

/// Adds to `out`, `[FEW, dim]`, the rows of `a`, `[rows, dim]`, each times its weight for every vector of `out`.
pub fn weighted_sums(a: &[f32], weights: &[[f32; FEW]], out: &mut [f32]) {
    Arch::new().dispatch(WeightedSums { a, weights, out });
}

struct Dots<'a> {
    a: &'a [f32],
    b: &'a [f32],
    out: &'a mut [[f32; FEW]],
}

impl WithSimd for Dots<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let depth = self.b.len() / FEW;
        let b: [_; FEW] = std::array::from_fn(|n| S::as_simd_f32s(&self.b[n * depth..(n + 1) * depth]));
        for (a, out) in self.a.chunks_exact(depth).zip(self.out) {
            let (a, rest) = S::as_simd_f32s(a);
            let vectors = b.map(|(b, _)| &b[..a.len()]);
            let mut sums = [simd.splat_f32s(0.0); FEW];
            for (at, &a) in a.iter().enumerate() {
                for (sum, b) in sums.iter_mut().zip(vectors) {
                    *sum = simd.mul_add_f32s(a, b[at], *sum);
                }
            }
            for ((out, sum), (_, b)) in out.iter_mut().zip(sums).zip(b) {
                *out = simd.reduce_sum_f32s(sum) + rest.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
            }
        }
    }
}

struct WeightedSums<'a> {
    a: &'a [f32],
    weights: &'a [[f32; FEW]],
    out: &'a mut [f32],
}

impl WithSimd for WeightedSums<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let dim = self.out.len() / FEW;
        let vectors = dim / S::F32_LANES;
        // As many sums as there are registers for: of 32, four for each output.
        let mut at = 0;
        while at < vectors {
            at += if vectors - at >= 4 && S::F32_LANES == 16 {
                self.columns::<S, 4>(simd, at * S::F32_LANES);
                4
            } else if vectors - at >= 2 {
                self.columns::<S, 2>(simd, at * S::F32_LANES);
                2
            } else {
                self.columns::<S, 1>(simd, at * S::F32_LANES);
                1
            };
        }
        for d in vectors * S::F32_LANES..dim {
            for (row, weights) in self.a.chunks_exact(dim).zip(self.weights) {
                for (out, weight) in self.out[d..].iter_mut().step_by(dim).zip(weights) {
                    *out += weight * row[d];
                }
            }
        }
    }
}

impl WeightedSums<'_> {
    /// `N` vectors of each output, from element `at` on.
    #[inline(always)]
    fn columns<S: Simd, const N: usize>(&mut self, simd: S, at: usize) {
        let dim = self.out.len() / FEW;
        let width = N * S::F32_LANES;
        let mut sums = [[simd.splat_f32s(0.0); N]; FEW];
        for (n, sums) in sums.iter_mut().enumerate() {
            let (out, _) = S::as_simd_f32s(&self.out[n * dim + at..n * dim + at + width]);
            sums.copy_from_slice(&out[..N]);
        }
        for (row, weights) in self.a.chunks_exact(dim).zip(self.weights) {
            let (row, _) = S::as_simd_f32s(&row[at..at + width]);
            let row = &row[..N];
            for (sums, &weight) in sums.iter_mut().zip(weights) {
                let weight = simd.splat_f32s(weight);
                for (sum, &a) in sums.iter_mut().zip(row) {
                    *sum = simd.mul_add_f32s(weight, a, *sum);
                }
            }
        }
        for (n, sums) in sums.iter().enumerate() {
            let (out, _) = S::as_mut_simd_f32s(&mut self.out[n * dim + at..n * dim + at + width]);
            out[..N].copy_from_slice(sums);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(n: usize, seed: f32) -> Vec<f32> {
        (0..n).map(|i| (seed + i as f32 * 0.37).sin()).collect()
    }

    /// Depths that are not whole vectors, and none at all, against sums in float64.
    #[test]
    fn products_with_a_few_vectors_are_those_in_float64() {
        for depth in [1, 3, 8, 16, 31, 64, 80, 576] {
            for rows in [0, 1, 5, 64] {
                let (a, b) = (wave(rows * depth, 0.1), wave(FEW * depth, 0.2));
                let mut out = vec![[f32::NAN; FEW]; rows];
                dots(&a, &b, &mut out);
                let weights: Vec<[f32; FEW]> =
                    (0..rows).map(|r| [r as f32, 0.5, -1.0, 1.0 / (1.0 + r as f32)]).collect();
                let start = wave(FEW * depth, 0.3);
                let mut sums = start.clone();
                weighted_sums(&a, &weights, &mut sums);
                for n in 0..FEW {
                    for (r, out) in out.iter().enumerate() {
                        let exact: f64 = (0..depth)
                            .map(|d| f64::from(a[r * depth + d]) * f64::from(b[n * depth + d]))
                            .sum();
                        assert!((f64::from(out[n]) - exact).abs() < 1e-4, "{depth} {rows}: {out:?} {exact}");
                    }
                    for d in 0..depth {
                        let added: f64 =
                            (0..rows).map(|r| f64::from(weights[r][n]) * f64::from(a[r * depth + d])).sum();
                        let exact = f64::from(start[n * depth + d]) + added;
                        assert!((f64::from(sums[n * depth + d]) - exact).abs() < 1e-3, "{depth} {rows} {d}");
                    }
                }
            }
        }
    }
}
