//! Operations across lanes, lane by lane from the definitions.

use moac_emulator::{Launch, Memory, Module, Report, launch};

use crate::run;

/// Runs a snippet with `a` = 100 + lane, `b` = lane and `c` = lane's entry of `extra`; what each lane's `d` is.
fn lanes(code: &str, extra: impl Fn(u64) -> u64) -> Vec<u64> {
    let rows: Vec<Vec<u64>> = (0..32).map(|l| vec![100 + l, l, extra(l)]).collect();
    run(code, &[32, 32, 32], 32, &rows)
}

fn expect(code: &str, extra: impl Fn(u64) -> u64, want: impl Fn(u64) -> u64) {
    for (lane, got) in lanes(code, extra).into_iter().enumerate() {
        assert_eq!(got, want(lane as u64), "{code}, lane {lane}");
    }
}

#[test]
fn shuffles() {
    let none = |_| 0;
    expect("shfl.sync.bfly.b32 d, a, 5, 0x1f, -1;", none, |l| 100 + (l ^ 5));
    expect("shfl.sync.up.b32 d, a, 3, 0, -1;", none, |l| if l < 3 { 100 + l } else { 97 + l });
    expect("shfl.sync.down.b32 d, a, 3, 0x1f, -1;", none, |l| if l > 28 { 100 + l } else { 103 + l });
    expect("shfl.sync.idx.b32 d, a, 7, 0x1f, -1;", none, |_| 107);
    expect("shfl.sync.idx.b32 d, a, c, 0x1f, -1;", |l| 31 - l, |l| 131 - l);
    // Segments of eight lanes: c = (32 - 8) << 8 | clamp.
    expect("shfl.sync.idx.b32 d, a, 2, 0x181f, -1;", none, |l| 100 + (l & 0x18) + 2);
    expect("shfl.sync.down.b32 d, a, 2, 0x181f, -1;", none, |l| if l % 8 < 6 { 102 + l } else { 100 + l });
    expect("shfl.sync.up.b32 d, a, 2, 0x1800, -1;", none, |l| if l % 8 >= 2 { 98 + l } else { 100 + l });
    expect("shfl.sync.up.b32 d|p, a, 1, 0, -1; selp.b32 d, 1, 0, p;", none, |l| u64::from(l > 0));
    expect("setp.lt.u32 p, b, 16; @p shfl.sync.bfly.b32 d, a, 1, 0x1f, 0xffff;", none, |l| {
        if l < 16 { 100 + (l ^ 1) } else { 0 }
    });
}

#[test]
fn votes_and_matches() {
    let even = "and.b32 t, b, 1; setp.eq.u32 p, t, 0;";
    let none = |_| 0;
    expect(&format!("{even} vote.sync.ballot.b32 d, p, -1;"), none, |_| 0x5555_5555);
    expect(&format!("{even} vote.sync.any.pred q, p, -1; selp.b32 d, 1, 0, q;"), none, |_| 1);
    expect(&format!("{even} vote.sync.all.pred q, p, -1; selp.b32 d, 1, 0, q;"), none, |_| 0);
    expect(&format!("{even} vote.sync.uni.pred q, p, -1; selp.b32 d, 1, 0, q;"), none, |_| 0);
    expect(&format!("{even} @p vote.sync.all.pred q, p, 0x55555555; @p selp.b32 d, 1, 0, q;"), none, |l| {
        u64::from(l % 2 == 0)
    });
    expect(&format!("{even} vote.sync.ballot.b32 d, !p, -1;"), none, |_| 0xaaaa_aaaa);
    expect("and.b32 t, b, 3; match.any.sync.b32 d, t, -1;", none, |l| 0x1111_1111 << (l % 4));
    expect("match.all.sync.b32 d|p, c, -1; selp.b32 t, 1, 0, p; add.u32 d, d, t;", |_| 9, |_| 0);
    expect("match.all.sync.b32 d|p, b, -1;", none, |_| 0);
    expect("activemask.b32 d;", none, |_| 0xffff_ffff);
    expect(&format!("{even} @p activemask.b32 d;"), none, |l| if l % 2 == 0 { 0x5555_5555 } else { 0 });
    expect(
        "elect.sync d|p, -1; selp.b32 t, 50, 0, p; add.u32 d, d, t;",
        none,
        |l| if l == 0 { 50 } else { 0 },
    );
    expect("setp.gt.u32 p, b, 3; @p elect.sync _|q, 0xfffffff0; @p selp.b32 d, 1, 0, q;", none, |l| {
        u64::from(l == 4)
    });
}

