//! Known answers: every instruction the emulator implements, against values worked out from the ISA's definitions.
//!
//! Each row of a table is one lane of a warp that loads its inputs, runs the snippet once and stores `d`.

#![allow(
    clippy::float_cmp,
    clippy::format_push_string,
    clippy::type_complexity,
    clippy::items_after_statements
)] // tables and exact answers

mod convert;
mod float;
mod half;
mod integer;
mod matrix;
mod memory;
mod warp;

use moac_emulator::{Launch, Memory, Module, launch};

/// The snippet's registers: inputs `a b c e`, result `d`, predicates `p q`, spare `t` (32 bits) and `u` (64 bits).
fn kernel(code: &str, inputs: &[u32], output: u32) -> String {
    let mut text = String::from(
        ".version 9.0\n.target sm_90a\n.address_size 64\n.visible .entry k(.param .u64 in, .param .u64 out) {\n",
    );
    text.push_str(".reg .pred p, q; .reg .b32 t, lane, zero; .reg .b64 u, x, y, o; .reg .b16 h;\n");
    for (name, bits) in ["a", "b", "c", "e"].iter().zip(inputs) {
        text.push_str(&format!(".reg .b{bits} {name};\n"));
    }
    text.push_str(&format!(".reg .b{output} d;\nmov.u32 zero, 0;\nmov.b{output} d, 0;\n"));
    text.push_str("ld.param.u64 x, [in]; ld.param.u64 y, [out]; mov.u32 lane, %laneid; mul.wide.u32 o, lane, 32; add.s64 x, x, o;\n");
    text.push_str("mul.wide.u32 o, lane, 8; add.s64 y, y, o;\n");
    for (i, (name, bits)) in ["a", "b", "c", "e"].iter().zip(inputs).enumerate() {
        text.push_str(&format!("ld.global.b{bits} {name}, [x+{}];\n", 8 * i));
    }
    text.push_str(code);
    text.push_str(&format!("\nst.global.b{output} [y], d; ret; }}\n"));
    text
}

/// Runs a snippet on one warp; lanes beyond the rows repeat the first.
fn run(code: &str, inputs: &[u32], output: u32, rows: &[Vec<u64>]) -> Vec<u64> {
    let text = kernel(code, inputs, output);
    let module = Module::parse(&text).unwrap_or_else(|e| panic!("{code}: {e}"));
    let mut out = Vec::new();
    for rows in rows.chunks(32) {
        let mut data = Vec::new();
        for lane in 0..32 {
            let row = rows.get(lane).unwrap_or(&rows[0]);
            for i in 0..4 {
                data.extend_from_slice(&row.get(i).copied().unwrap_or(0).to_le_bytes());
            }
        }
        let mut memory = Memory::new();
        let x = memory.alloc_from("in", &data);
        let y = memory.alloc_filled("out", 256, 0);
        let report = launch(
            &module,
            &mut memory,
            &Launch::new("k", 1, 32).param(&x.to_le_bytes()).param(&y.to_le_bytes()),
        )
        .unwrap();
        assert!(report.clean(), "{code}: {:?}", report.findings);
        let bytes = memory.read(y, 256).unwrap();
        out.extend(bytes.chunks_exact(8).take(rows.len()).map(|b| u64::from_le_bytes(b.try_into().unwrap())));
    }
    out
}

/// Runs a snippet and compares each row's result; a row is its inputs and the expected `d`.
fn check(code: &str, inputs: &[u32], output: u32, rows: &[(&[u64], u64)]) {
    let ins: Vec<Vec<u64>> = rows.iter().map(|r| r.0.to_vec()).collect();
    for ((row, want), got) in rows.iter().zip(run(code, inputs, output, &ins)) {
        assert_eq!(got, *want, "{code} of {row:x?}: got {got:#x}, want {want:#x}");
    }
}

/// A cheap generator of test inputs.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        (self.0 ^ (self.0 >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 16 ^ self.0 << 20
    }

    /// f32 bits with all kinds of exponents, specials among them.
    fn f32(&mut self) -> u64 {
        let special = [
            0,
            0x8000_0000,
            0x7f80_0000,
            0xff80_0000,
            0x7fc0_0000,
            1,
            0x8000_0001,
            0x007f_ffff,
            0x0080_0000,
            0x3f80_0000,
            0x7f7f_ffff,
        ];
        let v = self.next();
        if v.is_multiple_of(8) {
            special[(v >> 8) as usize % special.len()]
        } else if v % 8 < 4 {
            (v >> 16) & 0xffff_ffff
        } else {
            (v >> 16) & 0x8fff_ffff | 0x3800_0000
        }
    }
}

/// Bits of an f32.
const fn f(x: f32) -> u64 {
    x.to_bits() as u64
}

/// The NaN that the hardware makes.
const NAN: u64 = 0x7fff_ffff;
const INF: u64 = 0x7f80_0000;
