//! The kernels on the PTX emulator: right, free of races and stray accesses, and moving no byte too many.

use moac_compiler::exec::emulator::EmulatedLayer;
use moac_compiler::verify::{Case, Failure, Layout, Outcome, Request, Work, cases};
use moac_runtime::arch::Arch;
use moac_runtime::backend::LayerBackend;
use moac_runtime::launch::Phase;
use moac_runtime::plan::DType;
use moac_runtime::reference::Spans;
use moac_tests::emulate::{
    FAMILIES, MANY_SPLITS, SHAPES, Shape, Shipped, failures, harness, plan_names, run, schedules,
};
use moac_tests::proven::recall;

use crate::devices::{self, spans};

fn check(shape: &Shape, phase: Phase) {
    for arch in FAMILIES {
        let candidate = shape.candidate(arch, phase);
        let cases = cases::whole(&candidate);
        for schedule in 0..schedules() {
            let question = format!("failures {candidate:?} {cases:?} {schedule}");
            let lines = recall(&question, || failures(&candidate, &cases, schedule));
            assert!(lines.is_empty(), "{}, {arch}, schedule {schedule}:\n{}", shape.name, lines.join("\n"));
        }
    }
}

#[test]
fn prefill_of_single_heads() {
    check(&SHAPES[0], Phase::Prefill);
}

#[test]
fn prefill_of_groups_of_three() {
    check(&SHAPES[1], Phase::Prefill);
}

#[test]
fn prefill_of_groups_of_four() {
    check(&SHAPES[2], Phase::Prefill);
}

#[test]
fn prefill_of_groups_of_sixteen() {
    check(&SHAPES[3], Phase::Prefill);
}

#[test]
fn prefill_of_dense_heads() {
    check(&SHAPES[4], Phase::Prefill);
}

#[test]
fn decode_of_single_heads() {
    check(&SHAPES[0], Phase::Decode);
}

#[test]
fn decode_of_groups_of_three() {
    check(&SHAPES[1], Phase::Decode);
}

#[test]
fn decode_of_groups_of_four() {
    check(&SHAPES[2], Phase::Decode);
}

#[test]
fn decode_of_groups_of_sixteen() {
    check(&SHAPES[3], Phase::Decode);
}

#[test]
fn decode_of_dense_heads() {
    check(&SHAPES[4], Phase::Decode);
}

#[test]
fn decode_of_many_splits() {
    check(&MANY_SPLITS, Phase::Decode);
}

/// Some requests of two buckets, each in the middle of its life.
fn batch(phase: Phase) -> Case {
    let chunk = |n: u32| if phase == Phase::Decode { 1 } else { n };
    let request = |sequence, bucket, cached, n| Request { sequence, bucket, cached, chunk: chunk(n) };
    Case {
        name: "a batch".to_owned(),
        requests: vec![
            request(0, 1, 500, 70),
            request(1, 0, 63, 9),
            request(2, 1, 301, 1),
            request(3, 0, 200, 64),
        ],
        work: if phase == Phase::Decode { Work::Decode { ctas: 9 } } else { Work::Prefill },
        layout: Layout::Packed,
        lse: true,
    }
}

/// A kernel of each family and phase.
fn kernels() -> impl Iterator<Item = (Arch, Phase)> {
    FAMILIES.into_iter().flat_map(|arch| [Phase::Prefill, Phase::Decode].map(|phase| (arch, phase)))
}

#[test]
fn the_same_call_gives_the_same_bytes_and_no_alarm_in_any_order_of_arrival() {
    for (arch, phase) in kernels() {
        let candidate = SHAPES[2].candidate(arch, phase);
        let orders = 0..20;
        let question = format!("orders {candidate:?} {:?} {orders:?}", batch(phase));
        // What fails in each order, and the digests of what comes out.
        let outcomes: Vec<(Vec<String>, Vec<[u8; 32]>)> = recall(&question, || {
            let outcome = |schedule| run(&mut harness(&candidate, schedule), &candidate, &batch(phase));
            let told = |outcome: Outcome| {
                (outcome.failures.iter().map(Failure::to_string).collect(), outcome.digests)
            };
            orders.map(|schedule| told(outcome(schedule))).collect()
        });
        for (schedule, (failures, _)) in outcomes.iter().enumerate() {
            assert!(failures.is_empty(), "{arch}, {phase:?}, schedule {schedule}: {failures:?}");
        }
        let digests: Vec<_> = outcomes.iter().map(|(_, digests)| digests).collect();
        assert!(
            digests[0].len() == 4 && digests.iter().all(|digest| *digest == digests[0]),
            "{arch}, {phase:?}"
        );
    }
}

