//! Matrix instructions against plain matrix products, with the fragments laid out as the ISA's figures say.

use half::{bf16, f16};
use moac_emulator::{Launch, Memory, Module, launch};

use crate::Random;

/// Runs `body` on one warp over `input`; the first `bytes` of the output.
fn warp(body: &str, input: &[u8], bytes: usize) -> (Vec<u8>, moac_emulator::Report) {
    let text = format!(
        ".version 9.0\n.target sm_90a\n.address_size 64\n.visible .entry k(.param .u64 in, .param .u64 out) {{\n\
         .reg .b32 %r<40>; .reg .f32 %f<20>; .reg .b64 %rd<20>; .reg .pred %p<5>; .shared .align 128 .b8 s[2048];\n\
         ld.param.u64 %rd1, [in]; ld.param.u64 %rd2, [out]; mov.u32 %r1, %tid.x; mov.u32 %r2, s;\n{body}\nret; }}"
    );
    let module = Module::parse(&text).unwrap_or_else(|e| panic!("{e}"));
    let mut memory = Memory::new();
    let i = memory.alloc_from("in", input);
    let o = memory.alloc_filled("out", bytes as u64, 0);
    let l = Launch::new("k", 1, 32).param(&i.to_le_bytes()).param(&o.to_le_bytes());
    let report = launch(&module, &mut memory, &l).unwrap();
    assert!(report.clean(), "{:?}", report.findings);
    (memory.read(o, bytes).unwrap(), report)
}

fn words(data: &[u8]) -> Vec<u32> {
    data.chunks_exact(4).map(|w| u32::from_le_bytes(w.try_into().unwrap())).collect()
}

/// Lane l loads words `n * l ..` of the input into registers %r{from}.. .
fn load(n: usize, from: usize, at: usize) -> String {
    let mut text = format!("mul.wide.u32 %rd4, %r1, {}; add.s64 %rd5, %rd1, %rd4;\n", 4 * n);
    for i in 0..n {
        text += &format!("ld.global.u32 %r{}, [%rd5+{}];\n", from + i, at + 4 * i);
    }
    text
}

fn store(n: usize, from: usize) -> String {
    let mut text = format!("mul.wide.u32 %rd6, %r1, {}; add.s64 %rd7, %rd2, %rd6;\n", 4 * n);
    for i in 0..n {
        text += &format!("st.global.u32 [%rd7+{}], %r{};\n", 4 * i, from + i);
    }
    text
}

/// The (row, k) of element `i` of register `r` of lane `l` of an A fragment with `e` elements per register.
fn a_place(l: usize, r: usize, i: usize, e: usize) -> (usize, usize) {
    (l / 4 + if r % 2 == 1 { 8 } else { 0 }, (l % 4) * e + i + if r >= 2 { 4 * e } else { 0 })
}

/// The (k, column) of a B fragment.
fn b_place(l: usize, r: usize, i: usize, e: usize) -> (usize, usize) {
    ((l % 4) * e + i + 4 * e * r, l / 4)
}

fn c_place(l: usize, i: usize) -> (usize, usize) {
    (l / 4 + if i >= 2 { 8 } else { 0 }, (l % 4) * 2 + i % 2)
}

/// E4M3 and E5M2 from their definitions: sign, exponent with bias 7 or 15, mantissa of 3 or 2 bits.
fn fp8(bits: u8, e4m3: bool) -> f64 {
    let (m_bits, bias) = if e4m3 { (3, 7) } else { (2, 15) };
    let (m, e) = (bits & ((1 << m_bits) - 1), i32::from(bits >> m_bits & ((1 << (7 - m_bits)) - 1)));
    let scale = f64::from(1 << m_bits);
    let v = if e == 0 {
        f64::from(m) / scale * 2f64.powi(1 - bias)
    } else {
        (1.0 + f64::from(m) / scale) * 2f64.powi(e - bias)
    };
    if bits & 0x80 != 0 { -v } else { v }
}

