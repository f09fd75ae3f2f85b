//! The bytes of global memory that a CTA or a launch read and wrote: the source of the unique counts.

use std::collections::HashMap;

use crate::count::Tally;
use crate::memory::{PAGE, PageBits, set_bits};

#[derive(Clone, Debug)]
pub(crate) struct TouchedPage {
    pub(crate) page: u64,
    pub(crate) allocation: u32,
    pub(crate) read: PageBits,
    pub(crate) written: PageBits,
}

/// Bitmaps of touched bytes, by page.
#[derive(Clone, Debug, Default)]
pub(crate) struct Touched {
    index: HashMap<u64, u32>,
    pub(crate) pages: Vec<TouchedPage>,
    /// Direct-mapped cache of `index`.
    cache: Vec<(u64, u32)>,
}

impl Touched {
    /// The page's bitmaps, made if absent.
    #[inline]
    pub(crate) fn page(&mut self, page: u64, allocation: u32) -> &mut TouchedPage {
        let slot = page as usize % 64;
        let i = match self.cache.get(slot) {
            Some(&(known, i)) if known == page => i,
            _ => self.find(page, allocation),
        };
        &mut self.pages[i as usize]
    }

    #[inline(never)]
    fn find(&mut self, page: u64, allocation: u32) -> u32 {
        if self.cache.is_empty() {
            self.cache = vec![(u64::MAX, 0); 64];
        }
        let i = *self.index.entry(page).or_insert_with(|| {
            self.pages.push(TouchedPage { page, allocation, read: [0; PAGE / 64], written: [0; PAGE / 64] });
            self.pages.len() as u32 - 1
        });
        self.cache[page as usize % 64] = (page, i);
        i
    }

    /// Marks bytes of one page.
    #[inline]
    pub(crate) fn mark(&mut self, page: u64, allocation: u32, from: usize, len: usize, write: bool) {
        let p = self.page(page, allocation);
        set_bits(if write { &mut p.written } else { &mut p.read }, from, len);
    }

    /// The page's bitmaps, if it was touched.
    pub(crate) fn get(&self, page: u64) -> Option<&TouchedPage> {
        self.index.get(&page).map(|&i| &self.pages[i as usize])
    }

    /// Adds everything that `other` touched.
    pub(crate) fn union(&mut self, other: &Self) {
        for p in &other.pages {
            let mine = self.page(p.page, p.allocation);
            for (a, b) in mine.read.iter_mut().zip(p.read) {
                *a |= b;
            }
            for (a, b) in mine.written.iter_mut().zip(p.written) {
                *a |= b;
            }
        }
    }

    /// Fills the unique counts of `tally`.
    pub(crate) fn fill(&self, tally: &mut Tally) {
        for p in &self.pages {
            let t = tally.traffic(p.allocation as usize);
            for (bits, side) in [(&p.read, &mut t.read), (&p.written, &mut t.written)] {
                for w in bits {
                    side.unique_bytes += u64::from(w.count_ones());
                    side.unique_sectors += u64::from(*w as u32 != 0) + u64::from(w >> 32 != 0);
                }
            }
        }
    }
}
