//! A description of the waiting threads of a CTA, for the report of a deadlock.

use std::collections::BTreeMap;

use super::cta::Cta;
use super::warp::{State, Wait};
use crate::hopper::mbarrier::Barrier;
use crate::memory::shared::SHARED_BASE;

/// The waiting threads, for a report.
pub(crate) fn waits(cta: &Cta) -> String {
    let mut out = Vec::new();
    for (id, b) in cta.barriers.iter().enumerate().filter(|(_, b)| b.expected.is_some()) {
        let waiting: Vec<u32> = b.waiting.iter().map(|w| w.warp).collect();
        let all = b.expected.unwrap_or(0);
        let arrivals = if b.arrivals.is_empty() {
            String::new()
        } else {
            format!(", warps {:?} arrived without waiting", b.arrivals)
        };
        out.push(format!(
            "barrier {id}: {} of {all} threads arrived, warps {waiting:?} wait{arrivals}",
            b.arrived
        ));
    }
    let mut converging = Vec::new();
    let mut exited = Vec::new();
    for w in cta.warps.iter().flatten() {
        if w.live != w.present {
            exited.push(format!("{} (lanes {:#010x})", w.index, w.present & !w.live));
        }
        for s in &w.splits {
            match s.state {
                State::Converge(m) | State::WarpBarrier(m) => {
                    converging.push(format!(
                        "warp {} lanes {:#010x} wait for lanes {:#010x}",
                        w.index,
                        s.mask,
                        m & !s.mask
                    ));
                }
                _ => {}
            }
        }
    }
    out.extend(converging);
    out.extend(asynchronous(cta));
    if !exited.is_empty() {
        out.push(format!("exited: warps {}", exited.join(", ")));
    }
    out.join("; ")
}

/// The waiter of an asynchronous operation.
fn asynchronous(cta: &Cta) -> Vec<String> {
    let mut out = mbarriers(&cta.hopper.barriers);
    for w in cta.warps.iter().flatten() {
        for s in &w.splits {
            if let State::Async(wait) = s.state {
                let what = match wait {
                    Wait::Phase => "a phase of an mbarrier object".to_owned(),
                    Wait::Bulk => "its bulk copies".to_owned(),
                    Wait::Warpgroup => "the other warps of its warpgroup".to_owned(),
                    Wait::Registers => format!("registers; {} are free", cta.hopper.free_registers),
                    Wait::Cluster => "the other CTAs of its cluster".to_owned(),
                };
                out.push(format!("warp {} lanes {:#010x} wait for {what}", w.index, s.mask));
            }
        }
    }
    out
}

/// Where the `mbarrier` objects of a CTA stand.
fn mbarriers(barriers: &BTreeMap<u32, Barrier>) -> Vec<String> {
    let busy = |b: &&Barrier| b.pending != b.expected || b.transactions != 0 || b.phase > 0;
    barriers
        .iter()
        .filter(|(_, b)| busy(b))
        .map(|(offset, b)| format!("mbarrier at {:#x}: {}", offset + SHARED_BASE, b.describe()))
        .collect()
}
