//! `cvt`: every pair of kinds, all rounding modes, saturation, packing.

use half::{bf16, f16};

use crate::{INF, NAN, Random, check, f, run};

#[test]
fn integers() {
    check("cvt.s64.s32 d, a;", &[32], 64, &[(&[0xffff_ffff], u64::MAX)]);
    check("cvt.u64.u32 d, a;", &[32], 64, &[(&[0xffff_ffff], 0xffff_ffff)]);
    check("cvt.u32.u64 d, a;", &[64], 32, &[(&[0x5_0000_0007], 7)]);
    check("cvt.u16.u32 d, a;", &[32], 16, &[(&[0x1_2345], 0x2345)]);
    check("cvt.s32.s16 d, a;", &[16], 32, &[(&[0x8000], 0xffff_8000)]);
    check("cvt.u32.u16 d, a;", &[16], 32, &[(&[0x8000], 0x8000)]);
    check("cvt.s32.s8 d, a;", &[32], 32, &[(&[0x180], 0xffff_ff80)]);
    check("cvt.u32.u8 d, a;", &[32], 32, &[(&[0x180], 0x80)]);
    check("cvt.sat.u8.s32 d, a;", &[32], 32, &[(&[300], 255), (&[0xffff_fff0], 0), (&[77], 77)]);
    check("cvt.sat.s8.s32 d, a;", &[32], 32, &[(&[300], 127), (&[0xffff_ff00], 0xffff_ff80)]);
}

#[test]
fn floats_to_integers() {
    for (r, plus, minus, tie) in [("rni", 2, -2, 2), ("rzi", 1, -1, 2), ("rmi", 1, -2, 2), ("rpi", 2, -1, 3)]
    {
        let s = |v: i32| u64::from(v as u32);
        check(
            &format!("cvt.{r}.s32.f32 d, a;"),
            &[32],
            32,
            &[(&[f(1.75)], s(plus)), (&[f(-1.75)], s(minus)), (&[f(2.5)], s(tie))],
        );
    }
    check(
        "cvt.rzi.s32.f32 d, a;",
        &[32],
        32,
        &[(&[f(3e9)], 0x7fff_ffff), (&[f(-3e9)], 0x8000_0000), (&[NAN], 0), (&[INF], 0x7fff_ffff)],
    );
    check(
        "cvt.rzi.u32.f32 d, a;",
        &[32],
        32,
        &[(&[f(-5.0)], 0), (&[f(4e9)], 4_000_000_000), (&[f(5e9)], 0xffff_ffff)],
    );
    check("cvt.rzi.s64.f32 d, a;", &[32], 64, &[(&[f(-5e9)], (-5_000_000_000i64) as u64), (&[NAN], 1 << 63)]);
    check(
        "cvt.rni.s32.f64 d, a;",
        &[64],
        32,
        &[(&[2.5f64.to_bits()], 2), (&[f64::NAN.to_bits()], 0x8000_0000)],
    );
    check("cvt.rzi.ftz.u64.f32 d, a;", &[32], 64, &[(&[f(1e19)], 0x8ac7_2300 << 32)]);
    check("cvt.rni.s16.f16 d, a;", &[16], 16, &[(&[u64::from(f16::from_f32(-2.5).to_bits())], 0xfffe)]);
}

#[test]
fn integers_to_floats() {
    check(
        "cvt.rn.f32.s32 d, a;",
        &[32],
        32,
        &[(&[0xffff_ffff], f(-1.0)), (&[16_777_217], f(16_777_216.0)), (&[16_777_219], f(16_777_220.0))],
    );
    check("cvt.rp.f32.s32 d, a;", &[32], 32, &[(&[16_777_217], f(16_777_218.0))]);
    check("cvt.rz.f32.u32 d, a;", &[32], 32, &[(&[0xffff_ffff], f(4_294_967_040.0))]);
    check(
        "cvt.rn.f32.u64 d, a;",
        &[64],
        32,
        &[(&[u64::MAX], f(18_446_744_073_709_551_615.0)), (&[(1 << 40) + 1], f(1_099_511_627_776.0))],
    );
    check("cvt.rp.f32.u64 d, a;", &[64], 32, &[(&[(1 << 62) + 1], f(2f32.powi(62)) + 1)]);
    check("cvt.rn.f64.s32 d, a;", &[32], 64, &[(&[0xffff_fffe], (-2.0f64).to_bits())]);
    check("cvt.rn.f64.s64 d, a;", &[64], 64, &[(&[(1 << 53) + 1], 9_007_199_254_740_992f64.to_bits())]);
    check(
        "cvt.rn.f16.s32 d, a;",
        &[32],
        16,
        &[(&[2049], f16::from_f32(2048.0).to_bits().into()), (&[70000], 0x7c00)],
    );
    check("cvt.rn.bf16.u32 d, a;", &[32], 16, &[(&[257], bf16::from_f32(256.0).to_bits().into())]);
}

