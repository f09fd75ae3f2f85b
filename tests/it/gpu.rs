//! The runtime on a real GPU: the laws, and what only the fast path has (graphs, strided views, copies of slabs).
//!
//! Ignored unless asked for, since they need a device, its driver and NVRTC:
//! `cargo test -p moac-tests gpu:: -- --ignored --test-threads 1`.

use std::sync::atomic::AtomicBool;

use moac::build::Builder;
use moac::cache::Cache;
use moac::lower::{self, Target};
use moac::nvrtc::Nvrtc;
use moac_runtime::arch::Arch;
use moac_runtime::artifact::Artifact;
use moac_runtime::backend::{LayerBackend, Qkv};
use moac_runtime::call::View;
use moac_runtime::element::{from_bytes, to_bytes};
use moac_runtime::geometry::LayerGeometry;
use moac_runtime::gpu::{Buffer, Device, GpuError, GpuLayer, LoadedArtifact, Request, Stream, Tensors};
use moac_runtime::plan::{DType, ModelShape, PLAN_FORMAT, Plan};
use moac_runtime::reference::{Spans, oracle};
use ndarray::{Array3, Axis, Slice};

use super::laws::{self, Sequence, Step};

const SINK: u32 = 64;

fn device() -> Device {
    Device::open(0).expect("these tests need a GPU")
}

fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::Bf16 => 5e-3,
        DType::F16 => 1e-3,
    }
}

/// A plan whose heads have the same span at every length, or the length where that is less: one list per layer.
fn plan(spans: &[Vec<u32>], kv_heads: usize, head_dim: u32) -> Plan {
    Plan {
        format: PLAN_FORMAT.to_owned(),
        model: ModelShape {
            name: "test".to_owned(),
            num_layers: spans.len() as u32,
            num_heads: spans[0].len() as u32,
            num_kv_heads: kv_heads as u32,
            head_dim,
            rope_theta: None,
            context: None,
            softmax_scale: None,
        },
        sink: SINK,
        min_span: SINK + 64,
        alphas: spans.iter().map(|layer| layer.iter().map(|&span| f64::from(span)).collect()).collect(),
        betas: spans.iter().map(|layer| vec![0.0; layer.len()]).collect(),
        provenance: None,
    }
}

/// The plan's kernels for the device, compiled and loaded.
fn load(plan: &Plan, lengths: &[u32], dtype: DType) -> LoadedArtifact {
    let device = device();
    let [major, minor] = device.info().capability;
    let arch = Arch::ALL.into_iter().filter(|arch| arch.runs_on(major, minor)).max().expect("a known device");
    let target =
        Target { kv_heads: 0..plan.model.num_kv_heads, lengths: lengths.to_vec(), dtype, archs: vec![arch] };
    let lowered = lower::lower(plan, &target).unwrap();
    let nvrtc = Nvrtc::find().expect("these tests need NVRTC");
    let (cache, stop) = (Cache::of_this_machine(), AtomicBool::new(false));
    let builder = Builder { nvrtc: &nvrtc, cache: &cache, jobs: None, stop: &stop, progress: &|_, _| {} };
    let artifact: Artifact = builder.build(plan, &lowered).unwrap().artifact;
    artifact.load(&device).unwrap()
}

fn spans(span: &[u32], kv_heads: usize, head_dim: usize, length: u32) -> Spans {
    let span: Vec<u32> = span.iter().map(|&span| span.min(length)).collect();
    Spans {
        head_dim,
        scale: 1.0 / (head_dim as f64).sqrt(),
        sink: SINK,
        length,
        kv_span: span.chunks(span.len() / kv_heads).map(|group| *group.iter().max().unwrap()).collect(),
        span,
    }
}

