//! The sums of each measure, and how items are combined into one file.

use clap::ValueEnum;
use moac_runtime::plan::{ModelShape, TILE};
use serde::{Deserialize, Serialize};

use super::Weights;
use super::sums::{ItemInfluence, Part};
use crate::items::Task;
use crate::search::influence::LengthInfluence;

/// How the loss of a mask is estimated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// The influence E of single keys, with its sign
    Signed,
    /// The magnitudes of E
    Absolute,
    /// The effect of hiding a whole window at once, with its sign, after a sink of 64 tokens
    Windows,
    /// The magnitudes of that, row by row
    WindowsAbsolute,
    /// The loss that the Fisher information expects of hiding a window from all query heads of a KV head: half the
    /// squares of what it does to each row, with targets drawn from the model's own predictions
    Fisher,
    /// The same of every query head alone, for plans that choose by head
    FisherHeads,
    /// The loss measured with a KV head narrowed while the question is asked
    Ablation,
    /// Retrieval tasks by ablation, all others by the Fisher information
    Mixed,
}

/// The computation for an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pass {
    /// A forward and a reverse pass.
    Reverse(Targets),
    /// Forward passes with one KV head narrowed.
    Ablation,
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
    pub const ALL: [Self; 8] = [
        Self::Signed,
        Self::Absolute,
        Self::Windows,
        Self::WindowsAbsolute,
        Self::Fisher,
        Self::FisherHeads,
        Self::Ablation,
        Self::Mixed,
    ];

    /// The measure of a task's items.
    #[must_use]
    pub fn of(self, task: Task) -> Self {
        match (self, task) {
            (Self::Mixed, task) => {
                if task.looks_up() {
                    Self::Ablation
                } else {
                    Self::Fisher
                }
            }
            (measure, _) => measure,
        }
    }

    /// The weights of the tasks where none are given, if their items do not weigh them. What a few heads lose of retrieval
    /// and what many lose of text are of different sizes; from 0.01 to 0.3 for both
    /// retrieval tasks together little changed at half the KV bytes (SmolLM2-135M, benches/eval). Every kind of fact weighs
    /// the same, whatever its items lose, so that none is given up for another.
    pub fn weights(self) -> Option<Weights> {
        let weight = |task| match task {
            Task::Document | Task::Text => 1.0,
            Task::Passkey | Task::Kv => 0.05,
            Task::Fact(_) => 0.02,
        };
        (self == Self::Mixed).then(|| Task::ALL.map(|task| (task, weight(task))).into_iter().collect())
    }

    /// The pass that makes what a task's items need.
    pub fn pass(self, task: Task) -> Pass {
        match self.of(task) {
            Self::Fisher | Self::FisherHeads => Pass::Reverse(Targets::Drawn),
            Self::Ablation => Pass::Ablation,
            _ => Pass::Reverse(Targets::Answer),
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
            Self::Ablation => "ablation",
            Self::Mixed => "mixed",
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

    /// Whether only a KV head as a whole has a loss, which its query heads share.
    pub fn is_joint(self) -> bool {
        matches!(self, Self::Fisher | Self::Ablation | Self::Mixed)
    }

    /// Whether windows are summed instead of keys.
    pub fn is_of_windows(self) -> bool {
        !matches!(self, Self::Signed | Self::Absolute)
    }
}

/// The sums of some items at one length, in float64.
#[derive(Clone)]
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
                        // Of other passes.
                        Measure::Ablation | Measure::Mixed => (),
                    }
                }
            }
        }
    }

    /// Puts in what hiding a window of so many blocks costs a head.
    pub(super) fn put_windows(&mut self, head: usize, loss: impl Fn(usize) -> f64) {
        // All in the last row of blocks, as [`step`]s; behind the sink it has windows of up to `last - 1` blocks.
        let last = self.blocks - 1;
        for window in 1..last {
            let after = if window + 1 < last { loss(window + 1) } else { 0.0 };
            self.far[(head * self.blocks + last) * self.blocks + last - window] += loss(window) - after;
        }
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

/// The loss that a window of `query - key` blocks adds to that of a window of one more block: the sum of these over the key blocks that
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

#[cfg(test)]
mod tests {
    use moac_model::backward::influence::{HeadSums, Sums};
    use moac_model::{Config, Rope, RopeScaling};

    use super::*;
    use crate::items::Item;

    const BLOCKS: usize = 5;

    fn config() -> Config {
        Config {
            name: "small".into(),
            vocab_size: 9,
            hidden_size: 8,
            intermediate_size: 8,
            num_layers: 2,
            num_heads: 3,
            num_kv_heads: 1,
            head_dim: 64,
            norm_eps: 1e-5,
            context: 1024,
            rope: Rope { theta: 1e4, scaling: RopeScaling::None },
            tied_embeddings: true,
            qkv_bias: false,
            qk_norm: false,
            bos: None,
            eos: Vec::new(),
        }
    }

    fn tokens() -> Item {
        Item {
            id: String::new(),
            task: Task::Text,
            length: 64 * 8,
            tokens: vec![1; 64 * BLOCKS - 8],
            answer: 64 * BLOCKS - 14,
            source: String::new(),
            text: String::new(),
        }
    }

    /// Some sums below the diagonal, different for every head, part and place.
    fn item() -> ItemInfluence {
        let mut item = ItemInfluence::new(&config(), &tokens(), 1.0);
        for layer in 0..2 {
            let head = |head: usize| {
                let sums = |part: usize, zero: &dyn Fn(usize, usize) -> bool| {
                    let at = |n: usize| {
                        let (query, key) = (n / BLOCKS, n % BLOCKS);
                        let value = ((layer * 97 + head * 31 + part * 11 + n * 7) as f64).sin();
                        let value = if key > query || zero(query, key) { 0.0 } else { value };
                        Sums { signed: value, absolute: 2.0 * value.abs() }
                    };
                    (0..BLOCKS * BLOCKS).map(at).collect()
                };
                let squares = |part| {
                    let windows: Vec<Sums> = sums(part, &|query, window| window == 0 || window >= query);
                    windows.iter().map(|sums| sums.absolute).collect()
                };
                HeadSums {
                    blocks: BLOCKS,
                    squares: squares(3),
                    joint_squares: squares(4),
                    far: sums(0, &|_, _| false),
                    near: sums(1, &|query, key| query == key),
                    windows: sums(2, &|query, window| window == 0 || window >= query),
                }
            };
            item.put(layer, &[head(0), head(1), head(2)]);
        }
        item
    }

    fn average(measure: Measure) -> LengthInfluence {
        let model = config().shape();
        let mut average = Average::zeros(&model, 64 * 8);
        average.add(&item(), measure);
        average.add(&item(), measure);
        average.finish(&model, 2, 0.5)
    }

    #[test]
    fn keys_stand_where_the_search_looks_for_them() {
        for (measure, far, near) in [
            (Measure::Signed, Part::Far, Part::Near),
            (Measure::Absolute, Part::FarAbsolute, Part::NearAbsolute),
        ] {
            let (found, item) = (average(measure), item());
            for head in 0..6 {
                let at = found.head(head);
                for (query, key) in (0..8).flat_map(|query| (0..8).map(move |key| (query, key))) {
                    let there = query < BLOCKS && key <= query;
                    let get = |part| if there { item.get(part, head, query, key) } else { 0.0 };
                    assert_eq!(at.far[query * 8 + key].to_bits(), get(far).to_bits());
                    assert_eq!(at.near[query * 8 + key].to_bits(), get(near).to_bits());
                }
            }
        }
    }

    /// The search derives the loss of every window from the file.
    #[test]
    fn windows_add_up_to_their_losses() {
        let item = item();
        for measure in [Measure::Windows, Measure::WindowsAbsolute, Measure::Fisher, Measure::FisherHeads] {
            let found = average(measure);
            for head in 0..6 {
                let losses = found.head(head).losses(1);
                for (window, &loss) in losses.iter().enumerate().take(8).skip(1) {
                    let of = |part, query| f64::from(item.get(part, head, query, window));
                    let rows = window.min(BLOCKS)..BLOCKS;
                    let sum = |part| rows.clone().map(|query| of(part, query)).sum::<f64>();
                    let expected = match measure {
                        Measure::WindowsAbsolute => sum(Part::WindowsAbsolute),
                        Measure::Fisher => sum(Part::JointSquares),
                        Measure::FisherHeads => sum(Part::Squares),
                        _ => sum(Part::Windows),
                    };
                    let what = format!("{}, head {head}, window {window}", measure.name());
                    assert!((loss - expected).abs() < 1e-5, "{what}: {loss}, {expected}");
                }
            }
        }
    }

    /// Half the squares of the derivative of the answer's summed losses, as a mean over the answer's tokens.
    #[test]
    fn squares_are_losses_in_nats() {
        let zeros = vec![Sums::default(); BLOCKS * BLOCKS];
        let mut squares = vec![0.0; BLOCKS * BLOCKS];
        squares[3 * BLOCKS + 1] = 0.25;
        let head = HeadSums {
            blocks: BLOCKS,
            far: zeros.clone(),
            near: zeros.clone(),
            windows: zeros,
            squares: squares.clone(),
            joint_squares: squares,
        };
        let mut item = ItemInfluence::new(&config(), &tokens(), 1.0);
        item.put(0, &[head.clone(), head.clone(), head]);
        // Six answer tokens; three heads share the KV head.
        for (part, expected) in [(Part::Squares, 0.75), (Part::JointSquares, 0.25)] {
            assert!((item.get(part, 0, 3, 1) - expected).abs() < 1e-6);
        }
    }
}
