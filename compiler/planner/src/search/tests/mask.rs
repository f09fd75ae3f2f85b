//! The loss and cost tables against the runtime's mask, key by key.

use moac_runtime::geometry::{span, visible};
use moac_runtime::plan::Rule;

use crate::search::influence::{Influence, LengthInfluence};
use crate::search::rules::{RuleGrid, distinct};
use crate::search::synthetic::{Stream, shape};
use crate::search::tables::{Bound, Cost, Granularity, Space, TableError, Tables, TimeTable};

/// A causal matrix of random influence, `[query][key]`, signed.
fn matrix(stream: &mut Stream, length: usize) -> Vec<Vec<f32>> {
    (0..length).map(|query| (0..=query).map(|_| stream.between(-0.2, 1.0) as f32).collect()).collect()
}

/// Its half-blocks, straight from the format's definition.
fn halves(matrix: &[Vec<f32>]) -> (Vec<f32>, Vec<f32>) {
    let n = matrix.len() / 64;
    let (mut far, mut near) = (vec![0.0f64; n * n], vec![0.0f64; n * n]);
    for (i, row) in matrix.iter().enumerate() {
        for (j, &value) in row.iter().enumerate() {
            let half = if i % 64 >= j % 64 { &mut far } else { &mut near };
            half[i / 64 * n + j / 64] += f64::from(value);
        }
    }
    (far.into_iter().map(|v| v as f32).collect(), near.into_iter().map(|v| v as f32).collect())
}

#[test]
fn the_loss_of_every_span_is_the_sum_of_what_the_runtime_hides() {
    let model = shape("tiny", 2, 2, 1);
    for (length, sink, min_span) in [(320u32, 64, 128), (448, 128, 192), (512, 64, 256)] {
        let mut stream = Stream::new(u64::from(length));
        let heads: Vec<Vec<Vec<f32>>> = (0..4).map(|_| matrix(&mut stream, length as usize)).collect();
        let mut at = LengthInfluence { length, items: 3, far: Vec::new(), near: Vec::new() };
        for head in &heads {
            let (far, near) = halves(head);
            at.far.extend(far);
            at.near.extend(near);
        }
        let influence = Influence {
            model: model.clone(),
            lengths: vec![at],
            seed: 0,
            absolute: false,
            windows: false,
            joint: false,
            data: None,
        };
        // Every tile count, below the minimum and beyond the length too, and a rule that is rounded up.
        let mut rules: Vec<Rule> =
            (0..=9).map(|tiles| Rule { alpha: f64::from(64 * tiles), beta: 0.0 }).collect();
        rules.push(Rule { alpha: 3.0, beta: 0.7 });
        rules.push(Rule { alpha: -1000.0, beta: 1.0 });
        let space = Space {
            rules,
            sink,
            min_span,
            per: Granularity::Head,
            cost: Cost::KvBytes,
            bounds: vec![Bound { length, fraction: 1.0 }],
            max_rules: None,
        };
        let tables = Tables::from_influence(&influence, space).expect("a valid space");
        for (head, matrix) in heads.iter().enumerate() {
            for (at, &rule) in tables.space.rules.iter().enumerate() {
                let window = span(rule, length, min_span) - sink;
                let mut hidden = 0.0;
                for (i, row) in matrix.iter().enumerate() {
                    for (j, &value) in row.iter().enumerate() {
                        if !visible(i as u32, j as u32, sink, window) {
                            hidden += f64::from(value);
                        }
                    }
                }
                let table = tables.problem.losses[0][head * tables.problem.rules + at];
                // The sums of 2000 to 4000 f32 values are stored in f32.
                assert!((table - hidden).abs() <= 1e-3, "head {head}, {rule:?}: {table} against {hidden}");
            }
        }
        assert!(
            tables.problem.rules >= (length / 64 - min_span / 64) as usize,
            "all distinct spans are there"
        );
    }
}

#[test]
fn the_dense_rule_costs_no_loss() {
    let mut stream = Stream::new(5);
    let (far, near) = halves(&matrix(&mut stream, 256));
    let at = LengthInfluence { length: 256, items: 1, far, near };
    let losses = at.head(0).losses(1);
    assert_eq!(losses.len(), 5);
    // With one sink block, a window of three tiles reaches back to the sink from the last query.
    assert_eq!((losses[3], losses[4]), (0.0, 0.0));
    assert!(losses[2] != 0.0);
}