/// Makes a layer of one plan for requests whose spans differ only by their buckets.
fn make(requests: &[Spans], dtype: DType) -> Box<dyn LayerBackend> {
    let widest = requests.iter().max_by_key(|spans| spans.length).unwrap();
    let plan = plan(std::slice::from_ref(&widest.span), widest.kv_heads(), widest.head_dim as u32);
    let mut lengths: Vec<u32> = requests.iter().map(|spans| spans.length).collect();
    lengths.sort_unstable();
    lengths.dedup();
    let geometry = LayerGeometry::new(&plan, 0, 0..plan.model.num_kv_heads, &lengths);
    for spans in requests {
        let bucket = lengths.binary_search(&spans.length).unwrap();
        assert_eq!(&Spans::new(&plan, &geometry, bucket), spans, "the requests are of one plan");
    }
    let max_len: Vec<u32> = requests.iter().map(|spans| spans.length).collect();
    Box::new(GpuLayer::new(&load(&plan, &lengths, dtype), 0, &max_len).unwrap())
}

/// A sequence of values that the device's type holds.
fn sequence(spans: &Spans, tokens: usize, seed: u64, dtype: DType) -> Sequence {
    let Sequence { q, k, v } = Sequence::random(spans, tokens, seed);
    let round = |x: Array3<f32>| {
        let shape = x.dim();
        Array3::from_shape_vec(shape, from_bytes(dtype, &to_bytes(dtype, x))).unwrap()
    };
    Sequence { q: round(q), k: round(k), v: round(v) }
}

/// Group sizes of 2 and 3, spans from the smallest to all.
fn shapes() -> [Spans; 2] {
    [spans(&[128, 320, 192, 640], 2, 128, 640), spans(&[640, 128, 192, 128, 128, 256], 2, 64, 640)]
}

#[test]
#[ignore = "needs a GPU and NVRTC"]
fn the_laws_hold() {
    for dtype in [DType::Bf16, DType::F16] {
        // Both sides of a law are off by the rounding of outputs.
        let tolerance = 2.0 * tolerance(dtype);
        let make = |spans: &[Spans]| make(spans, dtype);
        for spans in shapes() {
            let request = sequence(&spans, 587, 7, dtype);
            let out = laws::at_once(&make, &spans, &request);
            assert!(laws::error(&out.o, &request.oracle(&spans)) <= tolerance / 2.0, "{dtype}");
            laws::law_dense(&make, &spans, &request, tolerance).unwrap();
            let mut steps = vec![Step::Prefill(vec![200])];
            steps.extend((0..150).map(|_| Step::Decode(vec![1])));
            steps.extend([Step::Prefill(vec![1]), Step::Prefill(vec![236])]);
            laws::law_steps(&make, &spans, &request, &steps, tolerance).unwrap();
            let inside: Vec<usize> = (0..spans.group_size()).rev().collect();
            laws::law_permutation(&make, &spans, &request, &[1, 0], &inside, tolerance).unwrap();
            laws::law_gqa(&make, &spans, &request, tolerance).unwrap();
            let short = Spans {
                length: 256,
                span: spans.span.iter().map(|&span| span.min(256)).collect(),
                kv_span: spans.kv_span.iter().map(|&span| span.min(256)).collect(),
                ..spans.clone()
            };
            let buckets = [short.clone(), spans.clone(), short];
            let tokens = [201, 640, 77];
            let batch: Vec<Sequence> =
                (0..3).map(|b| sequence(&buckets[b], tokens[b], b as u64, dtype)).collect();
            laws::law_batch(&make, &buckets, &batch, 99, tolerance).unwrap();
        }
    }
}

/// Device tensors of one token per request, for a captured step.
struct Token {
    q: Buffer,
    k: Buffer,
    v: Buffer,
    o: Buffer,
}

impl Token {
    fn new(device: &Device, batch: usize, spans: &Spans) -> Self {
        let [heads, kv_heads, dim] = spans.shape();
        let alloc = |heads: usize| device.alloc((batch * heads * dim * 2) as u64, "a token").unwrap();
        Self { q: alloc(heads), k: alloc(kv_heads), v: alloc(kv_heads), o: alloc(heads) }
    }

