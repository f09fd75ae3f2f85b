//! The laws of attention with spans and sinks (SPEC.md section 1), as properties of any [`LayerBackend`].
//!
//! Each law is a function of a way to make a layer and of a case, so that every device is held to the same text. Here
//! they run on the CPU path, on tiny shapes with spans of any size: many wraps, spans beyond the sequence, chunks
//! cut anywhere.

use std::ops::Range;

use moac_runtime::backend::{LayerBackend, Outputs, Qkv, Rows};
use moac_runtime::reference::{CpuLayer, LayerCache, Spans, oracle};
use ndarray::{Array, Array3, ArrayD, ArrayView, ArrayView3, Axis, Dimension, Slice, concatenate};
use proptest::prelude::*;

/// Makes a layer for a batch of requests with these spans.
pub(crate) type Make<'a> = &'a dyn Fn(&[Spans]) -> Box<dyn LayerBackend>;

/// The tokens of one request.
#[derive(Clone, Debug)]
pub(crate) struct Sequence {
    pub(crate) q: Array3<f32>,
    pub(crate) k: Array3<f32>,
    pub(crate) v: Array3<f32>,
}

impl Sequence {
    pub(crate) fn random(spans: &Spans, tokens: usize, seed: u64) -> Self {
        let mut state = seed.wrapping_mul(2).wrapping_add(1);
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // About normal: a sum of four uniforms, wide enough for the softmax to have preferences.
            (0..4).map(|part| ((state >> (part * 16)) & 0xffff) as f32 / 65536.0 - 0.5).sum::<f32>() * 2.5
        };
        let mut tensor = |heads| Array3::from_shape_simple_fn((tokens, heads, spans.head_dim), &mut next);
        Self { q: tensor(spans.heads()), k: tensor(spans.kv_heads()), v: tensor(spans.kv_heads()) }
    }

    fn tokens(&self) -> usize {
        self.q.dim().0
    }

    fn qkv(&self) -> Qkv<'_, f32> {
        Qkv::new(&self.q, &self.k, &self.v)
    }

    pub(crate) fn oracle(&self, spans: &Spans) -> Array3<f32> {
        oracle::attend(spans, self.qkv()).unwrap().o.mapv(|o| o as f32)
    }

    /// The same tokens with other query heads and KV heads, by index.
    fn select(&self, heads: &[usize], kv_heads: &[usize]) -> Self {
        Self {
            q: self.q.select(Axis(1), heads),
            k: self.k.select(Axis(1), kv_heads),
            v: self.v.select(Axis(1), kv_heads),
        }
    }
}

/// Some rows of an array. (`s!` does not get along with `forbid(unsafe_code)`.)
fn rows<T, D: Dimension>(of: &Array<T, D>, range: Range<usize>) -> ArrayView<'_, T, D> {
    of.slice_axis(Axis(0), Slice::from(range))
}

/// One call: new tokens of each request.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Prefill(Vec<u32>),
    Decode(Vec<u32>),
}

/// Runs the steps and returns what came out for each request, `[tokens, heads, head_dim]`, and its log-sum-exps.
pub(crate) fn run(layer: &mut dyn LayerBackend, batch: &[Sequence], steps: &[Step]) -> Vec<Outputs> {
    let mut done = vec![0_usize; batch.len()];
    let mut parts: Vec<Vec<Outputs>> = vec![Vec::new(); batch.len()];
    for step in steps {
        let (Step::Prefill(chunk) | Step::Decode(chunk)) = step;
        let pack = |of: fn(&Sequence) -> &Array3<f32>| {
            let views: Vec<ArrayView3<'_, f32>> = (batch.iter().zip(&done).zip(chunk))
                .map(|((request, &at), &tokens)| rows(of(request), at..at + tokens as usize))
                .collect();
            concatenate(Axis(0), &views).unwrap()
        };
        let (q, k, v) = (pack(|r| &r.q), pack(|r| &r.k), pack(|r| &r.v));
        let call = Rows { chunk, qkv: Qkv::new(&q, &k, &v) };
        let out = match step {
            Step::Prefill(_) => layer.prefill(&call),
            Step::Decode(_) => layer.decode(&call),
        }
        .unwrap();
        let mut start = 0;
        for (request, &tokens) in chunk.iter().enumerate() {
            let own = start..start + tokens as usize;
            parts[request].push(Outputs {
                o: rows(&out.o, own.clone()).to_owned(),
                lse: rows(&out.lse, own).to_owned(),
            });
            (start, done[request]) = (start + tokens as usize, done[request] + tokens as usize);
        }
        assert_eq!(layer.cached(), done.iter().map(|&tokens| tokens as u32).collect::<Vec<_>>());
    }
    parts
        .iter()
        .map(|parts| Outputs {
            o: concatenate(Axis(0), &parts.iter().map(|part| part.o.view()).collect::<Vec<_>>()).unwrap(),
            lse: concatenate(Axis(0), &parts.iter().map(|part| part.lse.view()).collect::<Vec<_>>()).unwrap(),
        })
        .collect()
}

