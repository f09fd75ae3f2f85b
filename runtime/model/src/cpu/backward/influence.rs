//! The effect of masking on the loss: the sums made by the reverse pass of attention.
//!
//! # Elements
//! With `A` a row of attention weights, `G[j] = dO . V[j]` the loss's gradient with respect to `A[j]`, and
//! `D = sum_n A[n] G[n]`: setting `A[j]` to zero and renormalising moves weight n by `A[n] A[j] / (1 - A[j])` and weight
//! j by `-A[j]`, which to first order changes the loss by
//!
//! ```text
//! E[j] = -A[j] G[j] + A[j] / (1 - A[j]) * sum_(n != j) A[n] G[n]  =  A[j] / (1 - A[j]) * (D - G[j])
//! ```
//!
//! At most one weight of a row is above a half. For that one `1 - A[j]` and `D - G[j]` are differences of nearly equal
//! numbers, so there the same is computed from what the other keys have: `E[j] = A[j] * (mean_(n != j) G - G[j])`, the
//! mean weighted by `A`. Row 0 has no other key: masking its only one means nothing and never happens, and `E` is 0.
//!
//! # Windows
//! A window hides many keys of a row at once, and `E` of one does not know of the others: the sum of `E` over what is
//! hidden lacks the factor `1 / (weight that is left)`. To first order in the attention's output, hiding the keys of a
//! set changes a row's part of the loss by `dO . (O' - O)` with `O'` the renormalised output, which is
//!
//! ```text
//! F = A_hidden * (G_seen - G_hidden)      A_hidden: the weight hidden; G_seen, G_hidden: means of G weighted by A
//! ```
//!
//! That is not a sum over keys, but it is one over rows, and a row's window at every distance costs only its sums of `A`
//! and `A G` in steps of 64 keys.
//!
//! Where the forward pass itself ran under masks, its log-sum-exp, `D` and gradients are those of the keys that each head saw, and
//! `F` is what moving a head's window from there does. Keys that it did not see have no gradient, but weights relative to
//! the same log-sum-exp, so that showing them costs no more than hiding others: `F = A_shown * (G_shown - D) / (1 + A_shown)`.
//!
//! # Squares
//! A trained model stands near a minimum of its loss, so to first order hiding a window helps as often as it harms, and
//! what is lost in the end is of second order: half a quadratic form with the Fisher information, the mean square of
//! the first-order effect over targets drawn from the model's own predictions. So the squares of `F` are summed as
//! well, rows taken as independent; of each head, and of all heads of a KV head together, which share a window.

// As in `simd`: code that is not inlined into the function with the wide vectors is compiled without them.
#![allow(clippy::inline_always)]

use moac_runtime::simd::{NullaryFnOnce, exp, vectorized};

use super::mask::Mask;

/// Query rows of a block, and keys of one.
pub const BLOCK: usize = 64;
/// Rows that are worked on at a time: a vector's worth.
const LANES: usize = 16;

/// A number per row of a block.
type Lane = [f32; BLOCK];

/// Signed and absolute sums.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    /// Of the values.
    pub signed: f64,
    /// Of their magnitudes.
    pub absolute: f64,
}

impl Sums {
    fn add(&mut self, value: f64) {
        self.signed += value;
        self.absolute += value.abs();
    }
}

/// The effect of masking on the loss of one item, for one query head.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeadSums {
    /// 64-token blocks of the item.
    pub blocks: usize,
    /// `E` over keys j of rows i with `i mod 64 >= j mod 64`, `[query block][key block]`.
    pub far: Vec<Sums>,
    /// The same over the others, `i mod 64 < j mod 64`; zero on the diagonal.
    pub near: Vec<Sums>,
    /// `F` over the rows of a block, `[query block][w]`: behind a sink of 64 tokens, what a window of `64 w` tokens hides
    /// is hidden. Zero at w = 0, where there is no window.
    pub windows: Vec<Sums>,
    /// The sums of the squares of the same rows' `F`.
    pub squares: Vec<f64>,
    /// The sums of the squares of the rows' `F` summed over the query heads of this one's KV head: the same for each.
    pub joint_squares: Vec<f64>,
}

