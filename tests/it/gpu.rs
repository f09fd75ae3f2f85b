//! The runtime on a real GPU: the laws, and what only the fast path has (graphs, strided views, copies of slabs).
//!
//! Ignored unless asked for, since they need a device, its driver and NVRTC:
//! `cargo test -p moac-tests gpu:: -- --ignored --test-threads 1`.

mod model;
mod products;

use moac_runtime::arch::Arch;
use moac_runtime::attention::CallError;
use moac_runtime::backend::{LayerBackend, Qkv};
use moac_runtime::element::{from_bytes, to_bytes};
use moac_runtime::gpu::{
    Buffer, Device, GpuError, GpuLayer, LoadedArtifact, Order, Request, Shape, Slab, Stream, Tensors,
};
use moac_runtime::plan::{DType, Plan};
use moac_runtime::reference::{Spans, oracle};
use ndarray::{Array3, Axis, Slice};

use super::devices::{self, plan, sequence, spans, tolerance};
use super::laws::{self, Sequence};

fn device() -> Device {
    Device::open(0).expect("these tests need a GPU")
}

/// The plan's kernels for the device, compiled and loaded.
fn load(plan: &Plan, lengths: &[u32], dtype: DType) -> LoadedArtifact {
    let device = device();
    let [major, minor] = device.info().capability;
    let arch = Arch::ALL.into_iter().filter(|arch| arch.runs_on(major, minor)).max().expect("a known device");
    devices::artifact(plan, lengths, dtype, arch).load(&device).unwrap()
}

/// Makes a layer of one plan for requests whose spans differ only by their buckets.
fn make(requests: &[Spans], dtype: DType) -> Box<dyn LayerBackend> {
    let (plan, lengths) = devices::plan_of(requests);
    let max_len: Vec<u32> = requests.iter().map(|spans| spans.length).collect();
    Box::new(GpuLayer::new(&load(&plan, &lengths, dtype), 0, &max_len).unwrap())
}

#[test]
#[ignore = "needs a GPU and NVRTC"]
fn the_laws_hold() {
    for dtype in [DType::Bf16, DType::F16] {
        // Group sizes of 2 and 3, spans from the smallest to all.
        for spans in
            [spans(&[128, 320, 192, 640], 2, 128, 640), spans(&[640, 128, 192, 128, 128, 256], 2, 64, 640)]
        {
            devices::laws_hold(&|spans| make(spans, dtype), &spans, 256, 150, dtype);
        }
    }
}

/// Device tensors of one token per request, for a captured step.
struct Token {
    q: Buffer,
    k: Buffer,
    v: Buffer,
    o: Buffer,
    dtype: DType,
}

impl Token {
    fn new(device: &Device, batch: usize, spans: &Spans, dtype: DType) -> Self {
        let [heads, kv_heads, dim] = spans.shape();
        let alloc = |heads: usize| device.alloc((batch * heads * dim * 2) as u64, "a token").unwrap();
        Self { q: alloc(heads), k: alloc(kv_heads), v: alloc(kv_heads), o: alloc(heads), dtype }
    }

