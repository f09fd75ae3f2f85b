//! Windows that a forward pass ran under, and what moving them does.

use super::influence::{BlockSums, together};

/// What the rows of a head saw in the forward pass, and how much wider its window may become. In blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mask {
    /// The sink: at least one.
    pub sink: usize,
    /// The window: at least one.
    pub window: usize,
    /// The widest window whose effect is wanted, at least `window`: keys beyond it are not looked at.
    pub reach: usize,
}

impl Mask {
    /// Whether a block of keys this far before its rows is behind the sink and beyond any window that is looked at.
    pub(super) fn skips(&self, key_block: usize, distance: usize) -> bool {
        key_block >= self.sink && distance > self.reach
    }
}

/// What moving the window of a KV head does to the loss of one item: of all its query heads together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WindowSums {
    /// `F` summed over all rows, by the window in blocks: none, one, and so on up to as many as the item has. Zero for the
    /// window of the forward pass and for none.
    pub effect: Vec<f64>,
}

impl WindowSums {
    pub(super) fn zeros(blocks: usize) -> Self {
        Self { effect: vec![0.0; blocks + 1] }
    }

    /// Adds a block of rows, of every query head.
    pub(super) fn add(&mut self, heads: &[&BlockSums]) {
        let effect = together(heads, |effect| effect);
        // Any window that is wider than a block's past shows all of it.
        for window in 1..self.effect.len() {
            self.effect[window] += effect[window.min(effect.len() - 1)];
        }
    }
}