impl HeadSums {
    pub(super) fn zeros(blocks: usize) -> Self {
        let zeros = vec![Sums::default(); blocks * blocks];
        let none = vec![0.0; blocks * blocks];
        Self {
            blocks,
            far: zeros.clone(),
            near: zeros.clone(),
            windows: zeros,
            squares: none.clone(),
            joint_squares: none,
        }
    }

    pub(super) fn put(&mut self, block: usize, row: &BlockSums, joint_squares: &[f64]) {
        let range = block * self.blocks..block * self.blocks + row.far.len();
        self.far[range.clone()].copy_from_slice(&row.far);
        self.near[range.clone()].copy_from_slice(&row.near);
        self.windows[range.clone()].copy_from_slice(&row.windows);
        self.squares[range.clone()].copy_from_slice(&squares(&[row]));
        self.joint_squares[range].copy_from_slice(joint_squares);
    }
}

/// The sums of one block of rows: an entry for each key block up to its own.
pub(super) struct BlockSums {
    far: Vec<Sums>,
    near: Vec<Sums>,
    windows: Vec<Sums>,
    /// `F` of every row, by window.
    effects: Vec<Lane>,
}

impl BlockSums {
    fn put(&mut self, window: usize, row: usize, effect: f64) {
        self.windows[window].add(effect);
        self.effects[window][row] = effect as f32;
    }
}

/// By window, the sums over rows of something of what some heads do together.
pub(super) fn together(heads: &[&BlockSums], of: impl Fn(f64) -> f64) -> Vec<f64> {
    let row = |window: usize, row: usize| {
        of(heads.iter().map(|head| f64::from(head.effects[window][row])).sum::<f64>())
    };
    let windows = heads.first().map_or(0, |head| head.effects.len());
    (0..windows).map(|window| (0..BLOCK).map(|at| row(window, at)).sum()).collect()
}

/// By window, the sums over rows of the squares of what some heads do together.
pub(super) fn squares(heads: &[&BlockSums]) -> Vec<f64> {
    together(heads, |effect| effect * effect)
}

/// Weights of a row and what they gain: sums of `A` and of `A G`.
#[derive(Clone)]
struct Mass {
    weight: Lane,
    gain: Lane,
}

impl Mass {
    const ZERO: Self = Self { weight: [0.0; BLOCK], gain: [0.0; BLOCK] };
}

/// Per row over half a block of keys, those with a weight above a half left out: the sums of `A`, `A G`, `E` and `|E|`.
struct Quantities([Lane; 4]);

impl Quantities {
    const ZERO: Self = Self([[0.0; BLOCK]; 4]);

    fn influence(&self) -> Sums {
        let total = |of: &Lane| of.iter().copied().map(f64::from).sum();
        Sums { signed: total(&self.0[2]), absolute: total(&self.0[3]) }
    }
}

/// A block of rows on its way through the keys.
pub(super) struct RowBlock {
    block: usize,
    mask: Mask,
    lse: Lane,
    d: Lane,
    /// Of keys of the sink block.
    sink: Mass,
    /// Of other keys at a distance of `64 d..64 d + 64`, by d.
    at: Vec<Mass>,
    /// The key whose weight is above a half, the weight and its `G`, of rows that have one: not in the sums above.
    top: [i32; BLOCK],
    top_weight: Lane,
    top_gain: Lane,
    sums: BlockSums,
}

const NONE: i32 = -1;

/// The logarithm of the most that a key may weigh that was not seen: sums of such weights stay finite.
const HEAVIEST: f32 = 60.0;

/// A block of keys as a block of rows sees it.
#[derive(Clone, Copy)]
struct Keys {
    first: i32,
    /// The rows' own block: keys behind a row are masked.
    diagonal: bool,
    /// The window hides the far half, or both.
    hides_far: bool,
    hides_near: bool,
}

