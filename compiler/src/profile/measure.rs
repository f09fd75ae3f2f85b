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
    /// The loss that the Fisher information expects of hiding a window from all query heads of a KV head: half the
    /// squares of what it does to each row, with targets drawn from the model's own predictions
    Fisher,
    /// The same of every query head alone, for plans that choose by head
    FisherHeads,
}

/// The tokens whose loss is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Targets {
    /// The item's answer.
    Answer,
    /// Tokens drawn from what the model predicts in their places.
    Drawn,
}

impl Measure {
    /// Every one.
    pub const ALL: [Self; 6] =
        [Self::Signed, Self::Absolute, Self::Windows, Self::WindowsAbsolute, Self::Fisher, Self::FisherHeads];

    /// The targets that it is made with.
    pub fn targets(self) -> Targets {
        match self {
            Self::Fisher | Self::FisherHeads => Targets::Drawn,
            _ => Targets::Answer,
        }
    }

    /// The name in flags.
    pub fn name(self) -> &'static str {
        match self {
            Self::Signed => "signed",
            Self::Absolute => "absolute",
            Self::Windows => "windows",
            Self::WindowsAbsolute => "windows-absolute",
            Self::Fisher => "fisher",
            Self::FisherHeads => "fisher-heads",
        }
    }

    /// The measure of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|measure| measure.name() == name)
    }

    /// Whether magnitudes are summed.
    pub fn is_absolute(self) -> bool {
        !matches!(self, Self::Signed | Self::Windows)
    }

    /// Whether windows are summed instead of keys.
    pub fn is_of_windows(self) -> bool {
        !matches!(self, Self::Signed | Self::Absolute)
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
                        Measure::Fisher => self.far[at] += step(item, Part::JointSquares, head, query, key),
                        Measure::FisherHeads => self.far[at] += step(item, Part::Squares, head, query, key),
                    }
                }
            }
        }
    }

    /// What hiding all but the sink and the narrowest window costs.
    pub(super) fn total(&self) -> f64 {
        let blocks = self.blocks;
        let hidden = |at: usize, far: bool| {
            let (query, key) = (at / blocks % blocks, at % blocks);
            key > 0 && query >= key + if far { 1 } else { 2 }
        };
        let sum = |half: &[f64], far: bool| -> f64 {
            half.iter().enumerate().filter(|&(at, _)| hidden(at, far)).map(|(_, value)| value).sum()
        };
        sum(&self.far, true) + sum(&self.near, false)
    }

    /// Adds others times a number.
    pub(super) fn add_scaled(&mut self, other: &Self, scale: f64) {
        let halves = [(&mut self.far, &other.far), (&mut self.near, &other.near)];
        for (to, from) in halves.into_iter().flat_map(|(to, from)| to.iter_mut().zip(from)) {
            *to += scale * from;
        }
    }

    /// The sums times a number, of so many items.
    pub(super) fn finish(self, model: &ModelShape, items: u32, scale: f64) -> LengthInfluence {
        let scaled = |sums: &[f64]| sums.iter().map(|sum| (sum * scale) as f32).collect();
        let at = LengthInfluence::zeros(model, self.length, items);
        LengthInfluence { far: scaled(&self.far), near: scaled(&self.near), ..at }
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
