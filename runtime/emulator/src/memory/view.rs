//! A launch's view of global memory: the memory as it was before the launch, under the pages that the viewing CTAs wrote.
//!
//! CTAs that do not synchronise with each other get a view each and run in parallel, whatever the number of cores; their views are
//! merged in grid order afterwards, and any byte that one wrote and another touched is a race. CTAs that do synchronise share a view.

#![allow(clippy::inline_always)] // what is constant where an access is made leaves little of these functions

use std::collections::HashMap;

use crate::memory::global::{Memory, Page};
use crate::memory::shadow::{Access, Clash, Entry, Shadow};
use crate::memory::touched::Touched;
use crate::memory::{PAGE, PageBits, all_set, copy, set_bits};

#[derive(Debug)]
struct ViewPage<'m> {
    number: u64,
    allocation: u32,
    /// The page before the launch; `None` holds the allocation's fill.
    base: Option<&'m Page>,
    /// The page with this view's writes.
    own: Option<Box<[u8; PAGE]>>,
    init: PageBits,
    shadow: Shadow,
}

/// Where an access landed: a byte range of one page of one allocation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    slot: u32,
    offset: usize,
    pub(crate) page: u64,
    pub(crate) allocation: u32,
}

impl Spot {
    /// Offset in the page.
    pub(crate) fn offset(self) -> usize {
        self.offset
    }
}

/// Global memory as some CTAs of a launch see it.
#[derive(Debug)]
pub(crate) struct View<'m> {
    pub(crate) base: &'m Memory,
    index: HashMap<u64, u32>,
    pages: Vec<ViewPage<'m>>,
    cache: [(u64, u32); 64],
}

impl<'m> View<'m> {
    pub(crate) fn new(base: &'m Memory) -> Self {
        Self { base, index: HashMap::new(), pages: Vec::new(), cache: [(u64::MAX, 0); 64] }
    }

    /// Finds `len` bytes at `address`, which must not straddle a page. `None` if they are not inside one allocation.
    #[inline]
    pub(crate) fn spot(&mut self, address: u64, len: usize) -> Option<Spot> {
        let page = address / PAGE as u64;
        let slot = self.slot(page)?;
        let allocation = self.pages[slot as usize].allocation;
        let a = &self.base.allocations[allocation as usize];
        a.holds(address, len as u64).then_some(Spot {
            slot,
            offset: address as usize % PAGE,
            page,
            allocation,
        })
    }

    #[inline]
    fn slot(&mut self, page: u64) -> Option<u32> {
        let (known, slot) = self.cache[page as usize % 64];
        if known == page { Some(slot) } else { self.find_slot(page) }
    }

    #[inline(never)]
    fn find_slot(&mut self, page: u64) -> Option<u32> {
        let slot = if let Some(&s) = self.index.get(&page) {
            s
        } else {
            let allocation = self.base.owner(page)?;
            let a = &self.base.allocations[allocation];
            let base = a.page(page);
            let init = base.map_or_else(|| a.blank().init, |p| p.init);
            let slot = self.pages.len() as u32;
            self.pages.push(ViewPage {
                number: page,
                allocation: allocation as u32,
                base,
                own: None,
                init,
                shadow: Shadow::default(),
            });
            self.index.insert(page, slot);
            slot
        };
        self.cache[page as usize % 64] = (page, slot);
        Some(slot)
    }

    /// Reads `out.len()` bytes; whether all of them were written by somebody.
    #[inline]
    pub(crate) fn read(&self, at: Spot, out: &mut [u8]) -> bool {
        let p = &self.pages[at.slot as usize];
        let range = at.offset..at.offset + out.len();
        match (&p.own, p.base) {
            (Some(own), _) => copy(out, &own[range]),
            (None, Some(base)) => copy(out, &base.data[range]),
            (None, None) => out.fill(self.base.allocations[p.allocation as usize].blank_byte()),
        }
        all_set(&p.init, at.offset, out.len())
    }

    #[inline]
    pub(crate) fn write(&mut self, at: Spot, data: &[u8]) {
        let p = &mut self.pages[at.slot as usize];
        let own = p.own.get_or_insert_with(|| match p.base {
            Some(base) => Box::new(base.data),
            None => Box::new([self.base.allocations[p.allocation as usize].blank_byte(); PAGE]),
        });
        copy(&mut own[at.offset..at.offset + data.len()], data);
        set_bits(&mut p.init, at.offset, data.len());
    }

    /// See [`Shadow::plain`].
    #[inline(always)]
    pub(crate) fn plain(&mut self, at: Spot, len: usize, access: &Access) -> bool {
        self.pages[at.slot as usize].shadow.plain(at.offset, len, access)
    }

    /// Checks an access against the ones before it.
    pub(crate) fn check(&mut self, at: Spot, len: usize, access: &Access) -> Option<Clash> {
        self.pages[at.slot as usize].shadow.access(PAGE, at.offset, len, access)
    }

