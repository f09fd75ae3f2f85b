//! The ring of one KV head: which slots its tokens live in, and which tokens it still holds.
//!
//! The slot of a position is [`geometry::slot`]'s: sink tokens keep theirs for good, any other token overwrites the one
//! a window before it. What must hold: an append writes every slot at most once, and only tokens that stay.

use std::ops::Range;

use ndarray::{Array2, ArrayView2, s};

use super::Real;
use super::block::Run;
use crate::geometry;

/// Keys and values of one KV head of one request, `kv_span` slots and never more.
#[derive(Clone, Debug)]
pub struct Ring<F> {
    sink: u32,
    len: u32,
    k: Array2<F>,
    v: Array2<F>,
}

impl<F: Real> Ring<F> {
    /// An empty ring of `kv_span` slots, more than `sink`, of `head_dim` elements.
    pub fn new(sink: u32, kv_span: u32, head_dim: usize) -> Self {
        let slots = Array2::zeros((kv_span as usize, head_dim));
        Self { sink, len: 0, k: slots.clone(), v: slots }
    }

    /// Tokens appended so far, evicted ones included.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether no token was appended yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets all but the first `tokens` tokens. The caller has made sure that none was overwritten.
    pub(super) fn rewind(&mut self, tokens: u32) {
        debug_assert!(tokens <= self.len && self.len as usize <= self.k.nrows());
        self.len = tokens;
    }

    /// The slots, `[kv_span, head_dim]`: keys and values. A slot that no token reached holds zeros.
    pub fn slots(&self) -> (ArrayView2<'_, F>, ArrayView2<'_, F>) {
        (self.k.view(), self.v.view())
    }

    /// Appends the tokens at the next positions, `[tokens, head_dim]`: of those behind the sink only the last that
    /// fit are written, the others would be overwritten by them.
    pub fn append(&mut self, k: &ArrayView2<'_, F>, v: &ArrayView2<'_, F>) {
        let first = self.len;
        let end = first + k.nrows() as u32;
        let stays = end.saturating_sub(self.window()).max(self.sink).max(first);
        for range in [first..end.min(self.sink), stays..end] {
            for (positions, slot) in self.contiguous(range) {
                let rows = s![(positions.start - first) as usize..(positions.end - first) as usize, ..];
                let slots = s![slot..slot + positions.len(), ..];
                self.k.slice_mut(slots).assign(&k.slice(rows));
                self.v.slice_mut(slots).assign(&v.slice(rows));
            }
        }
        self.len = end;
    }

    /// The tokens at `positions`, which the ring must still hold, as runs of neighbouring slots.
    pub(super) fn runs(&self, positions: Range<u32>) -> impl Iterator<Item = Run<'_, F>> {
        debug_assert!(positions.clone().all(|p| self.holds(p)), "{positions:?} of {} tokens", self.len);
        self.contiguous(positions).into_iter().map(|(positions, slot)| {
            let slots = s![slot..slot + positions.len(), ..];
            Run { first: positions.start, k: self.k.slice(slots), v: self.v.slice(slots) }
        })
    }

    /// Whether the token at position `p` was appended and not yet overwritten.
    pub fn holds(&self, p: u32) -> bool {
        let kv_span = self.k.nrows() as u32;
        geometry::position(geometry::slot(p, self.sink, kv_span), self.sink, kv_span, self.len) == Some(p)
    }

    /// Cuts positions where their slots stop being neighbours: behind the sink, and where the ring wraps.
    fn contiguous(&self, positions: Range<u32>) -> Vec<(Range<u32>, usize)> {
        let kv_span = self.k.nrows() as u32;
        let mut cut = Vec::new();
        let mut start = positions.start;
        while start < positions.end {
            let slot = geometry::slot(start, self.sink, kv_span);
            let room = if start < self.sink { self.sink } else { kv_span } - slot;
            let end = positions.end.min(start + room);
            cut.push((start..end, slot as usize));
            start = end;
        }
        cut
    }

    fn window(&self) -> u32 {
        self.k.nrows() as u32 - self.sink
    }
}

#[cfg(test)]
mod tests {
    use super::Ring;
    use ndarray::Array2;

    /// The ring against a list of (slot, token) writes done one by one, for every way of cutting 23 tokens in two.
    #[test]
    fn holds_what_token_by_token_writes_leave() {
        let (sink, kv_span, tokens) = (3_u32, 8_u32, 23_u32);
        let token = |p: u32| Array2::from_elem((1, 2), f64::from(p + 1));
        for cut in 0..=tokens {
            let mut ring = Ring::<f64>::new(sink, kv_span, 2);
            for part in [0..cut, cut..tokens] {
                let rows =
                    Array2::from_shape_fn((part.len(), 2), |(row, _)| f64::from(part.start + row as u32 + 1));
                ring.append(&rows.view(), &rows.view());
            }
            let mut slots = [0_u32; 8];
            for p in 0..tokens {
                slots[if p < sink { p } else { sink + (p - sink) % 5 } as usize] = p + 1;
            }
            for (slot, &held) in slots.iter().enumerate() {
                assert!((ring.slots().0[(slot, 0)] - f64::from(held)).abs() < 0.5, "slot {slot}, cut {cut}");
            }
            let held: Vec<u32> = (0..tokens + 9).filter(|&p| ring.holds(p)).collect();
            assert_eq!(held, [0, 1, 2, 18, 19, 20, 21, 22], "cut {cut}");
            let read: Vec<(u32, f64)> = ring
                .runs(18..23)
                .flat_map(|run| (0..run.k.nrows()).map(move |row| (run.first + row as u32, run.v[(row, 1)])))
                .collect();
            assert!(read.iter().zip(18..).all(|(&(p, v), at)| p == at && (v - token(p)[(0, 0)]).abs() < 0.5));
            assert_eq!(read.len(), 5);
        }
    }
}
