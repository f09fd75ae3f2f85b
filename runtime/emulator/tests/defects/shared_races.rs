//! Races in shared memory: barriers of all kinds, partial and paired ones, warps, atomics and fences.

use moac_emulator::FindingKind as K;

use crate::{CTA, On, WARP, clean, found, needs, place};

/// Each thread writes its word and reads another thread's.
fn exchange(between: &str, partner: &str) -> String {
    format!(
        "mad.lo.u32 %r4, %r1, 4, %r3;\nst.shared.u32 [%r4], %r1;\n{between}\n{partner} mad.lo.u32 %r6, %r5, 4, %r3;\nld.shared.u32 %r7, [%r6];"
    )
}

#[test]
fn a_cta_barrier_orders_warps() {
    let body = exchange("bar.sync 0;", "xor.b32 %r5, %r1, 64;");
    clean(&body, CTA);
    // Without it the load is a race, or reads what nobody wrote, as the schedule has it.
    let without = body.replace("bar.sync 0;", "");
    for schedule in 0..crate::SCHEDULES {
        let r = crate::report(&without, CTA, schedule);
        assert!(r.findings.iter().any(|f| f.kind == K::Race), "{:?}", r.findings);
    }
    let again = "mad.lo.u32 %r4, %r1, 4, %r3; st.shared.u32 [%r4], %r1; bar.sync 0;\nxor.b32 %r5, %r1, 64; mad.lo.u32 %r5, %r5, 4, %r3; ld.shared.u32 %r7, [%r5];\nbar.sync 1;\nst.shared.u32 [%r4], %r7;";
    // A write after a read needs one as well.
    clean(again, CTA);
    for schedule in 0..crate::SCHEDULES {
        let r = crate::report(&again.replace("bar.sync 1;", ""), CTA, schedule);
        assert!(r.findings.iter().any(|f| f.kind == K::Race && f.other.is_some()), "{:?}", r.findings);
    }
}

#[test]
fn lock_step_orders_nothing() {
    let neighbour = "xor.b32 %r5, %r1, 1;";
    let f = needs(&exchange("bar.warp.sync -1;", neighbour), "bar.warp.sync -1;", WARP, K::Race, "ld.shared");
    let other = f.other.unwrap();
    assert!(
        other.write && other.text.contains("st.shared") && other.thread.thread == (f.thread.thread ^ 1),
        "{other:?}"
    );
    // Shuffles and votes order no memory, a barrier of the CTA does.
    found(&exchange("shfl.sync.bfly.b32 %r8, %r1, 1, 0x1f, -1;", neighbour), WARP, K::Race, "ld.shared");
    found(&exchange("vote.sync.ballot.b32 %r8, %p1, -1;", neighbour), WARP, K::Race, "ld.shared");
    clean(&exchange("bar.sync 0;", neighbour), WARP);
    clean(&exchange("", "mov.u32 %r5, %r1;"), WARP);
    // Half a warp synchronises: lanes of the other half are not in it.
    let half = "setp.lt.u32 %p1, %r1, 16; @%p1 bar.warp.sync 0xffff;";
    clean(&exchange(half, "setp.lt.u32 %p2, %r1, 16; selp.b32 %r8, 1, 0, %p2; xor.b32 %r5, %r1, %r8;"), WARP);
    found(&exchange(half, "xor.b32 %r5, %r1, 16;"), WARP, K::Race, "ld.shared");
}

#[test]
fn an_elected_lane_speaks_for_itself() {
    // Lane 0 of warp 0 releases a flag for its warp: the warp must have synchronised before.
    let body = "st.shared.u32 [s+1024], 0; bar.sync 0; mad.lo.u32 %r4, %r1, 4, %r3; setp.ge.u32 %p1, %r1, 32; @%p1 bra CONSUMER;
        st.shared.u32 [%r4], %r1;
        bar.warp.sync -1;
        setp.eq.u32 %p2, %r1, 0; @%p2 atom.release.cta.shared.exch.b32 %r9, [s+1024], 1; bra DONE;
        CONSUMER: ld.acquire.cta.shared.u32 %r8, [s+1024]; setp.ne.u32 %p3, %r8, 1; @%p3 bra CONSUMER;
        ld.shared.u32 %r7, [%r4+-128]; DONE:";
    let body = body.replace(
        "st.shared.u32 [s+1024], 0;",
        "setp.eq.u32 %p4, %r1, 0; mov.u32 %r10, 0; @%p4 st.shared.u32 [s+1024], %r10;",
    );
    needs(&body, "bar.warp.sync -1;", On { threads: 64, ..CTA }, K::Race, "ld.shared.u32 %r7");
}

