//! The measured loss when one KV head sees less: for answers that depend on a few heads.
//!
//! A derivative describes a small change. Whether a model finds a fact is not a small change: where it is certain of
//! the answer, its derivatives are nearly zero, and without the heads that look the fact up it is certain of another
//! answer. So this module narrows one KV head and measures the loss of the answer again. Only the rows of the
//! question see less, while the context keeps its full spans, so that one prefill serves all heads, and the
//! measurement covers a head's part in looking facts up rather than in understanding them.

use moac_model::{Ablation, CHUNK, Cache, Decoder, ModelError, dense_plan};
use moac_runtime::plan::{ModelShape, TILE};
use serde::{Deserialize, Serialize};

use super::measure::Average;
use crate::items::Item;

/// Rows that see less: those of the answer and so many before it, the end of a question.
const QUESTION: usize = 16;

/// One item's losses in nats.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ItemAblation {
    /// The mean loss of the answer's tokens when every head sees everything.
    pub loss: f64,
    /// How much more it is with one KV head narrowed, `[KV heads of all layers][windows]`, the windows of 1, 4,
    /// 16 and so on blocks that are narrower than the context.
    pub more: Vec<Vec<f64>>,
}

impl ItemAblation {
    /// Whether every loss is a number.
    pub fn is_finite(&self) -> bool {
        self.loss.is_finite() && self.more.iter().flatten().all(|more| more.is_finite())
    }
}

/// The windows that are measured in a context of so many blocks, in blocks: 1, 4, 16 and so on.
pub(super) fn windows(blocks: usize) -> Vec<usize> {
    std::iter::successors(Some(1), |window| Some(4 * window)).take_while(|&window| window < blocks).collect()
}

/// Floating-point operations, about: the prefill, and half the layers for every head's rows.
pub(super) fn operations(decoder: &Decoder, item: &Item) -> f64 {
    let config = decoder.config();
    let n = item.tokens.len() as f64;
    let linear = config.flops_per_token(false) as f64;
    let pair = 4.0 * (config.num_layers * config.num_heads * config.head_dim) as f64;
    let rows = (QUESTION + item.tokens.len() - item.answer) as f64;
    let variants =
        config.num_layers * config.num_kv_heads * windows(item.length.div_ceil(TILE) as usize).len();
    n * linear + pair * n * n / 2.0 + variants as f64 / 2.0 * rows * (linear + pair * n)
}

/// Measures an item. `tell` is called with the share done, and stops the measurement by returning `true`; the result is then `None`.
pub(super) fn ablate(
    decoder: &Decoder,
    item: &Item,
    tell: &mut dyn FnMut(f64) -> bool,
) -> Result<Option<ItemAblation>, ModelError> {
    let shape = decoder.config().shape();
    let (layers, kv_heads) = (shape.num_layers as usize, shape.num_kv_heads as usize);
    let plan = dense_plan(&shape);
    // The last token predicts nothing.
    let inputs = &item.tokens[..item.tokens.len() - 1];
    let targets = &item.tokens[item.answer..];
    let (context, rows) = inputs.split_at(item.answer.saturating_sub(QUESTION));
    let mut cache = Cache::new(&plan, plan.length_for(item.tokens.len()))?;
    // The prefill is about half of the work.
    for (at, chunk) in context.chunks(CHUNK).enumerate() {
        if tell((at * CHUNK) as f64 / (2 * inputs.len()) as f64) {
            return Ok(None);
        }
        decoder.prefill(chunk, &mut cache)?;
    }
    let question = Ablation::new(decoder, &cache, rows, targets)?;
    let windows = windows(item.length.div_ceil(TILE) as usize);
    let narrowed: Vec<(usize, u32)> = (0..kv_heads)
        .flat_map(|kv_head| windows.iter().map(move |&window| (kv_head, window as u32 * TILE)))
        .collect();
    let mut more = Vec::with_capacity(layers * kv_heads);
    for layer in 0..layers {
        if tell(0.5 + 0.5 * layer as f64 / layers as f64) {
            return Ok(None);
        }
        let losses = question.narrowed(layer, &narrowed)?;
        let of = |kv_head| {
            let at = kv_head * windows.len()..(kv_head + 1) * windows.len();
            losses[at].iter().map(|loss| loss - question.loss()).collect()
        };
        more.extend((0..kv_heads).map(of));
    }
    Ok(Some(ItemAblation { loss: question.loss(), more }))
}

