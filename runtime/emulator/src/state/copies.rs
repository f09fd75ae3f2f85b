//! The copies of `cp.async` that a warp has under way.

use super::traffic::Offsets;
use crate::lanes::bits;
use crate::memory::shadow::Entry;

/// The copies of one instruction.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    /// Lanes whose copies are under way.
    pub(crate) lanes: u32,
    pub(crate) len: usize,
    /// The stamp of all lanes together.
    pub(crate) stamp: Entry,
    /// Whether the bytes land at the wait.
    pub(crate) late: bool,
    /// The smallest of `groups`.
    pub(crate) oldest: u32,
    /// By lane: group, offset, bytes.
    pub(crate) groups: [u32; 32],
    pub(crate) offsets: Offsets,
    pub(crate) data: [[u8; 16]; 32],
}

impl Batch {
    /// Takes the copy of a lane.
    pub(crate) fn take(&mut self, lane: u32) -> (usize, usize, Option<[u8; 16]>, Entry) {
        self.lanes &= !(1 << lane);
        let l = lane as usize;
        let mut stamp = self.stamp;
        stamp.at.mask = 1 << lane;
        let offset = self.offsets.get(lane).unwrap_or(0);
        (offset, self.len, self.late.then_some(self.data[l]), stamp)
    }
}

/// The copies of a warp, in the order of the instructions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Copies {
    pub(crate) pending: Vec<Batch>,
    /// Groups that each lane has committed.
    pub(crate) committed: [u32; 32],
    /// Copies of each lane that have landed.
    pub(crate) taken: [usize; 32],
}

impl Copies {
    pub(crate) fn commit(&mut self, active: u32) {
        for lane in bits(active) {
            self.committed[lane as usize] += 1;
        }
    }

    /// Number of copies that a lane has issued.
    pub(crate) fn issued(&self, lane: u32) -> usize {
        self.taken[lane as usize] + self.pending.iter().filter(|b| b.lanes >> lane & 1 != 0).count()
    }

    /// Takes a lane's oldest copy, if it is among the first `end` that the lane issued.
    pub(crate) fn take(&mut self, lane: u32, end: usize) -> Option<(usize, usize, Option<[u8; 16]>, Entry)> {
        if self.taken[lane as usize] >= end {
            return None;
        }
        let at = self.pending.iter().position(|b| b.lanes >> lane & 1 != 0)?;
        self.taken[lane as usize] += 1;
        let copy = self.pending[at].take(lane);
        if self.pending[at].lanes == 0 {
            self.pending.remove(at);
        }
        Some(copy)
    }
}