#[test]
fn products() {
    type Decode = fn(u32) -> f64;
    let h: Decode = |v| f16::from_bits(v as u16).to_f64();
    let b: Decode = |v| bf16::from_bits(v as u16).to_f64();
    let e4: Decode = |v| fp8(v as u8, true);
    let e5: Decode = |v| fp8(v as u8, false);
    let s8: Decode = |v| f64::from(v as u8 as i8);
    let u8s: Decode = |v| f64::from(v as u8);
    let table: [(&str, usize, Decode, Decode, usize, &str); 12] = [
        ("m16n8k16.row.col.f32.bf16.bf16.f32", 16, b, b, 2, "f32"),
        ("m16n8k8.row.col.f32.bf16.bf16.f32", 8, b, b, 2, "f32"),
        ("m16n8k16.row.col.f32.f16.f16.f32", 16, h, h, 2, "f32"),
        ("m16n8k8.row.col.f32.f16.f16.f32", 8, h, h, 2, "f32"),
        ("m16n8k16.row.col.f16.f16.f16.f16", 16, h, h, 2, "f16"),
        ("m16n8k8.row.col.f16.f16.f16.f16", 8, h, h, 2, "f16"),
        ("m16n8k32.row.col.f32.e4m3.e4m3.f32", 32, e4, e4, 1, "f32"),
        ("m16n8k32.row.col.f32.e5m2.e4m3.f32", 32, e5, e4, 1, "f32"),
        ("m16n8k16.row.col.f32.e4m3.e5m2.f32", 16, e4, e5, 1, "f32"),
        ("m16n8k32.row.col.s32.s8.s8.s32", 32, s8, s8, 1, "s32"),
        ("m16n8k32.row.col.s32.u8.s8.s32", 32, u8s, s8, 1, "s32"),
        ("m16n8k16.row.col.satfinite.s32.s8.u8.s32", 16, s8, u8s, 1, "s32"),
    ];
    let mut random = Random(17);
    for (shape, k, da, db, bytes, acc) in table {
        let e = 4 / bytes;
        let na = 16 * k * bytes / 128;
        let nc = if acc == "f16" { 2 } else { 4 };
        let n = na + na / 2 + nc;
        // Small values: halves in [-2, 2), fp8 without NaN, any integer.
        let mut element = |d: Decode| loop {
            let v = random.next() as u32 & if bytes == 2 { 0xffff } else { 0xff };
            let x = d(v);
            if acc == "s32" || (x.abs() < 2.0 && (x == 0.0 || x.abs() > 1e-3)) {
                return v;
            }
        };
        let mut a = vec![vec![0.0; k]; 16];
        let mut bm = vec![vec![0.0; 8]; k];
        let mut c = vec![vec![0.0; 8]; 16];
        let mut lanes = vec![vec![0u32; n]; 32];
        for (l, lane) in lanes.iter_mut().enumerate() {
            for (r, word) in lane[..na].iter_mut().enumerate() {
                for i in 0..e {
                    let v = element(da);
                    let (row, col) = a_place(l, r, i, e);
                    a[row][col] = da(v);
                    *word |= v << (8 * bytes * i);
                }
            }
            for r in 0..na / 2 {
                for i in 0..e {
                    let v = element(db);
                    let (row, col) = b_place(l, r, i, e);
                    bm[row][col] = db(v);
                    lane[na + r] |= v << (8 * bytes * i);
                }
            }
            for i in 0..4 {
                let v = (l as f32 - 16.0) / 4.0 + i as f32;
                let (row, col) = c_place(l, i);
                c[row][col] = v.into();
                match acc {
                    "f32" => lane[na + na / 2 + i] = v.to_bits(),
                    "s32" => {
                        lane[na + na / 2 + i] = v as i32 as u32;
                        c[row][col] = f64::from(v as i32);
                    }
                    _ => lane[na + na / 2 + i / 2] |= u32::from(f16::from_f32(v).to_bits()) << (16 * (i % 2)),
                }
            }
        }
        let input: Vec<u8> = lanes.iter().flatten().flat_map(|w| w.to_le_bytes()).collect();
        let list =
            |from: usize, n: usize| (from..from + n).map(|i| format!("%r{i}")).collect::<Vec<_>>().join(", ");
        let body = format!(
            "{} mma.sync.aligned.{shape} {{{}}}, {{{}}}, {{{}}}, {{{}}};\n{}",
            load(n, 10, 0),
            list(30, nc),
            list(10, na),
            list(10 + na, na / 2),
            list(10 + na + na / 2, nc),
            store(nc, 30)
        );
        let (out, report) = warp(&body, &input, 32 * nc * 4);
        assert_eq!(report.counters.matrix_flops, 2 * 16 * 8 * k as u64);
        let out = words(&out);
        for l in 0..32 {
            for i in 0..4 {
                let (row, col) = c_place(l, i);
                let exact: f64 = c[row][col] + (0..k).map(|kk| a[row][kk] * bm[kk][col]).sum::<f64>();
                let size: f64 =
                    c[row][col].abs() + (0..k).map(|kk| (a[row][kk] * bm[kk][col]).abs()).sum::<f64>();
                let (got, bound) = match acc {
                    "f32" => (f32::from_bits(out[l * nc + i]).into(), size * k as f64 * 2f64.powi(-24)),
                    "s32" => (f64::from(out[l * nc + i] as i32), 0.0),
                    _ => (
                        f16::from_bits((out[l * nc + i / 2] >> (16 * (i % 2))) as u16).to_f64(),
                        size * 2f64.powi(-11),
                    ),
                };
                assert!((got - exact).abs() <= bound, "{shape} ({row}, {col}): {got}, exact {exact}");
            }
        }
    }
}

