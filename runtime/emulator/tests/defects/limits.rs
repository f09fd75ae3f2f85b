//! Hangs, traps, and what is refused before anything runs.

use moac_emulator::{Fault, FindingKind as K, Launch, Memory, Module, launch};

use crate::{CTA, WARP, clean, found, module, report};

#[test]
fn hangs_and_traps() {
    let f = found("LOOP: add.u32 %r4, %r4, 1;\nbra LOOP;", CTA, K::Hang, "");
    assert!(f.detail.contains("20000"));
    assert!(!report("trap;", WARP, 0).completed);
    found("setp.eq.u32 %p1, %r1, 7;\n@%p1 trap;", WARP, K::Trap, "trap");
    clean("setp.eq.u32 %p1, %r1, 99;\n@%p1 trap;", WARP);
    found("mov.u32 %r4, 2;\nt: .branchtargets A, B; brx.idx %r4, t; A: B:", WARP, K::Misuse, "brx.idx");
}

#[test]
fn findings_are_counted_once_per_line() {
    let r = report(
        "mul.wide.u32 %rd2, %r1, 4; add.s64 %rd2, %rd1, %rd2;\nld.global.u32 %r4, [%rd2+4096];",
        WARP,
        0,
    );
    assert_eq!((r.findings.len(), r.findings[0].count), (1, 32));
    let text = r.findings[0].to_string();
    assert_eq!(
        text.replace(&format!("{:#x}", r.findings[0].access.unwrap().1), "A"),
        "OutOfBounds in k at PTX line 7: `ld.global.u32 %r4, [%rd2+4096];`, thread 0 of CTA (0, 0, 0), Global address A (data+4096): 4 bytes that are not inside one allocation (32 times)"
    );
}

#[test]
fn what_the_emulator_does_not_know_is_named() {
    let head = ".version 9.0\n.target sm_90a\n.address_size 64\n.visible .entry k() {\n.reg .b32 %r<4>; .reg .f32 %f<4>; .reg .b64 %rd<4>; .reg .pred %p<4>;\n";
    for (body, message) in [
        ("tex.2d.v4.f32.f32 %r1, %r2;", "does not know the instruction `tex.2d.v4.f32.f32`"),
        ("add.rn.wonder.f32 %f1, %f2, %f3;", "does not know the modifier `.wonder`"),
        ("add.s32 %r1, %r2;", "does not know `add.s32` with 1 operands"),
        ("add.s32 %r1, %r2, %q1;", "`%q1` is not declared"),
        ("add.s32 %r1, %r2, %rd9;", "`%rd9` is not declared"),
        ("add.s64 %rd1, %rd2, %r3;", "register `%r3` has 32 bits, the instruction reads 64"),
        ("bra NOWHERE;", "`NOWHERE` is not a label in scope"),
        ("@%r1 bra X; X:", "`%r1` is not a predicate"),
        ("rcp.f32 %f1, %f2;", "without a rounding mode"),
        ("call f, (%r1);", "has no body here"),
        ("mov.u32 %r1, 5", "expected `,`"),
        (".maybe;", "does not know the directive `.maybe`"),
        ("cp.async.bulk.wait_everything 0;", "does not know the instruction"),
    ] {
        let e = Module::parse(&format!("{head}{body}\nret; }}")).expect_err(body);
        assert!(e.message.contains(message), "{body}: {e}");
        assert!(e.line == 6 || e.line == 7, "{body}: line {}", e.line);
    }
    for text in [
        "",
        ".version 9.0\n.entry k() { add",
        ".entry",
        ".global .b8 x[99999999999999];",
        "}",
        ".entry k() { {{{{{{{{",
        "\u{e9}",
    ] {
        // Refused or empty, and never a panic.
        if let Ok(m) = Module::parse(text) {
            assert_eq!(m.kernels().count(), 0);
        }
    }
    let recursive = ".version 9.0\n.func f() { call f; ret; }\n.visible .entry k() { call f; ret; }";
    assert!(Module::parse(recursive).unwrap_err().message.contains("recursion"));
}

#[test]
fn launches_that_cannot_start() {
    let m = module("mov.u32 %r4, 1;");
    let go = |l: &Launch| launch(&m, &mut Memory::new(), l).map(|r| r.clean());
    let good = Launch::new("k", 1, 32).param(&[0; 8]);
    assert_eq!(go(&good), Ok(true));
    assert!(matches!(go(&Launch::new("kk", 1, 32)), Err(Fault::UnknownKernel(..))));
    assert!(matches!(go(&Launch::new("k", 1, 32)), Err(Fault::Parameters { expected: 8, found: 0, .. })));
    for (grid, block) in [(0, 32), (1, 0), (1, 1025)] {
        assert!(matches!(go(&Launch::new("k", grid, block).param(&[0; 8])), Err(Fault::Shape { .. })));
    }
    let mut some = good.clone();
    some.ctas = Some(vec![(1, 0, 0)]);
    assert!(matches!(go(&some), Err(Fault::Shape { .. })));
    assert!(matches!(go(&good.dynamic_shared(300 << 10)), Err(Fault::Shared { .. })));
    let text = ".version 9.0\n.visible .entry k() .maxntid 64, 1, 1 { ret; }\n.visible .entry r() .reqntid 8, 2, 1 { ret; }";
    let m = Module::parse(text).unwrap();
    assert!(launch(&m, &mut Memory::new(), &Launch::new("k", 1, 65)).is_err());
    assert!(launch(&m, &mut Memory::new(), &Launch::new("k", 1, 64)).is_ok());
    let mut l = Launch::new("r", 1, 16);
    assert!(launch(&m, &mut Memory::new(), &l).is_err());
    l.block = (8, 2, 1);
    assert!(launch(&m, &mut Memory::new(), &l).is_ok());
}
