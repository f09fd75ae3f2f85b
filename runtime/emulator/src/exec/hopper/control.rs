//! Dispatch of Hopper's instructions, and the small ones: proxy fences, registers, clusters.

use crate::exec::step::{Flow, Step};
use crate::hb::Fenced;
use crate::ir::hopper::Op;
use crate::report::FindingKind;
use crate::state::warp::{State, Wait};

impl Step<'_, '_> {
    pub(crate) fn hopper(&mut self, op: &Op, active: u32, mask: u32) -> Flow {
        match op {
            Op::Init { at, count } => return self.mbarrier_init(*at, *count, active),
            Op::Inval { at } => self.mbarrier_inval(*at, active),
            Op::Arrive { at, count, expect, drop, no_complete, release, d } => {
                self.mbarrier_arrive(*at, *count, *expect, *drop, *no_complete, *release, *d, active);
            }
            Op::Expect { at, bytes } => self.mbarrier_transactions(*at, *bytes, false, active),
            Op::CompleteTx { at, bytes } => self.mbarrier_transactions(*at, *bytes, true, active),
            Op::Wait { at, p, phase, may_suspend, acquire } => {
                return self.mbarrier_wait(*at, *p, *phase, *may_suspend, *acquire, active);
            }
            Op::CopyArrive { at, noinc } => self.copy_arrive(*at, *noinc, active),
            Op::Load { from, to, barrier, multicast } => {
                self.bulk_load(from, *to, *barrier, *multicast, active);
            }
            Op::Store { to, from, reduce } => self.bulk_store(to, *from, *reduce, active),
            Op::Send { from, bytes, to, barrier } => self.bulk_send(*from, *bytes, *to, *barrier, active),
            Op::StoreAsync { to, values, bytes, barrier } => {
                self.store_async(*to, values, *bytes, *barrier, active);
            }
            Op::BulkCommit => self.bulk_commit(active),
            Op::BulkWait { left, read } => return self.bulk_wait(*left, *read, active),
            Op::Wgmma(w) => return self.wgmma(w, active, mask),
            Op::WgmmaFence => return self.wgmma_fence(active, mask),
            Op::WgmmaCommit => return self.wgmma_commit(active, mask),
            Op::WgmmaWait { left } => return self.wgmma_wait(*left, active, mask),
            Op::ProxyFence { shared, global } => {
                for (wanted, space) in [(*shared, Fenced::Shared), (*global, Fenced::Global)] {
                    if wanted {
                        self.warp.proxy_fence(active, space);
                    }
                }
            }
            Op::FenceInit => self.fence_init(active),
            Op::SetMaxNReg { count, increase } => return self.set_registers(*count, *increase, active, mask),
            Op::Mapa { d, a, rank } => self.map_shared(*d, *a, *rank, active),
            Op::CtaRank { d, a } => self.cta_rank(*d, *a, active),
            Op::ClusterArrive { release, aligned } => {
                return self.cluster_arrive(*release, *aligned, active, mask);
            }
            Op::ClusterWait { aligned } => return self.cluster_wait(*aligned, active, mask),
        }
        Flow::Next
    }

    /// `setmaxnreg`: registers go from the warp to the CTA's pool, or from there to the warp once there are enough.
    fn set_registers(&mut self, count: u32, increase: bool, active: u32, mask: u32) -> Flow {
        if let Err(f) = self.whole_warp(active, mask) {
            return f;
        }
        let Some(launch) = self.env.kernel.registers() else {
            self.report(FindingKind::Misuse, 0, None, || {
                "the kernel says neither `.maxntid` nor `.maxnreg`, so that its registers at launch are not known".to_owned()
            });
            return Flow::Next;
        };
        let now = self.warp.hopper.registers.unwrap_or(launch);
        if (increase && count < now) || (!increase && count > now) {
            self.report(FindingKind::Misuse, 0, None, || {
                format!("from {now} registers to {count}: that is the other direction")
            });
            return Flow::Next;
        }
        let (index, group) = (self.warp.index as usize % 4, self.warp.index as usize / 4);
        let pool = self.ctas[self.at].hopper.free_registers;
        if increase && count - now > pool / 32 {
            return Flow::Block(State::Async(Wait::Registers));
        }
        let cta = &mut self.ctas[self.at];
        cta.hopper.free_registers = pool + 32 * now - 32 * count;
        // Every warp of a warpgroup takes the same steps.
        let g = &mut cta.hopper.groups[group];
        let step = g.register_steps[index];
        g.register_steps[index] += 1;
        let same = g.registers.get(step).is_none_or(|&s| s == (count, increase));
        if g.registers.len() <= step {
            g.registers.push((count, increase));
        }
        cta.wake(Wait::Registers, self.woken);
        self.warp.hopper.registers = Some(count);
        if !same {
            self.report(FindingKind::Misuse, 0, None, || {
                "the warps of the warpgroup do not execute the same `setmaxnreg`".to_owned()
            });
        }
        Flow::Next
    }
}