#[test]
fn published_and_paper_grids_have_their_sizes() {
    assert_eq!(RuleGrid::paper().rules().len(), 54);
    let rules = RuleGrid::published(8192).rules();
    assert_eq!(rules.len(), 48);
    // Rules of the published plans.
    for (alpha, beta) in
        [(0.0, 0.125), (-1024.0, 1.0), (1024.0, 0.0), (0.0, 0.625), (3072.0, 0.25), (8192.0, 0.0)]
    {
        assert!(rules.contains(&Rule { alpha, beta }), "({alpha}, {beta})");
    }
    assert_eq!(distinct(&rules, &[2048, 4096, 8192, 16384], 128).len(), 48);
    // Fewer different rules than a search takes, whether the profile ends at half of the context or at all of it.
    for longest in [4096, 8192] {
        let wide = distinct(&RuleGrid::wide(longest).rules(), &[1024, 2048, 4096, 8192], 128);
        assert!((80..=128).contains(&wide.len()), "{longest}: {}", wide.len());
    }
    let fine = RuleGrid::fine(4096).rules();
    assert_eq!(fine.len(), 58);
    assert!(
        fine.contains(&Rule { alpha: 0.0, beta: 1.0 }) && fine.contains(&Rule { alpha: 64.0, beta: 0.03125 })
    );
    assert_eq!(RuleGrid::proportional(16).rules().len(), 16);
    let classes = RuleGrid::classes().rules();
    let spans = |n: u32| classes.iter().map(|&rule| span(rule, n, 320)).collect::<Vec<_>>();
    assert_eq!([spans(1024), spans(8192)], [[320, 1024], [320, 8192]]);
}

#[test]
fn of_equal_rules_the_most_proportional_stays() {
    let rules = RuleGrid::published(8192).rules();
    let kept = distinct(&rules, &[4096], 128);
    assert_eq!(kept.len(), 8);
    assert!(kept.iter().all(|rule| rule.alpha == 0.0), "{kept:?}");
}

#[test]
fn kernel_times_are_interpolated_and_never_guessed() {
    let times: TimeTable =
        serde_json::from_str(r#"{"1024": {"128": 1.0, "512": 4.0, "1024": 9.0}}"#).expect("a time table");
    let space = |alpha: f64| Space {
        rules: vec![Rule { alpha, beta: 0.0 }, Rule { alpha: 0.0, beta: 1.0 }],
        sink: 64,
        min_span: 128,
        per: Granularity::KvHead,
        cost: Cost::Time(times.clone()),
        bounds: vec![Bound { length: 1024, fraction: 0.5 }],
        max_rules: Some(2),
    };
    let model = shape("tiny", 3, 4, 2);
    let make = |space: Space| Tables::new(&model, &[1024], space, &|_, _| vec![0.0; 17]);
    let tables = make(space(320.0)).expect("covered");
    assert_eq!(tables.problem.costs, vec![vec![2.5, 9.0]]);
    assert_eq!((tables.dense[0], tables.caps[0]), (54.0, 27.0));
    let other = Space { bounds: vec![Bound { length: 2048, fraction: 0.5 }], ..space(320.0) };
    assert!(matches!(make(other), Err(TableError::Time { length: 2048, .. })));
    for wrong in [0.0, -1.0, 1e308, f64::NAN] {
        let mut times = times.clone();
        times.0.get_mut(&1024).unwrap().insert(1024, wrong);
        let error = make(Space { cost: Cost::Time(times), ..space(320.0) });
        assert!(matches!(error, Err(TableError::NoTime { span: 1024, .. })), "{wrong}");
    }
}

#[test]
fn a_space_that_makes_no_sense_is_refused() {
    let good = Space {
        rules: RuleGrid::published(1024).rules(),
        sink: 64,
        min_span: 128,
        per: Granularity::KvHead,
        cost: Cost::KvBytes,
        bounds: vec![Bound { length: 1024, fraction: 0.5 }],
        max_rules: Some(2),
    };
    let model = shape("tiny", 1, 2, 2);
    let error = |space: Space| {
        Tables::new(&model, &[1024], space, &|_, _| vec![0.0; 17]).expect_err("must be refused").to_string()
    };
    let cases = [
        (Space { rules: Vec::new(), ..good.clone() }, "found 0 distinct candidate rules"),
        (Space { rules: vec![Rule { alpha: f64::NAN, beta: 0.0 }], ..good.clone() }, "alpha = NaN"),
        (Space { sink: 32, ..good.clone() }, "found sink 32"),
        (Space { min_span: 64, ..good.clone() }, "minimum span 64"),
        (
            Space { bounds: vec![Bound { length: 1000, fraction: 0.5 }], ..good.clone() },
            "found the length 1000",
        ),
        (Space { bounds: vec![Bound { length: 64, fraction: 0.5 }], ..good.clone() }, "found the length 64"),
        (
            Space { bounds: vec![Bound { length: 1024, fraction: 1.5 }], ..good.clone() },
            "bound 1.5 at length 1024",
        ),
        (Space { bounds: vec![Bound { length: 1024, fraction: f64::NAN }], ..good.clone() }, "bound NaN"),
        (
            Space { bounds: [good.bounds.clone(), good.bounds.clone()].concat(), ..good.clone() },
            "one bound for each",
        ),
        (Space { max_rules: Some(0), ..good }, "--rules-per-layer: found 0"),
    ];
    for (space, expected) in cases {
        let message = error(space);
        assert!(message.contains(expected), "{message}");
    }
}
