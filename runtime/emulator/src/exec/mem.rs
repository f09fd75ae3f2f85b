//! Loads and stores: address, bounds, alignment, initialisation, races and counts, for every space.

#![allow(clippy::inline_always)] // what is constant where an access is made leaves little of these functions

use crate::exec::step::Step;
use crate::ir::{Address, Extend, MemSpace, Order, Place, Reg};
use crate::lanes::{bits, low, sext};
use crate::memory::shadow::{ASYNC_PROXY, Access, Clash, IN_FLIGHT, PC, STRONG};
use crate::memory::shared::SHARED_BASE;
use crate::memory::view::Spot;
use crate::memory::{LOCAL_WINDOW, PAGE, PARAM_WINDOW, SHARED_WINDOW, WINDOW, all_set, set_bits};
use crate::report::{FindingKind, Space};
use crate::state::traffic::{Offsets, Request, count_shared};

/// The largest access of one lane.
pub(crate) const MAX_ACCESS: usize = 32;

/// A checked access of one lane.
#[derive(Clone, Copy, Debug)]
pub(crate) enum At {
    Global(Spot, u64),
    /// Offset in shared memory.
    Shared(usize),
    /// Offset in a lane's local memory.
    Local(usize),
    Param(usize),
}

/// Splits a generic address into a space and an address in it.
#[inline]
fn resolve(space: MemSpace, address: u64) -> (Space, u64) {
    match space {
        MemSpace::Global => (Space::Global, address),
        MemSpace::Const => (Space::Const, address),
        MemSpace::Shared => (Space::Shared, low(address, 32)),
        MemSpace::Local => (Space::Local, address),
        MemSpace::Param => (Space::Param, address),
        MemSpace::Generic => {
            let windows =
                [(SHARED_WINDOW, Space::Shared), (LOCAL_WINDOW, Space::Local), (PARAM_WINDOW, Space::Param)];
            let hit = windows.into_iter().find(|w| address.wrapping_sub(w.0) < WINDOW);
            hit.map_or((Space::Global, address), |(base, space)| (space, address - base))
        }
    }
}

impl Step<'_, '_> {
    #[inline]
    pub(crate) fn address(&self, a: Address, lane: u32) -> u64 {
        self.reg(a.base)[lane as usize].wrapping_add(a.offset as u64)
    }

    /// Checks bounds and alignment of an access; reports and gives `None` where it cannot be made.
    #[inline(always)] // the space and the length are mostly constant
    pub(crate) fn locate(&mut self, space: MemSpace, address: u64, len: usize, lane: u32) -> Option<At> {
        let (space, a) = resolve(space, address);
        if a & (len.next_power_of_two() as u64 - 1) != 0 {
            self.misaligned(space, a, len, lane);
            return None;
        }
        let at = match space {
            Space::Global | Space::Const => self.view.spot(a, len).map(|s| At::Global(s, a)),
            Space::Shared => self.ctas[self.at].shared.offset(a as u32, len).map(At::Shared),
            Space::Local => (a.checked_add(len as u64).is_some_and(|e| e <= self.env.code.local.into()))
                .then_some(At::Local(a as usize)),
            Space::Param => {
                (a.checked_add(len as u64).is_some_and(|e| e <= self.env.launch.params.len() as u64))
                    .then_some(At::Param(a as usize))
            }
        };
        if at.is_none() {
            self.outside(space, a, len, lane);
        }
        at
    }

    #[cold]
    fn misaligned(&mut self, space: Space, a: u64, len: usize, lane: u32) {
        self.report(FindingKind::Misaligned, lane, Some((space, a)), || {
            format!("{len} bytes need an address that is a multiple of {len}")
        });
    }

    #[cold]
    fn outside(&mut self, space: Space, a: u64, len: usize, lane: u32) {
        let shared = self.ctas[self.at].shared.len();
        let (local, params) = (self.env.code.local, self.env.launch.params.len());
        self.report(FindingKind::OutOfBounds, lane, Some((space, a)), || match space {
            Space::Global | Space::Const => format!("{len} bytes that are not inside one allocation"),
            Space::Shared => {
                format!("{len} bytes; shared memory is {shared} bytes from address {SHARED_BASE}")
            }
            Space::Local => format!("{len} bytes; a thread has {local} bytes of local memory"),
            Space::Param => format!("{len} bytes; the parameters are {params} bytes"),
        });
    }

