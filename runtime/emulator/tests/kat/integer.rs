//! Integer, logic and bit-field instructions, moves, selections, comparisons.

use crate::{Random, check, run};

#[test]
fn add_sub_neg_abs() {
    check(
        "add.s32 d, a, b;",
        &[32, 32],
        32,
        &[(&[1, 2], 3), (&[0xffff_ffff, 1], 0), (&[0x7fff_ffff, 1], 0x8000_0000)],
    );
    check("add.s64 d, a, b;", &[64, 64], 64, &[(&[u64::MAX, 2], 1), (&[0xffff_ffff, 1], 1 << 32)]);
    check("add.u16 d, a, b;", &[16, 16], 16, &[(&[0xffff, 2], 1)]);
    check("sub.s32 d, a, b;", &[32, 32], 32, &[(&[1, 2], 0xffff_ffff), (&[0x8000_0000, 1], 0x7fff_ffff)]);
    check(
        "add.sat.s32 d, a, b;",
        &[32, 32],
        32,
        &[(&[0x7fff_ffff, 1], 0x7fff_ffff), (&[0x8000_0000, 0xffff_ffff], 0x8000_0000), (&[5, 6], 11)],
    );
    check("sub.sat.s32 d, a, b;", &[32, 32], 32, &[(&[0x8000_0000, 1], 0x8000_0000), (&[9, 6], 3)]);
    check("neg.s32 d, a;", &[32], 32, &[(&[1], 0xffff_ffff), (&[0x8000_0000], 0x8000_0000)]);
    check("abs.s32 d, a;", &[32], 32, &[(&[0xffff_fffb], 5), (&[7], 7), (&[0x8000_0000], 0x8000_0000)]);
    check("abs.s16 d, a;", &[16], 16, &[(&[0xfffb], 5)]);
    check(
        "add.cc.u32 t, a, b; addc.u32 d, c, e;",
        &[32, 32, 32, 32],
        32,
        &[(&[0xffff_ffff, 1, 5, 6], 12), (&[0xffff_fffe, 1, 5, 6], 11)],
    );
    check(
        "sub.cc.u32 t, a, b; subc.u32 d, c, e;",
        &[32, 32, 32, 32],
        32,
        &[(&[0, 1, 5, 2], 2), (&[1, 1, 5, 2], 3)],
    );
    check("add.cc.u64 u, a, b; addc.u64 d, c, c;", &[64, 64, 64], 64, &[(&[u64::MAX, 1, 4], 9)]);
}

#[test]
fn products() {
    check(
        "mul.lo.s32 d, a, b;",
        &[32, 32],
        32,
        &[(&[0x1_0001, 0x1_0001], 0x0002_0001), (&[0xffff_ffff, 5], 0xffff_fffb)],
    );
    check("mul.hi.s32 d, a, b;", &[32, 32], 32, &[(&[0xffff_ffff, 5], 0xffff_ffff), (&[0x4000_0000, 8], 2)]);
    check("mul.hi.u32 d, a, b;", &[32, 32], 32, &[(&[0xffff_ffff, 5], 4)]);
    check("mul.hi.u64 d, a, b;", &[64, 64], 64, &[(&[u64::MAX, u64::MAX], u64::MAX - 1)]);
    check("mul.wide.s32 d, a, b;", &[32, 32], 64, &[(&[0xffff_ffff, 5], 0xffff_ffff_ffff_fffb)]);
    check("mul.wide.u32 d, a, b;", &[32, 32], 64, &[(&[0xffff_ffff, 5], 0x4_ffff_fffb)]);
    check("mul.wide.s16 d, a, b;", &[16, 16], 32, &[(&[0xffff, 5], 0xffff_fffb)]);
    check("mad.lo.s32 d, a, b, c;", &[32, 32, 32], 32, &[(&[3, 4, 5], 17)]);
    check("mad.hi.u32 d, a, b, c;", &[32, 32, 32], 32, &[(&[0xffff_ffff, 5, 9], 13)]);
    check(
        "mad.wide.u32 d, a, b, c;",
        &[32, 32, 64],
        64,
        &[(&[0xffff_ffff, 5, 1 << 40], (1 << 40) + 0x4_ffff_fffb)],
    );
    check("mad.wide.s32 d, a, b, c;", &[32, 32, 64], 64, &[(&[0xffff_ffff, 5, 7], 2)]);
    check("sad.u32 d, a, b, c;", &[32, 32, 32], 32, &[(&[3, 10, 100], 107), (&[10, 3, 100], 107)]);
    check("dp4a.s32.s32 d, a, b, c;", &[32, 32, 32], 32, &[(&[0xff01_0203, 0x0201_0101, 10], 14)]);
    check("dp4a.u32.u32 d, a, b, c;", &[32, 32, 32], 32, &[(&[0xff01_0203, 0x0201_0101, 10], 526)]);
}

