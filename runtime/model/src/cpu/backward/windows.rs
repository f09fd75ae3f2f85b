//! The effect of moving the windows that a forward pass ran under.

use super::influence::{BlockSums, together};

/// The effect of moving the window of a KV head on the loss of one item, for all its query heads together.
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
