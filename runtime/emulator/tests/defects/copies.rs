//! `cp.async`: reads before the wait, groups counted wrong, a barrier missing behind the wait.

use moac_emulator::FindingKind as K;

use crate::{CTA, On, WARP, clean, found, needs};

const COPY: &str = "mad.lo.u32 %r4, %r1, 16, %r3; mul.wide.u32 %rd2, %r1, 16; add.s64 %rd2, %rd1, %rd2;\ncp.async.cg.shared.global [%r4], [%rd2], 16; cp.async.commit_group;\n";

#[test]
fn the_issuing_thread_waits() {
    let body = format!("{COPY}cp.async.wait_group 0;\nld.shared.u32 %r5, [%r4];");
    needs(&body, "cp.async.wait_group 0;", WARP, K::AsyncInFlight, "ld.shared");
    clean(&format!("{COPY}cp.async.wait_all;\nld.shared.u32 %r5, [%r4];"), WARP);
    found(
        &format!("{COPY}cp.async.wait_group 1;\nld.shared.u32 %r5, [%r4];"),
        WARP,
        K::AsyncInFlight,
        "ld.shared",
    );
    // A copy that was never committed is in no group.
    let body =
        COPY.replace("cp.async.commit_group;", "") + "cp.async.wait_group 0;\nld.shared.u32 %r5, [%r4];";
    found(&body, WARP, K::AsyncInFlight, "ld.shared");
    found(
        &format!("{COPY}st.shared.u32 [%r4], %r1;\ncp.async.wait_all;"),
        WARP,
        K::AsyncInFlight,
        "st.shared",
    );
}

#[test]
fn other_threads_need_a_barrier_behind_the_wait() {
    let body = format!(
        "{COPY}cp.async.wait_group 0; bar.sync 0;\nxor.b32 %r6, %r1, 64; mad.lo.u32 %r6, %r6, 16, %r3; ld.shared.u32 %r5, [%r6];"
    );
    clean(&body, CTA);
    for schedule in 0..crate::SCHEDULES {
        let r = crate::report(&body.replace("bar.sync 0;", ""), CTA, schedule);
        let caught = |k| k == K::Race || k == K::AsyncInFlight;
        assert!(r.findings.iter().any(|f| caught(f.kind)), "schedule {schedule}: {:?}", r.findings);
    }
    // The barrier before the wait is the classic mistake: another warp's copy may not have landed.
    let swapped = body.replace("cp.async.wait_group 0; bar.sync 0;", "bar.sync 0; cp.async.wait_group 0;");
    for schedule in 0..crate::SCHEDULES {
        assert!(!crate::report(&swapped, CTA, schedule).clean(), "schedule {schedule}");
    }
}

/// Two stages, four tiles: each thread copies and reads its neighbour's 16 bytes.
const PIPELINE: &str = "mad.lo.u32 %r4, %r1, 16, %r3; mul.wide.u32 %rd2, %r1, 16; add.s64 %rd2, %rd1, %rd2; mov.u32 %r10, 0;
    cp.async.cg.shared.global [%r4], [%rd2], 16;
    cp.async.commit_group;
    LOOP: add.u32 %r11, %r10, 1; setp.ge.u32 %p1, %r11, 4; @%p1 bra LAST;
    and.b32 %r12, %r11, 1; mad.lo.u32 %r13, %r12, 1024, %r4; mul.wide.u32 %rd4, %r11, 1024; add.s64 %rd5, %rd2, %rd4;
    cp.async.cg.shared.global [%r13], [%rd5], 16;
    LAST: cp.async.commit_group;
    cp.async.wait_group 1;
    bar.sync 0;
    and.b32 %r12, %r10, 1; mad.lo.u32 %r13, %r12, 1024, %r4; xor.b32 %r13, %r13, 512; ld.shared.u32 %r14, [%r13];
    bar.sync 1;
    mov.u32 %r10, %r11; setp.lt.u32 %p2, %r10, 4; @%p2 bra LOOP;";

#[test]
fn a_pipeline_of_two_stages() {
    let on = On { threads: 64, ..CTA };
    clean(PIPELINE, on);
    for (from, to) in [
        ("cp.async.wait_group 1;", "cp.async.wait_group 2;"),
        ("cp.async.wait_group 1;", ""),
        ("bar.sync 0;", ""),
        ("bar.sync 1;", ""),
        ("LAST: cp.async.commit_group;", "LAST:"),
        ("and.b32 %r12, %r11, 1; mad", "and.b32 %r12, %r11, 0; mad"),
        ("and.b32 %r12, %r10, 1; mad", "and.b32 %r12, %r11, 1; mad"),
    ] {
        assert!(PIPELINE.contains(from));
        for schedule in 0..crate::SCHEDULES {
            let r = crate::report(&PIPELINE.replacen(from, to, 1), on, schedule);
            assert!(!r.clean(), "`{from}` -> `{to}`, schedule {schedule}");
        }
    }
}

#[test]
fn the_source_is_checked_when_the_copy_is_issued() {
    found(&COPY.replace("[%rd2], 16", "[%rd2+4096], 16"), WARP, K::OutOfBounds, "cp.async");
    found(
        "mov.u32 %r5, 17; cp.async.cg.shared.global [%r3], [%rd1], 16, %r5; cp.async.wait_all;",
        On { threads: 1, ..WARP },
        K::Misuse,
        "cp.async",
    );
    // A store to the source races with the copy of another warp.
    let body = format!(
        "{COPY}cp.async.wait_all; xor.b32 %r6, %r1, 64; mul.wide.u32 %rd4, %r6, 16; add.s64 %rd5, %rd1, %rd4;\nst.global.u32 [%rd5], %r1;"
    );
    for schedule in 0..crate::SCHEDULES {
        let r = crate::report(&body, CTA, schedule);
        assert!(r.findings.iter().any(|f| f.kind == K::Race), "{:?}", r.findings);
    }
}