    /// Checks an access to global or shared memory for races.
    #[inline(always)] // what is constant at the place of the call makes this short
    pub(crate) fn race(&mut self, at: At, len: usize, lane: u32, flags: u32, write: bool) -> Option<Clash> {
        let by = self.warp.stamp(lane, self.pc | flags);
        let access = Access { by, write, know: self.warp.know(lane), issuer: None };
        match at {
            At::Global(spot, _) if self.view.plain(spot, len, &access) => None,
            At::Global(spot, _) => self.view.check(spot, len, &access),
            At::Shared(offset) => {
                let shared = &mut self.ctas[self.at].shared;
                if shared.plain(offset, len, &access) { None } else { shared.check(offset, len, &access) }
            }
            _ => None,
        }
    }

    /// Reports a clash; `address` is where the access began.
    #[cold]
    pub(crate) fn clash(&mut self, clash: Clash, at: At, lane: u32, write: bool) {
        let access = match at {
            At::Global(_, a) => (Space::Global, a / PAGE as u64 * PAGE as u64 + clash.offset as u64),
            At::Shared(_) => (Space::Shared, clash.offset as u64 + u64::from(SHARED_BASE)),
            _ => return,
        };
        let under_way = clash.with.pc & (IN_FLIGHT | ASYNC_PROXY) != 0;
        let kind = if under_way { FindingKind::AsyncInFlight } else { FindingKind::Race };
        let what = if write { "store" } else { "load" };
        self.report_with(kind, lane, Some(access), Some((clash.with, clash.write)), || {
            if kind == FindingKind::AsyncInFlight {
                let still = if clash.write { "writes" } else { "reads" };
                format!("{what} of bytes that an asynchronous operation still {still}: this thread has not waited for it")
            } else {
                format!("{what} with nothing to order it")
            }
        });
    }

    /// Reads bytes of a checked access; whether all of them were written.
    #[inline(always)]
    pub(crate) fn fetch(&self, at: At, lane: u32, out: &mut [u8]) -> bool {
        match at {
            At::Global(spot, _) => self.view.read(spot, out),
            At::Shared(offset) => self.ctas[self.at].shared.read(offset, out),
            At::Local(a) => {
                let from = lane as usize * self.env.code.local as usize + a;
                out.copy_from_slice(&self.warp.local[from..from + out.len()]);
                all_set(&self.warp.local_init, from, out.len())
            }
            At::Param(a) => {
                out.copy_from_slice(&self.env.launch.params[a..a + out.len()]);
                true
            }
        }
    }

    #[inline(always)]
    pub(crate) fn put(&mut self, at: At, lane: u32, data: &[u8]) {
        match at {
            At::Global(spot, _) => {
                self.view.write(spot, data);
                let a = spot.allocation;
                self.ctas[self.at].touched.mark(spot.page, a, spot.offset(), data.len(), true);
            }
            At::Shared(offset) => self.ctas[self.at].shared.write(offset, data),
            At::Local(a) => {
                let from = lane as usize * self.env.code.local as usize + a;
                self.warp.local[from..from + data.len()].copy_from_slice(data);
                set_bits(&mut self.warp.local_init, from, data.len());
            }
            At::Param(_) => {}
        }
    }

    /// Reports a read of unwritten bytes.
    #[cold]
    pub(crate) fn unwritten(&mut self, at: At, lane: u32, data_len: usize) {
        let access = match at {
            At::Global(_, a) => (Space::Global, a),
            At::Shared(o) => (Space::Shared, o as u64 + u64::from(SHARED_BASE)),
            At::Local(a) => (Space::Local, a as u64),
            At::Param(a) => (Space::Param, a as u64),
        };
        self.report(FindingKind::Uninitialised, lane, Some(access), || {
            format!("some of the {data_len} bytes were never written")
        });
    }

    pub(crate) fn load(&mut self, place: &Place, d: &[Reg], extend: Extend, active: u32) {
        match place.space {
            MemSpace::Shared => self.load_from(MemSpace::Shared, place, d, extend, active),
            MemSpace::Global => self.load_from(MemSpace::Global, place, d, extend, active),
            other => self.load_from(other, place, d, extend, active),
        }
    }

