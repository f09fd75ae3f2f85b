//! A decode loop over all layers out of one CUDA graph: captured once, replayed for every token.
//!
//! `cargo run -p moac-runtime --example graph -- model.moac`

use std::error::Error;
use std::time::Instant;

use moac_runtime::artifact::Artifact;
use moac_runtime::gpu::{Device, Graph, Order, Request, Shape, Slab, Tensors};

const REQUESTS: u32 = 4;
const TOKENS: u32 = 64;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: graph FILE.moac")?;
    let device = Device::open(0)?;
    let model = Artifact::open(&path)?.load(&device)?;
    let stream = device.new_stream()?;
    let layer = model.layer(0)?;
    let (dtype, heads, kv_heads) = (model.dtype(), layer.heads(), layer.kv_heads());
    let shape = |heads| Shape::new(u64::from(REQUESTS), heads, layer.head_dim());

    let bytes = model.geometry().slab_bytes.first().copied().unwrap_or_default().next_multiple_of(256);
    let pool = model.pool(u64::from(REQUESTS) * bytes)?;
    let slabs: Vec<Slab> = (0..REQUESTS).map(|_| pool.slab(TOKENS)).collect::<Result<_, _>>()?;
    let mut workspace = model.workspace(&stream, REQUESTS)?;

    // A model would write these before every layer, on the same stream and in the same graph.
    let filled = |heads, value| -> Result<_, Box<dyn Error>> {
        let mut buffer = device.alloc(shape(heads).bytes(dtype), "rows of the step")?;
        buffer.fill(&stream, value)?;
        Ok(buffer)
    };
    let (q, k, v, mut o) =
        (filled(heads, 0x3c)?, filled(kv_heads, 0x3d)?, filled(kv_heads, 0x3e)?, filled(heads, 0)?);

    let mut graph: Option<Graph> = None;
    let began = Instant::now();
    for _ in 0..TOKENS {
        let requests: Vec<Request<'_>> = slabs.iter().map(|slab| Request::new(slab, 1)).collect();
        // What differs from token to token goes to the device here, outside of the graph.
        let step = workspace.begin(&stream, &requests, &[])?;
        if graph.is_none() {
            graph = Some(stream.capture(|| {
                for layer in 0..model.layers() {
                    let tensors = Tensors {
                        q: q.tensor(dtype, shape(heads))?,
                        k: k.tensor(dtype, shape(kv_heads))?,
                        v: v.tensor(dtype, shape(kv_heads))?,
                        o: o.tensor_mut(dtype, shape(heads), Order::Rows)?,
                        lse: None,
                    };
                    model.layer(layer)?.attend(&stream, &step, &tensors)?;
                }
                Ok(())
            })?);
        }
        if let Some(graph) = &graph {
            graph.launch()?;
        }
        step.commit();
    }
    stream.synchronize()?;
    let took = began.elapsed();
    println!("{TOKENS} tokens of {REQUESTS} requests through {} layers in {took:?}", model.layers());
    Ok(())
}
