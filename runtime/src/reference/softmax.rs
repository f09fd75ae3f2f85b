//! The inputs and outputs of an online softmax: rows of queries, and tiles of keys and values in sequence.

use ndarray::{Array1, Array2, ArrayView2};

/// The most keys of a tile.
pub(super) const KEYS: usize = 256;

/// One query row: where it stands and how far it sees behind the sink.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its position.
    pub position: u32,
    /// Tokens that it sees behind the sink, itself included.
    pub window: u32,
}

/// The softmax of some rows over tiles of keys that come one after the other.
pub trait Softmax<F>: Sized {
    /// Starts on scaled queries, `[rows, head_dim]`.
    fn start(q: &Array2<F>, rows: &[Row], sink: u32) -> Self;

    /// Takes in a tile.
    fn take(&mut self, tile: &Tile<'_, F>);

    /// The outputs, `[rows, head_dim]`, and their log-sum-exp. Every row has seen at least its own token.
    fn finish(self) -> (Array2<F>, Array1<F>);
}

/// Keys and values at neighbouring positions, `[keys, head_dim]` each, some of which some row sees.
#[derive(Debug)]
pub struct Tile<'a, F> {
    /// The position of the first.
    pub first: u32,
    /// The keys.
    pub k: ArrayView2<'a, F>,
    /// The values.
    pub v: ArrayView2<'a, F>,
    /// Whether every row sees all of it.
    pub whole: bool,
}