#[test]
fn reductions() {
    let s = |v: i64| u64::from(v as i32 as u32);
    let c = move |l: u64| s(l as i64 - 10);
    expect("redux.sync.add.s32 d, c, -1;", c, move |_| s((0..32).map(|l| l - 10).sum()));
    expect("redux.sync.min.s32 d, c, -1;", c, move |_| s(-10));
    expect("redux.sync.min.u32 d, c, -1;", c, |_| 0);
    expect("redux.sync.max.s32 d, c, -1;", c, |_| 21);
    expect("redux.sync.max.u32 d, c, -1;", c, |_| 0xffff_ffff);
    expect("redux.sync.and.b32 d, a, -1;", c, |_| (100..132).fold(u64::MAX, |x, y| x & y));
    expect("redux.sync.or.b32 d, a, -1;", c, |_| (100..132).fold(0, |x, y| x | y));
    expect("redux.sync.xor.b32 d, a, -1;", c, |_| (100..132).fold(0, |x, y| x ^ y));
}

#[test]
fn special_registers() {
    let none = |_| 0;
    for (name, want) in [
        ("%laneid", (|l| l) as fn(u64) -> u64),
        ("%tid.x", |l| l),
        ("%tid.y", |_| 0),
        ("%ntid.x", |_| 32),
        ("%ctaid.x", |_| 0),
        ("%nctaid.x", |_| 1),
        ("%warpid", |_| 0),
        ("%lanemask_eq", |l| 1 << l),
        ("%lanemask_lt", |l| (1 << l) - 1),
        ("%lanemask_le", |l| (2 << l) - 1),
        ("%lanemask_gt", |l| 0xffff_ffff & !((2 << l) - 1)),
        ("%lanemask_ge", |l| 0xffff_ffff & !((1 << l) - 1)),
        ("%nsmid", |_| 132),
    ] {
        expect(&format!("mov.u32 d, {name};"), none, want);
    }
    // The clock never runs backwards.
    expect(
        "{ .reg .b32 r; mov.u32 r, %clock; mov.u32 t, %clock; sub.u32 d, t, r; setp.gt.u32 p, d, 0; selp.b32 d, 1, 0, p; }",
        none,
        |_| 1,
    );
}

fn grid(source: &str, launch_it: &Launch, bytes: u64) -> (Report, Vec<u8>) {
    let text = format!(".version 9.0\n.target sm_90a\n.address_size 64\n{source}");
    let module = Module::parse(&text).unwrap_or_else(|e| panic!("{e}"));
    let mut memory = Memory::new();
    let out = memory.alloc_filled("out", bytes, 0);
    let report = launch(&module, &mut memory, &launch_it.clone().param(&out.to_le_bytes())).unwrap();
    let data = memory.read(out, bytes as usize).unwrap();
    (report, data)
}

#[test]
fn grids_and_blocks_of_three_axes() {
    let source = ".visible .entry k(.param .u64 out) { .reg .b32 %r<20>; .reg .b64 %rd<4>;
        mov.u32 %r1, %tid.x; mov.u32 %r2, %tid.y; mov.u32 %r3, %tid.z; mov.u32 %r4, %ctaid.x; mov.u32 %r5, %ctaid.y; mov.u32 %r6, %ctaid.z;
        mov.u32 %r7, %ntid.x; mov.u32 %r8, %ntid.y; mov.u32 %r9, %ntid.z; mov.u32 %r10, %nctaid.x; mov.u32 %r11, %nctaid.y;
        mad.lo.u32 %r12, %r6, %r11, %r5; mad.lo.u32 %r12, %r12, %r10, %r4;
        mad.lo.u32 %r12, %r12, %r9, %r3; mad.lo.u32 %r12, %r12, %r8, %r2; mad.lo.u32 %r12, %r12, %r7, %r1;
        ld.param.u64 %rd1, [out]; mul.wide.u32 %rd2, %r12, 4; add.s64 %rd1, %rd1, %rd2; add.u32 %r12, %r12, 1; st.global.u32 [%rd1], %r12; ret; }";
    let mut l = Launch::new("k", 1, 1);
    (l.grid, l.block) = ((2, 3, 2), (5, 3, 3));
    let (report, data) = grid(source, &l, 4 * 12 * 45);
    assert!(report.clean(), "{:?}", report.findings);
    for (i, w) in data.chunks(4).enumerate() {
        assert_eq!(u32::from_le_bytes(w.try_into().unwrap()), i as u32 + 1);
    }
}

