//! What is summed, and how items become one file.

use clap::ValueEnum;
use moac_runtime::plan::{ModelShape, TILE};
use serde::{Deserialize, Serialize};

use super::store::{ItemInfluence, Part};
use crate::search::influence::LengthInfluence;

/// How the loss of a mask is estimated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// The influence E of single keys, with its sign
    #[default]
    Signed,
    /// The magnitudes of E
    Absolute,
    /// What a whole window hides at once, with its sign, behind a sink of 64 tokens
    Windows,
    /// The magnitudes of that, row by row
    WindowsAbsolute,
}

impl Measure {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Signed, Self::Absolute, Self::Windows, Self::WindowsAbsolute];

    /// The name in flags.
    pub fn name(self) -> &'static str {
        match self {
            Self::Signed => "signed",
            Self::Absolute => "absolute",
            Self::Windows => "windows",
            Self::WindowsAbsolute => "windows-absolute",
        }
    }

    /// The measure of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|measure| measure.name() == name)
    }

    /// Whether magnitudes are summed.
    pub fn is_absolute(self) -> bool {
        matches!(self, Self::Absolute | Self::WindowsAbsolute)
    }

    /// Whether windows are summed instead of keys.
    pub fn is_of_windows(self) -> bool {
        matches!(self, Self::Windows | Self::WindowsAbsolute)
    }
}

/// The sums of some items at one length, in float64.
pub(super) struct Average {
    length: u32,
    blocks: usize,
    /// `[heads of all layers][blocks][blocks]`
    far: Vec<f64>,
    near: Vec<f64>,
}

impl Average {
    pub(super) fn zeros(model: &ModelShape, length: u32) -> Self {
        let blocks = (length / TILE) as usize;
        let zeros = vec![0.0; (model.num_layers * model.num_heads) as usize * blocks * blocks];
        Self { length, blocks, far: zeros.clone(), near: zeros }
    }

    /// Adds an item of at most as many blocks, whose first is this one's first.
    pub(super) fn add(&mut self, item: &ItemInfluence, measure: Measure) {
        for head in 0..item.heads() {
            for query in 0..item.blocks.min(self.blocks) {
                for key in 0..=query {
                    let at = (head * self.blocks + query) * self.blocks + key;
                    let get = |part, key| f64::from(item.get(part, head, query, key));
                    match measure {
                        Measure::Signed => {
                            self.far[at] += get(Part::Far, key);
                            self.near[at] += get(Part::Near, key);
                        }
                        Measure::Absolute => {
                            self.far[at] += get(Part::FarAbsolute, key);
                            self.near[at] += get(Part::NearAbsolute, key);
                        }
                        Measure::Windows => self.far[at] += step(item, Part::Windows, head, query, key),
                        Measure::WindowsAbsolute => {
                            self.far[at] += step(item, Part::WindowsAbsolute, head, query, key);
                        }
                    }
                }
            }
        }
    }

    pub(super) fn finish(self, model: &ModelShape, items: u32) -> LengthInfluence {
        let mean = |sums: &[f64]| sums.iter().map(|sum| (sum / f64::from(items)) as f32).collect();
        let at = LengthInfluence::zeros(model, self.length, items);
        LengthInfluence { far: mean(&self.far), near: mean(&self.near), ..at }
    }
}

/// What a window of `query - key` blocks hides more than one of a block more: the sum of these over the key blocks that
/// a window hides is its loss.
fn step(item: &ItemInfluence, part: Part, head: usize, query: usize, key: usize) -> f64 {
    let window = query - key;
    // The sink block is always seen, and no window is narrower than a block.
    if key == 0 || window == 0 {
        return 0.0;
    }
    let loss = |window| f64::from(item.get(part, head, query, window));
    loss(window) - loss(window + 1)
}