#[test]
fn quotients_and_extremes() {
    check(
        "div.s32 d, a, b;",
        &[32, 32],
        32,
        &[
            (&[0xffff_fff9, 2], 0xffff_fffd),
            (&[7, 0xffff_fffe], 0xffff_fffd),
            (&[0x8000_0000, 0xffff_ffff], 0x8000_0000),
        ],
    );
    check("div.u32 d, a, b;", &[32, 32], 32, &[(&[0xffff_fff9, 2], 0x7fff_fffc), (&[5, 0], 0xffff_ffff)]);
    check("rem.s32 d, a, b;", &[32, 32], 32, &[(&[0xffff_fff9, 2], 0xffff_ffff), (&[7, 0xffff_fffd], 1)]);
    check("rem.u64 d, a, b;", &[64, 64], 64, &[(&[1 << 40, 1000], 776)]);
    check("min.s32 d, a, b;", &[32, 32], 32, &[(&[0xffff_ffff, 1], 0xffff_ffff)]);
    check("min.u32 d, a, b;", &[32, 32], 32, &[(&[0xffff_ffff, 1], 1)]);
    check("max.s64 d, a, b;", &[64, 64], 64, &[(&[u64::MAX, 1], 1)]);
    check("max.u32 d, a, b;", &[32, 32], 32, &[(&[0xffff_ffff, 1], 0xffff_ffff)]);
    check("max.s32 d, a, b, c;", &[32, 32, 32], 32, &[(&[0xffff_ffff, 1, 7], 7)]);
    check("min.s16 d, a, b;", &[16, 16], 16, &[(&[0xffff, 1], 0xffff)]);
}