    fn tensors(&mut self, batch: usize, spans: &Spans) -> Tensors<'_> {
        let [heads, kv_heads, dim] = spans.shape().map(|n| n as u32);
        let view = |heads| View::packed(0, batch as u64, heads, dim);
        Tensors {
            q: self.q.tensor(view(heads), dim).unwrap(),
            k: self.k.tensor(view(kv_heads), dim).unwrap(),
            v: self.v.tensor(view(kv_heads), dim).unwrap(),
            o: self.o.tensor_mut(view(heads), dim).unwrap(),
            lse: None,
        }
    }

    /// Uploads row `at[b]` of each request's tokens, zeros for those without one.
    fn upload(&mut self, stream: &Stream, batch: &[Sequence], at: &[Option<usize>]) {
        let put = |to: &mut Buffer, of: fn(&Sequence) -> &Array3<f32>| {
            let values = batch.iter().zip(at).flat_map(|(request, at)| {
                let rows = of(request);
                let row = rows.index_axis(Axis(0), at.unwrap_or(0)).to_owned();
                row.into_iter().map(move |value| if at.is_some() { value } else { 0.0 })
            });
            to.upload(stream, 0, &to_bytes(DType::Bf16, values)).unwrap();
        };
        put(&mut self.q, |request| &request.q);
        put(&mut self.k, |request| &request.k);
        put(&mut self.v, |request| &request.v);
    }
}

/// A decode loop out of one graph of two layers, in which a request joins late and another pauses, against the oracle.
#[test]
#[ignore = "needs a GPU and NVRTC"]
fn a_graph_replays_step_after_step() {
    let dtype = DType::Bf16;
    let layers = [vec![128, 320, 192, 512], vec![512, 128, 128, 128]];
    let model = load(&plan(&layers, 2, 128), &[256, 512], dtype);
    let of = |layer: usize, length| spans(&layers[layer], 2, 128, length);
    let lengths = [512, 256];
    let device = model.device().clone();
    let stream = device.new_stream().unwrap();
    let mut slabs = lengths.map(|length| model.slab(&stream, length).unwrap());
    let mut workspace = model.workspace(&stream, 2).unwrap();
    // Both layers get the same tokens: what they see of them differs.
    let batch = lengths.map(|length| sequence(&of(0, length), length as usize, u64::from(length), dtype));
    let mut token = Token::new(&device, 2, &of(0, 512));
    let mut second = Token::new(&device, 2, &of(0, 512));
    let mut out: [Vec<(usize, [Vec<f32>; 2])>; 2] = [Vec::new(), Vec::new()];
    let mut graph = None;
    for turn in 0..400_usize {
        // Request 1 joins at turn 90 and pauses in every seventh; its context is full at the end.
        let joins = turn >= 90 && turn % 7 != 0 && slabs[1].len() < 256;
        let at = [Some(slabs[0].len() as usize), joins.then(|| slabs[1].len() as usize)];
        token.upload(&stream, &batch, &at);
        second.upload(&stream, &batch, &at);
        let [a, b] = &mut slabs;
        let place = if joins { Request::new(b, 1) } else { Request::idle() };
        let requests = vec![Request::new(a, 1), place.padded(1)];
        let step = workspace.begin(&stream, requests).unwrap();
        let graph = graph.get_or_insert_with(|| {
            let body = || {
                model.layer(0)?.decode(&stream, &step, &token.tensors(2, &of(0, 512)))?;
                model.layer(1)?.decode(&stream, &step, &second.tensors(2, &of(0, 512)))
            };
            stream.capture(body).unwrap()
        });
        graph.launch().unwrap();
        step.commit();
        let read = |token: &Token| {
            let mut bytes = vec![0; token.o.bytes() as usize];
            token.o.download(&stream, 0, &mut bytes).unwrap();
            from_bytes(dtype, &bytes)
        };
        let rows = [read(&token), read(&second)];
        for (b, at) in at.into_iter().enumerate() {
            if let Some(at) = at {
                let row = |layer: usize| rows[layer][b * 512..(b + 1) * 512].to_vec();
                out[b].push((at, [row(0), row(1)]));
            }
        }
    }
    for (b, rows) in out.iter().enumerate() {
        assert_eq!(rows.len(), [400, 256][b]);
        for layer in 0..2 {
            let request = &batch[b];
            let all = Qkv::new(&request.q, &request.k, &request.v);
            let expected = oracle::attend(&of(layer, lengths[b]), all.tokens(0..rows.len())).unwrap();
            let got: Vec<f32> = rows.iter().flat_map(|(_, row)| row[layer].iter().copied()).collect();
            let got = Array3::from_shape_vec((rows.len(), 4, 128), got).unwrap();
            let error = laws::error(&got, &expected.o.mapv(|o| o as f32));
            assert!(error < tolerance(dtype), "request {b}, layer {layer}: {error}");
            assert!(rows.iter().enumerate().all(|(at, row)| row.0 == at));
        }
    }
}

