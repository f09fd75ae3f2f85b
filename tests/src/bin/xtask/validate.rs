//! The real compiler over every generated source: snapshots show the text, this shows that it compiles clean.

use std::num::NonZeroUsize;
use std::sync::atomic::AtomicBool;

use moac_compiler::build::{Builder, Built};
use moac_compiler::cache::Cache;
use moac_compiler::nvrtc::Nvrtc;
use moac_runtime::arch::Arch;
use moac_runtime::artifact::Resources;

use super::shipped::{self, Shipped};
use super::{Result, bar, nvrtc};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Architectures [default: all]
    #[arg(long = "arch", value_delimiter = ',')]
    archs: Vec<Arch>,
    /// Compilations at once [default: one per core]
    #[arg(short, long)]
    jobs: Option<NonZeroUsize>,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let archs = if args.archs.is_empty() { Arch::ALL.to_vec() } else { args.archs.clone() };
    let nvrtc = nvrtc::ensure()?;
    let mut kernels = 0;
    let mut warned = 0;
    for (shipped, built) in build(&nvrtc, &archs, args.jobs)? {
        let found = &built.artifact.manifest().kernels;
        let most =
            |of: fn(&Resources) -> u32| found.iter().map(|kernel| of(&kernel.resources)).max().unwrap_or(0);
        println!(
            "{}: {} kernels, at most {} registers, no spills and no stack beyond what is declared",
            shipped.name,
            found.len(),
            most(|resources| resources.registers),
        );
        kernels += found.len();
        for (kernel, warnings) in found.iter().zip(&built.warnings) {
            for warning in warnings {
                println!("  {} for {}: {warning}", kernel.symbol, kernel.arch);
                warned += 1;
            }
        }
    }
    println!("{kernels} kernels with NVRTC {}", nvrtc.build());
    if warned == 0 { Ok(()) } else { Err(format!("{warned} warnings").into()) }
}

/// Compiles everything that is shipped, through the cache.
pub(super) fn build(
    nvrtc: &Nvrtc,
    archs: &[Arch],
    jobs: Option<NonZeroUsize>,
) -> Result<Vec<(Shipped, Built)>> {
    let shipped = shipped::all(archs)?;
    let bar = bar(shipped.iter().map(|shipped| shipped.lowered.kernels.len()).sum(), "compiling");
    let stop = AtomicBool::new(false);
    let cache = Cache::of_this_machine();
    let progress = |source: &moac_compiler::nvrtc::Source, _| {
        bar.set_message(source.symbol.clone());
        bar.inc(1);
    };
    let builder = Builder { nvrtc, cache: &cache, jobs, stop: &stop, progress: &progress };
    let mut all = Vec::new();
    for shipped in shipped {
        let built = builder
            .build(&shipped.plan, &shipped.lowered)
            .map_err(|error| format!("{}: {error}", shipped.name))?;
        all.push((shipped, built));
    }
    bar.finish_and_clear();
    Ok(all)
}