/// The work of [`RowBlock::take`] on scores and gradients.
struct Take<'a> {
    rows: &'a mut RowBlock,
    keys: Keys,
    scores: &'a mut [f32],
    gradients: &'a mut [f32],
    halves: &'a mut [Quantities; 2],
}

impl NullaryFnOnce for Take<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { rows, keys, scores, gradients, halves } = self;
        for lane in (0..BLOCK).step_by(LANES) {
            rows.lanes(lane, keys, scores, gradients, halves);
        }
    }
}

impl RowBlock {
    /// Starts on the rows of block number `block`, with their log-sum-exp and `D`; rows that are not there have an
    /// infinite log-sum-exp.
    pub(super) fn new(block: usize, mask: Mask, lse: Lane, d: Lane) -> Self {
        let zeros = vec![Sums::default(); block + 1];
        Self {
            block,
            mask,
            lse,
            d,
            sink: Mass::ZERO,
            at: vec![Mass::ZERO; block + 1],
            top: [NONE; BLOCK],
            top_weight: [0.0; BLOCK],
            top_gain: [0.0; BLOCK],
            sums: BlockSums {
                far: zeros.clone(),
                near: zeros.clone(),
                windows: zeros,
                effects: vec![[0.0; BLOCK]; block + 1],
            },
        }
    }

    /// Takes in one block of keys: turns scores into weights `A`, and their gradients `G` into those of the scores,
    /// `A (G - D)`. Both are `[keys, BLOCK]`, a column per row.
    pub(super) fn take(&mut self, key_block: usize, scores: &mut [f32], gradients: &mut [f32]) {
        let distance = self.block - key_block;
        let behind_sink = key_block >= self.mask.sink;
        let keys = Keys {
            first: (key_block * BLOCK) as i32,
            diagonal: distance == 0,
            hides_far: behind_sink && distance >= self.mask.window,
            hides_near: behind_sink && distance > self.mask.window,
        };
        let mut halves = [Quantities::ZERO; 2];
        vectorized(Take { rows: self, keys, scores, gradients, halves: &mut halves });
        let [far, near] = &halves;
        self.sums.far[key_block] = far.influence();
        self.sums.near[key_block] = near.influence();
        // Keys of the sink are always seen.
        self.add(behind_sink.then_some(distance), far);
        if distance > 0 {
            self.add(behind_sink.then_some(distance - 1), near);
        }
    }

    /// The same for the rows from `lane` on, as many as a vector holds.
    #[inline(always)]
    fn lanes(
        &mut self,
        lane: usize,
        of: Keys,
        scores: &mut [f32],
        gradients: &mut [f32],
        halves: &mut [Quantities; 2],
    ) {
        let range = lane..lane + LANES;
        let (mut lse, mut d) = ([0.0; LANES], [0.0; LANES]);
        lse.copy_from_slice(&self.lse[range.clone()]);
        d.copy_from_slice(&self.d[range.clone()]);
        let (mut top, mut top_weight, mut top_gain) = ([NONE; LANES], [0.0; LANES], [0.0; LANES]);
        let mut sums = [[[0.0f32; LANES]; 4]; 2];
        let keys = scores.chunks_exact_mut(BLOCK).zip(gradients.chunks_exact_mut(BLOCK));
        for (key, (scores, gradients)) in keys.enumerate() {
            let (scores, gradients) = (&mut scores[range.clone()], &mut gradients[range.clone()]);
            for l in 0..LANES {
                let far = lane + l >= key;
                // A key that was not seen may weigh more than all that were.
                let weight = exp((scores[l] - lse[l]).min(HEAVIEST));
                let weight = if of.diagonal && !far { 0.0 } else { weight };
                let hidden = if far { of.hides_far } else { of.hides_near };
                let gain = gradients[l];
                let gradient = if hidden { 0.0 } else { weight * (gain - d[l]) };
                scores[l] = if hidden { 0.0 } else { weight };
                gradients[l] = gradient;
                let is_top = !hidden && weight > 0.5;
                top[l] = if is_top { of.first + key as i32 } else { top[l] };
                top_weight[l] = if is_top { weight } else { top_weight[l] };
                top_gain[l] = if is_top { gain } else { top_gain[l] };
                let weight = if is_top { 0.0 } else { weight };
                let influence = if is_top || hidden { 0.0 } else { -gradient / (1.0 - weight) };
                let quantities = [weight, weight * gain, influence, influence.abs()];
                for (at, value) in quantities.into_iter().enumerate() {
                    sums[0][at][l] += if far { value } else { 0.0 };
                    sums[1][at][l] += if far { 0.0 } else { value };
                }
            }
        }
        for l in 0..LANES {
            if top[l] != NONE {
                self.top[lane + l] = top[l];
                self.top_weight[lane + l] = top_weight[l];
                self.top_gain[lane + l] = top_gain[l];
            }
        }
        for (half, sums) in halves.iter_mut().zip(&sums) {
            for (quantity, sums) in half.0.iter_mut().zip(sums) {
                quantity[range.clone()].copy_from_slice(sums);
            }
        }
    }

