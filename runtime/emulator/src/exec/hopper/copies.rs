//! Bulk and tensor copies: what is checked when one is issued, and the groups that stores are waited for by.
//!
//! A copy is an asynchronous operation that begins when it is issued and may touch memory at any time until its completion is awaited.
//! Both its reads and its writes are therefore checked against what the issuing thread knows, when it is issued, and stamped with an
//! agent that only who waits for the completion learns of. The bytes move when the schedule says so (see `events`).

use super::access::BULK;
use crate::exec::step::{Flow, Step};
use crate::hb::LaneClock;
use crate::hopper::tensor_map::TensorType;
use crate::ir::Reg;
use crate::ir::hopper::{Bulk, Reduce, ReduceTy, SharedPlace};
use crate::lanes::bits;
use crate::memory::shadow::STRONG;
use crate::report::FindingKind;
use crate::state::agents::{bulk_reads, bulk_writes};
use crate::state::events::{Event, Target, What};
use crate::state::hopper::BulkGroups;
use crate::state::warp::{State, Wait};

impl Step<'_, '_> {
    pub(crate) fn bulk_load(
        &mut self,
        from: &Bulk,
        to: SharedPlace,
        barrier: SharedPlace,
        multicast: Option<Reg>,
        active: u32,
    ) {
        for lane in bits(active) {
            let Some(shape) = self.shape(from, lane) else { continue };
            let Some((cta, offset)) = self.shared_at(to, shape.bytes, shape.align, lane) else { continue };
            let Some((signal, at)) = self.barrier_at(barrier, lane) else { continue };
            // With a mask, the copy goes to the same places of several CTAs of the cluster.
            let mut ctas = vec![(cta, signal)];
            if let Some(mask) = multicast {
                let mask = self.reg(mask)[lane as usize] as u16;
                ctas.clear();
                for rank in bits(mask.into()) {
                    let Some(c) = self.cluster_cta(rank) else {
                        self.report(FindingKind::Misuse, lane, None, || {
                            format!("multicast to rank {rank}, which the cluster does not have")
                        });
                        continue;
                    };
                    ctas.push((c, c));
                }
            }
            let mut targets = Vec::new();
            for (cta, signal) in ctas {
                let Some(agent) = self.completion(signal, at, lane) else {
                    self.report(FindingKind::Misuse, lane, None, || {
                        "a CTA of the multicast has no mbarrier object at this place".to_owned()
                    });
                    continue;
                };
                self.use_barrier(signal, at as usize, lane, false);
                self.async_shared(cta, offset, shape.bytes, agent, true, lane);
                let (cta, signal) = (self.ctas[cta].linear, self.ctas[signal].linear);
                targets.push(Target { cta, offset, signal, barrier: at, agent });
            }
            let Some(agent) = targets.first().map(|t| t.agent) else { continue };
            self.async_global(&shape.rows, agent, 0, false, lane);
            let what = What::Load { rows: shape.rows, bytes: shape.bytes, swizzle: shape.swizzle, targets };
            self.issue(lane, what);
        }
    }

    pub(crate) fn issue(&mut self, lane: u32, what: What) {
        let issuer = (self.ctas[self.at].linear, self.warp.index, lane);
        self.pending.events.push(Event { pc: self.pc, issuer, what });
    }

    fn bulk_groups(&mut self) -> &mut Vec<BulkGroups> {
        let bulk = &mut self.warp.hopper.bulk;
        if bulk.is_empty() {
            *bulk = vec![BulkGroups::default(); 32];
        }
        bulk
    }

    pub(crate) fn bulk_store(&mut self, to: &Bulk, from: SharedPlace, reduce: Option<Reduce>, active: u32) {
        let (linear, warp) = (self.ctas[self.at].linear, self.warp.index);
        for lane in bits(active) {
            let Some(shape) = self.shape(to, lane) else { continue };
            let Some((cta, offset)) = self.shared_at(from, shape.bytes, shape.align, lane) else { continue };
            let reduce = match reduce {
                Some(Reduce { op, ty }) => {
                    let Some(ty) = ty.or_else(|| shape.element.and_then(reduce_type)) else {
                        self.report(FindingKind::Misuse, lane, None, || {
                            format!("a reduction of {:?} is not supported", shape.element)
                        });
                        continue;
                    };
                    Some((op, ty))
                }
                None => None,
            };
            let groups = &mut self.bulk_groups()[lane as usize];
            groups.issue();
            let group = groups.committed;
            let at = |agent| LaneClock { warp: agent, clock: group + 1, mask: 1 << lane };
            self.async_shared(cta, offset, shape.bytes, at(bulk_reads(linear, warp)), false, lane);
            let flags = if reduce.is_some() { STRONG } else { 0 };
            self.async_global(&shape.rows, at(bulk_writes(linear, warp)), flags, true, lane);
            let what = What::Store {
                rows: shape.rows,
                bytes: shape.bytes,
                swizzle: shape.swizzle,
                offset,
                group,
                reduce,
                data: None,
            };
            self.issue(lane, what);
        }
    }

    pub(crate) fn bulk_commit(&mut self, active: u32) {
        let groups = self.bulk_groups();
        for lane in bits(active) {
            let g = &mut groups[lane as usize];
            g.committed += 1;
            g.open = 0;
        }
    }

