//! The plans of a search against the compiler's reader and the runtime's geometry.

use std::collections::BTreeSet;
use std::path::Path;

use moac_runtime::geometry::{Geometry, span};
use moac_runtime::plan::{DType, Plan};

use super::go_on;
use crate::search::influence::Influence;
use crate::search::outcome::{SearchError, SearchOptions, SearchResult, search};
use crate::search::rules::RuleGrid;
use crate::search::synthetic::{Synthetic, shape};
use crate::search::tables::{Bound, Cost, Granularity, Space, TableError};

fn influence() -> Influence {
    Synthetic::new(shape("small", 4, 6, 2), 11).influence(&[512, 1024])
}

fn space(per: Granularity, cost: Cost, fraction: f64) -> Space {
    Space {
        rules: RuleGrid::published(1024).rules(),
        sink: 64,
        min_span: 128,
        per,
        cost,
        bounds: [512, 1024, 2048].map(|length| Bound { length, fraction }).to_vec(),
        max_rules: Some(2),
    }
}

fn run(per: Granularity, cost: Cost) -> SearchResult {
    search(&influence(), space(per, cost, 0.5), &SearchOptions::default(), &mut go_on).expect("feasible")
}

/// The mean span over the length.
fn density(plan: &Plan, length: u32) -> f64 {
    let heads = (0..4).flat_map(|layer| (0..6).map(move |head| (layer, head)));
    let spans = heads.map(|(layer, head)| span(plan.rule(layer, head), length, plan.min_span));
    f64::from(spans.sum::<u32>()) / f64::from(24 * length)
}

/// The bytes of a slab over those of the dense plan.
fn bytes(plan: &Plan, length: u32) -> f64 {
    let mut dense = plan.clone();
    dense.alphas.iter_mut().flatten().for_each(|alpha| *alpha = 0.0);
    dense.betas.iter_mut().flatten().for_each(|beta| *beta = 1.0);
    let bytes = |plan| Geometry::new(plan, 0..2, &[length], DType::Bf16).slab_bytes[0] as f64;
    bytes(plan) / bytes(&dense)
}

#[test]
fn plans_are_valid_and_keep_the_limits() {
    for (per, cost) in [
        (Granularity::KvHead, Cost::KvBytes),
        (Granularity::Head, Cost::KvBytes),
        (Granularity::Head, Cost::Density),
    ] {
        let result = run(per, cost.clone());
        assert!(!result.plans.is_empty() && result.solved + result.reused >= 10, "{result:?}");
        for found in &result.plans {
            let plan = &found.plan;
            let text = serde_json::to_string(plan).expect("serialisable");
            assert_eq!(
                moac_compiler::plan::parse(&text, Path::new("found.json"), None).expect("a valid plan"),
                *plan
            );
            for layer in 0..4 {
                let rule = |head: u32| {
                    let rule = plan.rule(layer, head);
                    (rule.alpha.to_bits(), rule.beta.to_bits())
                };
                assert!((0..6).map(rule).collect::<BTreeSet<_>>().len() <= 2);
                if per == Granularity::KvHead {
                    assert!((0..6).all(|head| rule(head) == rule(head / 3 * 3)), "a KV head has one rule");
                }
            }
            for (&length, &fraction) in &found.costs {
                assert!(fraction <= 0.5, "{fraction} at {length}");
                let independent =
                    if cost == Cost::Density { density(plan, length) } else { bytes(plan, length) };
                assert!(
                    (fraction - independent).abs() <= 1e-12,
                    "{fraction} against {independent} at {length}"
                );
            }
        }
    }
}

#[test]
fn losses_are_what_the_plan_hides() {
    let influence = influence();
    for found in run(Granularity::KvHead, Cost::KvBytes).plans {
        for at in &influence.lengths {
            let mut loss = 0.0;
            for head in 0..24u32 {
                let tokens = span(found.plan.rule(head / 6, head % 6), at.length, 128);
                loss += at.head(head as usize).losses(1)[(tokens as usize - 64) / 64];
            }
            assert!((loss - found.losses[&at.length]).abs() <= 1e-9 * loss.abs());
        }
    }
}

#[test]
fn provenance_says_how_the_plan_was_found() {
    let result = run(Granularity::KvHead, Cost::KvBytes);
    let found = &result.plans[0];
    let provenance = found.plan.provenance.as_ref().expect("every plan has one");
    assert_eq!(provenance["space"]["bounds"]["1024"], 0.5);
    assert_eq!(provenance["space"]["cost"], "kv-bytes");
    assert_eq!(provenance["space"]["per"], "kv-head");
    assert_eq!(provenance["solver"], "microlp");
    assert_eq!(provenance["influence"]["lengths"], serde_json::json!([512, 1024]));
    assert_eq!(provenance["losses"]["512"], found.losses[&512]);
    assert_eq!(provenance["gap"], found.gap);
    assert!(found.gap <= SearchOptions::default().solve.gap);
}

#[test]
fn impossible_bounds_say_which_and_by_how_much() {
    let mut space = space(Granularity::KvHead, Cost::KvBytes, 0.5);
    space.bounds[1].fraction = 0.1;
    let error = search(&influence(), space, &SearchOptions::default(), &mut go_on).expect_err("infeasible");
    let SearchError::Bounds { short, alone: true, proven: true, .. } = &error else { panic!("{error:?}") };
    assert_eq!((short.len(), short[0].length, short[0].bound, short[0].least), (1, 1024, 0.1, 0.125));
    assert!(
        error
            .to_string()
            .contains("kv-bytes at 1024 tokens is at least 0.125000 of dense, 0.025000 over the bound 0.1"),
        "{error}"
    );
}

#[test]
fn bounds_that_exclude_each_other_are_told_apart() {
    // The rules cross: each is the shorter one at one of the lengths.
    let mut space = space(Granularity::KvHead, Cost::KvBytes, 0.5);
    space.rules = RuleGrid { alphas: vec![0.0], betas: vec![0.25], within: vec![], positive: vec![] }.rules();
    space
        .rules
        .extend(RuleGrid { alphas: vec![256.0], betas: vec![0.0], within: vec![], positive: vec![] }.rules());
    space.bounds = vec![Bound { length: 512, fraction: 0.3 }, Bound { length: 2048, fraction: 0.15 }];
    let error = search(&influence(), space, &SearchOptions::default(), &mut go_on).expect_err("infeasible");
    let SearchError::Bounds { short, alone: false, proven: true, .. } = &error else { panic!("{error:?}") };
    assert!(!short.is_empty() && short.iter().all(|short| short.least > short.bound));
    assert!(error.to_string().contains("all bounds together"), "{error}");
}

#[test]
fn losses_of_whole_kv_heads_choose_for_no_query_head() {
    let joint = Influence { joint: true, ..influence() };
    let search = |per, influence: &Influence| {
        search(influence, space(per, Cost::Density, 0.5), &SearchOptions::default(), &mut go_on)
    };
    assert!(search(Granularity::KvHead, &joint).is_ok() && search(Granularity::Head, &influence()).is_ok());
    let error = search(Granularity::Head, &joint).unwrap_err();
    assert!(matches!(error, SearchError::Space(TableError::Joint)), "{error}");
}
