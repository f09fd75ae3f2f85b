//! Loads, stores, atomics, local, constant and parameter memory, asynchronous copies, generic addresses.

use moac_emulator::{Launch, Memory, Module, Report, launch};

/// Runs a kernel of one parameter, the address of `data`; the data afterwards, and the report.
fn on(body: &str, declarations: &str, data: &[u8], threads: u32) -> (Vec<u8>, Report) {
    let text = format!(
        ".version 9.0\n.target sm_90a\n.address_size 64\n{declarations}\n.visible .entry k(.param .u64 data) {{\n\
         .reg .b16 %h<9>; .reg .b32 %r<20>; .reg .f32 %f<9>; .reg .b64 %rd<20>; .reg .pred %p<5>;\n\
         ld.param.u64 %rd1, [data]; mov.u32 %r1, %tid.x; mul.wide.u32 %rd2, %r1, 4; add.s64 %rd3, %rd1, %rd2;\n{body}\nret; }}"
    );
    let module = Module::parse(&text).unwrap_or_else(|e| panic!("{e}"));
    let mut memory = Memory::new();
    let d = memory.alloc_from("data", data);
    let report = launch(&module, &mut memory, &Launch::new("k", 1, threads).param(&d.to_le_bytes())).unwrap();
    (memory.read(d, data.len()).unwrap(), report)
}

fn clean(body: &str, declarations: &str, data: &[u8], threads: u32) -> Vec<u8> {
    let (out, report) = on(body, declarations, data, threads);
    assert!(report.clean(), "{body}: {:?}", report.findings);
    out
}

fn words(data: &[u8]) -> Vec<u32> {
    data.chunks_exact(4).map(|w| u32::from_le_bytes(w.try_into().unwrap())).collect()
}

