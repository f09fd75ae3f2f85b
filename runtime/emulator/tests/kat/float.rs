//! f32 and f64 arithmetic: NaNs, infinities, denormals, rounding, approximations.

use crate::{INF, NAN, Random, check, f, run};

const DENORMAL: u64 = 1;
const NEG: u64 = 0x8000_0000;

#[test]
fn sums_products_and_their_specials() {
    check(
        "add.rn.f32 d, a, b;",
        &[32, 32],
        32,
        &[
            (&[f(1.5), f(2.25)], f(3.75)),
            (&[INF, INF | NEG], NAN),
            (&[0xffc0_0000, f(1.0)], NAN),
            (&[f(0.0), NEG], f(0.0)),
            (&[DENORMAL, DENORMAL], 2),
            (&[f(1.0), f(2f32.powi(-24))], f(1.0)), // a tie goes to even
        ],
    );
    check(
        "add.ftz.f32 d, a, b;",
        &[32, 32],
        32,
        &[(&[DENORMAL, DENORMAL], 0), (&[0x0080_0000, 0x8000_0001], 0x0080_0000)],
    );
    check(
        "add.rm.f32 d, a, b;",
        &[32, 32],
        32,
        &[
            (&[f(1.0), f(-1.0)], NEG),
            (&[f(1.0), f(1e-20)], f(1.0)),
            (&[f(-1.0), f(-1e-20)], f(-1.0) + 1),
            (&[0, 0], 0),
            (&[NEG, NEG], NEG),
        ],
    );
    check(
        "add.rp.f32 d, a, b;",
        &[32, 32],
        32,
        &[(&[f(1.0), f(1e-20)], f(1.0) + 1), (&[f(1.0), f(-1.0)], 0)],
    );
    check(
        "add.rz.f32 d, a, b;",
        &[32, 32],
        32,
        &[(&[f(1.0), f(-1e-20)], f(1.0) - 1), (&[0x7f7f_ffff, 0x7f7f_ffff], 0x7f7f_ffff)],
    );
    check("sub.f32 d, a, b;", &[32, 32], 32, &[(&[f(1.5), f(2.25)], f(-0.75))]);
    check(
        "mul.f32 d, a, b;",
        &[32, 32],
        32,
        &[(&[f(1.5), f(-2.0)], f(-3.0)), (&[INF, 0], NAN), (&[0x0080_0000, f(0.5)], 0x0040_0000)],
    );
    check(
        "mul.ftz.f32 d, a, b;",
        &[32, 32],
        32,
        &[(&[0x0080_0000, f(0.5)], 0), (&[0x8080_0000, f(0.5)], NEG)],
    );
    check(
        "mul.rz.f32 d, a, b;",
        &[32, 32],
        32,
        &[(&[0x7f7f_ffff, f(2.0)], 0x7f7f_ffff), (&[f(-3.0), 0x3eaa_aaab], 0xbf80_0000)],
    );
    check(
        "add.sat.f32 d, a, b;",
        &[32, 32],
        32,
        &[(&[f(0.5), f(0.75)], f(1.0)), (&[f(-1.0), f(0.5)], 0), (&[INF, INF | NEG], 0)],
    );
    check(
        "fma.rn.f32 d, a, b, c;",
        &[32, 32, 32],
        32,
        &[
            (&[f(3.0), f(4.0), f(5.0)], f(17.0)),
            // (1 + 2^-12)^2 - 1 - 2^-11 = 2^-24, lost by a product that is rounded first.
            (
                &[f(1.0 + 2f32.powi(-12)), f(1.0 + 2f32.powi(-12)), f(-1.0 - 2f32.powi(-11))],
                f(2f32.powi(-24)),
            ),
            (&[INF, 0, f(1.0)], NAN),
        ],
    );
    check("fma.rz.f32 d, a, b, c;", &[32, 32, 32], 32, &[(&[f(1.0), f(1.0), f(-1e-30)], 0x3f7f_ffff)]);
    check("fma.rp.ftz.f32 d, a, b, c;", &[32, 32, 32], 32, &[(&[f(1.0), f(1.0), f(1e-30)], 0x3f80_0001)]);
}

