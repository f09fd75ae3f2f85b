//! Bounds, alignment, memory that nobody wrote, memory that cannot be written.

use moac_emulator::{FindingKind as K, Launch, Memory, Space, launch};

use crate::{CTA, WARP, clean, found, module, place};

#[test]
fn global_bounds_are_exact() {
    let body = "mul.wide.u32 %rd2, %r1, 4; add.s64 %rd2, %rd1, %rd2;\nst.global.u32 [%rd2+OFFSET], %r1;";
    clean(&body.replace("OFFSET", "3968"), WARP);
    let f = found(&body.replace("OFFSET", "3972"), WARP, K::OutOfBounds, "st.global");
    assert_eq!((place(&f), f.thread.thread, f.count, f.line), (("data", 4096), 31, 1, 7));
    let f = found(&body.replace("OFFSET", "-4"), WARP, K::OutOfBounds, "st.global");
    assert_eq!((place(&f), f.thread.thread), (("data", -4), 0));
    // The neighbour is not reached by running over the end.
    found("ld.global.u32 %r4, [%rd1+8192];", WARP, K::OutOfBounds, "ld.global");
    found("mov.u64 %rd2, 16; ld.global.u32 %r4, [%rd2];", WARP, K::OutOfBounds, "ld.global");
}

#[test]
fn every_other_space() {
    let store = "mad.lo.u32 %r4, %r1, 16, %r3;\nst.shared.v4.u32 [%r4+OFFSET], {%r1, %r1, %r1, %r1};";
    clean(&store.replace("OFFSET", "3584"), WARP);
    let f = found(&store.replace("OFFSET", "3600"), WARP, K::OutOfBounds, "st.shared");
    assert_eq!((f.access.unwrap().0, place(&f).1), (Space::Shared, 4096));
    found("ld.shared.u32 %r4, [0];", WARP, K::OutOfBounds, "ld.shared");
    let local = "{ .local .align 8 .b8 depot[16];\nst.local.u32 [depot+OFFSET], %r1; }";
    clean(&local.replace("OFFSET", "12"), WARP);
    found(&local.replace("OFFSET", "16"), WARP, K::OutOfBounds, "st.local");
    let param = "mov.b64 %rd2, data;\nld.param.u32 %r4, [%rd2+OFFSET];";
    clean(&param.replace("OFFSET", "4"), WARP);
    found(&param.replace("OFFSET", "8"), WARP, K::OutOfBounds, "ld.param");
    let constant = "ld.const.u8 %r4, [constants+OFFSET];";
    clean(&constant.replace("OFFSET", "3"), WARP);
    assert_eq!(
        place(&found(&constant.replace("OFFSET", "4"), WARP, K::OutOfBounds, "ld.const")),
        ("constants", 4)
    );
    let generic = "cvta.shared.u64 %rd2, %rd3; mov.u64 %rd3, s; cvta.shared.u64 %rd2, %rd3; mul.wide.u32 %rd4, %r1, 4; add.s64 %rd2, %rd2, %rd4;\nst.u32 [%rd2+OFFSET], %r1;";
    clean(&generic.replace("OFFSET", "3968"), WARP);
    found(&generic.replace("OFFSET", "3972"), WARP, K::OutOfBounds, "st.u32");
}

#[test]
fn dynamic_shared_memory_has_the_size_of_the_launch() {
    let text = ".version 9.0\n.target sm_90a\n.address_size 64\n.extern .shared .align 16 .b8 dyn[];\n.visible .entry k() { .reg .b32 %r<4>; .shared .b8 s[20];\nmov.u32 %r1, dyn; mov.u32 %r2, s; sub.u32 %r2, %r1, %r2;\nst.shared.u32 [%r1+60], %r2; ret; }";
    let m = moac_emulator::Module::parse(text).unwrap();
    let k = m.kernel("k").unwrap();
    assert_eq!((k.static_shared, k.dynamic_shared_offset), (20, 32));
    for (bytes, findings) in [(64, 0), (60, 1)] {
        let r = launch(&m, &mut Memory::new(), &Launch::new("k", 1, 1).dynamic_shared(bytes)).unwrap();
        assert_eq!(r.findings.len(), findings);
    }
    let m = module("mul.lo.u32 %r4, %r1, 4;");
    assert!(
        launch(&m, &mut Memory::new(), &Launch::new("k", 1, 1).dynamic_shared(1 << 20).param(&[0; 8]))
            .is_err()
    );
}

