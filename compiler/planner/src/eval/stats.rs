//! Confidence: 95% intervals that count the items of one context, or the tokens of one window, as one observation.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

/// Resamples of a bootstrap.
const RESAMPLES: usize = 10_000;
/// Two-sided 95% of a normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// The mean of some numbers; 0 of none.
pub fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let (sum, count) = values.into_iter().fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    if count > 0.0 { sum / count } else { 0.0 }
}

/// The percentile bootstrap over clusters: `statistic` of as many clusters as there are, drawn with replacement. None where
/// there are fewer than two clusters, or where they are all alike, which says nothing about the spread. The same on every
/// run.
pub fn bootstrap(clusters: usize, statistic: impl Fn(&[usize]) -> f64) -> Option<[f64; 2]> {
    if clusters < 2 {
        return None;
    }
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let mut drawn = vec![0; clusters];
    let mut values: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            for at in &mut drawn {
                *at = ((u128::from(random.next_u64()) * clusters as u128) >> 64) as usize;
            }
            statistic(&drawn)
        })
        // A ratio to zero is undefined.
        .filter(|value| value.is_finite())
        .collect();
    values.sort_by(f64::total_cmp);
    let [low, high] = [quantile(&values, 0.025)?, quantile(&values, 0.975)?];
    (high > low).then_some([low, high])
}

/// The quantile of sorted values, between neighbours by their distance.
fn quantile(sorted: &[f64], part: f64) -> Option<f64> {
    let at = part * (sorted.len().checked_sub(1)? as f64);
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    Some(low + (high - low) * at.fract())
}

/// The Wilson score interval of a share, for independent items. It has a width even if all are right. An item may be right
/// in part.
pub fn wilson(right: f64, items: usize) -> Option<[f64; 2]> {
    if items == 0 {
        return None;
    }
    let (n, p) = (items as f64, right / items as f64);
    let centre = (p + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
    let half = Z / (1.0 + Z * Z / n) * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    Some([(centre - half).max(0.0), (centre + half).min(1.0)])
}

/// The share of right answers, of so many right out of so many in each context, and its interval: the bootstrap over
/// contexts; where all contexts have the same share, as when all is right, the bootstrap sees no spread and the interval is
/// Wilson's over the items.
pub fn accuracy(contexts: &[(f64, usize)]) -> (f64, Option<[f64; 2]>) {
    let sum = |drawn: &mut dyn Iterator<Item = usize>| {
        drawn.fold((0.0, 0), |(right, items), at| (right + contexts[at].0, items + contexts[at].1))
    };
    let share = |(right, items): (f64, usize)| right / items as f64;
    let all = sum(&mut (0..contexts.len()));
    if all.1 == 0 {
        return (0.0, None);
    }
    let interval = bootstrap(contexts.len(), |drawn| share(sum(&mut drawn.iter().copied())));
    (share(all), interval.or_else(|| wilson(all.0, all.1)))
}

/// The ratio of two sums over the same clusters and its interval; none where the second is 0.
pub fn ratio(pairs: &[(f64, f64)]) -> (Option<f64>, Option<[f64; 2]>) {
    let of = |drawn: &mut dyn Iterator<Item = usize>| {
        let (a, b) = drawn.fold((0.0, 0.0), |(a, b), at| (a + pairs[at].0, b + pairs[at].1));
        a / b
    };
    let whole = of(&mut (0..pairs.len()));
    if !whole.is_finite() {
        return (None, None);
    }
    (Some(whole), bootstrap(pairs.len(), |drawn| of(&mut drawn.iter().copied())))
}

/// The longest length such that at it and at every shorter one at least `bar` is right; points ascend.
pub fn effective_length(points: &[(u32, f64)], bar: f64) -> Option<u32> {
    // Shares of whole items: 9 of 10 are 0.9, however they round.
    points.iter().take_while(|(_, share)| *share >= bar - 1e-9).last().map(|&(length, _)| length)
}
