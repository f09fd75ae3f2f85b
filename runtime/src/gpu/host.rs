//! A layer on a GPU with tensors on the host: the GPU's face to commands and tests. Every call copies in and out.

use ndarray::{Array2, Array3};

use super::{GpuError, LoadedArtifact, Request, Slab, Stream, Tensors, Workspace};
use crate::attention::View;
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
        let slabs = max_len.iter().map(|&max_len| model.slab(&stream, max_len)).collect::<Result<_, _>>()?;
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
            buffer.upload(stream, 0, &bytes)?;
            inputs.push(buffer);
        }
        let mut o = device.alloc((tokens * heads * dim * 2) as u64, "o")?;
        let mut lse = device.alloc((tokens * heads * 4) as u64, "lse")?;
        // All ones is no number in any of the types: an element that is not written shows.
        o.fill(stream, 0xff)?;
        lse.fill(stream, 0xff)?;

        let view = |heads, dim| View::packed(0, tokens as u64, heads as u32, dim as u32);
        let requests = slabs.iter_mut().zip(rows.chunk).map(|(slab, &tokens)| Request::new(slab, tokens));
        let step = workspace.begin(stream, requests.collect())?;
        let tensors = Tensors {
            q: inputs[0].tensor(view(heads, dim), dim as u32)?,
            k: inputs[1].tensor(view(kv_heads, dim), dim as u32)?,
            v: inputs[2].tensor(view(kv_heads, dim), dim as u32)?,
            o: o.tensor_mut(view(heads, dim), dim as u32)?,
            lse: Some(lse.lse_mut(view(heads, 1))?),
        };
        match phase {
            Phase::Prefill => model.layer(*layer)?.prefill(stream, &step, &tensors)?,
            Phase::Decode => model.layer(*layer)?.decode(stream, &step, &tensors)?,
        }
        step.commit();

        let mut bytes = vec![0; o.bytes() as usize];
        o.download(stream, 0, &mut bytes)?;
        let shaped = "a tensor is downloaded whole";
        let o = Array3::from_shape_vec((tokens, heads, dim), from_bytes(dtype, &bytes)).expect(shaped);
        let mut bytes = vec![0; lse.bytes() as usize];
        lse.download(stream, 0, &mut bytes)?;
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
