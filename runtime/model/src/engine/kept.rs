//! Slabs of requests that have ended, for prompts that begin with the same tokens.
//!
//! A ring that has overwritten a token cannot be wound back. So a slab serves prompts that begin with all of its tokens; one
//! that is still intact also serves those that begin with some of them. Spans follow the context length, so a slab serves
//! prompts of its own bucket only.

use std::time::{Duration, Instant};

/// Kept slabs, the one used last at the end.
#[derive(Debug)]
pub(super) struct Kept<S> {
    slabs: Vec<Entry<S>>,
    bytes: u64,
    /// The most bytes to keep.
    limit: u64,
    /// How long a slab is kept.
    time: Duration,
    /// A slab is wound back to a multiple of this many tokens.
    grain: usize,
}

#[derive(Debug)]
pub(super) struct Entry<S> {
    /// The tokens that the slab holds.
    pub(super) tokens: Vec<u32>,
    pub(super) slab: S,
    /// The bucket's context length, and the slab's bytes.
    pub(super) length: u32,
    pub(super) bytes: u64,
    /// Whether no token has been overwritten.
    pub(super) intact: bool,
    pub(super) since: Instant,
}

impl<S> Entry<S> {
    /// How many tokens of a prompt need not be read again. The last one always is: its logits choose the next token.
    fn usable(&self, prompt: &[u32], length: u32, grain: usize) -> usize {
        if self.length != length {
            return 0;
        }
        let (own, others) = (self.tokens.iter(), prompt.iter().take(prompt.len().saturating_sub(1)));
        let common = own.zip(others).take_while(|(a, b)| a == b).count();
        if common == self.tokens.len() {
            return common;
        }
        let back = common / grain * grain;
        // A short beginning, which all conversations may share, is not worth a slab.
        if self.intact && 2 * back >= prompt.len() { back } else { 0 }
    }
}

impl<S> Kept<S> {
    pub(super) fn new(limit: u64, time: Duration, grain: usize) -> Self {
        Self { slabs: Vec::new(), bytes: 0, limit, time, grain }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.slabs.len()
    }

    /// Keeps a slab, at the cost of those that were used first.
    pub(super) fn keep(&mut self, entry: Entry<S>) {
        if entry.tokens.is_empty() || entry.bytes > self.limit {
            return;
        }
        let same = |old: &Entry<S>| old.length == entry.length && old.tokens == entry.tokens;
        if let Some(index) = self.slabs.iter().position(same) {
            self.remove(index);
        }
        self.bytes += entry.bytes;
        self.slabs.push(entry);
        while self.bytes > self.limit {
            self.drop_oldest();
        }
    }

    /// Takes the slab out that has the most tokens of the beginning of a prompt, and says how many.
    pub(super) fn take(&mut self, prompt: &[u32], length: u32) -> Option<(Entry<S>, usize)> {
        let usable = self.slabs.iter().map(|entry| entry.usable(prompt, length, self.grain));
        let (index, tokens) =
            usable.enumerate().filter(|&(_, tokens)| tokens > 0).max_by_key(|&(index, tokens)| {
                // Of several, one that need not be wound back.
                (tokens, tokens == self.slabs[index].tokens.len())
            })?;
        Some((self.remove(index), tokens))
    }

    /// Gives the oldest slab back; false where there is none.
    pub(super) fn drop_oldest(&mut self) -> bool {
        if self.slabs.is_empty() {
            return false;
        }
        self.remove(0);
        true
    }

    /// Gives back what was kept for long enough.
    pub(super) fn expire(&mut self, now: Instant) {
        while self.slabs.first().is_some_and(|oldest| now.duration_since(oldest.since) >= self.time) {
            self.drop_oldest();
        }
    }

    fn remove(&mut self, index: usize) -> Entry<S> {
        let entry = self.slabs.remove(index);
        self.bytes -= entry.bytes;
        entry
    }
}