    #[inline(always)] // once for each space that matters
    fn load_from(&mut self, space: MemSpace, place: &Place, d: &[Reg], extend: Extend, active: u32) {
        let element = usize::from(place.bytes);
        let len = element * d.len();
        let flags = if place.order == Order::Weak { 0 } else { STRONG };
        let mut values = [[0u64; 32]; 8];
        let mut request = Request::default();
        let mut shared = Offsets::default();
        for lane in bits(active) {
            let address = self.address(place.address, lane);
            let Some(at) = self.locate(space, address, len, lane) else { continue };
            if let Some(c) = self.race(at, len, lane, flags, false) {
                self.clash(c, at, lane, false);
            }
            // Room for a whole word behind the last element.
            let mut data = [0; MAX_ACCESS + 8];
            if !self.fetch(at, lane, &mut data[..len]) {
                self.unwritten(at, lane, len);
            }
            match at {
                At::Global(spot, a) => {
                    request.note(spot.allocation, a, len);
                    self.ctas[self.at].touched.mark(spot.page, spot.allocation, spot.offset(), len, false);
                }
                At::Shared(offset) => shared.set(lane, offset),
                _ => {}
            }
            if flags != 0 {
                self.observe(at, place.order, place.scope, lane);
            }
            for (k, value) in values.iter_mut().take(d.len()).enumerate() {
                let word = data[k * element..].first_chunk().map_or(0, |&w| u64::from_le_bytes(w));
                let v = low(word, 8 * element as u32);
                value[lane as usize] =
                    if extend.signed { low(sext(v, 8 * element as u32) as u64, extend.bits) } else { v };
            }
        }
        for (r, v) in d.iter().zip(&values) {
            self.set(*r, v, active);
        }
        let tally = &mut self.ctas[self.at].tally;
        request.count(tally, false);
        count_shared(&mut tally.shared, &shared, len, false);
    }

    pub(crate) fn store(&mut self, place: &Place, s: &[Reg], active: u32) {
        match place.space {
            MemSpace::Shared => self.store_to(MemSpace::Shared, place, s, active),
            MemSpace::Global => self.store_to(MemSpace::Global, place, s, active),
            other => self.store_to(other, place, s, active),
        }
    }

    #[inline(always)] // once for each space that matters
    fn store_to(&mut self, space: MemSpace, place: &Place, s: &[Reg], active: u32) {
        let element = usize::from(place.bytes);
        let len = element * s.len();
        let flags = if place.order == Order::Weak { 0 } else { STRONG };
        let mut request = Request::default();
        let mut shared = Offsets::default();
        for lane in bits(active) {
            let address = self.address(place.address, lane);
            let Some(at) = self.locate(space, address, len, lane) else { continue };
            let mut data = [0; MAX_ACCESS + 8];
            for (k, r) in s.iter().enumerate() {
                // What is too much of the word is overwritten by the next, or is behind the last.
                let word = self.reg(*r)[lane as usize].to_le_bytes();
                data[k * element..k * element + 8].copy_from_slice(&word);
            }
            if self.read_only(at, lane) {
                continue;
            }
            if let Some(c) = self.race(at, len, lane, flags, true) {
                self.store_clash(c, at, lane, &data[..len]);
            }
            self.put(at, lane, &data[..len]);
            match at {
                At::Global(spot, a) => request.note(spot.allocation, a, len),
                At::Shared(offset) => shared.set(lane, offset),
                _ => {}
            }
            if flags != 0 {
                self.publish(at, place.order, place.scope, lane, false);
            }
        }
        let tally = &mut self.ctas[self.at].tally;
        request.count(tally, true);
        count_shared(&mut tally.shared, &shared, len, true);
    }

    /// Whether a store goes to memory that kernels cannot write.
    #[inline]
    pub(crate) fn read_only(&mut self, at: At, lane: u32) -> bool {
        let access = match at {
            At::Global(spot, a) if self.view.base.allocations[spot.allocation as usize].read_only => {
                (Space::Const, a)
            }
            At::Param(a) => (Space::Param, a as u64),
            _ => return false,
        };
        self.report(FindingKind::ReadOnlyStore, lane, Some(access), String::new);
        true
    }

    /// A store that clashes: lanes of one instruction that store the same value are told apart from real races.
    #[cold]
    fn store_clash(&mut self, clash: Clash, at: At, lane: u32, data: &[u8]) {
        let me = self.warp.stamp(lane, self.pc);
        let with = clash.with;
        if with.at.warp == me.at.warp && with.at.clock == me.at.clock && with.pc & PC == me.pc && clash.write
        {
            let mut old = [0; MAX_ACCESS];
            self.fetch(at, lane, &mut old[..data.len()]);
            if old[..data.len()] == *data {
                if self.env.launch.report_same_value_stores {
                    self.report_with(
                        FindingKind::SameValueStore,
                        lane,
                        None,
                        Some((with, true)),
                        String::new,
                    );
                }
                return;
            }
        }
        self.clash(clash, at, lane, true);
    }
}
