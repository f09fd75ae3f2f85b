//! Intervals against published values, closed forms and their own laws.

use super::super::stats::{accuracy, bootstrap, effective_length, mean, ratio, wilson};
use super::tiny::numbers;

fn near(found: [f64; 2], expected: [f64; 2], within: f64) {
    assert!(
        (found[0] - expected[0]).abs() < within && (found[1] - expected[1]).abs() < within,
        "{found:?}, expected {expected:?}"
    );
}

#[test]
fn wilson_has_the_values_of_the_literature() {
    // Newcombe 1998, table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    near(wilson(81.0, 263).unwrap(), [0.2553, 0.3662], 6e-5);
    near(wilson(15.0, 148).unwrap(), [0.0624, 0.1605], 6e-5);
    near(wilson(0.0, 20).unwrap(), [0.0, 0.1611], 6e-5);
    near(wilson(1.0, 29).unwrap(), [0.0061, 0.1718], 6e-5);
    assert_eq!(wilson(0.0, 0), None);
}

#[test]
fn the_bootstrap_of_a_mean_is_the_normal_one_for_many_clusters() {
    let mut random = numbers(3);
    let values: Vec<f64> = (0..400).map(|_| random(1000) as f64).collect();
    let centre = mean(values.iter().copied());
    let variance = mean(values.iter().map(|value| (value - centre).powi(2)));
    let half = 1.96 * (variance / 400.0).sqrt();
    let found = bootstrap(400, |drawn| mean(drawn.iter().map(|&at| values[at]))).unwrap();
    near(found, [centre - half, centre + half], 0.06 * half);
    // The same again, to the bit.
    assert_eq!(bootstrap(400, |drawn| mean(drawn.iter().map(|&at| values[at]))), Some(found));
}

#[test]
fn small_bootstraps_are_exact_distributions() {
    // Of two clusters both ends have a quarter of the mass, so the interval is everything.
    near(bootstrap(2, |drawn| mean(drawn.iter().map(|&at| at as f64))).unwrap(), [0.0, 1.0], 1e-12);
    // Of three, all the same one of the two ends has 1/27 > 2.5% each.
    near(bootstrap(3, |drawn| mean(drawn.iter().map(|&at| at as f64))).unwrap(), [0.0, 2.0], 1e-12);
    assert_eq!(bootstrap(1, |_| 1.0), None);
    assert_eq!(bootstrap(8, |_| 1.0), None);
    assert_eq!(bootstrap(0, |_| 1.0), None);
}

#[test]
fn a_context_counts_once_however_many_questions_it_has() {
    let few = [(1.0, 2), (2.0, 2), (0.0, 2), (2.0, 2), (1.0, 2)];
    let many = few.map(|(right, questions)| (10.0 * right, 10 * questions));
    assert_eq!(accuracy(&few), accuracy(&many));
    let (share, interval) = accuracy(&few);
    assert!((share - 0.6).abs() < 1e-12);
    // 1.95% of the resamples are below 0.3, and 1.02% above 0.9.
    near(interval.unwrap(), [0.3, 0.9], 1e-9);
}

#[test]
fn all_right_is_not_certain() {
    let (share, interval) = accuracy(&[(10.0, 10); 4]);
    assert!((share - 1.0).abs() < 1e-12);
    assert_eq!(interval, wilson(40.0, 40));
    assert!(interval.unwrap()[0] < 0.92);
    assert_eq!(accuracy(&[]), (0.0, None));
}

#[test]
fn ratios_are_paired() {
    // Contexts differ tenfold, but the ratio is 1/2 in each: there is no doubt about it.
    assert_eq!(ratio(&[(1.0, 2.0), (10.0, 20.0), (3.0, 6.0)]), (Some(0.5), None));
    let (whole, interval) = ratio(&[(9.0, 10.0), (5.0, 10.0), (7.0, 10.0)]);
    assert!((whole.unwrap() - 0.7).abs() < 1e-12);
    near(interval.unwrap(), [0.5, 0.9], 1e-9);
    assert_eq!(ratio(&[(1.0, 0.0), (2.0, 0.0)]), (None, None));
    assert_eq!(ratio(&[]), (None, None));
}

#[test]
fn the_effective_length_ends_before_the_first_failure() {
    let points = [(1024, 1.0), (1536, 0.9), (2048, 0.89), (2560, 1.0)];
    assert_eq!(effective_length(&points, 0.9), Some(1536));
    assert_eq!(effective_length(&points[2..], 0.9), None);
    assert_eq!(effective_length(&points[..1], 0.9), Some(1024));
    assert_eq!(effective_length(&[], 0.9), None);
    // Nine tenths added up from items.
    assert_eq!(effective_length(&[(64, 0.3 * 3.0)], 0.9), Some(64));
}