/// The mean over items of the loss of every window in a context of `length` tokens, as the search reads it, times `count`.
///
/// Items may be of other lengths, so that few of each length do: what a window hides of a fact that may lie anywhere
/// depends on its share of the context. Between windows that were measured the loss falls evenly; that of a head is never
/// less than 0, nor less than the loss of a wider window.
pub(super) fn mean(model: &ModelShape, length: u32, items: &[(u32, ItemAblation)], count: usize) -> Average {
    let blocks = (length / TILE) as usize;
    let group = (model.num_heads / model.num_kv_heads) as usize;
    let share = count as f64 / (items.len() * group) as f64;
    let mut sums = Average::zeros(model, length);
    for kv_head in 0..(model.num_layers * model.num_kv_heads) as usize {
        let curves: Vec<(f64, Vec<(f64, f64)>)> = items
            .iter()
            .map(|(own, item)| {
                let own = (own / TILE) as usize;
                let measured = windows(own).into_iter().zip(&item.more[kv_head]);
                let points = measured.map(|(window, &more)| (window as f64, more));
                (own as f64 / blocks as f64, points.chain([(own as f64, 0.0)]).collect())
            })
            .collect();
        let mut losses: Vec<f64> = (0..=blocks)
            .map(|window| curves.iter().map(|(scale, points)| between(points, window as f64 * scale)).sum())
            .collect();
        losses[blocks] = 0.0;
        for window in (0..blocks).rev() {
            losses[window] = losses[window].max(losses[window + 1]);
        }
        for head in kv_head * group..(kv_head + 1) * group {
            sums.put_windows(head, |window| losses[window] * share);
        }
    }
    sums
}

/// The value at `x` on the line through points that ascend; at both ends it goes on level.
fn between(points: &[(f64, f64)], x: f64) -> f64 {
    let after = points.partition_point(|&(at, _)| at < x);
    match (after.checked_sub(1).map(|before| points[before]), points.get(after)) {
        (Some((a, left)), Some(&(b, right))) => left + (right - left) * (x - a) / (b - a),
        (Some((_, value)), None) | (None, Some(&(_, value))) => value,
        (None, None) => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two KV heads of two query heads each.
    fn small() -> ModelShape {
        ModelShape {
            name: "small".into(),
            num_layers: 1,
            num_heads: 4,
            num_kv_heads: 2,
            head_dim: 64,
            rope_theta: None,
            context: None,
            softmax_scale: None,
        }
    }

    #[test]
    fn windows_grow_fourfold() {
        assert_eq!(windows(1), [] as [usize; 0]);
        assert_eq!(windows(2), [1]);
        assert_eq!(windows(128), [1, 4, 16, 64]);
    }

    #[test]
    fn lines_go_through_their_points() {
        let points = [(1.0, 4.0), (4.0, 1.0), (6.0, 0.0)];
        let found: Vec<f64> = (0..8).map(|x| between(&points, f64::from(x))).collect();
        assert_eq!(found, [4.0, 4.0, 3.0, 2.0, 1.0, 0.5, 0.0, 0.0]);
    }

    /// The search reads back the mean over items at the windows that were measured, and never gains by hiding.
    #[test]
    fn the_search_sees_what_was_measured() {
        let model = small();
        let item = |more| (64 * 16, ItemAblation { loss: 1.0, more });
        let items =
            [item(vec![vec![0.5, 0.25], vec![-0.5, 0.5]]), item(vec![vec![1.5, 0.25], vec![-1.5, -0.25]])];
        let found = mean(&model, 64 * 16, &items, 2).finish(&model, 2, 0.5);
        let losses = |head| found.head(head).losses(1);
        for head in 0..4 {
            let expected = [[1.0, 0.25], [0.125, 0.125]][head / 2];
            for (window, expected) in [1, 4].into_iter().zip(expected) {
                let loss = losses(head)[window];
                assert!((2.0 * loss - expected).abs() < 1e-6, "head {head}, window {window}: {loss}");
            }
            assert!(losses(head).windows(2).skip(1).all(|pair| pair[0] >= pair[1] - 1e-9));
            assert!(losses(head)[16].abs() < 1e-9);
        }
    }

    /// Where 4 blocks of 16 hide as much as 16 of 64, an item of the longer context also counts for the shorter.
    #[test]
    fn items_of_other_lengths_count_by_the_share_that_a_window_hides() {
        let of = |blocks: u32, more: &[f64]| {
            (blocks * 64, ItemAblation { loss: 1.0, more: vec![more.to_vec(); 2] })
        };
        let items = [of(16, &[1.0, 0.5]), of(64, &[3.0, 2.0, 0.75])];
        let expected = |blocks: u32| {
            let found = mean(&small(), blocks * 64, &items, 1).finish(&small(), 1, 1.0);
            let window = (blocks / 4) as usize;
            // Two query heads share what their KV head loses.
            2.0 * found.head(0).losses(1)[window]
        };
        assert!((expected(16) - 0.625).abs() < 1e-6);
        assert!((expected(64) - 0.625).abs() < 1e-6);
    }
}