#[test]
fn floats_to_floats() {
    check("cvt.f64.f32 d, a;", &[32], 64, &[(&[f(1.5)], 1.5f64.to_bits())]);
    check(
        "cvt.rn.f32.f64 d, a;",
        &[64],
        32,
        &[(&[(1.0 + 2f64.powi(-24)).to_bits()], f(1.0)), (&[1e300f64.to_bits()], INF)],
    );
    check(
        "cvt.rm.f32.f64 d, a;",
        &[64],
        32,
        &[(&[(-1.0 - 2f64.powi(-40)).to_bits()], f(-1.0) + 1), (&[1e300f64.to_bits()], 0x7f7f_ffff)],
    );
    check("cvt.rni.f32.f32 d, a;", &[32], 32, &[(&[f(2.5)], f(2.0)), (&[f(-0.25)], 0x8000_0000)]);
    check("cvt.rpi.f32.f32 d, a;", &[32], 32, &[(&[f(2.25)], f(3.0))]);
    check(
        "cvt.sat.f32.f32 d, a;",
        &[32],
        32,
        &[(&[f(2.5)], f(1.0)), (&[f(-1.0)], 0), (&[NAN], 0), (&[f(0.25)], f(0.25))],
    );
    check("cvt.ftz.f32.f16 d, a;", &[16], 32, &[(&[1], f(2f32.powi(-24)))]);
    check("cvt.f32.bf16 d, a;", &[16], 32, &[(&[0x3fc0], f(1.5)), (&[0x7fc0], NAN)]);
    check(
        "cvt.rna.tf32.f32 d, a;",
        &[32],
        32,
        &[(&[0x3f80_1000], 0x3f80_2000), (&[0x3f80_0fff], 0x3f80_0000)],
    );
    check("cvt.rz.relu.f16.f32 d, a;", &[32], 16, &[(&[f(-1.0)], 0), (&[f(65535.0)], 0x7bff)]);
    let mut random = Random(11);
    let rows: Vec<Vec<u64>> = (0..960).map(|_| vec![random.f32()]).collect();
    for (code, law) in [("cvt.rn.f16.f32 d, a;", 0), ("cvt.rn.bf16.f32 d, a;", 1)] {
        for (r, got) in rows.iter().zip(run(code, &[32], 16, &rows)) {
            let x = f32::from_bits(r[0] as u32);
            let want = if x.is_nan() {
                0x7fff
            } else if law == 0 {
                f16::from_f32(x).to_bits()
            } else {
                bf16::from_f32(x).to_bits()
            };
            assert_eq!(got, u64::from(want), "{code} {x:e}");
        }
    }
}

#[test]
fn packed() {
    // The first source goes to the upper half.
    check(
        "cvt.rn.bf16x2.f32 d, a, b;",
        &[32, 32],
        32,
        &[
            (&[f(1.0), f(2.0)], 0x3f80_4000),
            (&[f(1.0 + 2f32.powi(-8)), NAN], 0x3f80_7fff),
            (&[0x3f81_8000, f(3.4e38)], 0x3f82_7f80),
            (&[INF, INF | 0x8000_0000], 0x7f80_ff80),
        ],
    );
    check("cvt.rn.f16x2.f32 d, a, b;", &[32, 32], 32, &[(&[f(1.0), f(-2.0)], 0x3c00_c000)]);
    check("cvt.rz.bf16x2.f32 d, a, b;", &[32, 32], 32, &[(&[0x3f80_ffff, 0xbf80_ffff], 0x3f80_bf80)]);
    check("cvt.rn.relu.bf16x2.f32 d, a, b;", &[32, 32], 32, &[(&[f(-1.0), f(2.0)], 0x0000_4000)]);
    check(
        "cvt.rn.satfinite.e4m3x2.f32 d, a, b;",
        &[32, 32],
        16,
        &[
            (&[f(1.0), f(2.0)], 0x3840),
            (&[f(1000.0), f(-448.0)], 0x7efe),
            (&[NAN, f(0.0)], 0x7f00),
            (&[f(2f32.powi(-9)), f(2f32.powi(-10))], 0x0100),
        ],
    );
    check(
        "cvt.rn.satfinite.e5m2x2.f32 d, a, b;",
        &[32, 32],
        16,
        &[(&[f(1.0), f(2.0)], 0x3c40), (&[f(1e9), f(-1e9)], 0x7bfb)],
    );
    check("cvt.rn.f16x2.e4m3x2 d, a;", &[16], 32, &[(&[0x3840], 0x3c00_4000), (&[0x7eff], 0x5f00_7fff)]);
    check("cvt.rn.f16x2.e5m2x2 d, a;", &[16], 32, &[(&[0x3c7c], 0x3c00_7c00)]);
    check("cvt.rn.satfinite.e4m3x2.f16x2 d, a;", &[32], 16, &[(&[0x3c00_4000], 0x3840)]);
}
