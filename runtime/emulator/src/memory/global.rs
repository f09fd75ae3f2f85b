//! Global memory between launches: labelled allocations with exact bounds, that know which of their bytes were written.

use std::collections::BTreeMap;

use crate::memory::{PAGE, PageBits, bit_ranges, set_bits};

/// First page of device memory. Small numbers are never addresses.
const BASE: u64 = 0x10_0000_0000;
/// Unmapped bytes kept free behind every allocation.
const GUARD: u64 = 1 << 20;
/// An allocation starts this far into its first page: aligned to 256 bytes, as the driver promises, and to no more.
const SKEW: u64 = 256;

/// A host access outside every allocation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("host access of {bytes} bytes at {address:#x} is not inside one allocation; nearest is {nearest}")]
pub struct HostAccess {
    /// First byte.
    pub address: u64,
    /// Length in bytes.
    pub bytes: usize,
    /// The allocation at or before the address.
    pub nearest: String,
}

/// A page that somebody wrote.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) data: [u8; PAGE],
    pub(crate) init: PageBits,
}

#[derive(Clone, Debug)]
pub(crate) struct Allocation {
    pub(crate) label: String,
    pub(crate) start: u64,
    pub(crate) bytes: u64,
    /// Kernels may not write it: constant memory.
    pub(crate) read_only: bool,
    /// The value of bytes in absent pages; `None` for unwritten bytes.
    fill: Option<u8>,
    pages: Vec<Option<Box<Page>>>,
}

impl Allocation {
    /// The page with number `page` (address / 4096), if it was written.
    pub(crate) fn page(&self, page: u64) -> Option<&Page> {
        self.pages[(page - self.start / PAGE as u64) as usize].as_deref()
    }

    /// A page's content, made if absent.
    pub(crate) fn page_mut(&mut self, page: u64) -> &mut Page {
        let fill = self.fill;
        self.pages[(page - self.start / PAGE as u64) as usize].get_or_insert_with(|| Box::new(blank(fill)))
    }

    /// The content of an unwritten page.
    pub(crate) fn blank(&self) -> Page {
        blank(self.fill)
    }

    /// The value that an absent page's bytes read as.
    pub(crate) fn blank_byte(&self) -> u8 {
        self.fill.unwrap_or(0)
    }

    /// Whether `len` bytes at `address` are inside.
    pub(crate) fn holds(&self, address: u64, len: u64) -> bool {
        address >= self.start
            && address - self.start <= self.bytes
            && len <= self.bytes - (address - self.start)
    }
}

fn blank(fill: Option<u8>) -> Page {
    Page { data: [fill.unwrap_or(0); PAGE], init: [if fill.is_some() { u64::MAX } else { 0 }; PAGE / 64] }
}

/// Device memory: labelled allocations, each with a guard gap behind it, so that an access out of bounds never lands in a neighbour.
///
/// Untouched pages cost nothing, so slabs of hundreds of megabytes are cheap. Several launches share one memory; a launch
/// sees everything that the launches before it wrote.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    pub(crate) allocations: Vec<Allocation>,
    /// Addresses of the variables of the modules that were launched, by module identity.
    pub(crate) modules: BTreeMap<u64, Vec<u64>>,
    next: u64,
}

impl Memory {
    /// Memory without allocations.
    pub fn new() -> Self {
        Self::default()
    }

    /// Allocates unwritten `bytes`: a kernel that reads them before writing is reported.
    pub fn alloc(&mut self, label: impl Into<String>, bytes: u64) -> u64 {
        self.allocate(label.into(), bytes, None)
    }

    /// Allocates `bytes`, each written with `value`.
    pub fn alloc_filled(&mut self, label: impl Into<String>, bytes: u64, value: u8) -> u64 {
        self.allocate(label.into(), bytes, Some(value))
    }

