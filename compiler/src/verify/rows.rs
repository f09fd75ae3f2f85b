//! The query rows of a chunk that are compared with the oracle: all of a short context, and of a long one every edge and
//! a sample.

use std::collections::BTreeSet;

/// Contexts up to this length are compared row by row.
const ALL_UP_TO: u32 = 1024;
/// The fewest rows of a longer one that is prefilled at once.
const AT_LEAST: usize = 256;
/// The fewest rows of a chunk in the middle of one, whose bucket is also prefilled at once.
const OF_CHUNK: usize = 64;
/// Rows that are sampled on top of the edges, at least.
const SAMPLE: usize = 32;
/// Wraps of a ring whose edges are taken from its first ones; as many again from its last ones.
const WRAPS: u32 = 8;

/// A chunk of one request, as one query head sees it. Lengths in tokens.
#[derive(Clone, Copy, Debug)]
pub struct Chunk {
    /// Tokens before the chunk.
    pub cached: u32,
    /// Tokens of the chunk.
    pub len: u32,
    /// Query rows of a CTA.
    pub tile_m: u32,
    /// Sink tokens.
    pub sink: u32,
    /// The head's window.
    pub window: u32,
    /// The window of its KV head: the ring without the sink.
    pub kv_window: u32,
}

impl Chunk {
    /// The tokens of the chunk to compare, ascending, counted from its first.
    pub fn rows(&self, seed: u64) -> Vec<u32> {
        if self.cached + self.len <= ALL_UP_TO {
            return (0..self.len).collect();
        }
        let mut rows: BTreeSet<u32> =
            self.edges().filter_map(|p| p.checked_sub(self.cached)).filter(|&row| row < self.len).collect();
        let at_least = if self.cached == 0 { AT_LEAST } else { OF_CHUNK };
        let wanted = (rows.len() + SAMPLE).max(at_least).min(self.len as usize);
        let mut state = seed;
        while rows.len() < wanted {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            rows.insert((((state >> 32) * u64::from(self.len)) >> 32) as u32);
        }
        rows.into_iter().collect()
    }

    /// The positions around which a kernel does something else than before.
    fn edges(&self) -> impl Iterator<Item = u32> {
        let Self { cached, len, tile_m, sink, window, kv_window } = *self;
        let end = cached + len;
        let tiles = (cached..end).step_by(tile_m.max(1) as usize);
        let behind = end.saturating_sub(sink) / kv_window;
        let wraps = (1..=behind)
            .filter(move |&n| n <= WRAPS || n + WRAPS > behind)
            .map(move |n| sink + n * kv_window);
        // The last row of a tile and the first of the next; elsewhere also the one behind.
        let tiles = tiles.flat_map(|edge| [edge.wrapping_sub(1), edge]);
        let others = wraps.chain([cached, end, sink, window, sink + window]);
        tiles.chain(others.flat_map(|edge| [edge.wrapping_sub(1), edge, edge + 1]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_contexts_are_compared_whole() {
        let chunk = Chunk { cached: 1000, len: 24, tile_m: 128, sink: 64, window: 64, kv_window: 128 };
        assert_eq!(chunk.rows(1), (0..24).collect::<Vec<_>>());
    }

    #[test]
    fn long_ones_at_their_edges_and_in_a_sample_that_hangs_on_the_seed_alone() {
        let chunk = Chunk { cached: 0, len: 8192, tile_m: 128, sink: 64, window: 960, kv_window: 2048 };
        let rows = chunk.rows(1);
        assert!(rows.len() >= AT_LEAST && rows.is_sorted() && rows.iter().all(|&row| row < 8192));
        let edges = [0, 127, 128, 8063, 8191, 63, 64, 65, 959, 960, 1023, 1024, 1025, 2111, 2112, 6207, 6208];
        assert!(edges.iter().all(|row| rows.contains(row)), "{rows:?}");
        assert_eq!(rows, chunk.rows(1));
        assert_ne!(rows, chunk.rows(2));
        let middle = Chunk { cached: 3000, len: 2000, ..chunk }.rows(4);
        assert!(
            (OF_CHUNK..AT_LEAST).contains(&middle.len()) && middle.contains(&0) && middle.contains(&1999)
        );
        let tail = Chunk { cached: 5000, len: 7, ..chunk };
        assert_eq!(tail.rows(3), (0..7).collect::<Vec<_>>());
    }
}
