//! Divergent barriers, absent lanes, deadlocks.

use moac_emulator::FindingKind as K;

use crate::{CTA, On, WARP, clean, found, report};

#[test]
fn a_barrier_needs_the_whole_warp() {
    let f = found(
        "setp.lt.u32 %p1, %r1, 16; @!%p1 bra AFTER;\nbar.sync 0;\nAFTER: mov.u32 %r4, 1;\nbar.sync 1;",
        WARP,
        K::DivergentBarrier,
        "bar.sync",
    );
    assert!(f.detail.contains("0xffff0000"), "{}", f.detail);
    found("setp.lt.u32 %p1, %r1, 16;\n@%p1 bar.sync 0;", WARP, K::DivergentBarrier, "bar.sync");
    // Whole warps may go different ways, through barriers of their own.
    clean(
        "setp.lt.u32 %p1, %r1, 64; @!%p1 bra OTHER;\nbar.sync 1, 64; bra.uni AFTER;\nOTHER: bar.sync 2, 64;\nAFTER: bar.sync 0;",
        CTA,
    );
    // Diverged lanes meet again before the barrier.
    clean(
        "setp.lt.u32 %p1, %r1, 5; @%p1 bra LOW; mov.u32 %r4, 1; bra JOIN; LOW: mov.u32 %r4, 2; JOIN: bar.sync 0;",
        CTA,
    );
    // A loop with a different trip count per lane, the barrier behind it.
    clean(
        "mov.u32 %r4, 0; LOOP: add.u32 %r4, %r4, 1; setp.lt.u32 %p1, %r4, %r1; @%p1 bra LOOP; bar.sync 0;",
        CTA,
    );
}

#[test]
fn exited_threads_are_missed_at_a_barrier() {
    let f = found("setp.ge.u32 %p1, %r1, 20; @%p1 exit;\nbar.sync 0;", WARP, K::DivergentBarrier, "bar.sync");
    assert!(f.detail.contains("exited"), "{}", f.detail);
    // Whole warps that left: the barrier goes on without them, and says so, if they left first.
    let r = report(
        "setp.ge.u32 %p1, %r1, 64; @%p1 exit;\nmov.u32 %r4, 0; LOOP: add.u32 %r4, %r4, 1; setp.lt.u32 %p2, %r4, 3000; @%p2 bra LOOP;\nbar.sync 0;",
        CTA,
        1,
    );
    assert!(r.completed && r.findings[0].kind == K::DivergentBarrier, "{r:?}");
    clean("bar.sync 0; setp.ge.u32 %p1, %r1, 64; @%p1 exit; bar.sync 1, 64;", CTA);
}

#[test]
fn member_masks() {
    clean("shfl.sync.bfly.b32 %r4, %r1, 1, 0x1f, -1;", WARP);
    found(
        "setp.lt.u32 %p1, %r1, 16;\n@%p1 shfl.sync.bfly.b32 %r4, %r1, 1, 0x1f, -1;",
        WARP,
        K::MaskMismatch,
        "shfl",
    );
    clean("setp.lt.u32 %p1, %r1, 16;\n@%p1 shfl.sync.bfly.b32 %r4, %r1, 1, 0x1f, 0xffff;", WARP);
    found("shfl.sync.bfly.b32 %r4, %r1, 1, 0x1f, 0xffff;", WARP, K::MaskMismatch, "shfl");
    found(
        "setp.lt.u32 %p1, %r1, 16;\n@%p1 shfl.sync.bfly.b32 %r4, %r1, 16, 0x1f, 0xffff;",
        WARP,
        K::MaskMismatch,
        "shfl",
    );
    found(
        "setp.lt.u32 %p1, %r1, 16; @!%p1 exit;\nvote.sync.ballot.b32 %r4, %p1, -1;",
        WARP,
        K::MaskMismatch,
        "vote",
    );
    found(
        "setp.lt.u32 %p1, %r1, 16; @%p1 bra A;\nbar.warp.sync 0xffff; A: mov.u32 %r4, 1;",
        WARP,
        K::MaskMismatch,
        "bar.warp",
    );
    // Two halves at two barriers that name everybody: they meet, as the ISA allows.
    clean(
        "setp.lt.u32 %p1, %r1, 16; @%p1 bra A; bar.warp.sync -1; bra B; A: bar.warp.sync -1; B: mov.u32 %r4, 1;",
        WARP,
    );
    found(
        "setp.lt.u32 %p1, %r1, 16; @!%p1 bra A;\nmma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%f1,%f2,%f3,%f4}, {%r1,%r1}, {%r1}, {%f1,%f2,%f3,%f4};\nA: bar.sync 0;",
        WARP,
        K::MaskMismatch,
        "mma",
    );
    found(
        "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r4}, [%r3];",
        On { threads: 20, ..WARP },
        K::MaskMismatch,
        "ldmatrix",
    );
}

#[test]
fn deadlocks_say_who_waits_on_what() {
    let f = found(
        "setp.lt.u32 %p1, %r1, 96; @%p1 bra A;\nbar.sync 3, 64; bra B;\nA: bar.sync 0; B:",
        CTA,
        K::Deadlock,
        "bar.sync 3",
    );
    assert!(f.detail.contains("barrier 3: 32 of 64 threads arrived, warps [3] wait"), "{}", f.detail);
    assert!(f.detail.contains("barrier 0: 96 of 128"), "{}", f.detail);
    found(
        "shfl.sync.bfly.b32 %r4, %r1, 1, 0x1f, -1; setp.lt.u32 %p1, %r1, 16; @%p1 bra A; bar.warp.sync -1; bra B;\nA: bar.sync 0; B:",
        WARP,
        K::MaskMismatch,
        "bar.warp.sync",
    );
}

#[test]
fn lanes_that_wait_for_each_other_make_progress() {
    // Lane 0 spins until lane 31, further on in the text, has set the flag.
    clean(
        "st.volatile.shared.u32 [s], %r2; bar.warp.sync -1; setp.ne.u32 %p1, %r1, 0; @%p1 bra AFTER;
        SPIN: ld.volatile.shared.u32 %r4, [s]; setp.eq.u32 %p2, %r4, 0; @%p2 bra SPIN;
        AFTER: setp.eq.u32 %p3, %r1, 31; @%p3 st.volatile.shared.u32 [s], %r1; bar.warp.sync -1;",
        WARP,
    );
}

#[test]
fn barrier_numbers_and_counts() {
    found("mov.u32 %r4, 16;\nbar.sync %r4, 32;", WARP, K::BarrierMisuse, "bar.sync");
    found("bar.sync 0, 20;", WARP, K::BarrierMisuse, "bar.sync");
    found("bar.sync %r1, 32;", WARP, K::BarrierMisuse, "bar.sync");
    found("bar.sync 0, 64;", WARP, K::BarrierMisuse, "bar.sync");
}
