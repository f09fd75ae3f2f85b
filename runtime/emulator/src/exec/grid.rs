//! A whole launch: the split of the grid into groups of CTAs that run, and the merged report.

use rayon::prelude::*;

use super::group::{Group, Outcome};
use crate::count::Tally;
use crate::launch::{Fault, Launch};
use crate::memory::global::Memory;
use crate::memory::view::{Merged, View};
use crate::module::Module;
use crate::report::{CtaCounters, FindingKind, Report};
use crate::state::env::Env;
use crate::state::findings::Findings;

/// CTAs whose views are held at once when CTAs run apart. Fixed, so that results do not depend on the host's cores.
const CHUNK: usize = 64;

/// Runs a kernel. Launches on one memory are ordered: each sees all that the ones before it wrote.
///
/// # Errors
/// Launches that CUDA would refuse; the memory is untouched then. What goes wrong while the kernel runs is in the report.
pub fn launch(module: &Module, memory: &mut Memory, launch: &Launch) -> Result<Report, Fault> {
    let Some(kernel) = module.kernel(&launch.kernel) else {
        let names: Vec<&str> = module.kernels().map(|k| k.name.as_str()).collect();
        return Err(Fault::UnknownKernel(launch.kernel.clone(), names.join(", ")));
    };
    launch.check(kernel)?;
    let variables = memory.instantiate(module);
    let mut ctas: Vec<u32> = match &launch.ctas {
        None => (0..launch.grid.0 * launch.grid.1 * launch.grid.2).collect(),
        Some(some) => some.iter().map(|c| c.0 + launch.grid.0 * (c.1 + launch.grid.1 * c.2)).collect(),
    };
    ctas.sort_unstable();
    ctas.dedup();

    let env = Env::new(module, kernel, launch, variables);
    let clusters = env.clusters(&ctas);
    let labels: Vec<String> = memory.allocations.iter().map(|a| a.label.clone()).collect();
    let mut findings = Findings::new(launch.max_findings);
    let mut total = Tally::default();
    let mut counted = Vec::new();
    let mut completed = true;
    let mut merged = Merged::default();
    let base: &Memory = memory;
    let mut absorb = |outcome: Outcome, findings: &mut Findings, merged: &mut Merged| {
        findings.absorb(outcome.findings);
        completed &= outcome.completed;
        for (cta, mut tally, touched) in outcome.ctas {
            touched.fill(&mut tally);
            total.add(&tally);
            counted.push(CtaCounters { cta: env.cta(cta), counters: tally.counters(&labels) });
            merged.touched.union(&touched);
        }
    };
    let writes = if kernel.code.communicates {
        let (view, outcome) = Group::new(&env, View::new(base), clusters).run();
        absorb(outcome, &mut findings, &mut merged);
        view.into_writes()
    } else {
        for chunk in clusters.chunks(CHUNK) {
            let run = |c: &Vec<u32>| Group::new(&env, View::new(base), vec![c.clone()]).run();
            let done: Vec<_> = chunk.par_iter().map(run).collect();
            for (view, outcome) in done {
                for (_, _, touched) in &outcome.ctas {
                    for clash in merged.clashes(&view, touched, 4) {
                        findings.cross(&env, base, &clash);
                    }
                    merged.keep(&view, touched);
                }
                absorb(outcome, &mut findings, &mut merged);
            }
        }
        std::mem::take(&mut merged.pages).into_writes()
    };
    merged.touched.fill(&mut total);
    let counters = total.counters(&labels);
    for (page, allocation, data, bits) in writes {
        memory.commit(allocation, page, &data, &bits);
    }
    counted.sort_by_key(|c| (c.cta.2, c.cta.1, c.cta.0));
    let findings = findings.into_list(&env);
    let completed = completed && !findings.iter().any(|f| f.kind == FindingKind::Trap);
    Ok(Report { kernel: launch.kernel.clone(), completed, counters, ctas: counted, findings })
}
