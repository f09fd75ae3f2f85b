//! The shadow of a block of memory: who wrote each byte last, and who read it since.
//!
//! Cells start as large as the first access allows and are split when a smaller or less aligned access arrives, so the answer is
//! exact to the byte and costs little where everything moves in 16-byte pieces.

#![allow(clippy::inline_always)] // what is constant where an access is made leaves little of these functions

use crate::hb::{Fenced, Know, LaneClock};

/// Set in [`Entry::pc`]: the access was strong (atomic, volatile, relaxed or stronger).
pub(crate) const STRONG: u32 = 1 << 31;
/// Set in [`Entry::pc`]: an asynchronous copy that nobody has waited for.
pub(crate) const IN_FLIGHT: u32 = 1 << 30;
/// Set in [`Entry::pc`]: made by the asynchronous proxy.
pub(crate) const ASYNC_PROXY: u32 = 1 << 29;
/// The bits of [`Entry::pc`] that index the instruction.
pub(crate) const PC: u32 = ASYNC_PROXY - 1;

/// An access in the past: instruction, and the lanes that made it with their warp's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) at: LaneClock,
    /// Instruction index, with flags in the top bits.
    pub(crate) pc: u32,
}

const NONE: Entry = Entry { at: LaneClock { warp: 0, clock: 0, mask: 0 }, pc: 0 };
/// As the warp of a read entry: `clock` indexes the list of readers.
const MANY: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Cell {
    write: Entry,
    read: Entry,
}

impl Cell {
    /// Records an access if it clashes with nothing and involves no list of readers; else changes nothing.
    #[inline(always)] // with what is known of the access where it is made
    fn plain(&mut self, a: &Access) -> bool {
        if a.clashes_across(&self.write) {
            return false;
        }
        let (r, by) = (&mut self.read, &a.by);
        if a.write {
            if r.at.mask != 0 && (r.at.warp == MANY || a.clashes_across(r)) {
                return false;
            }
            r.at.mask = 0;
            let w = &mut self.write;
            let same = w.at.warp == by.at.warp && w.at.clock == by.at.clock && w.pc == by.pc;
            let mask = if same { w.at.mask } else { 0 };
            *w = *by;
            w.at.mask |= mask;
        } else if r.at.warp == MANY {
            return false;
        } else if r.at.warp == by.at.warp
            && r.at.clock == by.at.clock
            && r.pc & !PC == by.pc & !PC
            && r.at.mask != 0
        {
            r.at.mask |= by.at.mask;
        } else if r.at.mask == 0 || a.replaces(r) {
            *r = *by;
        } else {
            return false;
        }
        true
    }
}

/// The access being checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access<'a> {
    /// The thread, with one bit in `mask`; or the agent of an asynchronous operation.
    pub(crate) by: Entry,
    pub(crate) write: bool,
    pub(crate) know: &'a Know,
    /// Of an operation of the asynchronous proxy: who issued it, and the space whose proxy fences count.
    pub(crate) issuer: Option<(LaneClock, Fenced)>,
}

impl Access<'_> {
    /// Whether `e` happened before this access, or is this thread's own.
    #[inline(always)]
    pub(crate) fn ordered(&self, e: &Entry) -> bool {
        let mut at = e.at;
        let me = self.issuer.map_or(self.by.at, |i| i.0);
        if at.warp == me.warp {
            at.mask &= !me.mask;
            if at.mask == 0 {
                return true;
            }
        }
        self.know.covers(at)
    }

    #[inline(always)]
    fn clashes(&self, e: &Entry) -> bool {
        e.at.mask != 0 && (e.pc & IN_FLIGHT != 0 || (e.pc & self.by.pc & STRONG == 0 && !self.ordered(e)))
    }

    /// Whether only a proxy fence could order `e` before this access, and none does.
    #[inline(always)]
    fn unfenced(&self, e: &Entry) -> bool {
        self.issuer.is_some_and(|(_, space)| {
            e.at.mask != 0 && e.pc & ASYNC_PROXY == 0 && !self.know.across_fence(space, e.at)
        })
    }

    /// Whether `e` and this access, one of them a write, have nothing to order them: neither synchronisation nor, where it takes
    /// one, a proxy fence.
    #[inline(always)]
    fn clashes_across(&self, e: &Entry) -> bool {
        self.clashes(e) || self.unfenced(e)
    }

    /// Whether an earlier read need not be remembered beside this one: what is ordered behind this one is behind both.
    #[inline(always)]
    fn replaces(&self, e: &Entry) -> bool {
        self.ordered(e) && !self.unfenced(e)
    }
}

/// An earlier access that conflicts with the one being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Clash {
    pub(crate) with: Entry,
    /// Whether the earlier access was a store.
    pub(crate) write: bool,
    /// Offset in the block of the first conflicting cell.
    pub(crate) offset: usize,
}