    pub(crate) fn bulk_wait(&mut self, left: u32, read: bool, active: u32) -> Flow {
        let (linear, warp) = (self.ctas[self.at].linear, self.warp.index);
        let groups = self.bulk_groups();
        let end = |g: &BulkGroups| g.committed.saturating_sub(left);
        if !bits(active).all(|l| groups[l as usize].done(end(&groups[l as usize]), read)) {
            return Flow::Block(State::Async(Wait::Bulk));
        }
        for lane in bits(active) {
            let g = &mut self.warp.hopper.bulk[lane as usize];
            let clock = end(g);
            if clock == 0 {
                continue;
            }
            g.waited = g.waited.max(clock);
            let at = |agent| LaneClock { warp: agent, clock, mask: 1 << lane };
            self.warp.learn(1 << lane, at(bulk_reads(linear, warp)));
            if !read {
                self.warp.learn(1 << lane, at(bulk_writes(linear, warp)));
            }
        }
        Flow::Next
    }

    /// Lanes exit: shared memory may be gone before the copies that nobody else can wait for have read it.
    pub(crate) fn exit_async(&mut self, gone: u32) {
        if !self.warp.hopper.bulk.is_empty() {
            for lane in bits(gone) {
                let g = &self.warp.hopper.bulk[lane as usize];
                if g.waited < g.committed || g.open > 0 {
                    self.report(FindingKind::AsyncInFlight, lane, None, || {
                        "the thread exits without having waited for its bulk copies to read shared memory"
                            .to_owned()
                    });
                }
            }
        }
        self.exit_products(gone);
    }

    /// `cp.async.bulk` from this CTA's shared memory to one of the cluster.
    pub(crate) fn bulk_send(
        &mut self,
        from: SharedPlace,
        bytes: Reg,
        to: SharedPlace,
        barrier: SharedPlace,
        active: u32,
    ) {
        let bytes = *self.reg(bytes);
        for lane in bits(active) {
            let n = bytes[lane as usize] as u32 as usize;
            if !n.is_multiple_of(BULK) {
                self.report(FindingKind::Misaligned, lane, None, || {
                    format!("a bulk copy of {n} bytes, which is not a multiple of {BULK}")
                });
                continue;
            }
            let Some((source, from)) = self.shared_at(from, n, BULK, lane) else { continue };
            let Some((cta, offset)) = self.shared_at(to, n, BULK, lane) else { continue };
            let Some((signal, at)) = self.barrier_at(barrier, lane) else { continue };
            let Some(agent) = self.completion(signal, at, lane) else { continue };
            self.async_shared(source, from, n, agent, false, lane);
            self.async_shared(cta, offset, n, agent, true, lane);
            let (cta, signal) = (self.ctas[cta].linear, self.ctas[signal].linear);
            let target = Target { cta, offset, signal, barrier: at, agent };
            self.issue(lane, What::Send { from, bytes: n, target });
        }
    }

    /// `cp.async.mbarrier.arrive`: an arrival once the lane's copies so far have landed.
    pub(crate) fn copy_arrive(&mut self, at: SharedPlace, noinc: bool, active: u32) {
        for lane in bits(active) {
            let Some((cta, barrier)) = self.barrier_at(at, lane) else { continue };
            if let Some(b) = self.ctas[cta].hopper.barriers.get_mut(&barrier)
                && !noinc
                && let Err(what) = b.add_pending()
            {
                self.report(FindingKind::Misuse, lane, None, || what);
                continue;
            }
            // The copies' bytes become those of the barrier's agent; the rest of the thread's history is not released.
            let copies = self.warp.copies.issued(lane);
            self.issue(lane, What::CopyArrive { copies, barrier });
        }
    }

    /// `st.async`.
    pub(crate) fn store_async(
        &mut self,
        to: SharedPlace,
        values: &[Reg],
        bytes: usize,
        barrier: SharedPlace,
        active: u32,
    ) {
        for lane in bits(active) {
            let len = bytes * values.len();
            let Some((cta, offset)) = self.shared_at(to, len, len, lane) else { continue };
            let Some((signal, at)) = self.barrier_at(barrier, lane) else { continue };
            let Some(agent) = self.completion(signal, at, lane) else { continue };
            self.async_shared(cta, offset, len, agent, true, lane);
            let data = values
                .iter()
                .flat_map(|r| self.reg(*r)[lane as usize].to_le_bytes()[..bytes].to_vec())
                .collect();
            let (cta, signal) = (self.ctas[cta].linear, self.ctas[signal].linear);
            let target = Target { cta, offset, signal, barrier: at, agent };
            self.issue(lane, What::Value { data, target });
        }
    }
}

/// The type that a tensor's elements are reduced in.
fn reduce_type(t: TensorType) -> Option<ReduceTy> {
    Some(match t {
        TensorType::U32 => ReduceTy::U32,
        TensorType::S32 => ReduceTy::S32,
        TensorType::U64 => ReduceTy::U64,
        TensorType::S64 => ReduceTy::S64,
        TensorType::F16 => ReduceTy::F16,
        TensorType::Bf16 => ReduceTy::Bf16,
        TensorType::F32 => ReduceTy::F32,
        TensorType::F64 => ReduceTy::F64,
        TensorType::U8 | TensorType::U16 => return None,
    })
}
