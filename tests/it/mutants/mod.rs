//! Whether a defect in a kernel would be found: each seeded one must make the emulator's verification fail.
//!
//! A mutant is an edit of the headers that the small layers are compiled from. It is found if any launch of any layer
//! that it could matter to fails: a wrong result, a finding of the emulator, or more bytes or FLOPs than the bounds.
//! Launches are run whole; of prefill, chosen CTAs too, as of long contexts.

mod sm80;
mod sm90;
pub(crate) mod table;

use std::collections::BTreeSet;

use moac_compiler::names::cache_key;
use moac_compiler::nvrtc::Source;
use moac_compiler::verify::{Candidate, Case, cases};
use moac_runtime::arch::Arch;
use moac_runtime::launch::Phase;
use moac_tests::emulate::{MANY_SPLITS, SHAPES, Shape, harness};
use moac_tests::nvrtc;
use moac_tests::proven::recall;
use rayon::prelude::*;
use table::{Mutant, Table};

/// Layers a mutant is tried on, quickest first: groups of three at `head_dim` 64, of four at 128, sixteen with a long
/// sink, single heads; decode has another at the end.
const ORDER: [&Shape; 5] = [&SHAPES[1], &SHAPES[2], &SHAPES[3], &SHAPES[0], &MANY_SPLITS];
/// The first failure that gives the mutant away, if any does.
fn symptom(mutant: &Mutant, (arch, phase): (Arch, Phase)) -> Option<String> {
    let layers = ORDER.len() - usize::from(phase == Phase::Prefill);
    ORDER[..layers].iter().find_map(|shape| {
        let source = edited(mutant, shape.source(arch, phase));
        // The source decides the kernel: one that was judged before is not even compiled.
        let question = format!("symptom {shape:?} {arch} {phase:?} {}", cache_key(&source, nvrtc().build()));
        recall(&question, || match shape.emulated(arch, phase, &source) {
            Ok(candidate) => symptom_of(&candidate),
            Err(error) => panic!("{}: a mutant must compile: {error}", mutant.name),
        })
    })
}

/// The source with the defect in it.
fn edited(mutant: &Mutant, mut source: Source) -> Source {
    let (_, text) = source
        .headers
        .iter_mut()
        .find(|(name, _)| name == mutant.file)
        .unwrap_or_else(|| panic!("{}: the kernel does not include {}", mutant.name, mutant.file));
    assert_eq!(text.matches(mutant.find).count(), 1, "{}: `{}` in {}", mutant.name, mutant.find, mutant.file);
    *text = text.replace(mutant.find, mutant.replace);
    source
}

fn symptom_of(candidate: &Candidate) -> Option<String> {
    let mut cases = cases::whole(candidate);
    if candidate.phase() == Phase::Prefill {
        cases.extend(cases::boundary(candidate)); // alone in saying which CTA has which rows
    }
    cases.sort_by_key(Case::rows); // the quick ones find most
    let mut harness = harness(candidate, 0); // one order of warps: a race is found in any
    cases.iter().find_map(|case| match harness.run(candidate, case) {
        Ok(outcome) => outcome.failures.first().map(|failure| format!("{}: {failure}", case.name)),
        Err(error) => Some(format!("{}: {error}", case.name)),
    })
}

fn check(table: Table, arch: Arch, phase: Phase) {
    let Table { mutants, survivors } = table;
    let unfound: BTreeSet<&str> = mutants
        .par_iter()
        .with_max_len(1)
        .filter_map(|mutant| {
            let symptom = symptom(mutant, (arch, phase));
            println!("{}: {}", mutant.name, symptom.as_deref().unwrap_or("NOT FOUND"));
            symptom.is_none().then_some(mutant.name)
        })
        .collect();
    let known: BTreeSet<&str> = survivors.iter().map(|survivor| survivor.name).collect();
    assert_eq!(unfound, known, "the defects that no check finds are not those listed, each with its reason");
    assert!(known.len() * 20 <= mutants.len(), "fewer than 95% of the defects are found");
}

#[test]
fn a_defect_of_prefill_is_found() {
    check(sm80::PREFILL, Arch::Sm90, Phase::Prefill);
}

#[test]
fn a_defect_of_decode_is_found() {
    check(sm80::DECODE, Arch::Sm90, Phase::Decode);
}

#[test]
fn a_defect_of_hopper_prefill_is_found() {
    check(sm90::PREFILL, Arch::Sm90a, Phase::Prefill);
}

#[test]
fn a_defect_of_hopper_decode_is_found() {
    check(sm90::DECODE, Arch::Sm90a, Phase::Decode);
}
