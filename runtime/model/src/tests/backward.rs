//! The reverse pass against finite differences of a forward pass in float64, written from the formulas, whose attention
//! weights and layer inputs can be changed.

use std::sync::LazyLock;

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::tiny::noise;
use crate::backward::influence::{HeadSums, Sums};
use crate::backward::{Reverse, Tape};
use crate::*;

pub(super) const LAYERS: usize = 3;
const HIDDEN: usize = 48;
const FFN: usize = 64;
pub(super) const HEADS: usize = 6;
pub(super) const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 16;
const VOCAB: usize = 90;
pub(super) const TOKENS: usize = 206;
pub(super) const ANSWER: usize = 170;
const BLOCKS: usize = 4;

/// Changes rows of attention weights: of a layer, the head, the query's position, the weights its keys have without masks,
/// and those that they have.
type Change<'a> = (usize, &'a (dyn Fn(usize, usize, &[f64], &mut [f64]) + Sync));

/// Where rows of attention weights go: from the head, the query's position and the weights its keys have without masks.
type Direction<'a> = &'a (dyn Fn(usize, usize, &[f64]) -> Vec<f64> + Sync);

fn tensor(shape: &[usize], scale: f32, centre: f32, seed: u64) -> Tensor {
    let mut random = noise(seed);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| centre + scale * random()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

pub(super) fn decoder() -> Decoder {
    decoder_with(false)
}

/// With or without a bias of q, k and v and norms of their heads.
fn decoder_with(extras: bool) -> Decoder {
    let config = Config {
        name: "random".into(),
        vocab_size: VOCAB,
        hidden_size: HIDDEN,
        intermediate_size: FFN,
        num_layers: LAYERS,
        num_heads: HEADS,
        num_kv_heads: KV_HEADS,
        head_dim: HEAD_DIM,
        norm_eps: 1e-5,
        context: 1024,
        rope: Rope { theta: 3000.0, scaling: RopeScaling::None },
        qkv_bias: extras,
        qk_norm: extras,
        tied_embeddings: true,
        bos: None,
        eos: Vec::new(),
    };
    let layer = |l: u64| LayerWeights {
        attention_norm: tensor(&[HIDDEN], 0.3, 1.0, 10 * l + 1),
        // Large, so that some rows attend to one key almost alone.
        qkv: tensor(&[(HEADS + 2 * KV_HEADS) * HEAD_DIM, HIDDEN], 0.6, 0.0, 10 * l + 2),
        qkv_bias: extras.then(|| tensor(&[(HEADS + 2 * KV_HEADS) * HEAD_DIM], 0.5, 0.0, 10 * l + 7)),
        qk_norm: extras.then(|| [8, 9].map(|n| tensor(&[HEAD_DIM], 0.3, 1.0, 10 * l + n))),
        output: tensor(&[HIDDEN, HEADS * HEAD_DIM], 0.2, 0.0, 10 * l + 3),
        mlp_norm: tensor(&[HIDDEN], 0.3, 1.0, 10 * l + 4),
        gate_up: tensor(&[2 * FFN, HIDDEN], 0.4, 0.0, 10 * l + 5),
        down: tensor(&[HIDDEN, FFN], 0.3, 0.0, 10 * l + 6),
    };
    let embedding = tensor(&[VOCAB, HIDDEN], 1.0, 0.0, 7);
    let weights = Weights {
        layers: (0..LAYERS as u64).map(|l| layer(l + 1)).collect(),
        norm: tensor(&[HIDDEN], 0.3, 1.0, 8),
        head: embedding.clone(),
        embedding,
    };
    Decoder::new(config, weights)
}

pub(super) fn tokens() -> Vec<u32> {
    let mut random = noise(5);
    (0..TOKENS).map(|_| ((random() + 1.0) * 0.5 * VOCAB as f32) as u32).collect()
}

pub(super) type Matrix = Vec<Vec<f64>>;

pub(super) fn matrix(of: &Tensor) -> Matrix {
    let rows: Vec<Vec<f32>> = of.to_vec2().unwrap();
    rows.into_iter().map(|row| row.into_iter().map(f64::from).collect()).collect()
}

fn vector(of: &Tensor) -> Vec<f64> {
    of.to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect()
}

struct ExactLayer {
    attention_norm: Vec<f64>,
    qkv: Matrix,
    bias: Option<Vec<f64>>,
    head_norms: Option<[Vec<f64>; 2]>,
    output: Matrix,
    mlp_norm: Vec<f64>,
    gate_up: Matrix,
    down: Matrix,
}

/// The model in float64, and what every layer gets.
pub(super) struct Exact {
    /// The window of each head behind a sink of 64 tokens, `[layer][head]`.
    windows: Vec<[usize; HEADS]>,
    layers: Vec<ExactLayer>,
    norm: Vec<f64>,
    head: Matrix,
    tokens: Vec<u32>,
    /// `[layers + 1]`, the last one behind them all.
    pub(super) inputs: Vec<Matrix>,
}

fn times(matrix: &Matrix, x: &[f64]) -> Vec<f64> {
    matrix.iter().map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
}

fn normed(weight: &[f64], x: &[f64]) -> Vec<f64> {
    let rms = (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64 + 1e-5).sqrt();
    x.iter().zip(weight).map(|(x, w)| x / rms * w).collect()
}

impl Exact {
    pub(super) fn new(windows: &[[usize; HEADS]]) -> Self {
        Self::of(&decoder(), windows)
    }

    fn of(decoder: &Decoder, windows: &[[usize; HEADS]]) -> Self {
        let weights = decoder.weights();
        let layers = weights.layers.iter().map(|w| ExactLayer {
            attention_norm: vector(&w.attention_norm),
            qkv: matrix(&w.qkv),
            bias: w.qkv_bias.as_ref().map(vector),
            head_norms: w.qk_norm.as_ref().map(|norms| norms.each_ref().map(vector)),
            output: matrix(&w.output),
            mlp_norm: vector(&w.mlp_norm),
            gate_up: matrix(&w.gate_up),
            down: matrix(&w.down),
        });
        let head = matrix(&weights.head);
        let mut exact = Self {
            windows: windows.to_vec(),
            layers: layers.collect(),
            norm: vector(&weights.norm),
            inputs: vec![tokens().iter().map(|&t| head[t as usize].clone()).collect()],
            head,
            tokens: tokens(),
        };
        for layer in 0..LAYERS {
            exact.inputs.push(exact.layer(layer, &exact.inputs[layer], None));
        }
        exact
    }

    fn layer(&self, layer: usize, x: &Matrix, change: Option<Change<'_>>) -> Matrix {
        let w = &self.layers[layer];
        let mut qkv: Matrix = x.iter().map(|x| times(&w.qkv, &normed(&w.attention_norm, x))).collect();
        for (position, row) in qkv.iter_mut().enumerate() {
            row.iter_mut().zip(w.bias.iter().flatten()).for_each(|(x, bias)| *x += bias);
            for (n, head) in row[..(HEADS + KV_HEADS) * HEAD_DIM].chunks_mut(HEAD_DIM).enumerate() {
                if let Some(norms) = &w.head_norms {
                    head.copy_from_slice(&normed(&norms[usize::from(n >= HEADS)], head));
                }
                for i in 0..HEAD_DIM / 2 {
                    let angle = position as f64 * 3000f64.powf(-2.0 * i as f64 / HEAD_DIM as f64);
                    let (a, b) = (head[i], head[i + HEAD_DIM / 2]);
                    head[i] = a * angle.cos() - b * angle.sin();
                    head[i + HEAD_DIM / 2] = b * angle.cos() + a * angle.sin();
                }
            }
        }
        let part = |t: usize, n: usize| &qkv[t][n * HEAD_DIM..(n + 1) * HEAD_DIM];
        let row = |i: usize| -> Vec<f64> {
            let mut attended = Vec::new();
            for h in 0..HEADS {
                let g = h / (HEADS / KV_HEADS);
                let score = |j| part(i, h).iter().zip(part(j, HEADS + g)).map(|(a, b)| a * b).sum::<f64>();
                let scores: Vec<f64> = (0..=i).map(|j| score(j) / (HEAD_DIM as f64).sqrt()).collect();
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let mut weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
                let total: f64 = weights.iter().sum();
                for weight in &mut weights {
                    *weight /= total;
                }
                let raw = weights.clone();
                let hidden = |j| j >= 64 && i - j >= self.windows[layer][h];
                weights.iter_mut().zip(masked(&raw, hidden)).for_each(|(weight, moved)| *weight += moved);
                if let Some((at, change)) = change
                    && at == layer
                {
                    change(h, i, &raw, &mut weights);
                }
                for d in 0..HEAD_DIM {
                    let values = (0..=i).map(|j| part(j, HEADS + KV_HEADS + g)[d]);
                    attended.push(values.zip(&weights).map(|(v, w)| v * w).sum());
                }
            }
            let mut x = x[i].clone();
            x.iter_mut().zip(times(&w.output, &attended)).for_each(|(x, y)| *x += y);
            let gate_up = times(&w.gate_up, &normed(&w.mlp_norm, &x));
            let (gate, up) = gate_up.split_at(FFN);
            let inner: Vec<f64> = gate.iter().zip(up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
            x.iter_mut().zip(times(&w.down, &inner)).for_each(|(x, y)| *x += y);
            x
        };
        (0..x.len()).map(row).collect()
    }

    /// The mean loss of the answer, from the input of a layer on.
    pub(super) fn loss(&self, from: usize, x: &Matrix, change: Option<Change<'_>>) -> f64 {
        let mut x = x.clone();
        for layer in from..LAYERS {
            x = self.layer(layer, &x, change);
        }
        let loss = |t: usize| {
            let logits = times(&self.head, &normed(&self.norm, &x[t - 1]));
            logits.iter().map(|l| l.exp()).sum::<f64>().ln() - logits[self.tokens[t] as usize]
        };
        (ANSWER..TOKENS).map(loss).sum::<f64>() / (TOKENS - ANSWER) as f64
    }

    /// The derivative of the loss by a step that changes rows of attention weights of a layer: `direction` gives, for
    /// head, query and weights, where they would be after a step of one.
    pub(super) fn derivative(&self, layer: usize, direction: Direction<'_>) -> f64 {
        const STEP: f64 = 1e-4;
        let at = |step: f64| {
            let change = |head: usize, i: usize, raw: &[f64], weights: &mut [f64]| {
                let moved = direction(head, i, raw);
                weights.iter_mut().zip(moved).for_each(|(w, d)| *w += step * d);
            };
            self.loss(layer, &self.inputs[layer], Some((layer, &change)))
        };
        (at(STEP) - at(-STEP)) / (2.0 * STEP)
    }
}

static EXACT: LazyLock<Exact> = LazyLock::new(|| Exact::new(&[[TOKENS; HEADS]; LAYERS]));

/// The change of a row when some of its keys are masked; `None` where no key is left.
pub(super) fn masked(weights: &[f64], hidden: impl Fn(usize) -> bool) -> Vec<f64> {
    let left: f64 = weights.iter().enumerate().filter(|&(j, _)| !hidden(j)).map(|(_, w)| w).sum();
    let move_of = |(j, &w): (usize, &f64)| if hidden(j) { -w } else { w / left - w };
    if left == 0.0 { vec![0.0; weights.len()] } else { weights.iter().enumerate().map(move_of).collect() }
}

/// The influence of every head, by layer, and the gradient of every layer's input, the last layer's output behind them.
fn reversed() -> (f64, Vec<Vec<HeadSums>>, Vec<Tensor>) {
    reversed_of(&decoder())
}

fn reversed_of(decoder: &Decoder) -> (f64, Vec<Vec<HeadSums>>, Vec<Tensor>) {
    let tokens = tokens();
    let mut layers = 0;
    let (plan, inputs) = (dense_plan(&decoder.config().shape()), &tokens[..TOKENS - 1]);
    let tape = Tape::record(decoder, inputs, (&plan, 256), &mut |done| layers = done).unwrap();
    assert_eq!(layers, LAYERS);
    let mut reverse = Reverse::new(decoder, tape, ANSWER - 1, &tokens[ANSWER..]).unwrap();
    let mut gradients = vec![reverse.gradient().clone()];
    let mut sums = Vec::new();
    while let Some((layer, heads)) = reverse.step().unwrap() {
        sums.insert(0, heads);
        gradients.insert(0, reverse.gradient().clone());
        assert_eq!(layer, LAYERS - sums.len());
    }
    (reverse.loss(), sums, gradients)
}

pub(super) fn close(found: f64, exact: f64, least: f64, what: &str) {
    assert!((found - exact).abs() <= 1e-3 * exact.abs().max(least), "{what}: {found:e}, expected {exact:e}");
}

#[test]
fn loss_and_gradients_agree_with_finite_differences() {
    let (loss, _, gradients) = reversed();
    assert!((loss - EXACT.loss(0, &EXACT.inputs[0], None)).abs() < 1e-5);
    gradients_agree(&EXACT, &gradients);
}

/// As Qwen2 and Qwen3 have them.
#[test]
fn gradients_go_through_biases_and_norms_of_heads() {
    let decoder = decoder_with(true);
    let exact = Exact::of(&decoder, &[[TOKENS; HEADS]; LAYERS]);
    let (loss, _, gradients) = reversed_of(&decoder);
    let expected = exact.loss(0, &exact.inputs[0], None);
    assert!((loss - expected).abs() < 1e-5, "{loss}, expected {expected}");
    assert!((expected - EXACT.loss(0, &EXACT.inputs[0], None)).abs() > 1e-2);
    gradients_agree(&exact, &gradients);
}

/// The gradients of layers' inputs against finite differences, in directions over all rows, over the last ones, and of single
/// elements.
pub(super) fn gradients_agree(exact: &Exact, gradients: &[Tensor]) {
    for (layer, gradient) in gradients.iter().enumerate() {
        let gradient = matrix(gradient);
        let norm = gradient.iter().flatten().map(|g| g * g).sum::<f64>().sqrt();
        for seed in 0..8 {
            let mut random = noise(seed + 40);
            let direction: Matrix = (0..TOKENS - 1)
                .map(|t| {
                    let here = match seed {
                        0..3 => true,
                        3..5 => t + 50 > TOKENS,
                        _ => t == 23 * seed as usize,
                    };
                    (0..HIDDEN).map(|_| if here { f64::from(random()) } else { 0.0 }).collect()
                })
                .collect();
            let at = |step: f64| {
                let mut x = exact.inputs[layer].clone();
                for (x, d) in x.iter_mut().zip(&direction) {
                    x.iter_mut().zip(d).for_each(|(x, d)| *x += step * d);
                }
                exact.loss(layer, &x, None)
            };
            let expected = (at(1e-5) - at(-1e-5)) / 2e-5;
            let found: f64 =
                gradient.iter().flatten().zip(direction.iter().flatten()).map(|(g, d)| g * d).sum();
            close(found, expected, 0.01 * norm, &format!("layer {layer}, direction {seed}"));
        }
    }
}

#[test]
fn influence_agrees_with_finite_differences() {
    let (_, sums, _) = reversed();
    let mut cases = Vec::new();
    for layer in 0..LAYERS {
        for head in 0..HEADS {
            for (a, b) in (0..BLOCKS).flat_map(|a| (0..=a).map(move |b| (a, b))) {
                cases.extend([(layer, head, a, b, true), (layer, head, a, b, false)]);
            }
        }
    }
    let largest = sums.iter().flatten().flat_map(|head| &head.far).map(|s| s.absolute).fold(0.0, f64::max);
    cases.par_iter().for_each(|&(layer, head, a, b, far)| {
        let found = &sums[layer][head];
        let found = if far { found.far[a * BLOCKS + b] } else { found.near[a * BLOCKS + b] };
        if a == b && !far {
            return assert_eq!(found, Sums::default());
        }
        let exact = EXACT.derivative(layer, &|h, i, weights| {
            let mut sum = vec![0.0; weights.len()];
            for j in 64 * b..weights.len().min(64 * (b + 1)) {
                if h == head && i / 64 == a && (i % 64 >= j % 64) == far {
                    let one = masked(weights, |key| key == j);
                    sum.iter_mut().zip(one).for_each(|(sum, x)| *sum += x);
                }
            }
            sum
        });
        let what = format!("layer {layer}, head {head}, block ({a}, {b}), far {far}");
        close(found.signed, exact, 1e-2 * found.absolute + 1e-5 * largest, &what);
        assert!(found.absolute >= found.signed.abs() * (1.0 - 1e-9), "{what}");
    });
}

#[test]
fn magnitudes_are_summed_element_by_element() {
    let (_, sums, _) = reversed();
    // The last rows' own block: 78 elements each.
    for (layer, head) in [(0, 1), (1, 4), (2, 5)] {
        let elements: Vec<(usize, usize)> =
            (192..TOKENS - 1).flat_map(|i| (192..=i).map(move |j| (i, j))).collect();
        let exact: f64 = elements
            .par_iter()
            .map(|&(row, key)| {
                let only = |h: usize, i: usize, weights: &[f64]| {
                    if (h, i) == (head, row) {
                        masked(weights, |j| j == key)
                    } else {
                        vec![0.0; weights.len()]
                    }
                };
                EXACT.derivative(layer, &only).abs()
            })
            .sum();
        let found = sums[layer][head].far[BLOCKS * BLOCKS - 1].absolute;
        close(found, exact, 0.0, &format!("layer {layer}, head {head}"));
    }
}

#[test]
fn windows_agree_with_finite_differences() {
    let (_, sums, _) = reversed();
    let all = sums.iter().flatten().flat_map(|head| &head.windows);
    let largest = all.map(|s| s.absolute).fold(0.0, f64::max);
    let cases: Vec<_> = (0..LAYERS * HEADS).flat_map(|n| [(n, 2, 1), (n, 3, 1), (n, 3, 2)]).collect();
    cases.par_iter().for_each(|&(n, a, window)| {
        let (layer, head) = (n / HEADS, n % HEADS);
        let exact = EXACT.derivative(layer, &|h, i, weights| {
            if h != head || i / 64 != a {
                return vec![0.0; weights.len()];
            }
            masked(weights, |j| !moac_runtime::geometry::visible(i as u32, j as u32, 64, 64 * window as u32))
        });
        let found = sums[layer][head].windows[a * BLOCKS + window];
        let what = format!("layer {layer}, head {head}, rows {a}, window {window}");
        close(found.signed, exact, 1e-2 * found.absolute + 1e-5 * largest, &what);
    });
    for (block, window) in [(0, 0), (0, 1), (1, 1), (2, 2), (3, 3), (3, 0)] {
        assert_eq!(sums[0][0].windows[block * BLOCKS + window], Sums::default(), "{block}, {window}");
    }
}

#[test]
fn squares_are_of_rows_and_of_all_heads_that_share_keys() {
    let (_, sums, _) = reversed();
    let (rows, group) = (192..TOKENS - 1, HEADS / KV_HEADS);
    for (layer, kv_head, window) in [(0, 1, 1), (1, 0, 2), (2, 1, 2)] {
        let heads = kv_head * group..(kv_head + 1) * group;
        // What hiding a window does to one row of one head.
        let effects: Vec<Vec<f64>> = heads
            .clone()
            .map(|head| {
                let effect = |row: usize| {
                    EXACT.derivative(layer, &|h, i, weights| {
                        if (h, i) != (head, row) {
                            return vec![0.0; weights.len()];
                        }
                        masked(weights, |j| {
                            !moac_runtime::geometry::visible(i as u32, j as u32, 64, 64 * window as u32)
                        })
                    })
                };
                rows.clone().into_par_iter().map(effect).collect()
            })
            .collect();
        let at = 3 * BLOCKS + window;
        for (head, effects) in heads.clone().zip(&effects) {
            let exact = effects.iter().map(|effect| effect * effect).sum();
            close(sums[layer][head].squares[at], exact, 0.0, &format!("layer {layer}, head {head}"));
        }
        let together = (0..rows.len()).map(|row| effects.iter().map(|head| head[row]).sum::<f64>());
        let exact = together.map(|effect| effect * effect).sum();
        for head in heads {
            close(
                sums[layer][head].joint_squares[at],
                exact,
                0.0,
                &format!("layer {layer}, KV head {kv_head}"),
            );
        }
    }
}

#[test]
fn targets_are_drawn_as_the_model_predicts() {
    let (decoder, tokens) = (decoder(), tokens());
    let plan = dense_plan(&decoder.config().shape());
    let tape = Tape::record(&decoder, &tokens, (&plan, 256), &mut |_| ()).unwrap();
    let draw = |seed| tape.draw(&decoder, 60, 100, seed).unwrap();
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    // Row 70's next token, 2000 times, against its probabilities.
    let mut cache = Cache::new(&dense_plan(&decoder.config().shape()), 256).unwrap();
    let hidden = decoder.prefill(&tokens[..71], &mut cache).unwrap();
    let logits: Vec<f32> = decoder.logits(&hidden).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    let total: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
    let mut counts = [0.0; VOCAB];
    for seed in 0..2000 {
        counts[tape.draw(&decoder, 70, 1, seed).unwrap()[0] as usize] += 1.0;
    }
    for (token, (&logit, count)) in logits.iter().zip(counts).enumerate() {
        let expected = 2000.0 * f64::from(logit).exp() / total;
        assert!(
            (count - expected).abs() <= 5.0 * expected.sqrt() + 1.0,
            "{token}: {count}, expected {expected}"
        );
    }
}

/// The model must be one where the hard cases occur: weights close to 1, on keys near and far.
#[test]
fn some_weights_are_close_to_one() {
    let close = std::sync::atomic::AtomicUsize::new(0);
    let count = |_: usize, i: usize, _: &[f64], weights: &mut [f64]| {
        let far = weights.iter().enumerate().any(|(j, &w)| w > 0.99 && j + 64 < i);
        close.fetch_add(usize::from(far), std::sync::atomic::Ordering::Relaxed);
    };
    EXACT.layer(1, &EXACT.inputs[1], Some((1, &count)));
    assert!(close.into_inner() > 20);
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let bits = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let (loss, sums, gradients) = pool.install(reversed);
        (loss.to_bits(), sums, gradients[0].to_vec2::<f32>().unwrap())
    };
    assert_eq!(bits(1), bits(3));
}

#[test]
fn targets_that_do_not_fit_are_errors() {
    let decoder = decoder();
    let plan = dense_plan(&decoder.config().shape());
    let record = |tokens: &[u32]| Tape::record(&decoder, tokens, (&plan, 128), &mut |_| ());
    let tape = || record(&tokens()[..10]).unwrap();
    let error =
        |first, targets: &[u32]| Reverse::new(&decoder, tape(), first, targets).unwrap_err().to_string();
    assert!(error(8, &[1, 2, 3]).contains("the number of target tokens is 3, expected 1 to 2"));
    assert!(error(3, &[]).contains("the number of target tokens is 0"));
    assert!(error(3, &[90]).contains("a token is 90, expected below the vocabulary's 90"));
    for (tokens, expected) in [(0, "the number of tokens is 0, expected 1 to 128"), (129, "tokens is 129")] {
        let error = record(&vec![1; tokens]).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