    /// The last write and a read since of a byte.
    fn last(&self, page: u64, offset: usize) -> (Option<Entry>, Option<Entry>) {
        self.index.get(&page).map_or((None, None), |&s| self.pages[s as usize].shadow.last(offset))
    }

    /// The page's bytes, if this view wrote any.
    fn own(&self, page: u64) -> Option<&[u8; PAGE]> {
        self.index.get(&page).and_then(|&s| self.pages[s as usize].own.as_deref())
    }

    /// Takes the view apart: the pages that it wrote, in address order.
    pub(crate) fn into_writes(self) -> Vec<Written> {
        let mut out: Vec<_> = self
            .pages
            .into_iter()
            .filter_map(|p| p.own.map(|own| (p.number, p.allocation, own, p.init)))
            .collect();
        out.sort_by_key(|w| w.0);
        out
    }
}

/// Two CTAs that share no synchronisation and touch the same byte, at least one of them writing.
#[derive(Clone, Debug)]
pub(crate) struct CrossClash {
    pub(crate) address: u64,
    /// The CTA that touched it in a view merged later, and whether it stored.
    pub(crate) later: (Option<Entry>, bool),
    pub(crate) earlier: (Option<Entry>, bool),
}

/// The merged views of the CTAs that are done.
#[derive(Debug, Default)]
pub(crate) struct Merged {
    pub(crate) touched: Touched,
    pub(crate) pages: MergedPages,
}

/// The pages that CTAs wrote.
#[derive(Debug, Default)]
pub(crate) struct MergedPages(HashMap<u64, MergedPage>);

#[derive(Debug)]
struct MergedPage {
    allocation: u32,
    data: Box<[u8; PAGE]>,
    written: PageBits,
    /// A writer of every 64th byte or so, for the reports.
    writers: Vec<(u16, Entry)>,
}

impl Merged {
    /// The places where a CTA's view conflicts with the ones merged before it; at most `limit` are described.
    pub(crate) fn clashes(&self, view: &View, touched: &Touched, limit: usize) -> Vec<CrossClash> {
        let mut clashes = Vec::new();
        for p in &touched.pages {
            let Some(before) = self.touched.get(p.page) else { continue };
            for w in 0..PAGE / 64 {
                let ww = p.written[w] & before.written[w];
                let wr = p.written[w] & before.read[w];
                let rw = p.read[w] & before.written[w];
                if (ww | wr | rw) == 0 || clashes.len() >= limit {
                    continue;
                }
                let bit = (ww | wr | rw).trailing_zeros();
                let offset = w * 64 + bit as usize;
                let has = |m: u64| m >> bit & 1 != 0;
                let (write, read) = view.last(p.page, offset);
                let later = if has(ww | wr) { (write, true) } else { (read, false) };
                let earlier_write = has(ww | rw);
                let page = self.pages.0.get(&p.page).filter(|_| earlier_write);
                let earlier = page.and_then(|m| {
                    m.writers.iter().rev().find(|(o, _)| usize::from(*o) <= offset).map(|w| w.1)
                });
                clashes.push(CrossClash {
                    address: p.page * PAGE as u64 + offset as u64,
                    later,
                    earlier: (earlier, earlier_write),
                });
            }
        }
        clashes
    }

    /// Takes over what a CTA's view wrote; `touched` is the CTA's own.
    pub(crate) fn keep(&mut self, view: &View, touched: &Touched) {
        for t in touched.pages.iter().filter(|t| t.written.iter().any(|&w| w != 0)) {
            let Some(own) = view.own(t.page) else { continue };
            let page = self.pages.0.entry(t.page).or_insert_with(|| MergedPage {
                allocation: t.allocation,
                data: Box::new([0; PAGE]),
                written: [0; PAGE / 64],
                writers: Vec::new(),
            });
            for w in 0..PAGE / 64 {
                let mut bits = t.written[w];
                page.written[w] |= bits;
                if bits != 0 {
                    let first = w * 64 + bits.trailing_zeros() as usize;
                    page.writers.extend(view.last(t.page, first).0.map(|e| (first as u16, e)));
                }
                if bits == u64::MAX {
                    page.data[w * 64..w * 64 + 64].copy_from_slice(&own[w * 64..w * 64 + 64]);
                    continue;
                }
                while bits != 0 {
                    let b = w * 64 + bits.trailing_zeros() as usize;
                    page.data[b] = own[b];
                    bits &= bits - 1;
                }
            }
            page.writers.sort_by_key(|w| w.0);
        }
    }
}

impl MergedPages {
    /// The written bytes, by page in address order.
    pub(crate) fn into_writes(self) -> Vec<Written> {
        let mut out: Vec<_> = self.0.into_iter().map(|(n, p)| (n, p.allocation, p.data, p.written)).collect();
        out.sort_by_key(|w| w.0);
        out
    }
}

/// Page number, allocation, bytes, and which of them were written.
pub(crate) type Written = (u64, u32, Box<[u8; PAGE]>, PageBits);
