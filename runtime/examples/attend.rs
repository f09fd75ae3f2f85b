//! One layer of an artifact on a GPU: a prompt at once, then a token.
//!
//! `cargo run -p moac-runtime --example attend -- model.moac`

use std::error::Error;

use moac_runtime::artifact::Artifact;
use moac_runtime::element::{from_bytes, to_bytes};
use moac_runtime::gpu::{Buffer, Device, LoadedArtifact, Order, Request, Shape, Stream, Tensors};

/// Rows of a fused product of queries, keys and values, on the device.
fn product(model: &LoadedArtifact, stream: &Stream, shape: Shape) -> Result<Buffer, Box<dyn Error>> {
    let elements = shape.rows * u64::from(shape.heads) * u64::from(shape.head_dim);
    let values = (0..elements).map(|n| (n as f32 * 0.37).sin());
    let mut buffer = model.device().alloc(shape.bytes(model.dtype()), "a product of q, k and v")?;
    buffer.upload(stream, &to_bytes(model.dtype(), values))?;
    Ok(buffer)
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: attend FILE.moac")?;
    let device = Device::open(0)?;
    let model = Artifact::open(&path)?.load(&device)?;
    let (layer, stream) = (model.layer(0)?, device.new_stream()?);
    let (heads, kv_heads, head_dim) = (layer.heads(), layer.kv_heads(), layer.head_dim());
    let longest = model.geometry().lengths.last().copied().unwrap_or_default();
    println!("{}: {} layers for {}, contexts up to {longest}", path, model.layers(), model.arch());

    // Memory for the requests of a while, and what calls need beside it.
    let pool = model.pool(256 << 20)?;
    let mut workspace = model.workspace(&stream, 1)?;
    let slab = pool.slab(200)?;

    for tokens in [100, 1] {
        let fused = Shape::new(tokens, heads + 2 * kv_heads, head_dim);
        let output = Shape::new(tokens, heads, head_dim);
        let qkv = product(&model, &stream, fused)?;
        let mut out = device.alloc(output.bytes(model.dtype()), "o")?;

        let request = [Request::new(&slab, tokens as u32)];
        let step = if tokens == 1 {
            workspace.begin(&stream, &request, &[])?
        } else {
            workspace.begin(&stream, &[], &request)?
        };
        let qkv = qkv.tensor(model.dtype(), fused)?;
        let tensors = Tensors {
            q: qkv.heads(0..heads)?,
            k: qkv.heads(heads..heads + kv_heads)?,
            v: qkv.heads(heads + kv_heads..heads + 2 * kv_heads)?,
            o: out.tensor_mut(model.dtype(), output, Order::Rows)?,
            lse: None,
        };
        layer.attend(&stream, &step, &tensors)?;
        step.commit();

        let mut bytes = vec![0; out.bytes() as usize];
        out.download(&stream, &mut bytes)?;
        let o = from_bytes(model.dtype(), &bytes);
        println!("{tokens:3} tokens, {} in the slab; o[0] = {:.4?}", slab.len(), &o[..4]);
    }
    Ok(())
}
