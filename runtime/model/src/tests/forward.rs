//! The forward pass against a slow one in float64, written from the formulas, and the laws of the caches.

use candle_core::quantized::GgmlDType;
use moac_runtime::geometry;
use moac_runtime::plan::Plan;

use super::tiny::*;
use crate::*;

/// Row-major matrix times vector.
fn times(matrix: &(Vec<usize>, Vec<f32>), x: &[f64]) -> Vec<f64> {
    matrix.1.chunks(x.len()).map(|row| row.iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum()).collect()
}

fn norm(weight: &(Vec<usize>, Vec<f32>), x: &[f64]) -> Vec<f64> {
    let scale = (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64 + EPS).sqrt();
    x.iter().zip(&weight.1).map(|(x, &w)| x / scale * f64::from(w)).collect()
}

/// Rotates pair (i, i + half) of every head as one complex number.
fn rotate(x: &mut [f64], position: usize) {
    for head in x.chunks_mut(HEAD_DIM) {
        for i in 0..HEAD_DIM / 2 {
            let angle = position as f64 * THETA.powf(-((2 * i) as f64) / HEAD_DIM as f64);
            let (a, b) = (head[i], head[i + HEAD_DIM / 2]);
            head[i] = a * angle.cos() - b * angle.sin();
            head[i + HEAD_DIM / 2] = a * angle.sin() + b * angle.cos();
        }
    }
}