/// A chunk out of a fused QKV product into an output with heads outside tokens, then the same state in another slab.
#[test]
#[ignore = "needs a GPU and NVRTC"]
fn strided_views_and_copies_of_slabs() {
    let dtype = DType::F16;
    let spans = spans(&[128, 192, 448, 448], 2, 64, 448);
    let model = load(&plan(std::slice::from_ref(&spans.span), 2, 64), &[448], dtype);
    let (device, tokens) = (model.device().clone(), 301_usize);
    let stream = device.new_stream().unwrap();
    let request = sequence(&spans, 448, 5, dtype);
    let rows = |of: &Array3<f32>| of.slice_axis(Axis(0), Slice::from(0..tokens)).to_owned();
    let parts = [rows(&request.q), rows(&request.k), rows(&request.v)];
    let fused = ndarray::concatenate(Axis(1), &parts.each_ref().map(|part| part.view())).unwrap();
    let bytes = to_bytes(dtype, fused.iter().copied());
    let mut qkv = device.alloc(bytes.len() as u64, "qkv").unwrap();
    qkv.upload(&stream, 0, &bytes).unwrap();
    let mut o = device.alloc((tokens * 4 * 64 * 2) as u64, "o").unwrap();
    o.fill(&stream, 0xff).unwrap();
    let part = |first: u64, heads| {
        let view =
            View { address: first * 128, rows: tokens as u64, heads, token_stride: 8 * 64, head_stride: 64 };
        qkv.tensor(view, 64).unwrap()
    };
    let outside =
        View { address: 0, rows: tokens as u64, heads: 4, token_stride: 64, head_stride: tokens as u64 * 64 };

    let mut slab = model.slab(&stream, 448).unwrap();
    let mut workspace = model.workspace(&stream, 1).unwrap();
    let step = workspace.begin(&stream, vec![Request::new(&mut slab, tokens as u32)]).unwrap();
    let tensors = Tensors {
        q: part(0, 4),
        k: part(4, 2),
        v: part(6, 2),
        o: o.tensor_mut(outside, 64).unwrap(),
        lse: None,
    };
    model.layer(0).unwrap().prefill(&stream, &step, &tensors).unwrap();
    step.commit();
    let mut bytes = vec![0; o.bytes() as usize];
    o.download(&stream, 0, &mut bytes).unwrap();
    let got = Array3::from_shape_vec((4, tokens, 64), from_bytes(dtype, &bytes)).unwrap();
    let got = got.permuted_axes([1, 0, 2]).as_standard_layout().to_owned();
    let expected = oracle::attend(&spans, Qkv::new(&parts[0], &parts[1], &parts[2])).unwrap();
    let error = laws::error(&got, &expected.o.mapv(|o| o as f32));
    assert!(error < tolerance(dtype), "{error}");

    let mut copy = model.slab(&stream, 400).unwrap();
    slab.clone_to(&stream, &mut copy).unwrap();
    assert_eq!(copy.len(), tokens as u32);
    let mut decode = |slab| {
        let mut token = Token::new(&device, 1, &spans);
        let row = |of: &Array3<f32>| to_bytes(dtype, of.index_axis(Axis(0), tokens).iter().copied());
        token.q.upload(&stream, 0, &row(&request.q)).unwrap();
        token.k.upload(&stream, 0, &row(&request.k)).unwrap();
        token.v.upload(&stream, 0, &row(&request.v)).unwrap();
        let step = workspace.begin(&stream, vec![Request::new(slab, 1)]).unwrap();
        model.layer(0).unwrap().decode(&stream, &step, &token.tensors(1, &spans)).unwrap();
        step.commit();
        let mut bytes = vec![0; token.o.bytes() as usize];
        token.o.download(&stream, 0, &mut bytes).unwrap();
        bytes
    };
    assert_eq!(decode(&mut slab), decode(&mut copy), "the same state gives the same bytes");
}

