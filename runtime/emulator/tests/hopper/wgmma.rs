//! Known answers of `wgmma`: every n, the element types, operands from shared memory in every layout and from registers, against the plain
//! matrix product in f64.

use std::fmt::Write;

use crate::support::{Numbers, from_bf16, to_bf16};
use moac_emulator::{Launch, Memory, Module, Report, launch};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Type {
    Bf16,
    F16,
    E4m3,
    E5m2,
}

/// How an operand lies in shared memory, before swizzling: rows of `width` bytes (0 for no swizzle), contiguous in k or in rows and columns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Layout {
    width: usize,
    transposed: bool,
    /// The k-step of a wider tile that is multiplied: the descriptor's start advances.
    step: usize,
}

const B128: Layout = Layout { width: 128, transposed: false, step: 0 };

#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) n: usize,
    pub(crate) types: (Type, Type),
    pub(crate) f16: bool,
    pub(crate) a: Option<Layout>,
    pub(crate) b: Layout,
    pub(crate) add: bool,
    pub(crate) negate: (bool, bool),
}

pub(crate) const PLAIN: Case = Case {
    n: 64,
    types: (Type::Bf16, Type::Bf16),
    f16: false,
    a: Some(B128),
    b: B128,
    add: true,
    negate: (false, false),
};

impl Type {
    fn bytes(self) -> usize {
        if matches!(self, Self::Bf16 | Self::F16) { 2 } else { 1 }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::E4m3 => "e4m3",
            Self::E5m2 => "e5m2",
        }
    }

    /// A random element: its bits and its value.
    fn random(self, n: &mut Numbers) -> (u16, f64) {
        let bits = n.next();
        let float = |bits: u64, exponent: u32, mantissa: u32| {
            let (sign, e) = (bits >> (exponent + mantissa) & 1, bits >> mantissa & ((1 << exponent) - 1));
            let m = (bits & ((1 << mantissa) - 1)) as f64 / f64::from(1 << mantissa);
            let bias = (1 << (exponent - 1)) - 1;
            let v = if e == 0 { m * 2f64.powi(1 - bias) } else { (1.0 + m) * 2f64.powi(e as i32 - bias) };
            if sign == 1 { -v } else { v }
        };
        match self {
            Self::Bf16 => {
                let b = to_bf16(n.unit());
                (b, from_bf16(b))
            }
            // Exponents around one, zero included now and then.
            Self::F16 => {
                let b =
                    if bits.is_multiple_of(16) { 0 } else { bits & 0x83ff | (12 + bits / 2048 % 4) << 10 };
                (b as u16, float(b, 5, 10))
            }
            // Below two, so that sums stay in f16's range.
            Self::E4m3 => ((bits & 0xbf) as u16, float(bits & 0xbf, 4, 3)),
            Self::E5m2 => ((bits & 0xbf) as u16, float(bits & 0xbf, 5, 2)),
        }
    }
}

/// A tile's bytes, and the descriptor of the product's part of it. `at(mn, k)` are the elements; `mns` rows or columns.
fn lay_out(l: Layout, mns: usize, t: Type, base: usize, at: impl Fn(usize, usize) -> u16) -> (Vec<u8>, u64) {
    let e = t.bytes();
    let ks = 32 / e;
    let per = if l.width == 0 { 8 } else { l.width / 2 };
    // Leading and stride byte offsets, and where element (mn, k) begins; `k` counts from the product's first.
    let (lead, stride, advance) = match (l.transposed, l.width) {
        (_, 0) => (mns * 16, 128, l.step * mns * 32),
        (false, w) => (16, 8 * w, 32 * l.step),
        (true, w) => ((16 * (l.step + 1)) * w, 8 * w, 16 * w * l.step),
    };
    let place = |mn: usize, k: usize| {
        let byte = match (l.transposed, l.width) {
            (false, 0) => mn / 8 * stride + mn % 8 * 16 + k * e / 16 * lead + k * e % 16 + advance,
            (false, w) => mn * w + k * e + 32 * l.step,
            (true, 0) => mn / 8 * stride + k / 8 * lead + k % 8 * 16 + mn % 8 * 2 + advance,
            (true, w) => mn / per * lead + (16 * l.step + k) * w + mn % per * 2,
        };
        let (row, piece) = (byte / 128 % 8, byte / 16 % 8);
        let mask = if l.width == 0 { 0 } else { l.width / 16 - 1 };
        byte / 128 * 128 + (piece ^ (row & mask)) * 16 + byte % 16
    };
    let mut bytes = Vec::new();
    for mn in 0..mns {
        for k in 0..ks {
            let p = place(mn, k);
            if bytes.len() < p + e {
                bytes.resize((p + e).next_multiple_of(1024), 0x55);
            }
            bytes[p..p + e].copy_from_slice(&at(mn, k).to_le_bytes()[..e]);
        }
    }
    let mode: u64 = match l.width {
        0 => 0,
        128 => 1,
        64 => 2,
        _ => 3,
    };
    let field = |x: usize| (x as u64 & 0x3ffff) >> 4;
    (bytes, field(base + advance) | field(lead) << 16 | field(stride) << 32 | mode << 62)
}

