//! Every kernel on the PTX emulator: small layers whole, the shipped plans' kernels at the edges of their spans.
//!
//! Without `--full` it is what the tests run: three schedules of the small layers, one of the shipped kernels, for one
//! architecture of each family. With it: twenty and three, for every architecture.

use std::time::Instant;

use moac_compiler::verify::session::{Status, Verdict};
use moac_compiler::verify::{Candidate, cases};
use moac_runtime::arch::Arch;
use moac_runtime::launch::Phase;
use moac_tests::emulate::{FAMILIES, SHAPES, failures, verdicts};

use super::{Result, bar, nvrtc, validate};

#[derive(clap::Args)]
pub(super) struct Args {
    /// More schedules, and every architecture: for hours of an idle machine
    #[arg(long)]
    full: bool,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let nvrtc = nvrtc::ensure()?;
    let mut wrong = small(if args.full { 20 } else { 3 });
    let archs = if args.full { &Arch::ALL[..] } else { &FAMILIES };
    let schedules: Vec<u64> = (0..if args.full { 3 } else { 1 }).collect();
    for (shipped, built) in validate::build(&nvrtc, archs, None)? {
        let start = Instant::now();
        let candidates = Candidate::of_artifact(&built.artifact, |_| true)?;
        let bar = bar(candidates.len(), "emulating");
        let verdicts = verdicts(&candidates, &schedules, &|_| bar.inc(1));
        bar.finish_and_clear();
        let failed: Vec<&Verdict> =
            verdicts.iter().filter(|verdict| verdict.status != Status::Passed).collect();
        for verdict in &failed {
            for failure in &verdict.failures {
                println!("{} for {}: {}: {}", verdict.symbol, verdict.arch, failure.case, failure.failure);
            }
        }
        println!(
            "{}: {} of {} kernels pass, {} rows compared, {:.0?}",
            shipped.name,
            verdicts.len() - failed.len(),
            verdicts.len(),
            verdicts.iter().map(|verdict| verdict.rows).sum::<usize>(),
            start.elapsed(),
        );
        wrong += failed.len();
    }
    if wrong == 0 { Ok(()) } else { Err(format!("{wrong} kernels are wrong").into()) }
}

/// The small layers under so many schedules; how many kernels are wrong.
fn small(schedules: u64) -> usize {
    let mut wrong = 0;
    for shape in &SHAPES {
        for phase in [Phase::Prefill, Phase::Decode] {
            let start = Instant::now();
            for arch in FAMILIES {
                let candidate = shape.candidate(arch, phase);
                let cases = cases::whole(&candidate);
                let found: Vec<_> =
                    (0..schedules).flat_map(|schedule| failures(&candidate, &cases, schedule)).collect();
                for failure in &found {
                    println!("{}: {failure}", candidate.symbol);
                }
                let (name, phase) = (shape.name, phase.name());
                println!(
                    "{phase} of {name} for {arch}: {} failures in {} cases under {schedules} schedules, {:.0?}",
                    found.len(),
                    cases.len(),
                    start.elapsed(),
                );
                wrong += usize::from(!found.is_empty());
            }
        }
    }
    wrong
}
