//! f16 and bf16 arithmetic against the `half` crate's conversions of exact results.

use half::{bf16, f16};

use crate::{Random, check, run};

fn h(x: f32) -> u64 {
    f16::from_f32(x).to_bits().into()
}

fn b(x: f32) -> u64 {
    bf16::from_f32(x).to_bits().into()
}

#[test]
fn packed_and_scalar() {
    let pair = |lo: u64, hi: u64| hi << 16 | lo;
    check(
        "add.f16x2 d, a, b;",
        &[32, 32],
        32,
        &[(&[pair(h(1.0), h(2.0)), pair(h(0.5), h(-2.0))], pair(h(1.5), 0))],
    );
    check(
        "mul.bf16x2 d, a, b;",
        &[32, 32],
        32,
        &[(&[pair(b(3.0), b(2.0)), pair(b(0.5), b(-2.0))], pair(b(1.5), b(-4.0)))],
    );
    check(
        "fma.rn.bf16x2 d, a, b, c;",
        &[32, 32, 32],
        32,
        &[(&[pair(b(3.0), b(2.0)), pair(b(0.5), b(-2.0)), pair(b(1.0), b(1.0))], pair(b(2.5), b(-3.0)))],
    );
    check(
        "fma.rn.relu.f16 d, a, b, c;",
        &[16, 16, 16],
        16,
        &[(&[h(2.0), h(-3.0), h(1.0)], 0), (&[h(2.0), h(3.0), h(1.0)], h(7.0))],
    );
    check("fma.rn.sat.f16 d, a, b, c;", &[16, 16, 16], 16, &[(&[h(2.0), h(3.0), h(1.0)], h(1.0))]);
    check("sub.bf16 d, a, b;", &[16, 16], 16, &[(&[b(1.0), b(3.0)], b(-2.0))]);
    check(
        "max.bf16x2 d, a, b;",
        &[32, 32],
        32,
        &[(&[pair(b(3.0), 0x7fc0), pair(b(0.5), b(-2.0))], pair(b(3.0), b(-2.0)))],
    );
    check("min.NaN.f16 d, a, b;", &[16, 16], 16, &[(&[0x7e00, h(1.0)], 0x7fff)]);
    check("neg.bf16x2 d, a;", &[32], 32, &[(&[pair(b(3.0), b(-1.0))], pair(b(-3.0), b(1.0)))]);
    check("abs.f16 d, a;", &[16], 16, &[(&[h(-3.0)], h(3.0))]);
    check("ex2.approx.f16 d, a;", &[16], 16, &[(&[h(3.0)], h(8.0)), (&[h(-1.0)], h(0.5))]);
    check("ex2.approx.ftz.bf16x2 d, a;", &[32], 32, &[(&[pair(b(3.0), b(-1.0))], pair(b(8.0), b(0.5)))]);
    check("tanh.approx.f16 d, a;", &[16], 16, &[(&[0], 0)]);
    check("setp.lt.f16 p, a, b; selp.b32 d, 1, 0, p;", &[16, 16], 32, &[(&[h(-1.0), h(1.0)], 1)]);
    check("setp.geu.bf16 p, a, b; selp.b32 d, 1, 0, p;", &[16, 16], 32, &[(&[0x7fc0, b(1.0)], 1)]);
}

#[test]
fn one_rounding_of_the_exact_result() {
    let mut random = Random(5);
    let rows: Vec<Vec<u64>> = (0..640).map(|_| (0..3).map(|_| random.next() & 0xffff).collect()).collect();
    let nan16 = |x: f16| if x.is_nan() { 0x7fff } else { u64::from(x.to_bits()) };
    for (op, law) in [("add.f16 d, a, b;", 0), ("mul.f16 d, a, b;", 1)] {
        for (r, got) in rows.iter().zip(run(op, &[16; 3], 16, &rows)) {
            // Sums and products of f16 are exact, or rounded harmlessly, in f32.
            let [x, y] = [r[0], r[1]].map(|v| f16::from_bits(v as u16).to_f32());
            let want = nan16(f16::from_f32(if law == 0 { x + y } else { x * y }));
            assert_eq!(got, want, "{op} {r:x?}");
        }
    }
    let nan = |x: bf16| if x.is_nan() { 0x7fff } else { u64::from(x.to_bits()) };
    for (r, got) in rows.iter().zip(run("mul.bf16 d, a, b;", &[16; 3], 16, &rows)) {
        let [x, y] = [r[0], r[1]].map(|v| bf16::from_bits(v as u16).to_f32());
        // Exact in f64; f32 could round twice where it is subnormal.
        let exact = f64::from(x) * f64::from(y);
        if exact == 0.0 || exact.abs() > 1e-36 || exact.is_nan() {
            assert_eq!(got, nan(bf16::from_f32(x * y)), "{r:x?}");
        }
    }
}