/// Registers of a thread's accumulators.
fn registers(c: &Case) -> usize {
    if c.f16 { c.n / 4 } else { c.n / 2 }
}

fn list(prefix: &str, n: usize) -> String {
    (0..n).map(|i| format!("{prefix}{i}")).collect::<Vec<_>>().join(", ")
}

/// The instruction alone.
pub(crate) fn product(c: &Case) -> String {
    let k = 32 / c.types.0.bytes();
    let a = if c.a.is_some() { "%da".to_owned() } else { format!("{{{}}}", list("%a", 4)) };
    let sign = |n: bool| if n { -1 } else { 1 };
    let mut literals = format!("{}, {}", sign(c.negate.0), sign(c.negate.1));
    if c.types.0.bytes() == 2 {
        if let Some(a) = c.a {
            let _ = write!(literals, ", {}", i32::from(a.transposed));
        }
        let _ = write!(literals, ", {}", i32::from(c.b.transposed));
    }
    let d = if c.f16 { "f16" } else { "f32" };
    let (ta, tb) = (c.types.0.name(), c.types.1.name());
    format!(
        "wgmma.mma_async.sync.aligned.m64n{}k{k}.{d}.{ta}.{tb} {{{}}}, {a}, %db, %add, {literals};",
        c.n,
        list("%d", registers(c))
    )
}

/// A kernel that copies an image into shared memory, and runs `body` between loading and storing the accumulators.
pub(crate) fn kernel(c: &Case, image: usize, body: &str) -> String {
    let d = registers(c);
    let mut s = format!(
        ".version 9.0\n.target sm_90a\n.address_size 64\n.extern .shared .align 1024 .b8 smem[];\n\
         .visible .entry product(.param .u64 p_image, .param .u64 p_in, .param .u64 p_out, .param .u64 p_a, .param .u64 p_b, .param .u32 p_add)\n\
         .maxntid 128, 1, 1\n{{\n.reg .b32 %d<{d}>; .reg .b32 %a<4>; .reg .b32 %r<9>; .reg .b64 %p<9>; .reg .b64 %da, %db; .reg .pred %add, %q;\n\
         ld.param.u64 %p0, [p_image]; ld.param.u64 %p1, [p_in]; ld.param.u64 %p2, [p_out]; ld.param.u64 %da, [p_a]; ld.param.u64 %db, [p_b];\n\
         ld.param.u32 %r0, [p_add]; setp.ne.u32 %add, %r0, 0; mov.u32 %r1, %tid.x; mov.u32 %r2, smem;\n\
         shl.b32 %r3, %r1, 4;\nCOPY:\nsetp.ge.u32 %q, %r3, {image}; @%q bra COPIED;\n\
         cvt.u64.u32 %p3, %r3; add.u64 %p3, %p3, %p0; add.u32 %r4, %r2, %r3;\n\
         ld.global.v4.b32 {{%a0, %a1, %a2, %a3}}, [%p3]; st.shared.v4.b32 [%r4], {{%a0, %a1, %a2, %a3}};\n\
         add.u32 %r3, %r3, 2048; bra COPY;\nCOPIED:\nfence.proxy.async.shared::cta;\nbar.sync 0;\n\
         mul.wide.u32 %p4, %r1, {};\nadd.u64 %p1, %p1, %p4; mul.wide.u32 %p4, %r1, {}; add.u64 %p2, %p2, %p4;\n",
        4 * (d + 4),
        4 * d
    );
    for i in 0..d {
        let _ = writeln!(s, "ld.global.b32 %d{i}, [%p1+{}];", 4 * i);
    }
    for i in 0..4 {
        let _ = writeln!(s, "ld.global.b32 %a{i}, [%p1+{}];", 4 * (d + i));
    }
    s += body;
    for i in 0..d {
        let _ = write!(s, "\nst.global.b32 [%p2+{}], %d{i};", 4 * i);
    }
    s + "\nret;\n}\n"
}