#[test]
fn what_others_say_changes_no_bit_of_a_request() {
    for (arch, phase) in kernels() {
        let candidate = SHAPES[2].candidate(arch, phase);
        let mut harness = harness(&candidate, 0);
        let mut case = batch(phase);
        let before = run(&mut harness, &candidate, &case).digests;
        for request in [0, 1, 3] {
            case.requests[request].sequence += 10;
        }
        let after = run(&mut harness, &candidate, &case).digests;
        let same: Vec<bool> = before.iter().zip(&after).map(|(a, b)| a == b).collect();
        assert_eq!(same, [false, false, true, false], "{arch}, {phase:?}");
    }
}

/// Every kernel of a shipped plan, in both element types, at the edges of its own spans.
fn check_shipped(name: &str) {
    for dtype in [DType::Bf16, DType::F16] {
        let wrong = Shipped::of(name, dtype, &FAMILIES).wrong();
        assert!(wrong.is_empty(), "{name}, {dtype}:\n{}", wrong.join("\n"));
    }
}

#[test]
fn kernels_of_llama_3_8b() {
    check_shipped("llama-3-8b");
}

#[test]
fn kernels_of_vicuna_7b() {
    check_shipped("vicuna-7b");
}

#[test]
fn kernels_of_odd_heads() {
    check_shipped("odd-heads");
}

#[test]
fn kernels_of_smollm2_135m_at_an_eighth() {
    check_shipped("smollm2-135m-0.125");
}

#[test]
fn kernels_of_smollm2_135m_at_a_quarter() {
    check_shipped("smollm2-135m-0.25");
}

#[test]
fn kernels_of_smollm2_135m_at_half() {
    check_shipped("smollm2-135m-0.5");
}

#[test]
fn kernels_of_dense() {
    check_shipped("dense");
}

#[test]
fn kernels_of_one_rule_per_head() {
    check_shipped("one-rule-per-head");
}

#[test]
fn no_shipped_plan_is_forgotten() {
    let tested = [
        "dense",
        "llama-3-8b",
        "odd-heads",
        "one-rule-per-head",
        "smollm2-135m-0.125",
        "smollm2-135m-0.25",
        "smollm2-135m-0.5",
        "vicuna-7b",
    ];
    assert_eq!(plan_names(), tested);
}

/// Two buckets are enough for the laws; the cases above know the rest.
#[test]
fn the_laws_hold() {
    for (arch, dtype, spans) in [
        (Arch::Sm90, DType::Bf16, spans(&[128, 256, 192, 256], 2, 128, 256)),
        (Arch::Sm90, DType::F16, spans(&[256, 128, 192, 128, 128, 256], 2, 64, 256)),
        (Arch::Sm90a, DType::F16, spans(&[128, 256, 192, 256], 2, 128, 256)),
        (Arch::Sm90a, DType::Bf16, spans(&[256, 128, 192, 128, 128, 256], 2, 64, 256)),
    ] {
        let make = |requests: &[Spans]| -> Box<dyn LayerBackend> {
            let (plan, lengths) = devices::plan_of(requests);
            let artifact = devices::artifact(&plan, &lengths, dtype, arch);
            let bucket = |spans: &Spans| lengths.binary_search(&spans.length).unwrap();
            let buckets: Vec<usize> = requests.iter().map(bucket).collect();
            Box::new(EmulatedLayer::new(&artifact, 0, arch, &buckets).unwrap())
        };
        devices::laws_hold(&make, &spans, 192, 12, dtype);
    }
}
