//! Uniform partners and spans against SPEC.md's formula, written out again.

use moac_model::dense_plan;
use moac_runtime::plan::{ModelShape, Plan};

use super::super::method::{Method, NamedPlan, Spans, uniform};
use super::super::suite::{Run, parse_lengths};
use super::super::{EvalError, Task};
use super::tiny::numbers;
use crate::tasks::Set;

fn shape(layers: u32, heads: u32, kv_heads: u32) -> ModelShape {
    ModelShape {
        name: "m".into(),
        num_layers: layers,
        num_heads: heads,
        num_kv_heads: kv_heads,
        head_dim: 64,
        rope_theta: None,
        context: Some(8192),
        softmax_scale: None,
    }
}

fn random_plan(seed: u64) -> Plan {
    let mut random = numbers(seed);
    let mut plan = dense_plan(&shape(3, 6, 2));
    plan.sink = 64 * (1 + random(2) as u32);
    plan.min_span = plan.sink + 64 * (1 + random(2) as u32);
    for (alphas, betas) in plan.alphas.iter_mut().zip(&mut plan.betas) {
        for (alpha, beta) in alphas.iter_mut().zip(betas) {
            (*alpha, *beta) = (random(2000) as f64 - 500.0, random(5) as f64 / 4.0);
        }
    }
    plan
}

/// A span as SPEC.md has it: `min(N, ceil64(max(min_span, floor(alpha + beta * N))))`.
fn span(plan: &Plan, layer: usize, head: usize, n: u32) -> u32 {
    let raw = (plan.alphas[layer][head] + plan.betas[layer][head] * f64::from(n)).floor() as i64;
    let raised = raw.max(i64::from(plan.min_span));
    ((raised + 63) / 64 * 64).min(i64::from(n)) as u32
}

#[test]
fn the_partner_has_the_same_bytes_or_less_than_a_tile_more_per_head() {
    for seed in 0..200 {
        let plan = random_plan(seed);
        for n in [320, 1024, 4096, 8192] {
            let mut tokens = 0;
            for layer in 0..3 {
                for kv_head in 0..2 {
                    tokens += (0..3).map(|at| span(&plan, layer, 3 * kv_head + at, n)).max().unwrap();
                }
            }
            let spans = Spans::new(&plan, n);
            assert_eq!(spans.kv.iter().flatten().sum::<u32>(), tokens, "plan {seed} at {n}");
            assert!((spans.density() - f64::from(tokens) / f64::from(6 * n)).abs() < 1e-12);

            let partner = Spans::new(&uniform(&plan, n), n);
            let one = partner.heads[0][0];
            assert!(partner.heads.iter().flatten().all(|&span| span == one));
            assert_eq!((partner.sink, one % 64), (64, 0));
            let more = i64::from(6 * one) - i64::from(tokens);
            assert!((0..6 * 64).contains(&more), "plan {seed} at {n}: {more} tokens more");
        }
    }
}

#[test]
fn pairs_are_counted_as_the_mask_has_them() {
    let plan = random_plan(7);
    let n = 448;
    let mut pairs = 0u64;
    for layer in 0..3 {
        for head in 0..6 {
            let window = span(&plan, layer, head, n) - plan.sink;
            let sees = |i: u32| (0..=i).filter(|&j| j < plan.sink || i - j < window).count() as u64;
            pairs += (0..n).map(sees).sum::<u64>();
        }
    }
    assert!((Spans::new(&plan, n).pairs() - pairs as f64).abs() < 0.5);
}

#[test]
fn only_what_is_seen_decides_about_a_digest() {
    let digest = |plan: &Plan, n| Spans::new(plan, n).digest();
    let plan = random_plan(1);
    // Another rule of the same span.
    let mut same = plan.clone();
    let old = span(&plan, 1, 2, 1024);
    (same.alphas[1][2], same.betas[1][2]) = (f64::from(old) - 1.0, 0.0);
    same.model.name = "other".into();
    same.provenance = Some(serde_json::json!("found"));
    assert_eq!(digest(&plan, 1024), digest(&same, 1024));
    // A span, a length, the sink, and which head has which.
    let mut other = plan.clone();
    (other.alphas[1][2], other.betas[1][2]) = (if old > 512 { 448.0 } else { 640.0 }, 0.0);
    assert_ne!(digest(&plan, 1024), digest(&other, 1024));
    assert_ne!(digest(&plan, 1024), digest(&plan, 1088));
    let mut sink = plan.clone();
    sink.sink = if plan.sink == 64 { 128 } else { 64 };
    sink.min_span = plan.min_span;
    assert_ne!(digest(&plan, 1024), digest(&sink, 1024));
    let mut swapped = plan.clone();
    swapped.alphas.swap(0, 1);
    swapped.betas.swap(0, 1);
    assert_ne!(digest(&plan, 1024), digest(&swapped, 1024));
    // Where everything is seen, the sink is nothing.
    let dense = dense_plan(&plan.model);
    let covering = Plan { sink: 128, min_span: 1024, ..plan };
    assert_eq!(digest(&dense, 1024), digest(&covering, 1024));
}

#[test]
fn methods_are_dense_and_pairs() {
    let plans = [NamedPlan { name: "half".into(), plan: random_plan(2) }];
    let names: Vec<String> = Method::of_plans(&[0]).iter().map(|method| method.name(&plans)).collect();
    assert_eq!(names, ["dense", "half", "uniform as half"]);
}

#[test]
fn lengths_are_tokens_and_ranges() {
    assert_eq!(parse_lengths("2048").unwrap(), [2048]);
    assert_eq!(parse_lengths("1024..2048:512").unwrap(), [1024, 1536, 2048]);
    assert_eq!(parse_lengths("1024..2000:512").unwrap(), [1024, 1536]);
    for wrong in ["", "1k", "1024..2048", "2048..1024:64", "1024..2048:0", "0..4000000000:64", "64:64"] {
        assert!(parse_lengths(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn lengths_that_cannot_be_are_refused() {
    let plans = [NamedPlan { name: "p".into(), plan: Plan { min_span: 256, ..random_plan(2) } }];
    let run = |lengths: &[u32]| Run {
        name: "r".into(),
        title: "t".into(),
        task: Task::Nll,
        lengths: lengths.to_vec(),
        plans: vec![0],
        items: None,
        long_items: None,
        questions: 1,
        facts: None,
        seed: 0,
        plain: false,
        set: Set::Report,
    };
    let model = shape(3, 6, 2);
    assert!(run(&[256, 8192]).check(&model, &plans).is_ok());
    for wrong in [100, 192, 8256, 0] {
        let error = run(&[256, wrong]).check(&model, &plans).unwrap_err();
        assert!(matches!(&error, EvalError::Length { found, .. } if *found == wrong.to_string()), "{error}");
    }
    let quick = run(&[1024, 1536, 2048, 4096]).quick();
    assert_eq!((quick.lengths.as_slice(), quick.items), (&[1024, 1536][..], Some(2)));
    assert_eq!(run(&[4096]).quick().lengths, [1024, 2048]);
}
