//! `cp.async`: copies that land in shared memory at any time before their group is waited for.
//!
//! The source is read, and checked, when the copy is issued. The bytes land at once or at the wait, as the schedule's seed decides, and
//! until the issuing thread has waited, any touch of the destination is reported, by itself too. After the wait the write counts as
//! one that the thread made just then: other threads still need a barrier.

use std::collections::VecDeque;

use crate::exec::mem::At;
use crate::exec::step::Step;
use crate::exec::traffic::{Request, count_shared};
use crate::exec::warp::bits;
use crate::ir::{Address, MemSpace, Pred, Reg};
use crate::lanes::Lanes;
use crate::memory::shadow::{Entry, IN_FLIGHT};
use crate::report::FindingKind;

/// A copy under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copy {
    offset: usize,
    len: usize,
    /// `None` once landed.
    data: Option<[u8; 16]>,
    stamp: Entry,
    group: u32,
}

/// The copies of a warp, by lane.
#[derive(Clone, Debug, Default)]
pub(crate) struct Copies {
    pending: Vec<VecDeque<Copy>>,
    /// Groups that each lane has committed.
    committed: [u32; 32],
    /// Copies of each lane that have landed.
    taken: [usize; 32],
}

impl Copies {
    pub(crate) fn commit(&mut self, active: u32) {
        for lane in bits(active) {
            self.committed[lane as usize] += 1;
        }
    }

    /// Number of copies that a lane has issued.
    pub(crate) fn issued(&self, lane: u32) -> usize {
        self.taken[lane as usize] + self.pending.get(lane as usize).map_or(0, VecDeque::len)
    }

    /// Takes a lane's oldest copy, if it is among the first `end` that the lane issued.
    pub(crate) fn take(&mut self, lane: u32, end: usize) -> Option<(usize, usize, Option<[u8; 16]>, Entry)> {
        let queue = self.pending.get_mut(lane as usize)?;
        let c = if self.taken[lane as usize] < end { queue.pop_front() } else { None }?;
        self.taken[lane as usize] += 1;
        Some((c.offset, c.len, c.data, c.stamp))
    }

    /// Takes a lane's oldest copy, if its group is older than `before`.
    fn pop(&mut self, lane: u32, before: u32) -> Option<Copy> {
        let queue = self.pending.get_mut(lane as usize)?;
        let c = if queue.front()?.group < before { queue.pop_front() } else { None }?;
        self.taken[lane as usize] += 1;
        Some(c)
    }
}

impl Step<'_, '_> {
    pub(crate) fn copy_async(
        &mut self,
        to: Address,
        from: Address,
        len: usize,
        size: Option<Reg>,
        ignore: Option<(Pred, bool)>,
        active: u32,
    ) {
        let sizes: Lanes = size.map_or([len as u64; 32], |r| *self.reg(r));
        let ignored = ignore.map_or(0, |p| self.pred(p));
        let late = self.rng.below(2) == 0;
        let mut request = Request::default();
        let mut shared = [None; 32];
        if self.warp.copies.pending.is_empty() {
            self.warp.copies.pending = vec![VecDeque::new(); 32];
        }
        for lane in bits(active) {
            let destination = self.address(to, lane);
            let source = self.address(from, lane);
            let n =
                if ignored >> lane & 1 != 0 { 0 } else { (sizes[lane as usize] as u32 as usize).min(len) };
            if sizes[lane as usize] as u32 as usize > len {
                self.report(FindingKind::Misuse, lane, None, || {
                    format!("{} source bytes of a copy of {len}", sizes[lane as usize] as u32)
                });
            }
            let mut data = [0; 16];
            if n > 0 {
                // The whole source must be aligned; only the bytes that are copied must exist.
                let aligned = source.is_multiple_of(len as u64);
                let at = if aligned {
                    self.locate_bytes(source, n, lane)
                } else {
                    self.locate(MemSpace::Global, source, len, lane)
                };
                if let Some(at @ At::Global(spot, a)) = at {
                    if let Some(c) = self.race(at, n, lane, 0, false) {
                        self.clash(c, at, lane, false);
                    }
                    if !self.fetch(at, lane, &mut data[..n]) {
                        self.unwritten(at, lane, n);
                    }
                    request.note(spot.allocation, a, n);
                    self.ctas[self.at].touched.mark(spot.page, spot.allocation, spot.offset(), n, false);
                }
            }
            let Some(at @ At::Shared(offset)) = self.locate(MemSpace::Shared, destination, len, lane) else {
                continue;
            };
            if let Some(c) = self.race(at, len, lane, IN_FLIGHT, true) {
                self.clash(c, at, lane, true);
            }
            shared[lane as usize] = Some(offset);
            let stamp = self.warp.stamp(lane, self.pc | IN_FLIGHT);
            if !late {
                self.put(at, lane, &data[..len]);
            }
            let group = self.warp.copies.committed[lane as usize];
            let data = late.then_some(data);
            self.warp.copies.pending[lane as usize].push_back(Copy { offset, len, data, stamp, group });
        }
        let tally = &mut self.ctas[self.at].tally;
        request.count(tally, false);
        if shared.iter().any(Option::is_some) {
            count_shared(&mut tally.shared, &shared, len, true);
        }
    }

    /// A source of any length below its alignment.
    fn locate_bytes(&mut self, address: u64, len: usize, lane: u32) -> Option<At> {
        if len.is_power_of_two() {
            return self.locate(MemSpace::Global, address, len, lane);
        }
        match self.view.spot(address, len) {
            Some(spot) => Some(At::Global(spot, address)),
            None => self.locate(MemSpace::Global, address, len.next_power_of_two(), lane),
        }
    }

    pub(crate) fn copy_wait(&mut self, left: Option<u32>, active: u32) {
        for lane in bits(active) {
            let committed = self.warp.copies.committed[lane as usize];
            // Without a count, copies that were never committed are waited for too.
            let before = left.map_or(u32::MAX, |n| committed.saturating_sub(n));
            self.land(lane, before);
        }
    }

    /// Lets the copies of lanes that exit land.
    pub(crate) fn land_all(&mut self, lanes: u32) {
        for lane in bits(lanes) {
            self.land(lane, u32::MAX);
        }
    }

    fn land(&mut self, lane: u32, before: u32) {
        while let Some(c) = self.warp.copies.pop(lane, before) {
            if let Some(data) = c.data {
                self.put(At::Shared(c.offset), lane, &data[..c.len]);
            }
            let done = self.warp.stamp(lane, c.stamp.pc & !IN_FLIGHT);
            self.cta().shared.complete(c.offset, c.len, c.stamp, done);
        }
    }
}