/// One request at once.
pub(crate) fn at_once(make: Make<'_>, spans: &Spans, request: &Sequence) -> Outputs {
    let steps = [Step::Prefill(vec![request.tokens() as u32])];
    run(&mut *make(std::slice::from_ref(spans)), std::slice::from_ref(request), &steps).remove(0)
}

/// |a - b| / |b|, both flattened.
pub(crate) fn error<D: Dimension>(a: &Array<f32, D>, b: &Array<f32, D>) -> f64 {
    let (a, b): (ArrayD<f32>, ArrayD<f32>) = (a.clone().into_dyn(), b.clone().into_dyn());
    let norm = |x: &ArrayD<f32>| x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    norm(&(a - &b)) / norm(&b).max(1e-30)
}

fn same(a: &Outputs, b: &Outputs, tolerance: f64) -> Result<(), TestCaseError> {
    prop_assert!(error(&a.o, &b.o) <= tolerance, "o: error {}", error(&a.o, &b.o));
    let lse = (&a.lse - &b.lse).iter().fold(0.0_f32, |max, e| max.max(e.abs()));
    prop_assert!(f64::from(lse) <= tolerance * 10.0, "lse: error {lse}");
    Ok(())
}

/// Law 1: where every span covers the sequence, it is dense causal attention.
pub(crate) fn law_dense(
    make: Make<'_>,
    spans: &Spans,
    request: &Sequence,
    tolerance: f64,
) -> Result<(), TestCaseError> {
    let tokens = request.tokens();
    let wide = Spans {
        length: spans.length.max(tokens as u32),
        span: vec![spans.length.max(tokens as u32); spans.heads()],
        kv_span: vec![spans.length.max(tokens as u32); spans.kv_heads()],
        ..spans.clone()
    };
    let out = at_once(make, &wide, request);
    let mut dense = Array3::zeros(out.o.dim());
    for t in 0..tokens {
        for h in 0..spans.heads() {
            let k = rows(&request.k, 0..t + 1).index_axis_move(Axis(1), spans.kv_head(h));
            let v = rows(&request.v, 0..t + 1).index_axis_move(Axis(1), spans.kv_head(h));
            let q = request.q.index_axis(Axis(0), t).index_axis_move(Axis(0), h);
            let weights = k.dot(&q).mapv(|score| (f64::from(score) * spans.scale).exp());
            let o = weights.dot(&v.mapv(f64::from)) / weights.sum();
            dense.index_axis_mut(Axis(0), t).index_axis_mut(Axis(0), h).assign(&o.mapv(|o| o as f32));
        }
    }
    prop_assert!(error(&out.o, &dense) <= tolerance, "error {}", error(&out.o, &dense));
    Ok(())
}

/// Laws 2 and 6: however a sequence is cut into chunks and decode steps, the rows are those of one prefill.
pub(crate) fn law_steps(
    make: Make<'_>,
    spans: &Spans,
    request: &Sequence,
    steps: &[Step],
    tolerance: f64,
) -> Result<(), TestCaseError> {
    let whole = at_once(make, spans, request);
    let batch = std::slice::from_ref(request);
    let stepped = run(&mut *make(std::slice::from_ref(spans)), batch, steps).remove(0);
    same(&stepped, &whole, tolerance)
}