pub(crate) const FENCE: &str = "wgmma.fence.sync.aligned;";
pub(crate) const COMMIT: &str = "wgmma.commit_group.sync.aligned;";
pub(crate) const WAIT: &str = "wgmma.wait_group.sync.aligned 0;";

/// Runs a product; the report and the largest error beyond what rounding allows (negative is fine).
pub(crate) fn run(c: &Case, body: &str, seed: u64) -> (Report, f64) {
    let mut n = Numbers::new(c.n as u64 + 31);
    let k = 32 / c.types.0.bytes();
    let mut fill =
        |t: Type, count: usize| -> Vec<(u16, f64)> { (0..count).map(|_| t.random(&mut n)).collect() };
    let (a, b) = (fill(c.types.0, 64 * k), fill(c.types.1, k * c.n));
    // Accumulators that both widths hold exactly.
    let start: Vec<f64> = (0..64 * c.n).map(|i| ((i * 7) % 33) as f64 / 4.0 - 4.0).collect();

    let base = 1024; // where the emulator's shared memory begins
    let (mut image, da) = match c.a {
        Some(l) => lay_out(l, 64, c.types.0, base, |m, kk| a[m * k + kk].0),
        None => (Vec::new(), 0),
    };
    let (more, db) = lay_out(c.b, c.n, c.types.1, base + image.len(), |m, kk| b[kk * c.n + m].0);
    image.extend(more);

    // Accumulator i of a thread: as the figures of the ISA document show.
    let owner = |t: usize, i: usize| {
        let (warp, lane) = (t / 32, t % 32);
        (16 * warp + lane / 4 + 8 * (i / 2 % 2), 8 * (i / 4) + 2 * (lane % 4) + i % 2)
    };
    let half = |v: f64| -> u16 {
        // Quarters up to 8 are exact.
        let m = v.abs();
        let e = if m == 0.0 { return 0 } else { m.log2().floor() };
        (u16::from(v < 0.0) << 15) | ((e as i32 + 15) as u16) << 10 | ((m / e.exp2() - 1.0) * 1024.0) as u16
    };
    let d = registers(c);
    let mut input = Vec::new();
    for t in 0..128 {
        for r in 0..d {
            let v = |i| {
                let (row, col) = owner(t, i);
                start[row * c.n + col]
            };
            let word = if c.f16 {
                u32::from(half(v(2 * r))) | u32::from(half(v(2 * r + 1))) << 16
            } else {
                (v(r) as f32).to_bits()
            };
            input.extend(word.to_le_bytes());
        }
        let (warp, lane, per) = (t / 32, t % 32, 4 / c.types.0.bytes());
        for r in 0..4 {
            let row = 16 * warp + lane / 4 + 8 * (r % 2);
            let from = lane % 4 * per + r / 2 * 4 * per;
            let word = (0..per).fold(0u32, |w, e| w | u32::from(a[row * k + from + e].0) << (32 / per * e));
            input.extend(word.to_le_bytes());
        }
    }
    let module = Module::parse(&kernel(c, image.len(), body)).unwrap();
    let mut memory = Memory::new();
    let (pi, pin) = (memory.alloc_from("image", &image), memory.alloc_from("in", &input));
    let out = memory.alloc("out", 128 * 4 * d as u64);
    let mut l = Launch::new("product", 1, 128).dynamic_shared(image.len() as u32 + 1024).schedule(seed);
    for p in [pi, pin, out, da, db] {
        l = l.param(&p.to_le_bytes());
    }
    let report = launch(&module, &mut memory, &l.param(&u32::from(c.add).to_le_bytes())).unwrap();

    let got = memory.read(out, 128 * 4 * d).unwrap();
    let sign = if c.negate.0 == c.negate.1 { 1.0 } else { -1.0 };
    let mut worst = f64::NEG_INFINITY;
    for t in 0..128 {
        for i in 0..c.n / 2 {
            let (row, col) = owner(t, i);
            let terms: Vec<f64> = (0..k).map(|x| sign * a[row * k + x].1 * b[x * c.n + col].1).collect();
            let first = if c.add { start[row * c.n + col] } else { 0.0 };
            let exact = first + terms.iter().sum::<f64>();
            let size = first.abs() + terms.iter().map(|v| v.abs()).sum::<f64>();
            let word = |at: usize| u32::from_le_bytes([got[at], got[at + 1], got[at + 2], got[at + 3]]);
            let (v, allowed) = if c.f16 {
                let h = (word(4 * (t * d + i / 2)) >> (16 * (i % 2))) as u16;
                let (e, m) = (h >> 10 & 31, f64::from(h & 1023) / 1024.0);
                let v = if e == 0 { m * 2f64.powi(-14) } else { (1.0 + m) * 2f64.powi(i32::from(e) - 15) };
                (if h >> 15 == 1 { -v } else { v }, size * 2f64.powi(-11) + 2f64.powi(-24))
            } else {
                (f64::from(f32::from_bits(word(4 * (t * d + i)))), size * k as f64 * 2f64.powi(-24))
            };
            worst = worst.max((v - exact).abs() - allowed);
        }
    }
    (report, worst)
}