/// A matrix of 16-bit numbers row * 256 + column, in rows of 16 bytes in shared memory.
fn fill_shared() -> String {
    // Lane l writes row l: columns 0..8 of matrix l / 8.
    let mut text = String::from("mad.lo.u32 %r3, %r1, 16, %r2;\n");
    for i in 0..4 {
        text += &format!(
            "shl.b32 %r4, %r1, 8; add.u32 %r4, %r4, {}; add.u32 %r5, %r4, 1; shl.b32 %r5, %r5, 16; or.b32 %r4, %r4, %r5; st.shared.u32 [%r3+{}], %r4;\n",
            2 * i,
            4 * i
        );
    }
    text + "bar.warp.sync -1;\n"
}

#[test]
fn ldmatrix() {
    for (n, trans) in [(1, false), (2, false), (4, false), (1, true), (2, true), (4, true)] {
        let list = (10..10 + n).map(|i| format!("%r{i}")).collect::<Vec<_>>().join(", ");
        let t = if trans { ".trans" } else { "" };
        let body = format!(
            "{}ldmatrix.sync.aligned.m8n8.x{n}{t}.shared.b16 {{{list}}}, [%r3];\n{}",
            fill_shared(),
            store(n, 10)
        );
        let (out, report) = warp(&body, &[0; 4], 128 * n);
        assert_eq!(report.counters.shared.read_wavefronts, n as u64);
        for (l, lane) in words(&out).chunks(n).enumerate() {
            for (m, w) in lane.iter().enumerate() {
                for i in 0..2 {
                    let (row, col) = if trans { (2 * (l % 4) + i, l / 4) } else { (l / 4, 2 * (l % 4) + i) };
                    assert_eq!(
                        w >> (16 * i) & 0xffff,
                        ((8 * m + row) * 256 + col) as u32,
                        "x{n}{t} lane {l}"
                    );
                }
            }
        }
    }
}

#[test]
fn stmatrix_undoes_ldmatrix_and_movmatrix_transposes() {
    for t in ["", ".trans"] {
        let body = format!(
            "{}ldmatrix.sync.aligned.m8n8.x4{t}.shared.b16 {{%r10, %r11, %r12, %r13}}, [%r3];\nbar.warp.sync -1; add.u32 %r6, %r3, 1024;\n\
             stmatrix.sync.aligned.m8n8.x4{t}.shared.b16 [%r6], {{%r10, %r11, %r12, %r13}};\nbar.warp.sync -1;\n\
             ld.shared.v4.u32 {{%r20, %r21, %r22, %r23}}, [%r6];\n{}",
            fill_shared(),
            store(4, 20)
        );
        let (out, _) = warp(&body, &[0; 4], 512);
        for (i, w) in words(&out).iter().enumerate() {
            let (row, col) = (i / 4, 2 * (i % 4));
            assert_eq!(*w as usize, (row * 256 + col) | ((row * 256 + col + 1) << 16), "stmatrix{t}");
        }
    }
    let body = format!(
        "{}ldmatrix.sync.aligned.m8n8.x1.shared.b16 {{%r10}}, [%r3];\nmovmatrix.sync.aligned.m8n8.trans.b16 %r11, %r10;\n{}",
        fill_shared(),
        store(1, 11)
    );
    for (l, w) in words(&warp(&body, &[0; 4], 128).0).iter().enumerate() {
        let (row, col) = (2 * (l % 4), l / 4);
        assert_eq!(*w as usize, (row * 256 + col) | (((row + 1) * 256 + col) << 16));
    }
}
