//! PTX that somebody made to hurt: reading it takes time and memory in proportion to its length.

use std::fmt::Write;
use std::time::{Duration, Instant};

use moac_emulator::Module;

fn kernel(body: &str) -> String {
    format!(
        ".version 8.0\n.target sm_90\n.address_size 64\n.visible .entry k() {{\n.reg .pred %p<2>;\n{body}\nret;\n}}\n"
    )
}

fn parse(source: &str) -> Result<Module, String> {
    let start = Instant::now();
    let parsed = Module::parse(source).map_err(|error| error.to_string());
    assert!(start.elapsed() < Duration::from_secs(20), "{} bytes took {:?}", source.len(), start.elapsed());
    parsed
}

#[test]
fn registers_and_calls_beyond_what_a_file_can_need() {
    let needs = "more registers and inlined instructions than a file of this length can need";
    let error = parse(&kernel(".reg .b32 %r<1048576>;")).unwrap_err();
    assert!(error.contains(needs), "{error}");
    let error = parse(&kernel(&".reg .b32 %r<60000>;\n".repeat(40))).unwrap_err();
    assert!(error.contains(needs), "{error}");
    let blocks = kernel(&"{ .reg .b64 %rd<60000>; }\n".repeat(40));
    assert!(parse(&blocks).unwrap_err().contains(needs));
    // Every function calls the one before twice: what is inlined doubles with each.
    let mut functions = ".func f0() { ret; }\n".to_owned();
    for n in 0..31 {
        writeln!(functions, ".func f{}() {{ call f{n}; call f{n}; ret; }}", n + 1).unwrap();
    }
    let calls = kernel("call f31;").replace(".visible", &format!("{functions}.visible"));
    assert!(parse(&calls).unwrap_err().contains(needs));
    assert!(parse(&kernel(".reg .b32 %r<60000>;")).is_ok());
}

#[test]
fn branches_in_linear_time() {
    let count = 100_000;
    let loops: String = (0..count).fold(String::new(), |mut text, n| {
        writeln!(text, "$L{n}:\n@%p1 bra $L{n};").unwrap();
        text
    });
    assert!(parse(&kernel(&loops)).is_ok());
    let pairs: String = (0..count / 2).fold(String::new(), |mut text, n| {
        writeln!(text, "$A{n}:\n@%p1 bra $B{n};\nbar.sync 0;\n$B{n}:\n@!%p1 bra $A{n};").unwrap();
        text
    });
    assert!(parse(&kernel(&pairs)).is_ok());
    // Loops around loops, far deeper than any compiler nests them.
    let mut nested: String = (0..20_000).fold(String::new(), |mut text, n| {
        writeln!(text, "$N{n}:").unwrap();
        text
    });
    for n in (0..20_000).rev() {
        writeln!(nested, "@%p1 bra $N{n};").unwrap();
    }
    assert!(parse(&kernel(&nested)).is_ok());
}

#[test]
fn variables_in_linear_time() {
    let mut source = ".version 8.0\n.target sm_90\n.address_size 64\n.global .b64 v0 = 0;\n".to_owned();
    for n in 1..50_000 {
        writeln!(source, ".global .b64 v{n} = v{};", n - 1).unwrap();
    }
    assert!(parse(&source).is_ok());
    assert!(parse(&source.replace("v77;", "nosuch;")).unwrap_err().contains("`nosuch`"));
}
