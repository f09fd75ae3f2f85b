//! The rules of `wgmma`, each broken once.

use crate::wgmma::{COMMIT, Case, FENCE, PLAIN, WAIT, kernel, product, run};
use moac_emulator::{FindingKind, Module};

/// Bodies that break a rule, and the finding that says so.
#[test]
fn broken_rules_are_reported() {
    use FindingKind::{MissingProxyFence, Misuse, Uninitialised, WgmmaInFlight};
    let p = product(&PLAIN);
    let rs = Case { a: None, ..PLAIN };
    let pr = product(&rs);
    let read = "mov.b32 %r8, %d3;";
    let write = "mov.b32 %a2, 0;";
    let cases: &[(&str, &Case, FindingKind, Vec<&str>)] = &[
        ("no fence at all", &PLAIN, Misuse, vec![&p, COMMIT, WAIT]),
        (
            "accumulators changed behind the fence",
            &PLAIN,
            Misuse,
            vec![FENCE, "mov.b32 %d0, 0;", &p, COMMIT, WAIT],
        ),
        ("accumulators read behind the fence", &PLAIN, Misuse, vec![FENCE, read, &p, COMMIT, WAIT]),
        ("fragments changed behind the fence", &rs, Misuse, vec![FENCE, write, &pr, COMMIT, WAIT]),
        (
            "results used again without a fence",
            &PLAIN,
            Misuse,
            vec![FENCE, &p, COMMIT, WAIT, read, &p, COMMIT, WAIT],
        ),
        ("accumulators read before the wait", &PLAIN, WgmmaInFlight, vec![FENCE, &p, COMMIT, read, WAIT]),
        (
            "accumulators written before the wait",
            &PLAIN,
            WgmmaInFlight,
            vec![FENCE, &p, COMMIT, "mov.b32 %d1, 0;", WAIT],
        ),
        ("fragments written before the wait", &rs, WgmmaInFlight, vec![FENCE, &pr, COMMIT, write, WAIT]),
        ("no wait", &PLAIN, WgmmaInFlight, vec![FENCE, &p, COMMIT]),
        ("no commit", &PLAIN, WgmmaInFlight, vec![FENCE, &p, WAIT]),
        (
            "a wait for the group before",
            &PLAIN,
            WgmmaInFlight,
            vec![FENCE, &p, COMMIT, "wgmma.wait_group.sync.aligned 1;"],
        ),
        (
            "a descriptor with reserved bits",
            &PLAIN,
            Misuse,
            vec![FENCE, "or.b64 %db, %db, 16384;", &p, COMMIT, WAIT],
        ),
        (
            "warps with different descriptors",
            &PLAIN,
            Misuse,
            vec![
                FENCE,
                "shr.u32 %r5, %r1, 6; cvt.u64.u32 %p5, %r5; add.u64 %db, %db, %p5;",
                &p,
                COMMIT,
                WAIT,
            ],
        ),
        (
            "lanes with different descriptors",
            &PLAIN,
            Misuse,
            vec![
                FENCE,
                "and.b32 %r5, %r1, 1; cvt.u64.u32 %p5, %r5; add.u64 %db, %db, %p5;",
                &p,
                COMMIT,
                WAIT,
            ],
        ),
        (
            "an operand that nobody wrote",
            &PLAIN,
            Uninitialised,
            vec![FENCE, "add.u64 %db, %db, 64;", &p, COMMIT, WAIT],
        ),
        (
            "operands stored without a proxy fence",
            &PLAIN,
            MissingProxyFence,
            vec![
                "shl.b32 %r5, %r1, 2; add.u32 %r5, %r5, %r2; st.shared.b32 [%r5], 0; bar.sync 0;",
                FENCE,
                &p,
                COMMIT,
                WAIT,
            ],
        ),
        (
            "a proxy fence before the stores",
            &PLAIN,
            MissingProxyFence,
            vec![
                "fence.proxy.async; shl.b32 %r5, %r1, 2; add.u32 %r5, %r5, %r2; st.shared.b32 [%r5], 0; bar.sync 0;",
                FENCE,
                &p,
                COMMIT,
                WAIT,
            ],
        ),
        (
            "operands stored with no barrier",
            &PLAIN,
            FindingKind::Race,
            vec![
                "shl.b32 %r5, %r1, 2; add.u32 %r5, %r5, %r2; st.shared.b32 [%r5], 0; fence.proxy.async;",
                FENCE,
                &p,
                COMMIT,
                WAIT,
            ],
        ),
        (
            "operands changed before the wait",
            &PLAIN,
            FindingKind::AsyncInFlight,
            vec![
                FENCE,
                &p,
                COMMIT,
                "shl.b32 %r5, %r1, 2; add.u32 %r5, %r5, %r2; st.shared.b32 [%r5], 0;",
                WAIT,
            ],
        ),
        (
            "half the warps",
            &PLAIN,
            FindingKind::Deadlock,
            vec!["setp.lt.u32 %q, %r1, 64; @%q bra.uni OUT;", FENCE, &p, COMMIT, WAIT, "OUT:"],
        ),
        (
            "part of a warp",
            &PLAIN,
            FindingKind::MaskMismatch,
            vec![FENCE, "and.b32 %r5, %r1, 1; setp.eq.u32 %q, %r5, 0; @%q ", &p, COMMIT, WAIT],
        ),
    ];
    for (name, c, kind, body) in cases {
        for seed in 0..3 {
            let (report, _) = run(c, &body.join("\n"), seed);
            assert!(report.findings.iter().any(|f| f.kind == *kind), "{name}: {:?}", report.findings);
        }
    }
    // The same with the rules kept.
    let keep = [
        "shl.b32 %r5, %r1, 2; add.u32 %r5, %r5, %r2; ld.shared.b32 %r6, [%r5]; st.shared.b32 [%r5], %r6; fence.proxy.async; bar.sync 0;",
        FENCE,
        &p,
        COMMIT,
        WAIT,
        "st.shared.b32 [%r5], 0;",
        FENCE,
    ];
    for seed in 0..20 {
        // Only the last warp to have waited may store; all have after the barrier.
        let (report, over) = run(
            &PLAIN,
            &keep.join("\n").replace("st.shared.b32 [%r5], 0;", "bar.sync 0; st.shared.b32 [%r5], 0;"),
            seed,
        );
        assert!(report.clean() && over <= 0.0, "{:?}", report.findings);
    }
}

#[test]
fn unknown_products_are_named() {
    for (from, to) in [
        ("n64k16", "n60k16"),
        ("f32.bf16.bf16", "f32.tf32.tf32"),
        ("f32.bf16", "f16.bf16"),
        ("sync.aligned", "sp.sync.aligned"),
    ] {
        let body = product(&PLAIN).replace(from, to);
        let e = Module::parse(&kernel(&PLAIN, 16, &body)).unwrap_err();
        assert!(e.to_string().contains("does not know the instruction `wgmma.mma_async"), "{e}");
    }
}
