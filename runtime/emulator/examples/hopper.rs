//! Runs the tests' Hopper attention kernel once, for a profiler: `cargo run --release -p moac-emulator --example hopper`.

#[allow(dead_code)] // the tests use all of it
#[path = "../tests/hopper/attention.rs"]
mod attention;
#[allow(dead_code)]
#[path = "../tests/hopper/support.rs"]
mod support;

use attention::{Case, PTX};
use moac_emulator::Module;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let module = Module::parse(PTX)?;
    let case = Case { tokens: 512, span: 200, sink: 70, heads: 2, kv_heads: 1 };
    let (report, _) = case.run(&module, &case.inputs(), 1);
    println!("{} warp instructions, {} findings", report.counters.warp_instructions, report.findings.len());
    Ok(())
}
