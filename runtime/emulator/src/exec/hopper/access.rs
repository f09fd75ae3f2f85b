//! The two sides of a copy, checked when it is issued: a box of shared memory, and rows of global memory.

use crate::exec::mem::At;
use crate::exec::step::Step;
use crate::hb::{Fenced, LaneClock};
use crate::hopper::swizzle::Swizzle;
use crate::hopper::tensor_map::{Row, TensorMap, TensorType};
use crate::ir::hopper::Bulk;
use crate::ir::{Address, MemSpace};
use crate::memory::shadow::{ASYNC_PROXY, Access, Clash, Entry, STRONG};
use crate::memory::shared::SHARED_BASE;
use crate::memory::{PAGE, pages};
use crate::report::{FindingKind, Space};

/// Alignment of the addresses and sizes of bulk copies, and of tensor copies' shared memory.
pub(super) const BULK: usize = 16;
const TENSOR: usize = 128;

/// A copy's box as rows, and how it lies in shared memory.
pub(super) struct Shape {
    pub(super) rows: Vec<Row>,
    pub(super) bytes: usize,
    pub(super) align: usize,
    pub(super) swizzle: Swizzle,
    /// Element type, if a tensor map says it.
    pub(super) element: Option<TensorType>,
}

impl Step<'_, '_> {
    /// The rows that a lane's copy moves; `None`, reported, if it cannot be.
    pub(super) fn shape(&mut self, bulk: &Bulk, lane: u32) -> Option<Shape> {
        match bulk {
            Bulk::Linear { global, bytes } => {
                let address = self.address(*global, lane);
                let n = self.reg(*bytes)[lane as usize] as u32;
                if !(n as usize).is_multiple_of(BULK) || !address.is_multiple_of(BULK as u64) {
                    self.report(FindingKind::Misaligned, lane, Some((Space::Global, address)), || {
                        format!("a bulk copy of {n} bytes: size and addresses must be multiples of {BULK}")
                    });
                    return None;
                }
                let rows = if n == 0 {
                    Vec::new()
                } else {
                    vec![Row { offset: 0, width: n, skip: 0, len: n, address }]
                };
                Some(Shape { rows, bytes: n as usize, align: BULK, swizzle: Swizzle::None, element: None })
            }
            Bulk::Tensor { map, coords } => {
                let map = self.tensor_map(*map, lane)?;
                if map.extents.len() != coords.len() {
                    self.report(FindingKind::Misuse, lane, None, || {
                        format!(
                            "a copy of {} dimensions with a tensor map of {}",
                            coords.len(),
                            map.extents.len()
                        )
                    });
                    return None;
                }
                let coords: Vec<i32> = coords.iter().map(|c| self.reg(*c)[lane as usize] as i32).collect();
                let bytes = map.box_bytes() as usize;
                Some(Shape {
                    rows: map.rows(&coords),
                    bytes,
                    align: TENSOR,
                    swizzle: map.swizzle,
                    element: Some(map.element),
                })
            }
        }
    }

    fn tensor_map(&mut self, address: Address, lane: u32) -> Option<TensorMap> {
        let a = self.address(address, lane);
        if !a.is_multiple_of(64) {
            self.report(FindingKind::Misaligned, lane, None, || {
                format!("a tensor map at {a:#x}, which is not a multiple of 64")
            });
            return None;
        }
        let mut bytes = [0; 128];
        for (k, piece) in bytes.chunks_mut(32).enumerate() {
            let at = self.locate(MemSpace::Generic, a + 32 * k as u64, 32, lane)?;
            self.fetch(at, lane, piece);
        }
        match TensorMap::decode(&bytes) {
            Ok(map) => Some(map),
            Err(what) => {
                self.report(FindingKind::Misuse, lane, None, || what);
                None
            }
        }
    }

    /// Checks `len` bytes of a CTA's shared memory for an asynchronous access that `agent` stands for.
    pub(crate) fn async_shared(
        &mut self,
        cta: usize,
        offset: usize,
        len: usize,
        agent: LaneClock,
        write: bool,
        lane: u32,
    ) {
        if len == 0 {
            return;
        }
        let by = Entry { at: agent, pc: self.pc | ASYNC_PROXY };
        let me = self.warp.stamp(lane, 0).at;
        let access = Access { by, write, know: self.warp.know(lane), issuer: Some((me, Fenced::Shared)) };
        if let Some(c) = self.ctas[cta].shared.check(offset, len, &access) {
            let ordered = access.ordered(&c.with);
            self.async_clash(
                c,
                ordered,
                lane,
                (Space::Shared, c.offset as u64 + u64::from(SHARED_BASE)),
                write,
            );
        }
    }