fn check(c: &Case, seed: u64) {
    let body = [FENCE, &product(c), COMMIT, WAIT].join("\n");
    let (report, over) = run(c, &body, seed);
    let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    assert!(report.clean(), "{c:?}: {findings:?}");
    assert!(over <= 0.0, "{c:?} is off by {over} more than rounding allows");
    let k = 32 / c.types.0.bytes();
    assert_eq!(report.counters.matrix_flops, (2 * 64 * c.n * k) as u64);
}

#[test]
fn every_n() {
    for n in (8..=256).step_by(8) {
        check(&Case { n, add: n % 16 == 0, ..PLAIN }, n as u64);
    }
}

#[test]
fn every_type_and_accumulator() {
    use Type::{Bf16, E4m3, E5m2, F16};
    for types in [(Bf16, Bf16), (F16, F16), (E4m3, E4m3), (E4m3, E5m2), (E5m2, E4m3), (E5m2, E5m2)] {
        for f16 in [false, true] {
            if f16 && types.0 == Bf16 {
                continue;
            }
            for a in [Some(B128), None] {
                for (add, negate) in [
                    (true, (false, false)),
                    (false, (true, false)),
                    (true, (false, true)),
                    (true, (true, true)),
                ] {
                    check(&Case { n: 24, types, f16, a, add, negate, ..PLAIN }, 5);
                }
            }
        }
    }
}

#[test]
fn every_layout() {
    for width in [0, 32, 64, 128] {
        for transposed in [false, true] {
            for step in 0..2 {
                // A row of 32 bytes holds one step only.
                if width == 32 && !transposed && step > 0 {
                    continue;
                }
                let l = Layout { width, transposed, step };
                for n in [8, 64, 192] {
                    // A tile that is contiguous in columns has whole rows of them.
                    if !transposed || width == 0 || n % (width / 2) == 0 {
                        check(&Case { n, b: l, ..PLAIN }, 1);
                    }
                }
                check(&Case { a: Some(l), ..PLAIN }, 2);
                check(&Case { types: (Type::F16, Type::F16), a: Some(l), b: l, n: 128, ..PLAIN }, 3);
                if !transposed {
                    check(&Case { types: (Type::E5m2, Type::E4m3), a: Some(l), b: l, n: 40, ..PLAIN }, 4);
                }
            }
        }
    }
}

#[test]
fn products_follow_each_other() {
    // Two of one shape add up without a fence between; the sum is that of one with twice the sign.
    let c = PLAIN;
    let p = product(&c);
    for seed in 0..20 {
        let negated = product(&Case { negate: (true, false), ..c });
        let body = [FENCE, &p, &p, COMMIT, &negated, COMMIT, WAIT].join("\n");
        let (report, over) = run(&c, &body, seed);
        assert!(report.clean(), "{:?}", report.findings);
        assert!(over <= 1e-5, "{over}");
    }
}