#[test]
fn extremes() {
    check(
        "min.f32 d, a, b;",
        &[32, 32],
        32,
        &[
            (&[0, NEG], NEG),
            (&[0x7fc0_0000, f(3.0)], f(3.0)),
            (&[0x7fc0_0000, 0xffc0_0000], NAN),
            (&[f(-1.0), f(2.0)], f(-1.0)),
        ],
    );
    check(
        "max.f32 d, a, b;",
        &[32, 32],
        32,
        &[(&[0, NEG], 0), (&[NEG, 0], 0), (&[f(3.0), 0x7fc0_0000], f(3.0)), (&[INF | NEG, f(-1.0)], f(-1.0))],
    );
    check("min.NaN.f32 d, a, b;", &[32, 32], 32, &[(&[0x7fc0_0000, f(3.0)], NAN)]);
    check("max.ftz.f32 d, a, b;", &[32, 32], 32, &[(&[DENORMAL, NEG], 0)]);
    check("max.f32 d, a, b, c;", &[32, 32, 32], 32, &[(&[f(1.0), f(5.0), f(3.0)], f(5.0))]);
    check("min.NaN.f32 d, a, b, c;", &[32, 32, 32], 32, &[(&[f(1.0), f(5.0), 0xffc0_0001], NAN)]);
    check("neg.f32 d, a;", &[32], 32, &[(&[f(1.0)], f(-1.0)), (&[0], NEG)]);
    check("abs.ftz.f32 d, a;", &[32], 32, &[(&[f(-2.0)], f(2.0)), (&[0x8000_0001], 0)]);
    check("copysign.f32 d, a, b;", &[32, 32], 32, &[(&[NEG, f(2.0)], f(-2.0)), (&[f(1.0), f(-2.0)], f(2.0))]);
    check(
        "min.f64 d, a, b;",
        &[64, 64],
        64,
        &[
            (&[1.0f64.to_bits(), (-2.0f64).to_bits()], (-2.0f64).to_bits()),
            (&[f64::NAN.to_bits(), 1.0f64.to_bits()], 1.0f64.to_bits()),
        ],
    );
}

#[test]
fn exact_roots_and_quotients() {
    check(
        "rcp.rn.f32 d, a;",
        &[32],
        32,
        &[(&[f(4.0)], f(0.25)), (&[0], INF), (&[NEG], INF | NEG), (&[f(3.0)], 0x3eaa_aaab)],
    );
    check("rcp.rm.f32 d, a;", &[32], 32, &[(&[f(3.0)], 0x3eaa_aaaa)]);
    check("rcp.rp.f32 d, a;", &[32], 32, &[(&[f(3.0)], 0x3eaa_aaab), (&[f(4.0)], f(0.25))]);
    check(
        "div.rn.f32 d, a, b;",
        &[32, 32],
        32,
        &[(&[f(1.0), f(3.0)], 0x3eaa_aaab), (&[0, 0], NAN), (&[INF, INF], NAN), (&[f(1.0), INF], 0)],
    );
    check(
        "div.rz.f32 d, a, b;",
        &[32, 32],
        32,
        &[(&[f(1.0), f(3.0)], 0x3eaa_aaaa), (&[f(-1.0), f(3.0)], 0xbeaa_aaaa)],
    );
    check(
        "sqrt.rn.f32 d, a;",
        &[32],
        32,
        &[(&[f(9.0)], f(3.0)), (&[f(-1.0)], NAN), (&[NEG], NEG), (&[f(2.0)], 0x3fb5_04f3)],
    );
    check("sqrt.rp.f32 d, a;", &[32], 32, &[(&[f(2.0)], 0x3fb5_04f4), (&[f(9.0)], f(3.0))]);
    check(
        "div.approx.f32 d, a, b;",
        &[32, 32],
        32,
        &[(&[f(6.0), f(3.0)], f(2.0)), (&[f(1.0), f(2f32.powi(127))], 0), (&[INF, f(2f32.powi(127))], NAN)],
    );
    check("div.full.f32 d, a, b;", &[32, 32], 32, &[(&[f(6.0), f(3.0)], f(2.0))]);
}