/// The logits of every position, straight from the definition.
fn slow(tiny: &Tiny, plan: &Plan, length: u32, tokens: &[u32]) -> Vec<Vec<f64>> {
    let get = |name: String| &tiny.tensors[&name];
    let embedding = get("model.embed_tokens.weight".into());
    let row = |t: u32| &embedding.1[t as usize * HIDDEN..(t as usize + 1) * HIDDEN];
    let mut x: Vec<Vec<f64>> =
        tokens.iter().map(|&t| row(t).iter().copied().map(f64::from).collect()).collect();
    for l in 0..LAYERS {
        let at = |name: &str| get(format!("model.layers.{l}.{name}.weight"));
        let inputs: Vec<Vec<f64>> = x.iter().map(|x| norm(at("input_layernorm"), x)).collect();
        let project = |name: &str, turn: bool| -> Vec<Vec<f64>> {
            let turned = |(position, x): (usize, &Vec<f64>)| {
                let mut out = times(at(name), x);
                if turn {
                    rotate(&mut out, position);
                }
                out
            };
            inputs.iter().enumerate().map(turned).collect()
        };
        let (q, k, v) = (
            project("self_attn.q_proj", true),
            project("self_attn.k_proj", true),
            project("self_attn.v_proj", false),
        );
        for i in 0..tokens.len() {
            let mut attended = Vec::new();
            for h in 0..HEADS {
                let g = h / (HEADS / KV_HEADS);
                let window = geometry::span(plan.rule(l as u32, h as u32), length, plan.min_span) - plan.sink;
                let of = |x: &[f64], head: usize| x[head * HEAD_DIM..(head + 1) * HEAD_DIM].to_vec();
                let seen: Vec<usize> =
                    (0..=i).filter(|&j| geometry::visible(i as u32, j as u32, plan.sink, window)).collect();
                let score = |&j: &usize| {
                    let dot: f64 = of(&q[i], h).iter().zip(of(&k[j], g)).map(|(a, b)| a * b).sum();
                    (dot / (HEAD_DIM as f64).sqrt()).exp()
                };
                let weights: Vec<f64> = seen.iter().map(score).collect();
                let total: f64 = weights.iter().sum();
                for d in 0..HEAD_DIM {
                    let sum: f64 = seen.iter().zip(&weights).map(|(&j, w)| w * of(&v[j], g)[d]).sum();
                    attended.push(sum / total);
                }
            }
            for (x, o) in x[i].iter_mut().zip(times(at("self_attn.o_proj"), &attended)) {
                *x += o;
            }
        }
        for x in &mut x {
            let input = norm(at("post_attention_layernorm"), x);
            let (gate, up) = (times(at("mlp.gate_proj"), &input), times(at("mlp.up_proj"), &input));
            let inner: Vec<f64> = gate.iter().zip(&up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
            for (x, o) in x.iter_mut().zip(times(at("mlp.down_proj"), &inner)) {
                *x += o;
            }
        }
    }
    x.iter().map(|x| times(embedding, &norm(get("model.norm.weight".into()), x))).collect()
}

/// Spans of 128 to the whole context, and different ones in a KV head's group.
fn uneven_plan(model: &Model) -> Plan {
    let mut plan = dense_plan(&model.decoder.config().shape());
    for (layer, (alphas, betas)) in plan.alphas.iter_mut().zip(&mut plan.betas).enumerate() {
        for (head, (alpha, beta)) in alphas.iter_mut().zip(betas).enumerate() {
            (*alpha, *beta) = [(128.0, 0.0), (64.0, 0.4), (0.0, 0.5), (0.0, 1.0)][(layer + head) % 4];
        }
    }
    plan
}

const TOKENS: usize = 300;
const LENGTH: u32 = 320;

fn tokens() -> Vec<u32> {
    let mut random = noise(11);
    (0..TOKENS).map(|_| ((random() + 1.0) * 128.0) as u32 + 3).collect()
}

/// The logits of every position when the tokens go in as chunks of these sizes, repeated.
fn in_chunks(model: &Model, plan: &Plan, tokens: &[u32], sizes: &[usize]) -> Vec<Vec<f32>> {
    let mut cache = Cache::new(plan, LENGTH).unwrap();
    let (mut rest, mut out) = (tokens, Vec::new());
    for &size in sizes.iter().cycle() {
        let (chunk, after) = rest.split_at(size.min(rest.len()));
        let hidden = model.decoder.forward(chunk, &mut Batch::one(&mut cache, chunk.len())).unwrap();
        out.extend(model.decoder.logits(&hidden).unwrap().to_vec2().unwrap());
        rest = after;
        if rest.is_empty() {
            return out;
        }
    }
    out
}

fn worst(found: &[Vec<f32>], expected: &[Vec<f64>]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let pairs = found.iter().flatten().zip(expected.iter().flatten());
    let worst = pairs.map(|(&f, e)| (f64::from(f) - e).abs()).fold(0.0, f64::max);
    worst / expected.iter().flatten().map(|e| e.abs()).fold(0.0, f64::max)
}

#[test]
fn prefill_chunks_and_decode_agree_with_float64() {
    let (_folder, path) = gguf_file(GgmlDType::F32);
    let model = Model::open(&path).unwrap();
    let tokens = tokens();
    for (plan, what) in
        [(dense_plan(&model.decoder.config().shape()), "dense"), (uneven_plan(&model), "uneven")]
    {
        let exact = slow(&Tiny::new(true), &plan, LENGTH, &tokens);
        for sizes in [&[TOKENS][..], &[1], &[7, 1, 130, 2, 64]] {
            let error = worst(&in_chunks(&model, &plan, &tokens, sizes), &exact);
            assert!(error < 2e-5, "{what} in chunks of {sizes:?}: {error:e}");
        }
    }
    // The plan matters: the same tokens under the dense plan are not that close.
    let dense = slow(&Tiny::new(true), &dense_plan(&model.decoder.config().shape()), LENGTH, &tokens);
    assert!(worst(&in_chunks(&model, &uneven_plan(&model), &tokens, &[TOKENS]), &dense) > 1e-3);
}

#[test]
fn losses_are_the_log_softmax_of_the_logits() {
    let (_folder, path) = gguf_file(GgmlDType::F32);
    let model = Model::open(&path).unwrap();
    let (plan, tokens) = (uneven_plan(&model), tokens());
    let losses = model.decoder.losses(&tokens, &mut Cache::new(&plan, LENGTH).unwrap()).unwrap();
    assert_eq!(losses.len(), TOKENS - 1);
    let logits = slow(&Tiny::new(true), &plan, LENGTH, &tokens);
    for ((loss, logits), &next) in losses.iter().zip(&logits).zip(&tokens[1..]) {
        let sum: f64 = logits.iter().map(|x| x.exp()).sum();
        let exact = sum.ln() - logits[next as usize];
        assert!((f64::from(*loss) - exact).abs() < 1e-4, "{loss} and {exact}");
    }
}

#[test]
fn a_batch_is_its_requests_alone() {
    let (_folder, path) = gguf_file(GgmlDType::F32);
    let model = Model::open(&path).unwrap();
    let (plan, tokens) = (uneven_plan(&model), tokens());
    let alone = |parts: &[&[u32]]| {
        let mut cache = Cache::new(&plan, LENGTH).unwrap();
        let mut last = None;
        for part in parts {
            last = Some(model.decoder.prefill(part, &mut cache).unwrap());
        }
        last.unwrap()
    };
    // Three requests: one decodes, one goes on with a chunk, one starts; and a clone leaves its original alone.
    let mut caches: Vec<Cache> = (0..3).map(|_| Cache::new(&plan, LENGTH).unwrap()).collect();
    model.decoder.prefill(&tokens[..200], &mut caches[0]).unwrap();
    model.decoder.prefill(&tokens[..50], &mut caches[1]).unwrap();
    let copy = caches[1].clone();
    let new = [&tokens[200..201], &tokens[50..90], &tokens[100..117]].concat();
    let requests = caches.iter_mut().zip([1, 40, 17]).collect();
    let hidden = model.decoder.forward(&new, &mut Batch::new(requests)).unwrap();
    for (row, expected) in [
        (0, alone(&[&tokens[..200], &tokens[200..201]])),
        (40, alone(&[&tokens[..50], &tokens[50..90]])),
        (57, alone(&[&tokens[100..117]])),
    ] {
        let error = (hidden.narrow(0, row, 1).unwrap() - expected).unwrap().abs().unwrap();
        let error = error.max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(error < 1e-5, "row {row}: {error:e}");
    }
    assert_eq!((copy.len(), caches[1].len()), (50, 90));
}

#[test]
fn branches_are_continuations_of_one_context() {
    let (_folder, path) = gguf_file(GgmlDType::F32);
    let model = Model::open(&path).unwrap();
    let (plan, tokens) = (uneven_plan(&model), tokens());
    let mut context = Cache::new(&plan, LENGTH).unwrap();
    model.decoder.prefill(&tokens[..200], &mut context).unwrap();
    let parts = [&tokens[200..201], &tokens[10..50], &tokens[200..220], &tokens[10..50]];
    let branches = &mut Branches::new(&context, parts.map(<[u32]>::len).into());
    let hidden = model.decoder.forward(&parts.concat(), branches).unwrap();
    let mut row = 0;
    for part in parts {
        let mut copy = context.clone();
        let expected = model.decoder.forward(part, &mut Batch::one(&mut copy, part.len())).unwrap();
        let error = (hidden.narrow(0, row, part.len()).unwrap() - expected).unwrap().abs().unwrap();
        let error = error.max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(error < 1e-5, "the branch at row {row}: {error:e}");
        row += part.len();
    }
    assert_eq!(context.len(), 200);
    let too_long = &mut Branches::new(&context, vec![2, LENGTH as usize]);
    let error = model.decoder.forward(&[5; 2 + LENGTH as usize], too_long).unwrap_err().to_string();
    assert!(error.contains("200 tokens are cached and 320 more"), "{error}");
}

/// Where the question is the whole text, or narrowed in the last layer, after which nobody reads the context, what a
/// narrowed KV head loses is what a plan with its span loses, computed by the slow forward pass.
#[test]
fn ablations_are_plans_of_one_narrow_head() {
    let (_folder, path) = gguf_file(GgmlDType::F32);
    let model = Model::open(&path).unwrap();
    let (shape, tokens) = (model.decoder.config().shape(), tokens());
    let dense = dense_plan(&shape);
    let targets = &tokens[TOKENS - 40..];
    let exact = |plan: &Plan| {
        let logits = slow(&Tiny::new(true), plan, LENGTH, &tokens);
        let loss = |(logits, &next): (&Vec<f64>, &u32)| {
            logits.iter().map(|x| x.exp()).sum::<f64>().ln() - logits[next as usize]
        };
        logits[TOKENS - 41..].iter().zip(targets).map(loss).sum::<f64>() / targets.len() as f64
    };
    let (layers, group) = (shape.num_layers as usize, (shape.num_heads / shape.num_kv_heads) as usize);
    for (context, layers) in [(0, 0..layers), (TOKENS - 60, layers - 1..layers)] {
        let mut cache = Cache::new(&dense, LENGTH).unwrap();
        if context > 0 {
            model.decoder.prefill(&tokens[..context], &mut cache).unwrap();
        }
        let ablation = Ablation::new(&model.decoder, &cache, &tokens[context..TOKENS - 1], targets).unwrap();
        assert!((ablation.loss() - exact(&dense)).abs() < 1e-4);
        for layer in layers {
            let heads: Vec<(usize, u32)> =
                (0..shape.num_kv_heads as usize).flat_map(|head| [(head, 64), (head, 128)]).collect();
            let found = ablation.narrowed(layer, &heads).unwrap();
            assert!(found.iter().any(|found| (found - ablation.loss()).abs() > 1e-3));
            for ((head, window), found) in heads.into_iter().zip(found) {
                let mut plan = dense.clone();
                for head in head * group..(head + 1) * group {
                    plan.alphas[layer][head] = f64::from(plan.sink + window);
                    plan.betas[layer][head] = 0.0;
                }
                let exact = exact(&plan);
                assert!((found - exact).abs() < 1e-4, "layer {layer}, KV head {head}: {found} and {exact}");
            }
        }
    }
    let cache = Cache::new(&dense, LENGTH).unwrap();
    let none = Ablation::new(&model.decoder, &cache, &tokens, &[]);
    assert!(none.unwrap_err().to_string().contains("expected from 1 to the rows' 300"));
}

#[test]
fn a_full_context_and_bad_arguments_are_errors() {
    let (_folder, path) = gguf_file(GgmlDType::F32);
    let model = Model::open(&path).unwrap();
    let plan = dense_plan(&model.decoder.config().shape());
    let mut cache = Cache::new(&plan, 128).unwrap();
    model.decoder.prefill(&[5; 120], &mut cache).unwrap();
    let error = model.decoder.prefill(&[5; 9], &mut cache).unwrap_err().to_string();
    assert!(error.contains("context full: 120 tokens are cached and 9 more were given"), "{error}");
    assert_eq!(cache.len(), 120);
    let error = model.decoder.prefill(&[5, 1 << 20], &mut cache).unwrap_err().to_string();
    assert!(error.contains("a token is 1048576, expected below the vocabulary's 263"), "{error}");
    assert!(model.decoder.prefill(&[], &mut cache).unwrap_err().to_string().contains("number of tokens"));
    for length in [0, 64, 100, 1 << 21] {
        assert!(Cache::new(&plan, length).unwrap_err().to_string().contains("a multiple of 64 from 128"));
    }
    assert_eq!(cache.kv_bytes(), 2 * 2 * 128 * (LAYERS * KV_HEADS * HEAD_DIM) as u64);
}