/// Law 3: permuting KV groups, or query heads inside their group, permutes the output.
pub(crate) fn law_permutation(
    make: Make<'_>,
    spans: &Spans,
    request: &Sequence,
    groups: &[usize],
    inside: &[usize],
    tolerance: f64,
) -> Result<(), TestCaseError> {
    let r = spans.group_size();
    let heads: Vec<usize> =
        groups.iter().flat_map(|group| inside.iter().map(move |head| group * r + head)).collect();
    let permuted = Spans {
        span: heads.iter().map(|&head| spans.span[head]).collect(),
        kv_span: groups.iter().map(|&group| spans.kv_span[group]).collect(),
        ..spans.clone()
    };
    let out = at_once(make, spans, request);
    let expected = Outputs { o: out.o.select(Axis(1), &heads), lse: out.lse.select(Axis(1), &heads) };
    same(&at_once(make, &permuted, &request.select(&heads, groups)), &expected, tolerance)
}

/// Law 4: what the other requests contain never changes a bit; their lengths and buckets only the rounding. And the
/// same call gives the same bytes twice.
pub(crate) fn law_batch(
    make: Make<'_>,
    spans: &[Spans],
    batch: &[Sequence],
    seed: u64,
    tolerance: f64,
) -> Result<(), TestCaseError> {
    let steps = |batch: &[Sequence]| {
        let lengths: Vec<u32> = batch.iter().map(|request| request.tokens() as u32).collect();
        vec![
            Step::Prefill(lengths.iter().map(|tokens| tokens / 2).collect()),
            Step::Decode(lengths.iter().map(|tokens| u32::from(tokens / 2 < *tokens)).collect()),
            Step::Prefill(
                lengths.iter().map(|tokens| tokens - tokens / 2 - u32::from(tokens / 2 < *tokens)).collect(),
            ),
        ]
    };
    let first = run(&mut *make(spans), batch, &steps(batch));
    let again = run(&mut *make(spans), batch, &steps(batch));
    prop_assert_eq!(&first, &again, "the same call twice");
    let mut others = batch.to_vec();
    for (at, request) in others.iter_mut().enumerate().skip(1) {
        *request = Sequence::random(&spans[at], request.tokens(), seed + at as u64);
    }
    let beside_others = run(&mut *make(spans), &others, &steps(&others));
    prop_assert_eq!(&first[0], &beside_others[0], "other contents beside it");
    let alone = run(&mut *make(&spans[..1]), &batch[..1], &steps(&batch[..1]));
    same(&first[0], &alone[0], tolerance)
}

/// Law 5: GQA is MHA with the KV heads repeated.
pub(crate) fn law_gqa(
    make: Make<'_>,
    spans: &Spans,
    request: &Sequence,
    tolerance: f64,
) -> Result<(), TestCaseError> {
    let repeated: Vec<usize> = (0..spans.heads()).map(|head| spans.kv_head(head)).collect();
    let mha = Spans { kv_span: spans.span.clone(), ..spans.clone() };
    let heads: Vec<usize> = (0..spans.heads()).collect();
    let request_mha = request.select(&heads, &repeated);
    same(&at_once(make, &mha, &request_mha), &at_once(make, spans, request), tolerance)
}

const TOLERANCE: f64 = 5e-6; // float32

fn cpu(spans: &[Spans]) -> Box<dyn LayerBackend> {
    Box::new(CpuLayer::new(spans))
}

/// The shape of a layer, shared by the requests of a batch.
fn shapes() -> impl Strategy<Value = (u32, usize, usize, usize)> {
    (1_u32..4, 1_usize..4, 1_usize..4, prop::sample::select(vec![1_usize, 3, 8]))
}

