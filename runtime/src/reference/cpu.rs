//! A layer on the CPU in float32, for a batch.

use ndarray::{Array2, Array3, s};

use super::{LayerCache, Spans};
use crate::backend::{LayerBackend, LayerError, Outputs, Rows};
use crate::launch::Phase;

/// One layer of a batch of requests, each in its own bucket.
#[derive(Clone, Debug)]
pub struct CpuLayer {
    caches: Vec<LayerCache<f32>>,
}

impl CpuLayer {
    /// A layer with one empty cache per request; `spans` are those of each request's bucket, of one layer.
    pub fn new<'a>(spans: impl IntoIterator<Item = &'a Spans>) -> Self {
        Self { caches: spans.into_iter().map(LayerCache::new).collect() }
    }

    /// The caches, one per request.
    pub fn caches(&self) -> &[LayerCache<f32>] {
        &self.caches
    }

    fn run(&mut self, rows: &Rows<'_>, phase: Phase) -> Result<Outputs, LayerError> {
        let Some(spans) = self.caches.first().map(LayerCache::spans) else {
            return Err(LayerError::Batch { found: rows.chunk.len(), expected: 0 });
        };
        let starts = rows.starts(spans.shape(), self.caches.len())?;
        for (cache, &tokens) in self.caches.iter().zip(rows.chunk) {
            LayerError::check_room(cache.len(), tokens as usize, cache.spans().length)?;
        }
        let (tokens, heads, dim) = rows.qkv.q.dim();
        let mut out = Outputs { o: Array3::zeros((tokens, heads, dim)), lse: Array2::zeros((tokens, heads)) };
        for ((cache, &tokens), start) in self.caches.iter_mut().zip(rows.chunk).zip(starts) {
            if tokens > 0 {
                let own = start..start + tokens as usize;
                let qkv = rows.qkv.tokens(own.clone());
                let done = match phase {
                    Phase::Prefill => cache.prefill(qkv)?,
                    Phase::Decode => cache.decode(qkv)?,
                };
                out.o.slice_mut(s![own.clone(), .., ..]).assign(&done.o);
                out.lse.slice_mut(s![own, ..]).assign(&done.lse);
            }
        }
        Ok(out)
    }
}

impl LayerBackend for CpuLayer {
    fn cached(&self) -> Vec<u32> {
        self.caches.iter().map(LayerCache::len).collect()
    }

    fn prefill(&mut self, rows: &Rows<'_>) -> Result<Outputs, LayerError> {
        self.run(rows, Phase::Prefill)
    }

    fn decode(&mut self, rows: &Rows<'_>) -> Result<Outputs, LayerError> {
        rows.check_decode()?;
        self.run(rows, Phase::Decode)
    }
}