#[test]
fn logic_and_shifts() {
    check("and.b32 d, a, b;", &[32, 32], 32, &[(&[12, 10], 8)]);
    check("or.b32 d, a, b;", &[32, 32], 32, &[(&[12, 10], 14)]);
    check("xor.b64 d, a, b;", &[64, 64], 64, &[(&[12 << 40, 10 << 40], 6 << 40)]);
    check("not.b16 d, a;", &[16], 16, &[(&[0x00ff], 0xff00)]);
    check("cnot.b32 d, a;", &[32], 32, &[(&[0], 1), (&[8], 0)]);
    check(
        "shl.b32 d, a, b;",
        &[32, 32],
        32,
        &[(&[0x8000_0001, 1], 2), (&[1, 31], 1 << 31), (&[1, 32], 0), (&[1, 1 << 31], 0)],
    );
    check("shl.b64 d, a, b;", &[64, 32], 64, &[(&[1, 63], 1 << 63), (&[1, 64], 0)]);
    check("shr.u32 d, a, b;", &[32, 32], 32, &[(&[0x8000_0000, 31], 1), (&[0x8000_0000, 32], 0)]);
    check(
        "shr.s32 d, a, b;",
        &[32, 32],
        32,
        &[(&[0x8000_0000, 31], 0xffff_ffff), (&[0x8000_0000, 99], 0xffff_ffff), (&[64, 3], 8)],
    );
    check("shr.b64 d, a, b;", &[64, 32], 64, &[(&[1 << 63, 63], 1)]);
    check("shr.s16 d, a, b;", &[16, 32], 16, &[(&[0x8000, 3], 0xf000)]);
    check(
        "shf.l.wrap.b32 d, a, b, c;",
        &[32, 32, 32],
        32,
        &[(&[0x8000_0000, 1, 1], 3), (&[0x8000_0000, 1, 33], 3)],
    );
    check(
        "shf.l.clamp.b32 d, a, b, c;",
        &[32, 32, 32],
        32,
        &[(&[0x1234, 0x5678, 32], 0x1234), (&[0x1234, 0x5678, 0], 0x5678)],
    );
    check(
        "shf.r.wrap.b32 d, a, b, c;",
        &[32, 32, 32],
        32,
        &[(&[2, 1, 1], 0x8000_0001), (&[0x1234, 0x5678, 32], 0x1234)],
    );
    check("shf.r.clamp.b32 d, a, b, c;", &[32, 32, 32], 32, &[(&[0x1234, 0x5678, 40], 0x5678)]);
    check("popc.b32 d, a;", &[32], 32, &[(&[0xf0f0], 8)]);
    check("popc.b64 d, a;", &[64], 32, &[(&[u64::MAX], 64)]);
    check("clz.b32 d, a;", &[32], 32, &[(&[1], 31), (&[0], 32)]);
    check("clz.b64 d, a;", &[64], 32, &[(&[1], 63), (&[0], 64)]);
    check("brev.b32 d, a;", &[32], 32, &[(&[1], 1 << 31), (&[0x0000_00f0], 0x0f00_0000)]);
    check("brev.b64 d, a;", &[64], 64, &[(&[2], 1 << 62)]);
    check("bfind.u32 d, a;", &[32], 32, &[(&[0x0001_0000], 16), (&[0], 0xffff_ffff)]);
    check("bfind.s32 d, a;", &[32], 32, &[(&[0xffff_0000], 15), (&[0xffff_ffff], 0xffff_ffff)]);
    check("bfind.shiftamt.u32 d, a;", &[32], 32, &[(&[0x0001_0000], 15)]);
}

#[test]
fn bit_fields() {
    check(
        "bfe.u32 d, a, b, c;",
        &[32, 32, 32],
        32,
        &[
            (&[0x1234_5678, 8, 8], 0x56),
            (&[0x1234_5678, 28, 8], 1),
            (&[0x1234_5678, 0, 0], 0),
            (&[5, 40, 3], 0),
        ],
    );
    check(
        "bfe.s32 d, a, b, c;",
        &[32, 32, 32],
        32,
        &[
            (&[0x0000_8000, 8, 8], 0xffff_ff80),
            (&[0x8000_0000, 28, 8], 0xffff_fff8),
            (&[0x8000_0000, 40, 3], 0xffff_ffff),
            (&[0x7000_0000, 28, 4], 7),
        ],
    );
    check(
        "bfe.u64 d, a, b, c;",
        &[64, 32, 32],
        64,
        &[(&[0x1234_5678_9abc_def0, 60, 8], 1), (&[u64::MAX, 0, 64], u64::MAX)],
    );
    check(
        "bfi.b32 d, a, b, c, e;",
        &[32, 32, 32, 32],
        32,
        &[
            (&[0xff, 0, 4, 4], 0xf0),
            (&[0, 0xffff_ffff, 8, 8], 0xffff_00ff),
            (&[1, 7, 32, 1], 7),
            (&[1, 7, 0, 0], 7),
            (&[0xffff_ffff, 0, 28, 10], 0xf000_0000),
        ],
    );
    check(
        "bfi.b64 d, a, b, c, e;",
        &[64, 64, 32, 32],
        64,
        &[(&[0xabcd, 0x1111, 32, 32], 0x0000_abcd_0000_1111)],
    );
    check("prmt.b32 d, a, b, 0x5410;", &[32, 32], 32, &[(&[0x1122_3344, 0x5566_7788], 0x7788_3344)]);
    check(
        "prmt.b32 d, a, b, c;",
        &[32, 32, 32],
        32,
        &[(&[0x1122_3344, 0x5566_7788, 0x3276], 0x1122_5566), (&[0x80, 0, 0x0008], 0x8080_80ff)],
    );
    check("prmt.b32.f4e d, a, b, c;", &[32, 32, 32], 32, &[(&[0x1122_3344, 0x5566_7788, 1], 0x8811_2233)]);
    check("prmt.b32.rc16 d, a, b, c;", &[32, 32, 32], 32, &[(&[0x1122_3344, 0, 1], 0x1122_1122)]);
    check(
        "bmsk.clamp.b32 d, a, b;",
        &[32, 32],
        32,
        &[(&[4, 8], 0xff0), (&[28, 10], 0xf000_0000), (&[32, 1], 0)],
    );
    check("szext.wrap.s32 d, a, b;", &[32, 32], 32, &[(&[0x80, 8], 0xffff_ff80), (&[0x80, 9], 0x80)]);
}

