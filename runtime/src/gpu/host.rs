//! A layer on a GPU with tensors on the host: the GPU's face to commands and tests. Every call copies in and out.

use ndarray::{Array2, Array3};

use super::{GpuError, LoadedArtifact, Order, Request, Shape, Slab, Stream, Tensors, Workspace};
use crate::backend::{LayerBackend, LayerError, Outputs, Rows};
use crate::element::{f32_from_bytes, from_bytes, to_bytes};
use crate::launch::Phase;

/// One layer of a loaded artifact for a batch of requests.
#[derive(Debug)]
pub struct GpuLayer {
    model: LoadedArtifact,
    layer: usize,
    stream: Stream,
    slabs: Vec<Slab>,
    workspace: Workspace,
}

impl GpuLayer {
    /// A layer with one empty slab per request, for the lengths in `max_len`.
    ///
    /// # Errors
    /// As [`LoadedArtifact::layer`], [`LoadedArtifact::slab`] and [`LoadedArtifact::workspace`].
    pub fn new(model: &LoadedArtifact, layer: usize, max_len: &[u32]) -> Result<Self, GpuError> {
        model.layer(layer)?;
        let stream = model.device().new_stream()?;
        let slabs = max_len.iter().map(|&max_len| model.slab(max_len)).collect::<Result<_, _>>()?;
        let workspace = model.workspace(&stream, max_len.len() as u32)?;
        Ok(Self { model: model.clone(), layer, stream, slabs, workspace })
    }

    fn run(&mut self, rows: &Rows<'_>, phase: Phase) -> Result<Outputs, LayerError> {
        let layer = self.model.layer(self.layer).map_err(device)?;
        let shape = [layer.heads() as usize, layer.kv_heads() as usize, layer.head_dim() as usize];
        rows.starts(shape, self.slabs.len())?;
        for (slab, &tokens) in self.slabs.iter().zip(rows.chunk) {
            LayerError::check_room(slab.len(), tokens as usize, slab.length())?;
        }
        self.launch(rows, phase, shape).map_err(device)
    }

    fn launch(
        &mut self,
        rows: &Rows<'_>,
        phase: Phase,
        [heads, kv_heads, dim]: [usize; 3],
    ) -> Result<Outputs, GpuError> {
        let Self { model, layer, stream, slabs, workspace } = self;
        let tokens = rows.qkv.q.dim().0;
        let (device, dtype) = (model.device(), model.dtype());
        let mut inputs = Vec::new();
        for (tensor, what) in [(&rows.qkv.q, "q"), (&rows.qkv.k, "k"), (&rows.qkv.v, "v")] {
            let bytes = to_bytes(dtype, tensor.iter().copied());
            let mut buffer = device.alloc(bytes.len() as u64, what)?;
            buffer.upload(stream, &bytes)?;
            inputs.push(buffer);
        }
        let mut o = device.alloc((tokens * heads * dim * 2) as u64, "o")?;
        let mut lse = device.alloc((tokens * heads * 4) as u64, "lse")?;
        // All ones is a NaN in every type, so an element that was not written shows.
        o.fill(stream, 0xff)?;
        lse.fill(stream, 0xff)?;

        let requests: Vec<Request<'_>> =
            slabs.iter().zip(rows.chunk).map(|(slab, &tokens)| Request::new(slab, tokens)).collect();
        let step = match phase {
            Phase::Prefill => workspace.begin(stream, &[], &requests)?,
            Phase::Decode => workspace.begin(stream, &requests, &[])?,
        };
        let shape = |heads: usize| Shape::new(tokens as u64, heads as u32, dim as u32);
        let tensors = Tensors {
            q: inputs[0].tensor(dtype, shape(heads))?,
            k: inputs[1].tensor(dtype, shape(kv_heads))?,
            v: inputs[2].tensor(dtype, shape(kv_heads))?,
            o: o.tensor_mut(dtype, shape(heads), Order::Rows)?,
            lse: Some(lse.lse_mut(tokens as u64, heads as u32)?),
        };
        model.layer(*layer)?.attend(stream, &step, &tensors)?;
        step.commit();

        let mut bytes = vec![0; o.bytes() as usize];
        o.download(stream, &mut bytes)?;
        let shaped = "a tensor is downloaded whole";
        let o = Array3::from_shape_vec((tokens, heads, dim), from_bytes(dtype, &bytes)).expect(shaped);
        let mut bytes = vec![0; lse.bytes() as usize];
        lse.download(stream, &mut bytes)?;
        let lse = Array2::from_shape_vec((tokens, heads), f32_from_bytes(&bytes)).expect(shaped);
        Ok(Outputs { o, lse })
    }
}

fn device(error: GpuError) -> LayerError {
    LayerError::Device(Box::new(error))
}

impl LayerBackend for GpuLayer {
    fn cached(&self) -> Vec<u32> {
        self.slabs.iter().map(Slab::len).collect()
    }

    fn prefill(&mut self, rows: &Rows<'_>) -> Result<Outputs, LayerError> {
        self.run(rows, Phase::Prefill)
    }

    fn decode(&mut self, rows: &Rows<'_>) -> Result<Outputs, LayerError> {
        rows.check_decode()?;
        self.run(rows, Phase::Decode)
    }
}