#[test]
fn widths_vectors_and_extension() {
    let data: Vec<u8> = (0..64).map(|i| 0x80 + i as u8).collect();
    let out = clean("ld.global.s8 %r2, [%rd1+1]; ld.global.u8 %r3, [%rd1+2]; ld.global.s16 %h1, [%rd1+4]; cvt.s32.s16 %r4, %h1; ld.global.s32 %rd4, [%rd1+8];
        st.global.v4.u32 [%rd1+16], {%r2, %r3, %r4, %r3}; st.global.u64 [%rd1+32], %rd4; st.global.u8 [%rd1+40], %r2; st.global.b16 [%rd1+42], %h1;", "", &data, 1);
    assert_eq!(words(&out)[4..8], [0xffff_ff81, 0x82, 0xffff_8584, 0x82]);
    assert_eq!(words(&out)[8..10], [0x8b8a_8988, 0xffff_ffff]);
    assert_eq!(words(&out)[10], 0x8584_a981);
    let out = clean("ld.global.v2.b64 {%rd4, %rd5}, [%rd1]; st.global.v2.b64 [%rd1+16], {%rd5, %rd4}; ld.global.nc.L1::no_allocate.L2::128B.v4.f32 {%f1,%f2,%f3,%f4}, [%rd1];
        st.global.v4.f32 [%rd1+32], {%f4,%f3,%f2,%f1}; ld.global.v4.u16 {%h1,%h2,%h3,%h4}, [%rd1+8]; st.global.v2.b16 [%rd1+48], {%h4,%h3};", "", &data, 1);
    assert_eq!(out[16..24], data[8..16]);
    assert_eq!(out[32..36], data[12..16]);
    assert_eq!(out[48..52], [data[14], data[15], data[12], data[13]]);
}

#[test]
fn local_constant_parameter_and_generic_memory() {
    let declarations = ".const .align 4 .b8 table[8] = {1, 0, 0, 0, 2};\n.global .align 8 .u64 where = counter;\n.global .u32 counter = 40;\n\
        .global .align 4 .f32 reals[2] = {0f3F800000, 2.5};";
    let out = clean("{ .local .align 4 .b8 depot[16]; mov.u64 %rd5, depot; mov.u32 %r2, 11; st.local.u32 [%rd5+4], %r2; cvta.local.u64 %rd6, %rd5; ld.u32 %r3, [%rd6+4]; }
        ld.const.u32 %r4, [table+4]; mov.u64 %rd7, table; ld.const.u32 %r5, [%rd7]; ld.global.u64 %rd8, [where]; ld.u32 %r6, [%rd8];
        mov.b64 %rd9, data; ld.param.u64 %rd10, [%rd9]; cvta.param.u64 %rd11, %rd9; ld.u64 %rd12, [%rd11]; sub.s64 %rd12, %rd12, %rd10; cvt.u32.u64 %r7, %rd12;
        ld.global.f32 %f1, [reals+4]; cvt.rzi.s32.f32 %r8, %f1;
        add.u32 %r6, %r6, %r7; st.global.v4.u32 [%rd1], {%r3, %r4, %r5, %r6}; st.global.u32 [%rd1+16], %r8; ", declarations, &[0; 32], 1);
    assert_eq!(words(&out)[..5], [11, 2, 1, 40, 2]);
    let out = clean("cvta.shared.u64 %rd4, %rd13; mov.u64 %rd13, s; cvta.shared.u64 %rd4, %rd13; st.u32 [%rd4+8], %r1; ld.shared.u32 %r2, [s+8]; isspacep.shared %p1, %rd4; isspacep.global %p2, %rd1;
        selp.b32 %r3, 1, 0, %p1; selp.b32 %r4, 1, 0, %p2; cvta.to.shared.u64 %rd5, %rd4; ld.shared.u32 %r5, [%rd5+8]; add.u32 %r5, %r5, 7;
        st.global.v4.u32 [%rd1], {%r2, %r3, %r4, %r5};", ".shared .align 16 .b8 s[16];", &[9; 16], 1);
    assert_eq!(words(&out), [0, 1, 1, 7]);
}

#[test]
fn atomics() {
    let word = |v: u32| v.to_le_bytes();
    let table: [(&str, u32, u32, u32); 14] = [
        ("atom.global.add.u32 %r2, [%rd1], 5;", 7, 12, 7),
        ("atom.global.exch.b32 %r2, [%rd1], 5;", 7, 5, 7),
        ("atom.global.cas.b32 %r2, [%rd1], 7, 9;", 7, 9, 7),
        ("atom.global.cas.b32 %r2, [%rd1], 8, 9;", 7, 7, 7),
        ("atom.global.min.s32 %r2, [%rd1], -1;", 7, u32::MAX, 7),
        ("atom.global.min.u32 %r2, [%rd1], -1;", 7, 7, 7),
        ("atom.global.max.s32 %r2, [%rd1], 9;", 7, 9, 7),
        ("atom.global.and.b32 %r2, [%rd1], 5;", 7, 5, 7),
        ("atom.global.or.b32 %r2, [%rd1], 8;", 7, 15, 7),
        ("atom.global.xor.b32 %r2, [%rd1], 2;", 7, 5, 7),
        ("atom.global.inc.u32 %r2, [%rd1], 7;", 7, 0, 7),
        ("atom.global.dec.u32 %r2, [%rd1], 5;", 7, 5, 7),
        (
            "atom.global.add.f32 %f1, [%rd1], 0f3FC00000; mov.b32 %r2, %f1;",
            0x3f80_0000,
            0x4020_0000,
            0x3f80_0000,
        ),
        (
            "mov.b32 %r3, 0x3c004000; atom.global.add.noftz.f16x2 %r2, [%rd1], %r3;",
            0x3c00_3c00,
            0x4000_4200,
            0x3c00_3c00,
        ),
    ];
    for (code, before, after, old) in table {
        let data = [word(before), word(0)].concat();
        let out = words(&clean(&format!("{code} st.global.u32 [%rd1+4], %r2;"), "", &data, 1));
        assert_eq!(out, [after, old], "{code}");
    }
    assert_eq!(
        words(&clean(
            "red.global.add.u32 [%rd1], 3; red.relaxed.gpu.global.max.u32 [%rd1+4], %r1;",
            "",
            &[0; 8],
            100
        )),
        [300, 99]
    );
    let out = clean(
        "mov.u64 %rd5, s; setp.eq.u32 %p1, %r1, 0; mov.u32 %r2, 0; @%p1 st.shared.u32 [s], %r2; bar.sync 0; atom.shared.add.u32 %r3, [s], 2; bar.sync 0; ld.shared.u32 %r4, [s]; st.global.u32 [%rd3], %r4;",
        ".shared .u32 s;",
        &[0; 256],
        64,
    );
    assert!(words(&out).iter().all(|&w| w == 128));
    assert_eq!(
        words(&clean(
            "mov.b64 %rd5, 1; atom.global.add.u64 %rd4, [%rd1], %rd5; bfe.u64 %rd4, %rd4, 0, 32; ",
            "",
            &[0xff; 8],
            1
        )),
        [0, 0]
    );
    assert_eq!(
        clean(
            "mov.b32 {%h1,%h2}, 0x3f803f80; red.global.add.noftz.bf16 [%rd1], %h1;",
            "",
            &[0x80, 0x3f, 0, 0],
            3
        ),
        [0x80, 0x40, 0, 0]
    );
}

#[test]
fn asynchronous_copies() {
    let data: Vec<u8> = (0..=255).collect();
    let s = ".shared .align 16 .b8 s[512];";
    // Each lane copies 16 bytes and reads its own copy back.
    let out = clean("mul.wide.u32 %rd4, %r1, 16; add.s64 %rd5, %rd1, %rd4; mov.u32 %r2, s; mad.lo.u32 %r3, %r1, 16, %r2;
        cp.async.cg.shared.global [%r3], [%rd5], 16; cp.async.commit_group; cp.async.wait_group 0; ld.shared.u32 %r4, [%r3+4]; st.global.u32 [%rd5], %r4;", s, &data, 16);
    for lane in 0..16 {
        assert_eq!(out[16 * lane..16 * lane + 4], data[16 * lane + 4..16 * lane + 8]);
    }
    // Fewer source bytes, none of them, and the ignored source: the rest is zero.
    for (copy, want) in [
        ("cp.async.ca.shared.global.L2::128B [%r3], [%rd5], 8, 4;", [0x0706_0504u32, 0]),
        ("mov.u32 %r5, 0; cp.async.ca.shared.global [%r3], [%rd5], 8, %r5;", [0, 0]),
        ("setp.eq.u32 %p1, %r1, %r1; cp.async.ca.shared.global [%r3], [%rd5], 8, %p1;", [0, 0]),
        (
            "cp.async.ca.shared.global [%r3], [%rd5], 4; cp.async.ca.shared.global [%r3+4], [%rd5+8], 4;",
            [0x0706_0504, 0x0f0e_0d0c],
        ),
    ] {
        let shift = if copy.contains("], 4; cp") { 4 } else { 0 };
        let body = format!(
            "mov.u32 %r3, s; add.s64 %rd5, %rd1, 4; {} cp.async.wait_all; ld.shared.v2.u32 {{%r6, %r7}}, [%r3]; st.global.v2.u32 [%rd1+64], {{%r6, %r7}};",
            if shift == 0 { copy.replace("%rd5], 8", "%rd5+-4], 8") } else { copy.to_owned() }
        );
        let out = words(&clean(&body, s, &data, 1));
        let want = if shift == 0 && want[0] != 0 { [0x0302_0100, 0] } else { want };
        assert_eq!(out[16..18], want, "{copy}");
    }
}

#[test]
fn copies_past_the_end_are_fine_if_nothing_is_read() {
    let (_, report) = on(
        "mov.u32 %r3, s; mov.u32 %r5, 0; cp.async.cg.shared.global [%r3], [%rd1+4096], 16, %r5; cp.async.wait_all; ld.shared.u32 %r6, [%r3];",
        ".shared .align 16 .b8 s[16];",
        &[1; 64],
        1,
    );
    assert!(report.clean(), "{:?}", report.findings);
}

#[test]
fn hints_do_nothing() {
    clean("prefetch.global.L2 [%rd1]; createpolicy.fractional.L2::evict_last.b64 %rd9, 1.0; ld.global.L2::cache_hint.u32 %r3, [%rd1], %rd9; st.global.L2::cache_hint.u32 [%rd1], %r3, %rd9;
        nanosleep.u32 20; membar.gl; membar.cta; fence.acq_rel.gpu; fence.sc.cta; bar.warp.sync 1;", "", &[0; 8], 1);
}

#[test]
fn counters_are_exact() {
    let (_, r) = on(
        "ld.global.f32 %f1, [%rd3]; mul.wide.u32 %rd4, %r1, 64; add.s64 %rd5, %rd1, %rd4; ld.global.f32 %f2, [%rd5];",
        "",
        &[0; 4096],
        64,
    );
    let t = r.counters.global["data"].read;
    // Two warps: 128 contiguous bytes (4 sectors) and 32 words 64 bytes apart (32 sectors), each.
    assert_eq!((t.requests, t.bytes, t.sectors), (4, 512, 72));
    // The first 256 bytes hold 4 of the 64 strided words, so 64 - 4 more words, one sector each.
    assert_eq!((t.unique_bytes, t.unique_sectors), (256 + 60 * 4, 8 + 60));
    assert_eq!(r.ctas[0].counters.global["data"], r.counters.global["data"]);
}