    pub(crate) fn async_clash(
        &mut self,
        c: Clash,
        ordered: bool,
        lane: u32,
        access: (Space, u64),
        write: bool,
    ) {
        let kind = if ordered { FindingKind::MissingProxyFence } else { FindingKind::Race };
        let what = if write { "an asynchronous write" } else { "an asynchronous read" };
        let earlier = if c.write { "stored" } else { "read" };
        self.report_with(kind, lane, Some(access), Some((c.with, c.write)), || match kind {
            FindingKind::Race => format!("{what} with nothing to order it"),
            _ => {
                format!("{what} of bytes {earlier} through the generic proxy, without a proxy fence between")
            }
        });
    }

    /// Checks the global side of a copy; whether all of it exists.
    pub(super) fn async_global(
        &mut self,
        rows: &[Row],
        agent: LaneClock,
        flags: u32,
        write: bool,
        lane: u32,
    ) -> bool {
        let mut sound = true;
        let mut last_sector = None;
        let mut bytes = Vec::<(u32, u64, u64)>::new();
        for (a, n) in rows.iter().flat_map(|r| pages(r.address, r.len as usize)) {
            let Some(spot) = self.view.spot(a, n) else {
                self.report(FindingKind::OutOfBounds, lane, Some((Space::Global, a)), || {
                    format!("{n} bytes of a copy are not inside one allocation")
                });
                sound = false;
                continue;
            };
            if write && self.read_only(At::Global(spot, a), lane) {
                sound = false;
                continue;
            }
            let by = Entry { at: agent, pc: self.pc | ASYNC_PROXY | flags };
            let me = self.warp.stamp(lane, 0).at;
            let access = Access { by, write, know: self.warp.know(lane), issuer: Some((me, Fenced::Global)) };
            if let Some(c) = self.view.check(spot, n, &access) {
                let ordered = access.ordered(&c.with);
                self.async_clash(
                    c,
                    ordered,
                    lane,
                    (Space::Global, a / PAGE as u64 * PAGE as u64 + c.offset as u64),
                    write,
                );
            }
            let cta = &mut self.ctas[self.at];
            cta.touched.mark(spot.page, spot.allocation, spot.offset(), n, write);
            if flags & STRONG != 0 {
                cta.touched.mark(spot.page, spot.allocation, spot.offset(), n, false);
            }
            // Neighbouring rows may share a sector, which is moved once.
            let (first, end) = (a / 32, (a + n as u64).div_ceil(32));
            let sectors = end - first - u64::from(last_sector == Some(first));
            last_sector = Some(end - 1);
            match bytes.iter_mut().find(|b| b.0 == spot.allocation) {
                Some(b) => *b = (b.0, b.1 + n as u64, b.2 + sectors),
                None => bytes.push((spot.allocation, n as u64, sectors)),
            }
        }
        let tally = &mut self.ctas[self.at].tally;
        for (allocation, bytes, sectors) in bytes {
            let t = tally.traffic(allocation as usize);
            let reads = !write || flags & STRONG != 0;
            for side in [write.then_some(&mut t.written), reads.then_some(&mut t.read)].into_iter().flatten()
            {
                side.requests += 1;
                side.bytes += bytes;
                side.sectors += sectors;
            }
        }
        sound
    }

    /// The barrier that a copy completes on: its CTA, offset and agent. It must be fenced for the asynchronous proxy.
    pub(crate) fn completion(&mut self, cta: usize, offset: u32, lane: u32) -> Option<LaneClock> {
        let b = self.ctas[cta].hopper.barriers.get(&offset)?;
        let (agent, made, fenced) = (b.agent(), b.initialised, b.fenced);
        if !fenced && !self.warp.know(lane).across_fence(Fenced::Shared, made) {
            let access = (Space::Shared, u64::from(offset + SHARED_BASE));
            self.report(FindingKind::MissingProxyFence, lane, Some(access), || {
                "the mbarrier object was initialised with neither `fence.mbarrier_init` nor `fence.proxy.async` before this copy".to_owned()
            });
        }
        Some(agent)
    }
}