#[test]
fn doubles() {
    let d = f64::to_bits;
    check("add.f64 d, a, b;", &[64, 64], 64, &[(&[d(0.1), d(0.2)], d(0.1 + 0.2))]);
    check("sub.f64 d, a, b;", &[64, 64], 64, &[(&[d(1.0), d(0.25)], d(0.75))]);
    check("mul.rn.f64 d, a, b;", &[64, 64], 64, &[(&[d(3.0), d(-0.5)], d(-1.5))]);
    check("fma.rn.f64 d, a, b, c;", &[64, 64, 64], 64, &[(&[d(3.0), d(4.0), d(0.5)], d(12.5))]);
    check("div.rn.f64 d, a, b;", &[64, 64], 64, &[(&[d(1.0), d(3.0)], d(1.0 / 3.0))]);
    check("rcp.rn.f64 d, a;", &[64], 64, &[(&[d(8.0)], d(0.125))]);
    check("sqrt.rn.f64 d, a;", &[64], 64, &[(&[d(2.0)], d(std::f64::consts::SQRT_2))]);
    check("neg.f64 d, a;", &[64], 64, &[(&[d(2.0)], d(-2.0))]);
    check("abs.f64 d, a;", &[64], 64, &[(&[d(-2.0)], d(2.0))]);
    check("max.f64 d, a, b;", &[64, 64], 64, &[(&[d(-0.0), d(0.0)], d(0.0))]);
    check("copysign.f64 d, a, b;", &[64, 64], 64, &[(&[d(-1.0), d(3.0)], d(-3.0))]);
    check(
        "setp.lt.f64 p, a, b; selp.b32 d, 1, 0, p;",
        &[64, 64],
        32,
        &[(&[d(-1.0), d(3.0)], 1), (&[d(f64::NAN), d(3.0)], 0)],
    );
}

#[test]
fn directed_rounding_brackets_the_exact_value() {
    let mut random = Random(3);
    let rows: Vec<Vec<u64>> =
        (0..320).map(|_| (0..3).map(|_| random.next() & 0x8fff_ffff | 0x3800_0000).collect()).collect();
    let value = |b: u64| f64::from(f32::from_bits(b as u32));
    for (op, n) in [("add", 2), ("mul", 2), ("fma", 3)] {
        let args = if n == 2 { "a, b" } else { "a, b, c" };
        let [rn, rz, rm, rp] =
            ["rn", "rz", "rm", "rp"].map(|r| run(&format!("{op}.{r}.f32 d, {args};"), &[32; 3], 32, &rows));
        for (i, row) in rows.iter().enumerate() {
            let (a, b, c) = (value(row[0]), value(row[1]), value(row[2]));
            // Products of f32 are exact in f64; sums may not be, so compare with the exact error in hand.
            let (hi, lo) = match op {
                "mul" => (a * b, 0.0),
                op => {
                    let (x, y) = if op == "add" { (a, b) } else { (a * b, c) };
                    let s = x + y;
                    let t = s - x;
                    (s, (x - (s - t)) + (y - t))
                }
            };
            let below = |v: f64| v < hi || (v == hi && lo >= 0.0);
            let above = |v: f64| v > hi || (v == hi && lo <= 0.0);
            let (m, p) = (value(rm[i]), value(rp[i]));
            assert!(below(m) && above(p), "{op} {row:x?}: {m:e} <= {hi:e} <= {p:e}");
            let next = f64::from((m as f32).next_up());
            assert!(p == m || p == next, "{op} {row:x?}: {m:e} and {p:e} are not neighbours");
            assert_eq!(value(rz[i]), if hi > 0.0 { m } else { p }, "{op} {row:x?}");
            assert!(rn[i] == rm[i] || rn[i] == rp[i]);
            let (dm, dp) = (hi - m + lo, p - hi - lo);
            if dm < dp * 0.999_999 {
                assert_eq!(rn[i], rm[i], "{op} {row:x?}");
            } else if dp < dm * 0.999_999 {
                assert_eq!(rn[i], rp[i], "{op} {row:x?}");
            }
        }
    }
}