/// Readers of a cell, in order: a few are kept here, so that lists cost no allocation.
#[derive(Clone, Debug)]
struct Readers {
    /// The first of `few`, unless there are `lots`.
    len: usize,
    few: [Entry; Self::FEW],
    lots: Vec<Entry>,
}

impl Readers {
    const FEW: usize = 4;

    fn of(a: Entry, b: Entry) -> Self {
        Self { len: 2, few: [a, b, NONE, NONE], lots: Vec::new() }
    }

    fn all(&mut self) -> &mut [Entry] {
        if self.lots.is_empty() { &mut self.few[..self.len] } else { &mut self.lots }
    }

    fn first(&self) -> Option<Entry> {
        if self.lots.is_empty() { self.few[..self.len].first().copied() } else { self.lots.first().copied() }
    }

    fn push(&mut self, e: Entry) {
        if self.lots.is_empty() {
            if self.len < Self::FEW {
                self.few[self.len] = e;
                self.len += 1;
                return;
            }
            self.lots.extend(self.few);
            self.len = 0;
        }
        self.lots.push(e);
    }

    fn clear(&mut self) {
        self.len = 0;
        self.lots.clear();
    }

    fn retain(&mut self, keep: impl Fn(&Entry) -> bool) {
        if !self.lots.is_empty() {
            self.lots.retain(keep);
            return;
        }
        let mut kept = 0;
        for i in 0..self.len {
            if keep(&self.few[i]) {
                self.few[kept] = self.few[i];
                kept += 1;
            }
        }
        self.len = kept;
    }
}

/// Shadow of a block of bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shadow {
    shift: u32,
    cells: Vec<Cell>,
    many: Vec<Readers>,
}

impl Shadow {
    /// Records an access to exactly one cell that is simply ordered behind what was there before, as most are; else says no and
    /// changes nothing.
    #[inline(always)]
    pub(crate) fn plain(&mut self, offset: usize, len: usize, a: &Access) -> bool {
        let whole = len == 1 << self.shift && offset & (len - 1) == 0;
        whole && self.cells.get_mut(offset >> self.shift).is_some_and(|c| c.plain(a))
    }

    /// Checks and records an access to `len` bytes at `offset` of a block of `size` bytes (a multiple of 16).
    pub(crate) fn access(&mut self, size: usize, offset: usize, len: usize, a: &Access) -> Option<Clash> {
        let fits = (offset | len | 16).trailing_zeros();
        if fits < self.shift || self.cells.is_empty() {
            self.refine(size, fits);
        }
        let first = offset >> self.shift;
        let end = (offset + len + (1 << self.shift) - 1) >> self.shift;
        let mut clash = None;
        for i in first..end {
            let found = if a.write { self.write(i, a) } else { self.read(i, a) };
            if clash.is_none() {
                clash = found.map(|(with, write)| Clash { with, write, offset: i << self.shift });
            }
        }
        clash
    }

    /// Makes cells of `1 << to` bytes, of larger ones if there are any.
    #[cold]
    fn refine(&mut self, size: usize, to: u32) {
        if self.cells.is_empty() {
            self.shift = to;
            self.cells = vec![Cell { write: NONE, read: NONE }; size >> to];
            return;
        }
        let times = 1 << (self.shift - to);
        let mut cells = Vec::with_capacity(self.cells.len() * times);
        for c in &self.cells {
            for k in 0..times {
                let mut c = *c;
                if k > 0 && c.read.at.warp == MANY && c.read.at.mask != 0 {
                    let list = self.many[c.read.at.clock as usize].clone();
                    c.read.at.clock = self.many.len() as u32;
                    self.many.push(list);
                }
                cells.push(c);
            }
        }
        self.cells = cells;
        self.shift = to;
    }

    #[inline]
    fn write(&mut self, i: usize, a: &Access) -> Option<(Entry, bool)> {
        let cell = &mut self.cells[i];
        let mut clash = None;
        if a.clashes_across(&cell.write) {
            clash = Some((cell.write, true));
        }
        if cell.read.at.mask != 0 {
            if cell.read.at.warp == MANY {
                let list = &mut self.many[cell.read.at.clock as usize];
                clash =
                    clash.or_else(|| list.all().iter().find(|e| a.clashes_across(e)).map(|e| (*e, false)));
                list.clear();
            } else if a.clashes_across(&cell.read) {
                clash = clash.or(Some((cell.read, false)));
            }
            // Keeps the list's index for the next time that several threads read.
            cell.read.at.mask = 0;
        }
        if cell.write.at.warp == a.by.at.warp
            && cell.write.at.clock == a.by.at.clock
            && cell.write.pc == a.by.pc
        {
            cell.write.at.mask |= a.by.at.mask;
        } else {
            cell.write = a.by;
        }
        clash
    }