#[test]
fn lop3_is_its_table() {
    let mut random = Random(1);
    for table in [0x96u32, 0xe8, 0xca, 0x80, 0x01, 0xc0] {
        let rows: Vec<Vec<u64>> =
            (0..8).map(|_| (0..3).map(|_| random.next() & 0xffff_ffff).collect()).collect();
        for (row, got) in rows.iter().zip(run(&format!("lop3.b32 d, a, b, c, {table};"), &[32; 3], 32, &rows))
        {
            for bit in 0..32 {
                let index = row.iter().fold(0, |i, v| 2 * i + (v >> bit & 1));
                assert_eq!(got >> bit & 1, u64::from(table >> index & 1), "table {table:#x}");
            }
        }
    }
}

#[test]
fn moves_and_packing() {
    check("mov.b64 d, {a, b};", &[32, 32], 64, &[(&[1, 2], 0x2_0000_0001)]);
    check("mov.b64 {t, d}, a;", &[64], 32, &[(&[0x2_0000_0001], 2)]);
    check("mov.b32 d, {a, b};", &[16, 16], 32, &[(&[0x1234, 0x5678], 0x5678_1234)]);
    check("mov.b32 {h, d}, a;", &[32], 16, &[(&[0x5678_1234], 0x5678)]);
    check("mov.b64 d, {a, b, c, e};", &[16, 16, 16, 16], 64, &[(&[1, 2, 3, 4], 0x0004_0003_0002_0001)]);
    check("setp.ne.u32 p, a, 0; selp.b32 d, 7, b, p;", &[32, 32], 32, &[(&[1, 2], 7), (&[0, 2], 2)]);
    check("slct.u32.s32 d, a, b, c;", &[32, 32, 32], 32, &[(&[1, 2, 0], 1), (&[1, 2, 0xffff_ffff], 2)]);
    check(
        "slct.u32.f32 d, a, b, c;",
        &[32, 32, 32],
        32,
        &[(&[1, 2, 0x8000_0000], 1), (&[1, 2, 0xbf80_0000], 2), (&[1, 2, 0x7fc0_0000], 2)],
    );
    check("{ .reg .b32 d1; mov.b32 d1, a; mov.b32 d, d1; }", &[32], 32, &[(&[9], 9)]);
}