    fn tensors(&mut self, batch: usize, spans: &Spans) -> Tensors<'_> {
        let [heads, kv_heads, dim] = spans.shape().map(|n| n as u32);
        let shape = |heads| Shape::new(batch as u64, heads, dim);
        Tensors {
            q: self.q.tensor(self.dtype, shape(heads)).unwrap(),
            k: self.k.tensor(self.dtype, shape(kv_heads)).unwrap(),
            v: self.v.tensor(self.dtype, shape(kv_heads)).unwrap(),
            o: self.o.tensor_mut(self.dtype, shape(heads), Order::Rows).unwrap(),
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
            to.upload(stream, &to_bytes(self.dtype, values)).unwrap();
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
    let pool = model.pool(model.geometry().slab_bytes.iter().sum()).unwrap();
    let slabs = lengths.map(|length| pool.slab(length).unwrap());
    let mut workspace = model.workspace(&stream, 2).unwrap();
    // Both layers get the same tokens: what they see of them differs.
    let batch = lengths.map(|length| sequence(&of(0, length), length as usize, u64::from(length), dtype));
    let mut token = Token::new(&device, 2, &of(0, 512), dtype);
    let mut second = Token::new(&device, 2, &of(0, 512), dtype);
    let mut out: [Vec<(usize, [Vec<f32>; 2])>; 2] = [Vec::new(), Vec::new()];
    let mut graph = None;
    for turn in 0..400_usize {
        // Request 1 joins at turn 90 and pauses in every seventh; its context is full at the end.
        let joins = turn >= 90 && turn % 7 != 0 && slabs[1].len() < 256;
        let at = [Some(slabs[0].len() as usize), joins.then(|| slabs[1].len() as usize)];
        token.upload(&stream, &batch, &at);
        second.upload(&stream, &batch, &at);
        let [a, b] = &slabs;
        let place = if joins { Request::new(b, 1) } else { Request::idle() };
        let step = workspace.begin(&stream, &[Request::new(a, 1), place.padded(1)], &[]).unwrap();
        let graph = graph.get_or_insert_with(|| {
            let body = || {
                model.layer(0)?.attend(&stream, &step, &token.tensors(2, &of(0, 512)))?;
                model.layer(1)?.attend(&stream, &step, &second.tensors(2, &of(0, 512)))
            };
            stream.capture(body).unwrap()
        });
        graph.launch().unwrap();
        step.commit();
        let read = |token: &Token| {
            let mut bytes = vec![0; token.o.bytes() as usize];
            token.o.download(&stream, &mut bytes).unwrap();
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
    qkv.upload(&stream, &bytes).unwrap();
    let mut o = device.alloc((tokens * 4 * 64 * 2) as u64, "o").unwrap();
    o.fill(&stream, 0xff).unwrap();
    let part = |heads| qkv.tensor(dtype, Shape::new(tokens as u64, 8, 64)).unwrap().heads(heads).unwrap();

    let mut slab = model.slab(448).unwrap();
    let mut workspace = model.workspace(&stream, 1).unwrap();
    let step = workspace.begin(&stream, &[], &[Request::new(&slab, tokens as u32)]).unwrap();
    let tensors = Tensors {
        q: part(0..4),
        k: part(4..6),
        v: part(6..8),
        o: o.tensor_mut(dtype, Shape::new(tokens as u64, 4, 64), Order::Heads).unwrap(),
        lse: None,
    };
    model.layer(0).unwrap().attend(&stream, &step, &tensors).unwrap();
    step.commit();
    let mut bytes = vec![0; o.bytes() as usize];
    o.download(&stream, &mut bytes).unwrap();
    let got = Array3::from_shape_vec((4, tokens, 64), from_bytes(dtype, &bytes)).unwrap();
    let got = got.permuted_axes([1, 0, 2]).as_standard_layout().to_owned();
    let expected = oracle::attend(&spans, Qkv::new(&parts[0], &parts[1], &parts[2])).unwrap();
    let error = laws::error(&got, &expected.o.mapv(|o| o as f32));
    assert!(error < tolerance(dtype), "{error}");

    let mut copy = model.slab(400).unwrap();
    slab.clone_to(&stream, &mut copy).unwrap();
    assert_eq!(copy.len(), tokens as u32);
    let mut decode = |slab: &Slab| {
        let mut token = Token::new(&device, 1, &spans, dtype);
        let row = |of: &Array3<f32>| to_bytes(dtype, of.index_axis(Axis(0), tokens).iter().copied());
        token.q.upload(&stream, &row(&request.q)).unwrap();
        token.k.upload(&stream, &row(&request.k)).unwrap();
        token.v.upload(&stream, &row(&request.v)).unwrap();
        let step = workspace.begin(&stream, &[Request::new(slab, 1)], &[]).unwrap();
        model.layer(0).unwrap().attend(&stream, &step, &token.tensors(1, &spans)).unwrap();
        step.commit();
        let mut bytes = vec![0; token.o.bytes() as usize];
        token.o.download(&stream, &mut bytes).unwrap();
        bytes
    };
    assert_eq!(decode(&slab), decode(&copy), "the same state gives the same bytes");
    // Wound back, as long as nothing was overwritten.
    let mut short = model.slab(448).unwrap();
    let [_, second] = [(); 2].map(|()| decode(&short));
    short.rewind(1).unwrap();
    assert_eq!((decode(&short), short.len()), (second, 2));
    let error = slab.rewind(1).unwrap_err();
    assert!(matches!(error, GpuError::Overwritten { tokens: 1, ring: 192, .. }), "{error}");
    assert!(matches!(short.rewind(3), Err(GpuError::Overwritten { len: 2, tokens: 3, .. })));
    slab.clear().unwrap();
    assert!(slab.is_empty());
}

#[test]
#[ignore = "needs a GPU and NVRTC"]
fn what_cannot_be_done_is_refused() {
    let spans = spans(&[128, 192], 1, 64, 256);
    let plan = plan(std::slice::from_ref(&spans.span), 1, 64);
    let model = load(&plan, &[192, 256], DType::Bf16);
    let device = model.device().clone();
    let stream = device.new_stream().unwrap();
    let mut slab = model.slab(200).unwrap();
    let mut small = model.slab(100).unwrap();
    let mut workspace = model.workspace(&stream, 1).unwrap();
    assert_eq!((slab.length(), small.length()), (256, 192));

    let error = workspace.begin(&stream, &[], &[Request::new(&slab, 257)]).unwrap_err();
    assert!(
        matches!(error, GpuError::ContextFull { request: 0, cached: 0, new: 257, length: 256 }),
        "{error}"
    );
    let error = workspace.begin(&stream, &[Request::idle(), Request::idle()], &[]).unwrap_err();
    assert!(matches!(error, GpuError::Capacity { found: 2, capacity: 1 }), "{error}");
    let error = workspace.begin(&stream, &[Request::new(&slab, 2)], &[]).unwrap_err();
    assert!(matches!(error, GpuError::Call(CallError::NotOneToken { found: 2 })), "{error}");
    let error = model.slab(257).unwrap_err();
    assert!(matches!(error, GpuError::NoBucket { max_len: 257, largest: 256 }), "{error}");
    let error = slab.clone_to(&stream, &mut small).unwrap_err();
    assert!(matches!(error, GpuError::Bucket { from: 256, to: 192 }), "{error}");
    let error = device.alloc(1 << 50, "a test").unwrap_err();
    assert!(matches!(error, GpuError::OutOfMemory { needed, .. } if needed == 1 << 50), "{error}");

    let twin = load(&plan, &[192, 256], DType::Bf16);
    let foreign = twin.slab(200).unwrap();
    let error = workspace.begin(&stream, &[Request::new(&foreign, 1)], &[]).unwrap_err();
    assert!(matches!(error, GpuError::Foreign { .. }), "{error}");

    let mut token = Token::new(&device, 1, &spans, DType::Bf16);
    let capture = stream.capture(|| workspace.begin(&stream, &[Request::new(&slab, 1)], &[]).map(|_| ()));
    assert!(matches!(capture, Err(GpuError::Capturing { .. })));
    let step = workspace.begin(&stream, &[], &[Request::new(&slab, 2).padded(2)]).unwrap();
    let layer = model.layer(0).unwrap();
    let error = layer.attend(&stream, &step, &token.tensors(1, &spans)).unwrap_err();
    assert!(error.to_string().contains("`q` has 1 rows, expected 2"), "{error}");
    token.dtype = DType::F16;
    let error = layer.attend(&stream, &step, &token.tensors(1, &spans)).unwrap_err();
    assert!(matches!(error, GpuError::Elements { tensor: "q", found: DType::F16, .. }), "{error}");
    token.dtype = DType::Bf16;
    let busy = workspace.begin(&stream, &[Request::new(&slab, 1)], &[]).unwrap_err();
    assert!(matches!(busy, GpuError::InStep { .. }), "{busy}");
    let next = workspace.begin(&stream, &[Request::new(&small, 1)], &[]).unwrap();
    let error = layer.attend(&stream, &step, &token.tensors(1, &spans)).unwrap_err();
    assert!(matches!(error, GpuError::StepOver), "{error}");
    drop((step, next));
    assert_eq!(slab.len(), 0);
    let bounds = token.q.tensor(DType::Bf16, Shape::new(2, 2, 64)).unwrap_err();
    assert!(matches!(bounds, GpuError::Range { start: 0, end: 512, bytes: 256 }), "{bounds}");
    slab.clear().unwrap();
}

/// Slabs of several buckets out of one reservation, given back while a step still holds one; and a step in which one
/// request decodes while another prefills.
#[test]
#[ignore = "needs a GPU and NVRTC"]
fn a_pool_serves_requests_that_come_and_go() {
    let dtype = DType::Bf16;
    let spans = |length| devices::spans(&[128, 192], 1, 64, length);
    let model = load(&plan(std::slice::from_ref(&spans(256).span), 1, 64), &[192, 256], dtype);
    let (device, bytes) = (model.device().clone(), model.geometry().slab_bytes.clone());
    let stream = device.new_stream().unwrap();
    let pool = model.pool(bytes[0] + bytes[1]).unwrap();
    let (a, b) = (pool.slab(256).unwrap(), pool.slab(192).unwrap());
    let error = pool.slab(1).unwrap_err();
    assert!(matches!(error, GpuError::PoolFull { free: 0, largest: 0, .. }), "{error}");
    let mut workspace = model.workspace(&stream, 2).unwrap();
    let twice = workspace.begin(&stream, &[Request::new(&a, 1)], &[Request::new(&a, 1)]).unwrap_err();
    assert!(matches!(twice, GpuError::SameSlab { first: 0, second: 1 }), "{twice}");

    // Request a decodes its 41st token in the step in which b prefills 50.
    let requests = [sequence(&spans(256), 64, 1, dtype), sequence(&spans(192), 64, 2, dtype)];
    let rows = |parts: &[(usize, std::ops::Range<usize>)], of: fn(&Sequence) -> &Array3<f32>| {
        let parts: Vec<_> = parts
            .iter()
            .map(|(request, rows)| of(&requests[*request]).slice_axis(Axis(0), Slice::from(rows.clone())))
            .collect();
        ndarray::concatenate(Axis(0), &parts).unwrap()
    };
    let mut run =
        |decode: &[Request<'_>], prefill: &[Request<'_>], parts: &[(usize, std::ops::Range<usize>)]| {
            let upload = |values: Array3<f32>| {
                let bytes = to_bytes(dtype, values.iter().copied());
                let mut buffer = device.alloc(bytes.len() as u64, "rows").unwrap();
                buffer.upload(&stream, &bytes).unwrap();
                (buffer, Shape::new(values.dim().0 as u64, values.dim().1 as u32, 64))
            };
            let q = upload(rows(parts, |request| &request.q));
            let k = upload(rows(parts, |request| &request.k));
            let v = upload(rows(parts, |request| &request.v));
            let mut o = device.alloc(q.1.bytes(dtype), "o").unwrap();
            let step = workspace.begin(&stream, decode, prefill).unwrap();
            let tensors = Tensors {
                q: q.0.tensor(dtype, q.1).unwrap(),
                k: k.0.tensor(dtype, k.1).unwrap(),
                v: v.0.tensor(dtype, v.1).unwrap(),
                o: o.tensor_mut(dtype, q.1, Order::Rows).unwrap(),
                lse: None,
            };
            model.layer(0).unwrap().attend(&stream, &step, &tensors).unwrap();
            step.commit();
            let mut bytes = vec![0; o.bytes() as usize];
            o.download(&stream, &mut bytes).unwrap();
            let rows = q.1.rows as usize;
            Array3::from_shape_vec((rows, 2, 64), from_bytes(dtype, &bytes)).unwrap()
        };
    run(&[], &[Request::new(&a, 40)], &[(0, 0..40)]);
    let mixed = run(&[Request::new(&a, 1)], &[Request::new(&b, 50)], &[(0, 40..41), (1, 0..50)]);
    assert_eq!((a.len(), b.len()), (41, 50));
    for (request, rows, from) in [(0, 40..41, 0), (1, 0..50, 1)] {
        let Sequence { q, k, v } = &requests[request];
        let expected = oracle::attend(&spans([256, 192][request]), Qkv::new(q, k, v)).unwrap().o;
        let expected = expected.slice_axis(Axis(0), Slice::from(rows.clone())).mapv(|o| o as f32);
        let got = mixed.slice_axis(Axis(0), Slice::from(from..from + rows.len())).to_owned();
        let error = laws::error(&got, &expected);
        assert!(error < tolerance(dtype), "request {request}: {error}");
    }

    // A dropped slab's range is taken again at once, but for one that a step still holds.
    let step = workspace.begin(&stream, &[Request::new(&a, 1)], &[]).unwrap();
    drop((a, b));
    assert_eq!(pool.taken(), bytes[1]);
    drop(step);
    assert_eq!(pool.taken(), 0);
    assert!(pool.slab(256).unwrap().is_empty());
}