#[test]
fn approximations_are_within_the_bounds_of_the_isa() {
    // Instruction, exact function, lowest and highest input, relative bound, absolute bound.
    type Row = (&'static str, fn(f64) -> f64, f32, f32, f64, f64);
    let table: [Row; 8] = [
        ("ex2.approx.f32", f64::exp2, -140.0, 127.0, 2f64.powi(-22), 2f64.powi(-149)),
        ("lg2.approx.f32", f64::log2, 1e-30, 1e30, 0.0, 2f64.powi(-22)),
        ("rcp.approx.f32", |x| 1.0 / x, 1e-30, 1e30, 2f64.powi(-22), 0.0),
        ("rsqrt.approx.f32", |x| 1.0 / x.sqrt(), 1e-30, 1e30, 2.9 * 2f64.powi(-23), 0.0),
        ("sqrt.approx.f32", f64::sqrt, 1e-30, 1e30, 2f64.powi(-22), 0.0),
        ("sin.approx.f32", f64::sin, -3.1, 3.1, 0.0, 2f64.powi(-20)),
        ("cos.approx.f32", f64::cos, -3.1, 3.1, 0.0, 2f64.powi(-20)),
        ("tanh.approx.f32", f64::tanh, -9.0, 9.0, 2f64.powi(-11), 0.0),
    ];
    for (op, exact, lo, hi, relative, absolute) in table {
        let rows: Vec<Vec<u64>> = (0..=320).map(|i| vec![f(lo + (hi - lo) * i as f32 / 320.0)]).collect();
        for (row, got) in rows.iter().zip(run(&format!("{op} d, a;"), &[32], 32, &rows)) {
            let x = f64::from(f32::from_bits(row[0] as u32));
            let (want, got) = (exact(x), f64::from(f32::from_bits(got as u32)));
            // lg2's bound is relative away from 1.
            let bound = relative * want.abs()
                + absolute * if op.starts_with("lg2") { want.abs().max(1.0) } else { 1.0 };
            assert!((got - want).abs() <= bound, "{op} {x}: {got:e}, exact {want:e}");
        }
    }
    let ninf = INF | NEG;
    check(
        "ex2.approx.ftz.f32 d, a;",
        &[32],
        32,
        &[
            (&[ninf], 0),
            (&[INF], INF),
            (&[0], f(1.0)),
            (&[f(-3.0)], f(0.125)),
            (&[f(-127.0)], 0),
            (&[f(128.0)], INF),
            (&[0x7fc0_0000], NAN),
            (&[f(10.0)], f(1024.0)),
        ],
    );
    check(
        "ex2.approx.f32 d, a;",
        &[32],
        32,
        &[(&[f(-127.0)], 0x0040_0000), (&[f(-149.0)], 1), (&[f(-200.0)], 0)],
    );
    check(
        "lg2.approx.ftz.f32 d, a;",
        &[32],
        32,
        &[(&[0], ninf), (&[f(8.0)], f(3.0)), (&[f(-1.0)], NAN), (&[INF], INF), (&[1], ninf)],
    );
    check(
        "rsqrt.approx.f32 d, a;",
        &[32],
        32,
        &[(&[0], INF), (&[NEG], ninf), (&[f(4.0)], f(0.5)), (&[f(-1.0)], NAN)],
    );
    check(
        "rcp.approx.ftz.f32 d, a;",
        &[32],
        32,
        &[(&[0], INF), (&[1], INF), (&[NEG], ninf), (&[f(4.0)], f(0.25)), (&[f(2f32.powi(127))], 0)],
    );
}

#[test]
fn float_comparisons_and_classes() {
    let nan = 0x7fc0_0000;
    let flag = "selp.b32 d, 1, 0, p;";
    for (op, less, equal, greater, unordered) in [
        ("eq", 0, 1, 0, 0),
        ("ne", 1, 0, 1, 0),
        ("lt", 1, 0, 0, 0),
        ("le", 1, 1, 0, 0),
        ("gt", 0, 0, 1, 0),
        ("ge", 0, 1, 1, 0),
        ("equ", 0, 1, 0, 1),
        ("neu", 1, 0, 1, 1),
        ("ltu", 1, 0, 0, 1),
        ("leu", 1, 1, 0, 1),
        ("gtu", 0, 0, 1, 1),
        ("geu", 0, 1, 1, 1),
        ("num", 1, 1, 1, 0),
        ("nan", 0, 0, 0, 1),
    ] {
        check(
            &format!("setp.{op}.f32 p, a, b; {flag}"),
            &[32, 32],
            32,
            &[
                (&[f(1.0), f(2.0)], less),
                (&[f(2.0), f(2.0)], equal),
                (&[0, NEG], equal),
                (&[f(3.0), f(2.0)], greater),
                (&[nan, f(2.0)], unordered),
                (&[f(2.0), nan], unordered),
            ],
        );
    }
    check(&format!("setp.gt.ftz.f32 p, a, b; {flag}"), &[32, 32], 32, &[(&[1, 0], 0)]);
    for (class, members) in [
        ("finite", [1, 1, 1, 0, 0]),
        ("infinite", [0, 0, 0, 1, 0]),
        ("number", [1, 1, 1, 1, 0]),
        ("notanumber", [0, 0, 0, 0, 1]),
        ("normal", [1, 0, 0, 0, 0]),
        ("subnormal", [0, 1, 1, 0, 0]),
    ] {
        let inputs = [f(1.0), 0, 5, INF, nan];
        for (x, want) in inputs.into_iter().zip(members) {
            check(&format!("testp.{class}.f32 p, a; {flag}"), &[32], 32, &[(&[x], want)]);
        }
    }
}