    #[inline]
    fn read(&mut self, i: usize, a: &Access) -> Option<(Entry, bool)> {
        let cell = &mut self.cells[i];
        let clash = a.clashes_across(&cell.write).then_some((cell.write, true));
        let r = &mut cell.read;
        if r.at.mask == 0 {
            if r.at.warp == MANY {
                self.many[r.at.clock as usize].push(a.by);
                r.at.mask = 1;
            } else {
                *r = a.by;
            }
        } else if r.at.warp == MANY {
            let list = &mut self.many[r.at.clock as usize];
            let strong = a.by.pc & (STRONG | ASYNC_PROXY);
            let (mut own, mut others) = (None, false);
            for e in list.all().iter_mut().filter(|e| e.at.warp == a.by.at.warp) {
                if own.is_none() && e.at.clock == a.by.at.clock && e.pc & (STRONG | ASYNC_PROXY) == strong {
                    e.at.mask |= a.by.at.mask;
                    own = Some(e.at);
                } else {
                    others = true;
                }
            }
            if let Some(at) = own {
                // Older reads by these lanes need not be remembered any longer.
                if others {
                    list.retain(|e| {
                        e.at == at
                            || e.at.warp != at.warp
                            || e.at.clock >= at.clock
                            || e.at.mask & !at.mask != 0
                    });
                }
            } else if let Some(e) = list.all().iter_mut().find(|e| a.replaces(e)) {
                *e = a.by;
            } else {
                list.push(a.by);
            }
        } else if r.at.warp == a.by.at.warp && r.at.clock == a.by.at.clock && r.pc & !PC == a.by.pc & !PC {
            r.at.mask |= a.by.at.mask;
        } else if a.replaces(r) {
            *r = a.by;
        } else {
            let first = *r;
            *r = Entry { at: LaneClock { warp: MANY, clock: self.many.len() as u32, mask: 1 }, pc: 0 };
            self.many.push(Readers::of(first, a.by));
        }
        clash
    }

    /// Replaces the writes of `old` in `len` bytes at `offset` by `new`: an asynchronous copy has been waited for.
    pub(crate) fn complete(&mut self, offset: usize, len: usize, old: Entry, new: Entry) {
        if self.cells.is_empty() {
            return;
        }
        for i in offset >> self.shift..(offset + len).div_ceil(1 << self.shift) {
            let w = &mut self.cells[i].write;
            if w.pc == old.pc
                && w.at.warp == old.at.warp
                && w.at.clock == old.at.clock
                && w.at.mask & old.at.mask != 0
            {
                *w = new;
            }
        }
    }

    /// The last write and a read since of the byte at `offset`.
    pub(crate) fn last(&self, offset: usize) -> (Option<Entry>, Option<Entry>) {
        let Some(cell) = self.cells.get(offset >> self.shift) else { return (None, None) };
        let read = match cell.read {
            e if e.at.mask == 0 => None,
            e if e.at.warp == MANY => self.many[e.at.clock as usize].first(),
            e => Some(e),
        };
        ((cell.write.at.mask != 0).then_some(cell.write), read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(warp: u32, clock: u32, lane: u32) -> Entry {
        Entry { at: LaneClock { warp, clock, mask: 1 << lane }, pc: 1 }
    }

    #[test]
    fn every_reader_must_be_ordered_before_a_write() {
        let mut s = Shadow::default();
        let none = Know::new(0, 4);
        for warp in 0..3 {
            for lane in 0..32 {
                assert_eq!(
                    s.access(
                        64,
                        16,
                        16,
                        &Access { by: by(warp, 1, lane), write: false, know: &none, issuer: None }
                    ),
                    None
                );
            }
        }
        let mut most = Know::new(0, 4);
        for warp in [0, 2] {
            most.learn(LaneClock { warp, clock: 1, mask: u32::MAX });
        }
        let mut all = most.clone();
        let w = by(3, 1, 0);
        let clash =
            s.clone().access(64, 20, 2, &Access { by: w, write: true, know: &most, issuer: None }).unwrap();
        assert_eq!(
            (clash.with.at.warp, clash.with.at.mask, clash.write, clash.offset),
            (1, u32::MAX, false, 20)
        );
        all.learn(LaneClock { warp: 1, clock: 1, mask: u32::MAX });
        assert_eq!(s.access(64, 20, 2, &Access { by: w, write: true, know: &all, issuer: None }), None);
        // The neighbours of the two bytes still remember their readers, not the write.
        assert!(
            s.clone().access(64, 22, 2, &Access { by: w, write: true, know: &most, issuer: None }).is_some()
        );
        assert_eq!(
            s.access(64, 18, 2, &Access { by: by(0, 2, 0), write: false, know: &none, issuer: None }),
            None
        );
        assert!(
            s.access(64, 21, 1, &Access { by: by(0, 2, 0), write: false, know: &none, issuer: None })
                .is_some()
        );
    }
}