#[test]
fn divergence_loops_switches_and_calls() {
    // Collatz steps per lane, through a called function and a jump table on the value's parity.
    let source = ".func (.param .b32 r) step(.param .b32 n) { .reg .b32 %r<4>; .reg .pred %p;
          ld.param.b32 %r1, [n]; and.b32 %r2, %r1, 1;
          tab: .branchtargets EVEN, ODD;
          brx.idx %r2, tab;
          EVEN: shr.u32 %r3, %r1, 1; bra.uni DONE;
          ODD: mad.lo.u32 %r3, %r1, 3, 1;
          DONE: st.param.b32 [r], %r3; ret; }
        .visible .entry k(.param .u64 out) { .reg .b32 %r<6>; .reg .b64 %rd<4>; .reg .pred %p<3>;
          mov.u32 %r1, %tid.x; add.u32 %r2, %r1, 1; mov.u32 %r3, 0;
          LOOP: setp.le.u32 %p1, %r2, 1; @%p1 bra END;
          { .param .b32 a; .param .b32 b; st.param.b32 [a], %r2; call.uni (b), step, (a); ld.param.b32 %r2, [b]; }
          add.u32 %r3, %r3, 1; bra LOOP;
          END: ld.param.u64 %rd1, [out]; mul.wide.u32 %rd2, %r1, 4; add.s64 %rd1, %rd1, %rd2;
          shfl.sync.bfly.b32 %r4, %r3, 0, 0x1f, -1; st.global.u32 [%rd1], %r4; ret; }";
    for seed in 0..5 {
        let (report, data) = grid(source, &Launch::new("k", 1, 64).schedule(seed), 256);
        assert!(report.clean(), "{:?}", report.findings);
        for (i, w) in data.chunks(4).enumerate() {
            let (mut n, mut steps) = (i as u32 + 1, 0);
            while n > 1 {
                n = if n % 2 == 0 { n / 2 } else { 3 * n + 1 };
                steps += 1;
            }
            assert_eq!(u32::from_le_bytes(w.try_into().unwrap()), steps, "n = {}", i + 1);
        }
    }
}

#[test]
fn barriers_reduce_and_pair_up() {
    let source = ".visible .entry k(.param .u64 out) { .reg .b32 %r<8>; .reg .b64 %rd<4>; .reg .pred %p<4>;
          mov.u32 %r1, %tid.x; setp.lt.u32 %p1, %r1, 40;
          bar.red.popc.u32 %r2, 0, %p1; bar.red.and.pred %p2, 1, 96, %p1; barrier.cta.red.or.aligned.pred %p3, 2, 96, !%p1;
          selp.b32 %r3, 100, 0, %p2; selp.b32 %r4, 1000, 0, %p3; add.u32 %r2, %r2, %r3; add.u32 %r2, %r2, %r4;
          ld.param.u64 %rd1, [out]; mul.wide.u32 %rd2, %r1, 4; add.s64 %rd1, %rd1, %rd2; st.global.u32 [%rd1], %r2; ret; }";
    let (report, data) = grid(source, &Launch::new("k", 1, 96), 384);
    assert!(report.clean(), "{:?}", report.findings);
    assert!(data.chunks(4).all(|w| u32::from_le_bytes(w.try_into().unwrap()) == 1040));
}