    /// Allocates and writes `data`.
    pub fn alloc_from(&mut self, label: impl Into<String>, data: &[u8]) -> u64 {
        let start = self.allocate(label.into(), data.len() as u64, None);
        self.store(self.allocations.len() - 1, start, data);
        start
    }

    fn allocate(&mut self, label: String, bytes: u64, fill: Option<u8>) -> u64 {
        let start = self.next.max(BASE) + SKEW;
        let end = (start + bytes).next_multiple_of(PAGE as u64);
        let pages = (end.max(start) - (start - SKEW)).div_ceil(PAGE as u64) as usize;
        self.allocations.push(Allocation {
            label,
            start,
            bytes,
            read_only: false,
            fill,
            pages: vec![None; pages.max(1)],
        });
        self.next = (end + GUARD).next_multiple_of(PAGE as u64);
        start
    }

    /// Writes `data` at `address`.
    pub fn write(&mut self, address: u64, data: &[u8]) -> Result<(), HostAccess> {
        let i = self.inside(address, data.len())?;
        self.store(i, address, data);
        Ok(())
    }

    /// The `bytes` at `address`; unwritten bytes read as 0 (see [`Memory::first_unwritten`]).
    pub fn read(&self, address: u64, bytes: usize) -> Result<Vec<u8>, HostAccess> {
        let a = &self.allocations[self.inside(address, bytes)?];
        let mut out = Vec::with_capacity(bytes);
        for (page, from, to) in pages(address, bytes) {
            match a.page(page) {
                Some(p) => out.extend_from_slice(&p.data[from..to]),
                None => out.resize(out.len() + to - from, a.fill.unwrap_or(0)),
            }
        }
        Ok(out)
    }

    /// Offset from `address` of the first of `bytes` bytes that neither host nor kernel wrote.
    pub fn first_unwritten(&self, address: u64, bytes: usize) -> Result<Option<usize>, HostAccess> {
        let a = &self.allocations[self.inside(address, bytes)?];
        let mut done = 0;
        for (page, from, to) in pages(address, bytes) {
            let first = match a.page(page) {
                Some(p) => bit_ranges(from, to - from).find_map(|(w, mask)| {
                    let missing = mask & !p.init[w];
                    (missing != 0).then(|| w * 64 + missing.trailing_zeros() as usize)
                }),
                None if a.fill.is_some() => None,
                None => Some(from),
            };
            if let Some(i) = first {
                return Ok(Some(done + i - from));
            }
            done += to - from;
        }
        Ok(None)
    }

    /// Marks `bytes` at `address` as unwritten again.
    pub fn poison(&mut self, address: u64, bytes: usize) -> Result<(), HostAccess> {
        let i = self.inside(address, bytes)?;
        for (page, from, to) in pages(address, bytes) {
            let page = self.allocations[i].page_mut(page);
            for b in from..to {
                page.init[b / 64] &= !(1 << (b % 64));
            }
        }
        Ok(())
    }

    /// Takes over the bytes of `data` whose bit is set in `bits`, into a page of an allocation.
    pub(crate) fn commit(&mut self, allocation: u32, page: u64, data: &[u8; PAGE], bits: &PageBits) {
        let page = self.allocations[allocation as usize].page_mut(page);
        for (w, &mask) in bits.iter().enumerate() {
            page.init[w] |= mask;
            if mask == u64::MAX {
                page.data[w * 64..w * 64 + 64].copy_from_slice(&data[w * 64..w * 64 + 64]);
                continue;
            }
            let mut left = mask;
            while left != 0 {
                let b = w * 64 + left.trailing_zeros() as usize;
                page.data[b] = data[b];
                left &= left - 1;
            }
        }
    }

    fn store(&mut self, allocation: usize, address: u64, data: &[u8]) {
        let mut rest = data;
        for (page, from, to) in pages(address, data.len()) {
            let (now, later) = rest.split_at(to - from);
            let page = self.allocations[allocation].page_mut(page);
            page.data[from..to].copy_from_slice(now);
            set_bits(&mut page.init, from, to - from);
            rest = later;
        }
    }