    fn add(&mut self, at: Option<usize>, from: &Quantities) {
        let to = match at {
            Some(at) => &mut self.at[at],
            None => &mut self.sink,
        };
        let [weight, gain, _, _] = &from.0;
        for (to, from) in to.weight.iter_mut().zip(weight).chain(to.gain.iter_mut().zip(gain)) {
            *to += from;
        }
    }

    /// The sums over whole rows: the influence of weights above a half, and of windows.
    pub(super) fn finish(mut self) -> BlockSums {
        for row in 0..BLOCK {
            let of = |mass: &Mass| (f64::from(mass.weight[row]), f64::from(mass.gain[row]));
            let plus = |a: (f64, f64), b: (f64, f64)| (a.0 + b.0, a.1 + b.1);
            let mut sink = of(&self.sink);
            let mut at: Vec<(f64, f64)> = self.at.iter().map(of).collect();
            let key = self.top[row];
            if key != NONE {
                let rest = at.iter().copied().fold(sink, plus);
                let (weight, gain) = (f64::from(self.top_weight[row]), f64::from(self.top_gain[row]));
                let (key, key_row) = (key as usize / BLOCK, key as usize % BLOCK);
                let far = row >= key_row;
                if rest.0 > 0.0 {
                    let value = weight * (rest.1 / rest.0 - gain);
                    let sums = if far { &mut self.sums.far } else { &mut self.sums.near };
                    sums[key].add(value);
                }
                let to = if key == 0 { &mut sink } else { &mut at[self.block - key - usize::from(!far)] };
                *to = plus(*to, (weight, weight * gain));
            }
            // `seen[w]`: of the keys that a window of w blocks shows.
            let mut seen = vec![sink];
            for (d, &at) in at.iter().enumerate() {
                seen.push(plus(seen[d], at));
            }
            let base = self.mask.window.min(self.block);
            let (all, gained) = seen[base];
            if all <= 0.0 {
                continue; // a row that is not there
            }
            // From the window of the forward pass to the narrowest, which hides more with every step ..
            let mut hidden = (0.0, 0.0);
            for window in (1..base).rev() {
                hidden = plus(hidden, at[window]);
                let (weight, gain) = seen[window];
                if weight > 0.0 {
                    self.sums.put(window, row, (hidden.0 * gain / weight - hidden.1) / all);
                }
            }
            // .. and to the widest.
            let (mut shown, mut effect) = ((0.0, 0.0), 0.0);
            for window in base + 1..=self.block {
                if window <= self.mask.reach {
                    shown = plus(shown, at[window - 1]);
                    effect = (shown.1 - shown.0 * gained / all) / (all + shown.0);
                }
                self.sums.put(window, row, effect);
            }
        }
        self.sums
    }
}
