//! Races in global memory: between CTAs that run apart, and between CTAs that talk through atomics and fences.

use moac_emulator::FindingKind as K;

use crate::{CTA, GRID, clean, found, place};

#[test]
fn ctas_that_run_apart() {
    let own = "mad.lo.u32 %r4, %r2, 64, %r1; mul.wide.u32 %rd2, %r4, 4; add.s64 %rd2, %rd1, %rd2;\nst.global.u32 [%rd2], %r1;\nld.global.u32 %r5, [%rd2+OFFSET];";
    clean(&own.replace("OFFSET", "0"), GRID);
    // The last thread of a CTA reads the first word of the next one.
    let text = own.replace("OFFSET", "4");
    for schedule in 0..crate::SCHEDULES {
        let r = crate::report(&text, GRID, schedule);
        let races: Vec<_> = r.findings.iter().filter(|f| f.kind == K::Race).collect();
        assert!(!races.is_empty(), "{:?}", r.findings);
    }
    let f = found("setp.eq.u32 %p1, %r1, 0;\n@%p1 st.global.u32 [%rd1+12], %r2;", GRID, K::Race, "st.global");
    let other = f.other.clone().unwrap();
    assert_eq!(
        (place(&f), f.thread.cta, other.thread.cta, other.write),
        (("data", 12), (1, 0, 0), (0, 0, 0), true)
    );
    // The same value from two CTAs is a race all the same.
    found(
        "setp.eq.u32 %p1, %r1, 0; mov.u32 %r4, 7;\n@%p1 st.global.u32 [%rd1+12], %r4;",
        GRID,
        K::Race,
        "st.global",
    );
    // Reading together is not a race.
    clean("ld.global.u32 %r4, [%rd1];", GRID);
}

#[test]
fn inside_a_cta() {
    let body = "mul.wide.u32 %rd2, %r1, 4; add.s64 %rd2, %rd1, %rd2; st.global.u32 [%rd2], %r1;\nBETWEEN xor.b32 %r4, %r1, 64; mul.wide.u32 %rd3, %r4, 4; add.s64 %rd3, %rd1, %rd3;\nld.global.u32 %r5, [%rd3];";
    clean(&body.replace("BETWEEN", "bar.sync 0;"), CTA);
    for schedule in 0..crate::SCHEDULES {
        assert!(!crate::report(&body.replace("BETWEEN", ""), CTA, schedule).clean());
    }
}

/// The last CTA to arrive reads what all have written: partial sums at data + 64 .., the counter at data.
fn last_arriver(before: &str, atomic: &str, after: &str) -> String {
    format!(
        "mul.wide.u32 %rd2, %r2, 256; add.s64 %rd3, %rd1, %rd2; mul.wide.u32 %rd4, %r1, 4; add.s64 %rd3, %rd3, %rd4;
         st.global.u32 [%rd3+64], %r1;
         bar.sync 0;
         setp.ne.u32 %p1, %r1, 0; @%p1 bra JOIN;
         {before}
         {atomic}
         {after}
         st.shared.u32 [s], %r6;
         JOIN: bar.sync 0;
         ld.shared.u32 %r7, [s]; setp.ne.u32 %p2, %r7, 5; @%p2 bra DONE;
         mov.u32 %r8, 0; add.s64 %rd5, %rd1, %rd4;
         SUM: ld.global.u32 %r9, [%rd5+64]; add.s64 %rd5, %rd5, 256; add.u32 %r8, %r8, 1; setp.lt.u32 %p3, %r8, 6; @%p3 bra SUM;
         DONE:"
    )
}

#[test]
fn the_last_arriver_reduces() {
    let relaxed = "atom.global.add.u32 %r6, [%rd1], 1;";
    let fence = "membar.gl;";
    let load = "ld.global.u32 %r9";
    clean(&last_arriver(fence, relaxed, fence), GRID);
    clean(&last_arriver("fence.acq_rel.gpu;", relaxed, "fence.acq_rel.gpu;"), GRID);
    clean(&last_arriver("", "atom.acq_rel.gpu.global.add.u32 %r6, [%rd1], 1;", ""), GRID);
    clean(&last_arriver(fence, "atom.acquire.gpu.global.add.u32 %r6, [%rd1], 1;", ""), GRID);
    found(&last_arriver("", relaxed, ""), GRID, K::Race, load);
    found(&last_arriver("", relaxed, fence), GRID, K::Race, load);
    found(&last_arriver(fence, relaxed, ""), GRID, K::Race, load);
    found(&last_arriver("", "atom.acquire.gpu.global.add.u32 %r6, [%rd1], 1;", ""), GRID, K::Race, load);
    // A scope that ends at the CTA orders nothing between CTAs.
    found(&last_arriver("membar.cta;", relaxed, "membar.cta;"), GRID, K::Race, load);
    found(
        &last_arriver(
            "",
            "atom.acq_rel.cta.global.add.u32 %r6, [%rd1], 1; red.gpu.global.add.u32 [%rd1+4], 0;",
            "",
        ),
        GRID,
        K::Race,
        load,
    );
    // Without the barrier the counter says nothing about the other threads' stores.
    found(&last_arriver(fence, relaxed, fence).replacen("bar.sync 0;", "", 1), GRID, K::Race, load);
}

#[test]
fn a_flag_hands_data_from_cta_to_cta() {
    let body =
        "mul.wide.u32 %rd2, %r1, 4; add.s64 %rd3, %rd1, %rd2; setp.ne.u32 %p1, %r2, 0; @%p1 bra CONSUMER;
        st.global.u32 [%rd3+64], %r1; bar.sync 0; setp.eq.u32 %p2, %r1, 0;
        @%p2 st.release.gpu.global.u32 [%rd1], 1; bra DONE;
        CONSUMER: ld.acquire.gpu.global.u32 %r4, [%rd1];
        setp.ne.u32 %p3, %r4, 1; @%p3 bra CONSUMER;
        ld.global.u32 %r5, [%rd3+64]; DONE:"
            .replace("[%rd1], 1; bra", "[%rd1], %r20; bra")
            .replace("bar.sync 0;", "mov.u32 %r20, 1; bar.sync 0;");
    clean(&body, GRID);
    found(&body.replace("st.release.gpu", "st.relaxed.gpu"), GRID, K::Race, "ld.global.u32 %r5");
    found(&body.replace("ld.acquire.gpu", "ld.relaxed.gpu"), GRID, K::Race, "ld.global.u32 %r5");
    clean(&body.replace("st.release.gpu", "membar.gl; @%p2 st.relaxed.gpu"), GRID);
    clean(
        &body
            .replace("ld.acquire.gpu", "ld.volatile")
            .replace("ld.global.u32 %r5", "fence.acq_rel.gpu; ld.global.u32 %r5"),
        GRID,
    );
    // Nobody sets the flag.
    found(&body.replace("@%p2 st.release.gpu.global.u32 [%rd1], %r20;", ""), GRID, K::Hang, "");
}