#[test]
fn alignment() {
    for (good, bad) in [
        ("ld.global.v4.u32 {%r4,%r5,%r6,%r7}, [%rd1+16];", "ld.global.v4.u32 {%r4,%r5,%r6,%r7}, [%rd1+8];"),
        ("st.global.u16 [%rd1+2], %h1;", "st.global.u16 [%rd1+1], %h1;"),
        ("st.shared.v2.u32 [%r3+8], {%r1,%r1};", "st.shared.v2.u32 [%r3+4], {%r1,%r1};"),
    ] {
        let on = crate::On { threads: 1, ..WARP };
        clean(good, on);
        found(bad, on, K::Misaligned, bad);
    }
    let copy = "mad.lo.u32 %r4, %r1, 16, %r3; mul.wide.u32 %rd2, %r1, 16; add.s64 %rd2, %rd1, %rd2;\ncp.async.cg.shared.global [%r4+TO], [%rd2+FROM], 16; cp.async.wait_all;";
    clean(&copy.replace("TO", "16").replace("FROM", "16"), WARP);
    found(&copy.replace("TO", "8").replace("FROM", "0"), WARP, K::Misaligned, "cp.async");
    found(&copy.replace("TO", "0").replace("FROM", "4"), WARP, K::Misaligned, "cp.async");
}

#[test]
fn reads_of_what_nobody_wrote() {
    let body = "mad.lo.u32 %r4, %r1, 4, %r3; st.shared.u32 [%r4], %r1; bar.sync 0;\nld.shared.u32 %r5, [%r4+OFFSET];";
    clean(&body.replace("OFFSET", "0"), CTA);
    let f = found(&body.replace("OFFSET", "4"), CTA, K::Uninitialised, "ld.shared");
    assert_eq!((f.thread.thread, place(&f).1), (127, 512));
    // One byte of four is enough.
    found(
        "st.shared.u8 [%r3], %r1; st.shared.u16 [%r3+2], %h1;\nld.shared.u32 %r5, [%r3];",
        crate::On { threads: 1, ..WARP },
        K::Uninitialised,
        "ld.shared",
    );
    found("{ .local .b8 depot[8];\nld.local.u8 %r4, [depot]; }", WARP, K::Uninitialised, "ld.local");
    let m = module("ld.global.u32 %r4, [%rd1+12];");
    let mut memory = Memory::new();
    let data = memory.alloc("data", 16);
    memory.write(data + 12, &[1, 2, 3, 4]).unwrap();
    let l = Launch::new("k", 1, 1).param(&data.to_le_bytes());
    assert!(launch(&m, &mut memory, &l).unwrap().clean());
    memory.poison(data + 15, 1).unwrap();
    assert_eq!(launch(&m, &mut memory, &l).unwrap().findings[0].kind, K::Uninitialised);
}

#[test]
fn a_launch_sees_what_the_one_before_it_wrote() {
    let (store, load) = (
        module("st.global.u32 [%rd1], %r1;"),
        module("ld.global.u32 %r4, [%rd1]; st.global.u32 [%rd1+4], %r4;"),
    );
    let mut memory = Memory::new();
    let data = memory.alloc("data", 8);
    let l = Launch::new("k", 1, 1).param(&data.to_le_bytes());
    assert!(launch(&store, &mut memory, &l).unwrap().clean());
    assert!(launch(&load, &mut memory, &l).unwrap().clean());
    assert_eq!(memory.first_unwritten(data, 8).unwrap(), None);
}

#[test]
fn stores_to_constants_and_parameters() {
    found("mov.u64 %rd2, constants;\nst.global.u32 [%rd2], %r1;", WARP, K::ReadOnlyStore, "st.global");
    found(
        "mov.b64 %rd2, data; cvta.param.u64 %rd2, %rd2;\nst.u32 [%rd2], %r1;",
        WARP,
        K::ReadOnlyStore,
        "st.u32",
    );
}
