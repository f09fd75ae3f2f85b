//! The reverse pass under a plan's masks: gradients, and what moving windows from there does, against finite differences
//! in float64.

use std::sync::LazyLock;

use candle_core::Tensor;
use moac_runtime::plan::Plan;

use super::backward::{
    ANSWER, Exact, HEADS, KV_HEADS, LAYERS, TOKENS, close, decoder, gradients_agree, masked, tokens,
};
use crate::backward::windows::WindowSums;
use crate::backward::{Reverse, Tape};
use crate::*;

/// Windows of 1, 2 and 3 blocks and more than there are, the same for the heads of a KV head.
const WINDOWS: [[usize; KV_HEADS]; LAYERS] = [[64, 128], [128, 192], [256, 64]];
const GROUP: usize = HEADS / KV_HEADS;

fn windows() -> Vec<[usize; HEADS]> {
    WINDOWS.iter().map(|layer| std::array::from_fn(|head| layer[head / GROUP])).collect()
}

static EXACT: LazyLock<Exact> = LazyLock::new(|| Exact::new(&windows()));

fn plan(model: &ModelShape) -> Plan {
    let spans = |layer: &[usize; HEADS]| layer.iter().map(|&window| (window + 64) as f64).collect();
    Plan {
        alphas: windows().iter().map(spans).collect(),
        betas: vec![vec![0.0; HEADS]; LAYERS],
        ..dense_plan(model)
    }
}

/// Loss, what windows do by layer and KV head, and the gradients of the layers' inputs.
fn reversed(times: f64) -> (f64, Vec<Vec<WindowSums>>, Vec<Tensor>) {
    let (decoder, tokens) = (decoder(), tokens());
    let plan = plan(&decoder.config().shape());
    let tape = Tape::record(&decoder, &tokens[..TOKENS - 1], (&plan, 320), &mut |_| ()).unwrap();
    let mut reverse = Reverse::new(&decoder, tape, ANSWER - 1, &tokens[ANSWER..]).unwrap().within(times);
    let (mut sums, mut gradients) = (Vec::new(), Vec::new());
    while let Some((_, heads)) = reverse.step_windows().unwrap() {
        sums.insert(0, heads);
        gradients.insert(0, reverse.gradient().clone());
    }
    (reverse.loss(), sums, gradients)
}

#[test]
fn loss_and_gradients_are_those_of_the_masked_model() {
    let (loss, _, gradients) = reversed(1.0);
    assert!((loss - EXACT.loss(0, &EXACT.inputs[0], None)).abs() < 1e-5);
    gradients_agree(&EXACT, &gradients);
}

/// Narrower and wider: `dO . (O' - O)` of all rows and query heads of a KV head.
#[test]
fn moving_a_window_agrees_with_finite_differences() {
    let (_, sums, _) = reversed(f64::INFINITY);
    let largest = sums.iter().flatten().flat_map(|of| &of.effect).fold(0.0f64, |most, x| most.max(x.abs()));
    assert!(largest > 1e-3);
    for (layer, kv_heads) in sums.iter().enumerate() {
        for (kv_head, found) in kv_heads.iter().enumerate() {
            let base = WINDOWS[layer][kv_head];
            assert_eq!((found.effect.len(), found.effect[0]), (5, 0.0));
            for window in 1..5 {
                let exact = EXACT.derivative(layer, &|head, i, raw| {
                    if head / GROUP != kv_head {
                        return vec![0.0; raw.len()];
                    }
                    let under = |window: usize| masked(raw, |j| j >= 64 && i - j >= window);
                    under(64 * window).iter().zip(under(base)).map(|(to, from)| to - from).collect()
                });
                let what = format!("layer {layer}, KV head {kv_head}, window {window} from {}", base / 64);
                close(found.effect[window], exact, 1e-2 * largest, &what);
            }
        }
    }
}

/// Windows that are not requested do not change the other results.
#[test]
fn a_shorter_reach_sees_the_same_as_far_as_it_goes() {
    let ((_, all, gradients), (_, near, same)) = (reversed(f64::INFINITY), reversed(2.0));
    assert_eq!(gradients[0].to_vec2::<f32>().unwrap(), same[0].to_vec2::<f32>().unwrap());
    for (layer, (all, near)) in all.iter().zip(&near).enumerate() {
        for (kv_head, (all, near)) in all.iter().zip(near).enumerate() {
            let reach = 2 * (WINDOWS[layer][kv_head] / 64 + 1) - 1;
            for window in 1..5 {
                let at = window.min(reach);
                let what = format!("layer {layer}, KV head {kv_head}, window {window}");
                assert!((near.effect[window] - all.effect[at]).abs() < 1e-9, "{what}");
            }
        }
    }
}