/// Any spans of that shape in a bucket of `length`, whole tiles or not.
fn spans_of(
    (sink, kv_heads, r, head_dim): (u32, usize, usize, usize),
    length: u32,
) -> impl Strategy<Value = Spans> {
    prop::collection::vec(sink + 1..=length, kv_heads * r).prop_map(move |span| Spans {
        head_dim,
        scale: 1.0 / (head_dim as f64).sqrt(),
        sink,
        length,
        kv_span: span.chunks(r).map(|group| *group.iter().max().unwrap()).collect(),
        span,
    })
}

/// A request: its spans and its tokens, at most the bucket's.
fn request() -> impl Strategy<Value = (Spans, Sequence)> {
    (shapes(), 5_u32..90)
        .prop_flat_map(|(shape, length)| (spans_of(shape, length), 1..=length as usize, any::<u64>()))
        .prop_map(|(spans, tokens, seed)| {
            let request = Sequence::random(&spans, tokens, seed);
            (spans, request)
        })
}

/// A batch of one shape, of different spans, buckets and lengths.
fn batch() -> impl Strategy<Value = (Vec<Spans>, Vec<Sequence>)> {
    shapes()
        .prop_flat_map(|shape| {
            let one = (5_u32..50)
                .prop_flat_map(move |length| (spans_of(shape, length), 1..=length as usize, any::<u64>()));
            prop::collection::vec(one, 1..4)
        })
        .prop_map(|requests| {
            requests
                .into_iter()
                .map(|(spans, tokens, seed)| {
                    let request = Sequence::random(&spans, tokens, seed);
                    (spans, request)
                })
                .unzip()
        })
}

/// Cuts `tokens` into steps: chunk lengths, where 0 is a decode step.
fn steps(tokens: usize, cuts: &[u32]) -> Vec<Step> {
    let mut left = tokens as u32;
    let mut steps = Vec::new();
    for &cut in cuts.iter().cycle() {
        if left == 0 {
            break;
        }
        let chunk = cut.clamp(1, left);
        steps.push(if cut == 0 { Step::Decode(vec![1]) } else { Step::Prefill(vec![chunk]) });
        left -= chunk;
    }
    steps
}

proptest! {
    #[test]
    fn float32_agrees_with_the_oracle((spans, request) in request()) {
        let out = at_once(&cpu, &spans, &request);
        prop_assert!(error(&out.o, &request.oracle(&spans)) <= TOLERANCE);
    }

    #[test]
    fn law_1_covering_spans_are_dense((spans, request) in request()) {
        law_dense(&cpu, &spans, &request, TOLERANCE)?;
    }

    #[test]
    fn law_2_decode_is_the_row_of_the_prefill((spans, request) in request(), prompt in 0_u32..40) {
        let prompt = prompt.min(request.tokens() as u32);
        let mut steps = vec![Step::Prefill(vec![prompt])];
        steps.extend((prompt..request.tokens() as u32).map(|_| Step::Decode(vec![1])));
        law_steps(&cpu, &spans, &request, &steps, TOLERANCE)?;
    }

    #[test]
    fn law_3_permutations((spans, request) in request(), seed in any::<u64>()) {
        let shuffle = |n: usize, seed: u64| {
            let mut order: Vec<usize> = (0..n).collect();
            order.sort_by_key(|&i| (i as u64 + 1).wrapping_mul(seed | 1).rotate_left(17));
            order
        };
        let (groups, inside) = (shuffle(spans.kv_heads(), seed), shuffle(spans.group_size(), seed >> 7));
        law_permutation(&cpu, &spans, &request, &groups, &inside, TOLERANCE)?;
    }

    #[test]
    fn law_4_a_request_does_not_depend_on_its_batch((spans, batch) in batch(), seed in any::<u64>()) {
        law_batch(&cpu, &spans, &batch, seed, TOLERANCE)?;
    }

    #[test]
    fn law_5_gqa_is_mha_with_repeated_heads((spans, request) in request()) {
        law_gqa(&cpu, &spans, &request, TOLERANCE)?;
    }

    #[test]
    fn law_6_chunks_are_the_whole((spans, request) in request(), cuts in prop::collection::vec(0_u32..70, 1..6)) {
        law_steps(&cpu, &spans, &request, &steps(request.tokens(), &cuts), TOLERANCE)?;
    }

    /// The caches in float64 leave no room for a wrong key: steps against the oracle, to the last digits. The rings
    /// end up the same however they were filled.
    #[test]
    fn the_rings_are_exact((spans, request) in request(), cuts in prop::collection::vec(0_u32..70, 1..6)) {
        let (q, k, v) = (request.q.mapv(f64::from), request.k.mapv(f64::from), request.v.mapv(f64::from));
        let all = Qkv::new(&q, &k, &v);
        let expected = oracle::attend(&spans, all).unwrap();
        let mut cache = LayerCache::<f64>::new(&spans);
        let mut at = 0;
        for step in steps(request.tokens(), &cuts) {
            let (Step::Prefill(chunk) | Step::Decode(chunk)) = &step;
            let tokens = at..at + chunk[0] as usize;
            let out = match step {
                Step::Prefill(_) => cache.prefill(all.tokens(tokens.clone())),
                Step::Decode(_) => cache.decode(all.tokens(tokens.clone())),
            }.unwrap();
            let o = &out.o - &rows(&expected.o, tokens.clone());
            let lse = &out.lse - &rows(&expected.lse, tokens.clone());
            prop_assert!(o.iter().chain(&lse).all(|e| e.abs() < 1e-11), "at {tokens:?}");
            at = tokens.end;
        }
        let mut once = LayerCache::<f64>::new(&spans);
        once.prefill(all).unwrap();
        for (stepped, once) in cache.rings().iter().zip(once.rings()) {
            prop_assert_eq!(stepped.slots(), once.slots());
        }
    }
}