#[test]
fn named_barriers_pair_producers_and_consumers() {
    // Warps 0 and 1 fill and arrive, warps 2 and 3 wait; barrier 2 hands the buffer back.
    let body = "mad.lo.u32 %r4, %r1, 4, %r3; mov.u32 %r20, 0; setp.ge.u32 %p1, %r1, 64; @%p1 bra CONSUMER;
        PRODUCER: setp.eq.u32 %p2, %r20, 0; @%p2 bra FILL;
        bar.sync 2, 128;
        FILL: st.shared.u32 [%r4], %r20;
        bar.arrive 1, 128;
        add.u32 %r20, %r20, 1; setp.lt.u32 %p3, %r20, 4; @%p3 bra PRODUCER; bra DONE;
        CONSUMER: bar.sync 1, 128;
        ld.shared.u32 %r7, [%r4+-256];
        add.u32 %r20, %r20, 1; setp.lt.u32 %p3, %r20, 4;
        @%p3 bar.arrive 2, 128;
        @%p3 bra CONSUMER; DONE:";
    clean(body, CTA);
    // The wait for the empty buffer removed (and the arrival that it met), the store races with the load.
    let early = body.replace("bar.sync 2, 128;", "").replace("@%p3 bar.arrive 2, 128;", "");
    for schedule in 0..crate::SCHEDULES {
        let r = crate::report(&early, CTA, schedule);
        assert!(!r.clean(), "schedule {schedule}");
    }
    // The consumer waits on the wrong barrier: nobody comes.
    found(
        &body.replace("CONSUMER: bar.sync 1, 128;", "CONSUMER: bar.sync 3, 128;"),
        CTA,
        K::Deadlock,
        "bar.sync 3",
    );
    found(
        &body.replace("CONSUMER: bar.sync 1, 128;", "CONSUMER: bar.sync 1, 64;"),
        CTA,
        K::BarrierMisuse,
        "bar",
    );
}

#[test]
fn same_value_from_one_instruction_is_benign_and_different_ones_are_not() {
    let body = "st.shared.u32 [%r3], VALUE;";
    clean(&body.replace("VALUE", "%r2"), WARP);
    let f = found(&body.replace("VALUE", "%r1"), WARP, K::Race, "st.shared");
    assert_eq!(place(&f).1, 0);
    // Two warps are two instructions.
    found(&body.replace("VALUE", "%r2"), CTA, K::Race, "st.shared");
    let mut memory = moac_emulator::Memory::new();
    let data = memory.alloc_filled("data", 16, 0);
    let mut l = moac_emulator::Launch::new("k", 1, 32).param(&data.to_le_bytes());
    l.report_same_value_stores = true;
    let r = moac_emulator::launch(&crate::module(&body.replace("VALUE", "%r2")), &mut memory, &l).unwrap();
    assert_eq!(r.findings[0].kind, K::SameValueStore);
}

#[test]
fn atomics_do_not_race_with_each_other_but_with_plain_accesses() {
    let zero = "setp.eq.u32 %p1, %r1, 0; mov.u32 %r9, 0; @%p1 st.shared.u32 [s], %r9; bar.sync 0;";
    clean(&format!("{zero} red.shared.add.u32 [s], 1; bar.sync 0; ld.shared.u32 %r4, [s];"), CTA);
    found(&format!("{zero} red.shared.add.u32 [s], 1;\nld.shared.u32 %r4, [s];"), CTA, K::Race, "s");
    clean(&format!("{zero} red.shared.add.u32 [s], 1;\nld.volatile.shared.u32 %r4, [s];"), CTA);
}

#[test]
fn bytes_of_one_word_are_told_apart() {
    clean("add.u32 %r4, %r3, %r1; st.shared.u8 [%r4], %r1; ld.shared.u8 %r5, [%r4];", CTA);
    let body = "mad.lo.u32 %r4, %r1, 2, %r3; cvt.u16.u32 %h1, %r1; st.shared.u16 [%r4], %h1;\nld.shared.u8 %r5, [%r4+OFFSET];";
    clean(&body.replace("OFFSET", "1"), CTA);
    for schedule in 0..crate::SCHEDULES {
        assert!(!crate::report(&body.replace("OFFSET", "2"), CTA, schedule).clean());
    }
}

#[test]
fn ldmatrix_and_stmatrix_are_checked() {
    let body = "mad.lo.u32 %r4, %r1, 16, %r3; st.shared.v4.u32 [%r4], {%r1, %r1, %r1, %r1};\nBETWEEN xor.b32 %r5, %r1, 64; mad.lo.u32 %r5, %r5, 16, %r3;\nldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r6,%r7,%r8,%r9}, [%r5];";
    clean(&body.replace("BETWEEN", "bar.sync 0;"), CTA);
    for schedule in 0..crate::SCHEDULES {
        let r = crate::report(&body.replace("BETWEEN", ""), CTA, schedule);
        assert!(r.findings.iter().any(|f| f.kind == K::Race), "{:?}", r.findings);
    }
    let body = "mad.lo.u32 %r4, %r1, 16, %r3; stmatrix.sync.aligned.m8n8.x4.shared.b16 [%r4], {%r1,%r1,%r1,%r1};\nBETWEEN ld.shared.u32 %r5, [s];";
    clean(&body.replace("BETWEEN", "bar.warp.sync -1;"), WARP);
    found(&body.replace("BETWEEN", ""), WARP, K::Race, "ld.shared");
}