#[test]
fn comparisons() {
    let flag = "selp.b32 d, 1, 0, p;";
    let table: [(&str, &[(&[u64], u64)]); 10] = [
        ("setp.lt.s32 p, a, b;", &[(&[0xffff_ffff, 0], 1), (&[0, 0], 0)]),
        ("setp.lt.u32 p, a, b;", &[(&[0xffff_ffff, 0], 0), (&[0, 1], 1)]),
        ("setp.lo.u32 p, a, b;", &[(&[0xffff_ffff, 0], 0), (&[0, 1], 1)]),
        ("setp.hs.u32 p, a, b;", &[(&[0xffff_ffff, 0], 1), (&[0, 1], 0)]),
        ("setp.ge.s32 p, a, b;", &[(&[0xffff_ffff, 0], 0), (&[0, 0], 1)]),
        ("setp.eq.b32 p, a, b;", &[(&[3, 3], 1), (&[3, 4], 0)]),
        ("setp.ne.b32 p|q, a, b; selp.b32 t, 1, 0, q; xor.b32 a, a, a;", &[(&[3, 3], 0), (&[3, 4], 1)]),
        ("setp.gt.s32 p|q, a, b; and.pred p, q, q;", &[(&[3, 3], 1), (&[4, 3], 0)]),
        ("setp.eq.s32 q, b, 4; setp.eq.and.s32 p, a, 3, q;", &[(&[3, 3], 0), (&[3, 4], 1), (&[2, 4], 0)]),
        ("setp.eq.s32 q, b, 4; setp.eq.or.s32 p, a, 3, !q;", &[(&[3, 4], 1), (&[2, 4], 0), (&[2, 5], 1)]),
    ];
    for (code, rows) in table {
        check(&format!("{code} {flag}"), &[32, 32], 32, rows);
    }
    check("setp.lt.s16 p, a, b; selp.b32 d, 1, 0, p;", &[16, 16], 32, &[(&[0xffff, 0], 1)]);
    check("setp.gt.u64 p, a, b; selp.b32 d, 1, 0, p;", &[64, 64], 32, &[(&[1 << 40, 1], 1)]);
    check("set.lt.u32.s32 d, a, b;", &[32, 32], 32, &[(&[0xffff_ffff, 0], 0xffff_ffff), (&[1, 0], 0)]);
    check("set.lt.f32.s32 d, a, b;", &[32, 32], 32, &[(&[0xffff_ffff, 0], 0x3f80_0000), (&[1, 0], 0)]);
    check(
        "setp.ne.b32 p, a, 0; setp.ne.b32 q, b, 0; xor.pred p, p, q; not.pred p, p; @p mov.u32 d, 5;",
        &[32, 32],
        32,
        &[(&[1, 1], 5), (&[1, 0], 0), (&[0, 0], 5)],
    );
    check("mov.pred p, 1; @!p mov.u32 d, 5; @p mov.u32 d, a;", &[32], 32, &[(&[8], 8)]);
}

#[test]
fn integers_against_wide_arithmetic() {
    let mut random = Random(7);
    let rows: Vec<Vec<u64>> = (0..256)
        .map(|_| (0..3).map(|_| random.next() >> (random.next() % 33) & 0xffff_ffff).collect())
        .collect();
    let s = |v: u64| i128::from(v as u32 as i32);
    let u = |v: u64| i128::from(v);
    type Law<'a> = (&'a str, Box<dyn Fn(&[u64]) -> i128>);
    let laws: Vec<Law> = vec![
        ("mad.lo.s32 d, a, b, c;", Box::new(move |r| s(r[0]) * s(r[1]) + s(r[2]))),
        ("mul.hi.s32 d, a, b;", Box::new(move |r| (s(r[0]) * s(r[1])).div_euclid(1 << 32))),
        ("mul.hi.u32 d, a, b;", Box::new(move |r| (u(r[0]) * u(r[1])) >> 32)),
        ("div.s32 d, a, b;", Box::new(move |r| if r[1] == 0 { -1 } else { s(r[0]) / s(r[1]) })),
        ("rem.u32 d, a, b;", Box::new(move |r| if r[1] == 0 { u(r[0]) } else { u(r[0]) % u(r[1]) })),
        ("shr.s32 d, a, b;", Box::new(move |r| s(r[0]).div_euclid(1 << u(r[1]).min(40)))),
        ("sad.s32 d, a, b, c;", Box::new(move |r| (s(r[0]) - s(r[1])).abs() + s(r[2]))),
    ];
    for (code, law) in laws {
        for (row, got) in rows.iter().zip(run(code, &[32; 3], 32, &rows)) {
            assert_eq!(got, law(row) as u64 & 0xffff_ffff, "{code} of {row:x?}");
        }
    }
}
