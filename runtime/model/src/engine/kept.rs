//! Slabs of requests that have ended, for prompts that go on from there.
//!
//! A ring cannot be wound back: a slab is of use if all the tokens that it holds begin the prompt, and not all of it.

use std::time::{Duration, Instant};

/// Kept slabs, the one kept last at the end.
#[derive(Debug)]
pub(super) struct Kept<S> {
    slabs: Vec<Entry<S>>,
    bytes: u64,
    /// The most bytes to keep.
    limit: u64,
    /// How long a slab is kept.
    time: Duration,
}

#[derive(Debug)]
pub(super) struct Entry<S> {
    pub(super) tokens: Vec<u32>,
    pub(super) slab: S,
    /// The bucket's context length, and the slab's bytes.
    pub(super) length: u32,
    pub(super) bytes: u64,
    pub(super) since: Instant,
}

impl<S> Kept<S> {
    pub(super) fn new(limit: u64, time: Duration) -> Self {
        Self { slabs: Vec::new(), bytes: 0, limit, time }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slabs.is_empty()
    }

    /// Keeps a slab, at the cost of those that were kept first.
    pub(super) fn keep(&mut self, entry: Entry<S>) {
        if entry.bytes > self.limit {
            return;
        }
        self.bytes += entry.bytes;
        self.slabs.push(entry);
        while self.bytes > self.limit {
            self.drop_oldest();
        }
    }

    /// Takes the slab out that holds the longest beginning of a prompt.
    pub(super) fn take(&mut self, prompt: &[u32], length: u32) -> Option<Entry<S>> {
        let usable = |entry: &Entry<S>| {
            entry.length == length && entry.tokens.len() < prompt.len() && prompt.starts_with(&entry.tokens)
        };
        let found = self.slabs.iter().enumerate().filter(|(_, entry)| usable(entry));
        let (index, _) = found.max_by_key(|(_, entry)| entry.tokens.len())?;
        Some(self.remove(index))
    }

    /// Gives the oldest slab back; false where there is none.
    pub(super) fn drop_oldest(&mut self) -> bool {
        if self.is_empty() {
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
