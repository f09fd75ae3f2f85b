//! Windows that a forward pass ran under.

/// The visible keys of a head's rows in the forward pass, and how much wider its window may become, in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mask {
    /// The sink: at least one.
    pub(super) sink: usize,
    /// The window: at least one.
    pub(super) window: usize,
    /// The widest window whose effect is wanted, at least `window`: keys beyond it are not looked at.
    pub(super) reach: usize,
}

impl Mask {
    /// Whether a block of keys this far before its rows is behind the sink and beyond any window that is looked at.
    pub(super) fn skips(&self, key_block: usize, distance: usize) -> bool {
        key_block >= self.sink && distance > self.reach
    }
}
