//! Vector arithmetic of the CPU path: loops written in plain Rust, compiled once per instruction set, and the best one
//! picked when the program runs.

// A function that is not inlined into the one with the wide vectors is compiled without them.
#![allow(clippy::inline_always)]

pub use pulp::NullaryFnOnce;

/// Runs a loop with the widest vectors that the machine has. What it calls must be inlined into it to profit, and so must
/// `f` itself: a closure of a few lines is; of anything longer make a type whose `call` says `#[inline(always)]`.
#[inline]
pub fn vectorized<F: NullaryFnOnce>(f: F) -> F::Output {
    pulp::Arch::new().dispatch(f)
}

/// e^x, within 2 units in the last place, and 0 below -87.3. Branchless, so that loops over it vectorise.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const LOWEST: f32 = -87.3;
    const HIGHEST: f32 = 88.7;
    // Adding this and subtracting it again rounds to an integer, which also stands in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23
    // ln 2 in two parts, the first with trailing zeros, so that n times it is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let clamped = x.clamp(LOWEST, HIGHEST);
    let n = clamped * std::f32::consts::LOG2_E + ROUND;
    let (power, n) = (n.to_bits() << 23, n - ROUND);
    let r = clamped - n * LN2_HIGH - n * LN2_LOW;
    // Minimax on |r| <= ln(2) / 2.
    let p = 1.987_569_2e-4;
    let p = p * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 0.166_666_65;
    let p = p * r + 0.5;
    let p = p * r * r + r + 1.0;
    let power = f32::from_bits(p.to_bits().wrapping_add(power));
    let power = if x < LOWEST { 0.0 } else { power };
    if x.is_nan() { x } else { power }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_ulp() {
        let mut worst = 0.0f64;
        for i in 0..2_000_000u32 {
            let x = -87.2 + 175.8 * (i as f32 / 2e6);
            let (found, exact) = (f64::from(exp(x)), f64::from(x).exp());
            worst = worst.max((found / exact - 1.0).abs());
        }
        assert!(worst < 2.0 * f64::from(f32::EPSILON), "{worst:e}");
        // To the bit.
        for (x, expected) in [(0.0, 1.0f32), (-88.0, 0.0), (f32::NEG_INFINITY, 0.0)] {
            assert_eq!(exp(x).to_bits(), expected.to_bits(), "{x}");
        }
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn a_vectorised_loop_computes_what_the_plain_one_does() {
        let x: Vec<f32> = (0..1003).map(|i| -(i as f32) / 17.0).collect();
        let plain: Vec<f32> = x.iter().map(|&x| exp(x)).collect();
        let mut fast = x;
        vectorized(|| fast.iter_mut().for_each(|x| *x = exp(*x)));
        assert_eq!(fast, plain);
    }
}