    fn inside(&self, address: u64, bytes: usize) -> Result<usize, HostAccess> {
        let i = self.at_or_before(address);
        i.filter(|&i| self.allocations[i].holds(address, bytes as u64)).ok_or_else(|| HostAccess {
            address,
            bytes,
            nearest: self
                .nearest(address)
                .map_or_else(|| "none".to_owned(), |(label, offset)| format!("{label}{offset:+}")),
        })
    }

    /// The last allocation that starts at or before `address`.
    pub(crate) fn at_or_before(&self, address: u64) -> Option<usize> {
        self.allocations.partition_point(|a| a.start <= address).checked_sub(1)
    }

    /// The allocation that owns the page of `address`, if any does.
    pub(crate) fn owner(&self, page: u64) -> Option<usize> {
        let i = self.allocations.partition_point(|a| a.start / PAGE as u64 <= page).checked_sub(1)?;
        let a = &self.allocations[i];
        (page - a.start / (PAGE as u64) < a.pages.len() as u64).then_some(i)
    }

    /// Label of the allocation nearest to `address`, and the offset from its start.
    pub(crate) fn nearest(&self, address: u64) -> Option<(String, i64)> {
        let before = self.at_or_before(address);
        let after = before.map_or(0, |i| i + 1);
        let distance = |i: usize| {
            let a = &self.allocations[i];
            if a.holds(address, 0) {
                0
            } else {
                address.abs_diff(a.start).min(address.abs_diff(a.start + a.bytes))
            }
        };
        let mut candidates: Vec<usize> = before.into_iter().collect();
        if after < self.allocations.len() {
            candidates.push(after);
        }
        let i = candidates.into_iter().min_by_key(|&i| distance(i))?;
        (distance(i) < GUARD).then(|| {
            (self.allocations[i].label.clone(), address.wrapping_sub(self.allocations[i].start) as i64)
        })
    }
}

/// Splits a range into (page number, first byte, end byte) per page.
fn pages(address: u64, bytes: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let end = address + bytes as u64;
    let size = PAGE as u64;
    (address / size..end.div_ceil(size)).map(move |p| {
        let from = address.max(p * size) - p * size;
        let to = end.min((p + 1) * size) - p * size;
        (p, from as usize, to as usize)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_and_bounds_are_exact() {
        let mut m = Memory::new();
        let a = m.alloc("a", 10_000);
        let b = m.alloc_from("b", &[1, 2, 3]);
        assert_eq!((a % 256, b % 256), (0, 0));
        assert_ne!(a % 512, 0);
        let data: Vec<u8> = (0..5000u32).map(|i| i as u8).collect();
        m.write(a + 3000, &data).unwrap();
        assert_eq!(m.read(a + 3000, 5000).unwrap(), data);
        assert_eq!(m.first_unwritten(a + 3000, 5001).unwrap(), Some(5000));
        assert_eq!(m.first_unwritten(a + 3000, 5000).unwrap(), None);
        assert_eq!(m.first_unwritten(a, 4000).unwrap(), Some(0));
        m.poison(a + 3003, 2).unwrap();
        assert_eq!(m.first_unwritten(a + 3000, 5000).unwrap(), Some(3));
        assert!(m.read(a + 9999, 1).is_ok() && m.read(a + 9999, 2).is_err());
        assert!(m.read(b, 4).is_err() && m.write(a - 1, &[0]).is_err());
        assert_eq!(m.nearest(b + 5), Some(("b".into(), 5)));
        assert_eq!(m.nearest(b - 1), Some(("b".into(), -1)));
        let c = m.alloc_filled("c", 1 << 30, 7);
        assert_eq!(m.read(c + (1 << 29), 2).unwrap(), [7, 7]);
    }
}
