//! `cp.async`: copies that land in shared memory at any time before their group is waited for.
//!
//! The source is read, and checked, when the copy is issued. The bytes land at once or at the wait, as the schedule's seed decides, and
//! until the issuing thread has waited, any touch of the destination is reported, by itself too. After the wait the write counts as
//! one that the thread made just then: other threads still need a barrier.

use crate::exec::mem::At;
use crate::exec::step::Step;
use crate::ir::{Address, MemSpace, Pred, Reg};
use crate::lanes::{Lanes, bits};
use crate::memory::shadow::IN_FLIGHT;
use crate::report::FindingKind;
use crate::state::copies::Batch;
use crate::state::traffic::{Offsets, Request, count_shared};

impl Step<'_, '_> {
    #[inline(never)]
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
        let mut batch = Batch {
            lanes: 0,
            len,
            stamp: self.warp.stamp(0, self.pc | IN_FLIGHT),
            late,
            oldest: bits(active).map(|l| self.warp.copies.committed[l as usize]).min().unwrap_or(0),
            groups: self.warp.copies.committed,
            offsets: Offsets::default(),
            data: [[0; 16]; 32],
        };
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
                let aligned = source & (len as u64 - 1) == 0;
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
            batch.offsets.set(lane, offset);
            if late {
                batch.data[lane as usize] = data;
            } else {
                self.put(at, lane, &data[..len]);
            }
        }
        let tally = &mut self.ctas[self.at].tally;
        request.count(tally, false);
        count_shared(&mut tally.shared, &batch.offsets, len, true);
        batch.lanes = batch.offsets.lanes;
        if batch.lanes != 0 {
            self.warp.copies.pending.push(batch);
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
        let committed = self.warp.copies.committed;
        // Without a count, copies that were never committed are waited for too.
        self.land(active, |lane| left.map_or(u32::MAX, |n| committed[lane as usize].saturating_sub(n)));
    }

    /// Lets the copies of lanes that exit land.
    pub(crate) fn land_all(&mut self, lanes: u32) {
        self.land(lanes, |_| u32::MAX);
    }

    /// Lets each lane's copies of groups older than `before` land, lane by lane.
    #[inline(never)]
    fn land(&mut self, lanes: u32, before: impl Fn(u32) -> u32) {
        let latest = bits(lanes).map(&before).max().unwrap_or(0);
        let mut pending = std::mem::take(&mut self.warp.copies.pending);
        let ripe = pending.iter().rposition(|b| b.oldest < latest).map_or(0, |last| last + 1);
        let mut empty = false;
        for lane in bits(lanes) {
            let before = before(lane);
            for batch in &mut pending[..ripe] {
                if batch.lanes >> lane & 1 == 0 || batch.groups[lane as usize] >= before {
                    continue;
                }
                let (offset, len, data, stamp) = batch.take(lane);
                empty |= batch.lanes == 0;
                self.warp.copies.taken[lane as usize] += 1;
                if let Some(data) = data {
                    self.put(At::Shared(offset), lane, &data[..len]);
                }
                let done = self.warp.stamp(lane, stamp.pc & !IN_FLIGHT);
                self.ctas[self.at].shared.complete(offset, len, stamp, done);
            }
        }
        if empty {
            pending.retain(|b| b.lanes != 0);
        }
        self.warp.copies.pending = pending;
    }
}