#[test]
#[ignore = "needs a GPU and NVRTC"]
fn what_cannot_be_done_is_refused() {
    let spans = spans(&[128, 192], 1, 64, 256);
    let plan = plan(std::slice::from_ref(&spans.span), 1, 64);
    let model = load(&plan, &[192, 256], DType::Bf16);
    let device = model.device().clone();
    let stream = device.new_stream().unwrap();
    let mut slab = model.slab(&stream, 200).unwrap();
    let mut small = model.slab(&stream, 100).unwrap();
    let mut workspace = model.workspace(&stream, 1).unwrap();
    assert_eq!((slab.length(), small.length()), (256, 192));

    let error = workspace.begin(&stream, vec![Request::new(&mut slab, 257)]).unwrap_err();
    assert!(
        matches!(error, GpuError::ContextFull { request: 0, cached: 0, new: 257, length: 256 }),
        "{error}"
    );
    let error = workspace.begin(&stream, vec![Request::idle(), Request::idle()]).unwrap_err();
    assert!(matches!(error, GpuError::Capacity { found: 2, capacity: 1 }), "{error}");
    let error = model.slab(&stream, 257).unwrap_err();
    assert!(matches!(error, GpuError::NoBucket { max_len: 257, largest: 256 }), "{error}");
    let error = slab.clone_to(&stream, &mut small).unwrap_err();
    assert!(matches!(error, GpuError::Bucket { from: 256, to: 192 }), "{error}");
    let error = device.alloc(1 << 50, "a test").unwrap_err();
    assert!(matches!(error, GpuError::OutOfMemory { needed, .. } if needed == 1 << 50), "{error}");

    let twin = load(&plan, &[192, 256], DType::Bf16);
    let mut foreign = twin.slab(&stream, 200).unwrap();
    let error = workspace.begin(&stream, vec![Request::new(&mut foreign, 1)]).unwrap_err();
    assert!(matches!(error, GpuError::Foreign { .. }), "{error}");

    let mut token = Token::new(&device, 1, &spans);
    let capture = stream.capture(|| workspace.begin(&stream, vec![Request::new(&mut slab, 1)]).map(|_| ()));
    assert!(matches!(capture, Err(GpuError::Capturing { .. })));
    let step = workspace.begin(&stream, vec![Request::new(&mut slab, 2).padded(2)]).unwrap();
    let error = model.layer(0).unwrap().decode(&stream, &step, &token.tensors(1, &spans)).unwrap_err();
    assert!(matches!(error, GpuError::NotOneToken { found: 2 }), "{error}");
    let error = model.layer(0).unwrap().prefill(&stream, &step, &token.tensors(1, &spans)).unwrap_err();
    assert!(error.to_string().contains("`q` has 1 rows, expected 2"), "{error}");
    drop(step);
    assert_eq!(slab.len(), 0);
    let bounds = token.q.tensor(View::packed(16, 1, 2, 64), 64).unwrap_err();
    assert!(matches!(bounds, GpuError::Range { start: 16, end: 272, bytes: 256 }), "{bounds}");
}
