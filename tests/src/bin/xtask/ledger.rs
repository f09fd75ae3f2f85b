//! The GPU ledger: which of the shipped kernels have run on silicon, byte for byte as they are now.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use moac_compiler::fetch;
use moac_compiler::ledger::Ledger;
use moac_runtime::arch::Arch;
use moac_runtime::digest::Digest;

use super::{Result, nvrtc, root, validate};

/// The architectures whose kernels the support matrix says have run on a GPU. The others are compiled only.
const PROVEN: [Arch; 2] = [Arch::Sm90, Arch::Sm90a];

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Drop the entries of kernels that are no longer shipped
    Prune,
}

/// A shipped kernel.
struct Kernel {
    name: String,
    arch: Arch,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let mut ledger = Ledger::read(&path())?;
    let shipped = shipped()?;
    if let Some(Action::Prune) = args.action {
        let dropped = ledger.prune(&shipped.keys().copied().collect::<BTreeSet<_>>());
        ledger.write(&path())?;
        println!("{dropped} entries dropped, {} left", ledger.len());
        return Ok(());
    }
    report(&ledger, &shipped);
    Ok(())
}

/// Fails while a kernel that should have run on a GPU has not.
pub(super) fn release() -> Result<()> {
    let ledger = Ledger::read(&path())?;
    match report(&ledger, &shipped()?) {
        0 => Ok(()),
        unproven => Err(format!("{unproven} kernels are proven by the emulator only").into()),
    }
}

fn path() -> PathBuf {
    root().join("tests/gpu/ledger.json")
}

/// Every shipped kernel by its cubin. Plans may share kernels.
fn shipped() -> Result<BTreeMap<Digest, Kernel>> {
    let nvrtc = nvrtc::ensure()?;
    if nvrtc.build() != fetch::NVRTC.version {
        let (found, pinned) = (nvrtc.build(), fetch::NVRTC.version);
        return Err(format!("the ledger is of NVRTC {pinned}, found {found}: `moac doctor --fetch`").into());
    }
    let mut kernels = BTreeMap::new();
    for (shipped, built) in validate::build(&nvrtc, &PROVEN, None)? {
        for kernel in &built.artifact.manifest().kernels {
            let name = format!("{} for {} ({})", kernel.symbol, kernel.arch, shipped.name);
            let cubin = Digest::of(built.artifact.cubin(kernel));
            kernels.insert(cubin, Kernel { name, arch: kernel.arch });
        }
    }
    Ok(kernels)
}

/// Prints the unproven ones and how many there are of each architecture.
fn report(ledger: &Ledger, shipped: &BTreeMap<Digest, Kernel>) -> usize {
    let unproven: Vec<&Kernel> =
        shipped.iter().filter(|(cubin, _)| ledger.get(**cubin).is_none()).map(|(_, kernel)| kernel).collect();
    let mut names: Vec<&str> = unproven.iter().map(|kernel| kernel.name.as_str()).collect();
    names.sort_unstable();
    for name in names {
        println!("only the emulator has proven {name}");
    }
    for arch in PROVEN {
        let of = |kernel: &&Kernel| kernel.arch == arch;
        let (all, left) = (shipped.values().filter(of).count(), unproven.iter().copied().filter(of).count());
        println!("{arch}: {} of {all} kernels have run on a GPU", all - left);
    }
    let archs = Arch::ALL.into_iter().filter(|arch| !PROVEN.contains(arch));
    println!("compiled only: {}", archs.map(Arch::name).collect::<Vec<_>>().join(", "));
    unproven.len()
}
