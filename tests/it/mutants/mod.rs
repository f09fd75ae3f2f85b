//! Whether a defect in a kernel would be found: each seeded one must make the emulator's verification fail.
//!
//! A mutant is an edit of the headers that the small layers are compiled from. It is found if any launch of any layer
//! that it could matter to fails: a wrong result, a finding of the emulator, or more bytes or FLOPs than the bounds.

mod table;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use moac_compiler::nvrtc::Allowance;
use moac_compiler::verify::{Case, cases};
use moac_runtime::arch::Arch;
use moac_runtime::launch::Phase;
use moac_tests::emulate::{SHAPES, Shape, harness};
use rayon::prelude::*;
use table::{Mutant, OF_DECODE, OF_PREFILL, SURVIVORS, Survivor};

/// Layers a mutant is tried on, quickest first: groups of three at `head_dim` 64, of four at 128, sixteen with a long
/// sink, single heads.
const ORDER: [usize; 4] = [1, 2, 3, 0];
/// Orders of warps that a layer is tried in.
const SCHEDULES: u64 = 3;

/// The first failure that gives the mutant away, if any does.
fn symptom(mutant: &Mutant, (arch, phase): (Arch, Phase)) -> Option<String> {
    ORDER.iter().find_map(|&shape| symptom_on(mutant, (arch, phase), &SHAPES[shape]))
}

fn symptom_on(mutant: &Mutant, (arch, phase): (Arch, Phase), shape: &Shape) -> Option<String> {
    let mut source = shape.source(arch, phase);
    source.allowance = Allowance { stack_bytes: 4096, spill_bytes: 4096, serialised: false };
    let (_, text) = source
        .headers
        .iter_mut()
        .find(|(name, _)| name == mutant.file)
        .unwrap_or_else(|| panic!("{}: the kernel does not include {}", mutant.name, mutant.file));
    assert_eq!(text.matches(mutant.find).count(), 1, "{}: `{}` in {}", mutant.name, mutant.find, mutant.file);
    *text = text.replace(mutant.find, mutant.replace);
    let candidate = match shape.compile(arch, phase, &source) {
        Ok(candidate) => candidate,
        Err(error) => panic!("{}: a mutant must compile: {error}", mutant.name),
    };
    let mut cases = cases::whole(&candidate);
    cases.sort_by_key(Case::rows); // the quick ones find most
    for schedule in 0..SCHEDULES {
        let mut harness = harness(&candidate, schedule);
        for case in &cases {
            match harness.run(&candidate, case) {
                Ok(outcome) if outcome.failures.is_empty() => {}
                Ok(outcome) => return Some(format!("{}: {}", case.name, outcome.failures[0])),
                Err(error) => return Some(format!("{}: {error}", case.name)),
            }
        }
    }
    None
}

fn check(mutants: &[Mutant], arch: Arch, phase: Phase) {
    let found = AtomicUsize::new(0);
    let unfound: BTreeSet<&str> = mutants
        .par_iter()
        .with_max_len(1)
        .filter_map(|mutant| {
            let symptom = symptom(mutant, (arch, phase));
            match &symptom {
                Some(symptom) => println!("{}: {symptom}", mutant.name),
                None => println!("{}: NOT FOUND", mutant.name),
            }
            found.fetch_add(usize::from(symptom.is_some()), Ordering::Relaxed);
            symptom.is_none().then_some(mutant.name)
        })
        .collect();
    let of_kernel = |survivor: &&Survivor| survivor.arch == arch && survivor.phase == phase;
    let known: BTreeSet<&str> = SURVIVORS.iter().filter(of_kernel).map(|survivor| survivor.name).collect();
    assert_eq!(unfound, known, "the defects that no check finds are not those listed, each with its reason");
    assert!(
        found.load(Ordering::Relaxed) * 100 >= mutants.len() * 95,
        "fewer than 95% of the defects are found"
    );
}

#[test]
fn a_defect_of_prefill_is_found() {
    check(OF_PREFILL, Arch::Sm90, Phase::Prefill);
}

#[test]
fn a_defect_of_decode_is_found() {
    check(OF_DECODE, Arch::Sm90, Phase::Decode);
}