/// Beyond one tile of scores, one block of queries and one split of the keys in decode, at odd lengths; groups of few
/// heads and of many, some of which see nothing of a split that others see.
#[test]
fn long_sequences_agree_with_the_oracle() {
    let wide = vec![128, 640, 192, 90, 70, 1536, 128, 128, 128, 700];
    for (span, kv_span) in [(vec![128, 640, 1536, 192], vec![640, 1536]), (wide, vec![640, 1536])] {
        let spans = Spans { head_dim: 64, scale: 0.125, sink: 64, length: 1536, span, kv_span };
        let request = Sequence::random(&spans, 1301, 3);
        let expected = request.oracle(&spans);
        for cuts in [vec![1301], vec![700, 1, 600], vec![64, 333, 128], vec![1270, 0, 0, 0], vec![600, 0, 0]]
        {
            let steps = steps(request.tokens(), &cuts);
            let layer = &mut *cpu(std::slice::from_ref(&spans));
            let out = run(layer, std::slice::from_ref(&request), &steps).remove(0);
            assert!(error(&out.o, &expected) < TOLERANCE, "{cuts:?}");
        }
    }
}

#[test]
fn a_full_context_and_a_long_step_are_refused_and_change_nothing() {
    let spans = Spans { head_dim: 2, scale: 1.0, sink: 1, length: 4, span: vec![3], kv_span: vec![3] };
    let request = Sequence::random(&spans, 5, 1);
    let mut layer = cpu(&[spans.clone(), spans.clone()]);
    let whole = Rows { chunk: &[0, 5], qkv: request.qkv() };
    let error = layer.prefill(&whole).unwrap_err().to_string();
    assert!(
        error.contains("context full: 0 tokens are cached and 5 more were given, but the bucket ends at 4"),
        "{error}"
    );
    let error = layer.decode(&Rows { chunk: &[2, 3], qkv: request.qkv() }).unwrap_err().to_string();
    assert!(error.contains("request 0 has 2"), "{error}");
    let error = layer.prefill(&Rows { chunk: &[5], qkv: request.qkv() }).unwrap_err().to_string();
    assert_eq!(error, "1 chunk lengths for a batch of 2 requests");
    assert_eq!(layer.cached(), [0, 0]);
}
