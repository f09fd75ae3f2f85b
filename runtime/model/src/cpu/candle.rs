//! A layer as a candle op, on the CPU: `q.apply_op3_no_bwd(&k, &v, &op)` with the op's own caches.
//!
//! Tensors on a CUDA device are refused, not copied: there `gpu::Layer` takes the tensors' device pointers,
//! with candle's own context (`gpu::Device::from_context`) and stream (`gpu::Stream::from_cudarc`).
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use moac_model::candle::CachedAttention;
//! use moac_runtime::reference::Spans;
//!
//! let spans = Spans { head_dim: 4, scale: 0.5, sink: 1, length: 16, span: vec![3, 5], kv_span: vec![5] };
//! let attention = CachedAttention::new([&spans]);
//! let random = |tokens, heads| Tensor::randn(0f32, 1f32, (1, tokens, heads, 4), &Device::Cpu);
//! let prompt = attention.forward(&random(9, 2)?, &random(9, 1)?, &random(9, 1)?)?;
//! let token = attention.forward(&random(1, 2)?, &random(1, 1)?, &random(1, 1)?)?;
//! assert_eq!((prompt.dims(), token.dims()), (&[1, 9, 2, 4][..], &[1, 1, 2, 4][..]));
//! assert_eq!(attention.cached(), [10]);
//! # Ok::<(), candle_core::Error>(())
//! ```

use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{CpuStorage, CustomOp3, Error, Layout, Result, Shape, Tensor};
use moac_runtime::backend::Qkv;
use moac_runtime::reference::{LayerCache, Spans};
use ndarray::{ArrayView4, Axis, ShapeBuilder};

/// Attention of one layer over a cache per request. Every call attends the tokens it is given and appends them.
///
/// `q` is `[batch, tokens, heads, head_dim]`, `k` and `v` are `[batch, tokens, kv heads, head_dim]`, float32, with
/// `RoPE` applied, in any strides that address no element twice; the result has the shape of `q`. All requests take
/// the same number of tokens: for others, use [`CpuLayer`](moac_runtime::reference::CpuLayer).
#[derive(Debug)]
pub struct CachedAttention {
    // An op is called by shared reference.
    caches: Mutex<Vec<LayerCache<f32>>>,
}

impl CachedAttention {
    /// Empty caches, one per request, for the spans of each request's bucket.
    pub fn new<'a>(spans: impl IntoIterator<Item = &'a Spans>) -> Self {
        Self { caches: Mutex::new(spans.into_iter().map(LayerCache::new).collect()) }
    }

    /// Tokens in each request's cache.
    pub fn cached(&self) -> Vec<u32> {
        self.lock().iter().map(LayerCache::len).collect()
    }

    /// Forgets all tokens.
    pub fn clear(&self) {
        for cache in self.lock().iter_mut() {
            *cache = LayerCache::new(&cache.spans().clone());
        }
    }

    /// Attends the tokens and appends them.
    ///
    /// # Errors
    /// Tensors that do not fit the caches or each other, are not float32, or are not on the CPU; a full context. The
    /// caches are as before then.
    pub fn forward(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        q.apply_op3_no_bwd(k, v, self)
    }

    /// A panic while the caches were held leaves them as they were, or with whole tokens appended.
    fn lock(&self) -> MutexGuard<'_, Vec<LayerCache<f32>>> {
        self.caches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CustomOp3 for CachedAttention {
    fn name(&self) -> &'static str {
        "moac-cached-attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (q, k, v) = (view("q", q, q_layout)?, view("k", k, k_layout)?, view("v", v, v_layout)?);
        let mut caches = self.lock();
        let batch = caches.len();
        for (tensor, found) in [("q", q.dim().0), ("k", k.dim().0), ("v", v.dim().0)] {
            if found != batch {
                candle_core::bail!("`{tensor}` has a batch of {found}, the caches one of {batch}");
            }
        }
        let requests: Vec<Qkv<'_, f32>> = (0..batch)
            .map(|b| Qkv {
                q: q.index_axis(Axis(0), b),
                k: k.index_axis(Axis(0), b),
                v: v.index_axis(Axis(0), b),
            })
            .collect();
        // All of them before any: an error leaves every cache as it was.
        for (cache, qkv) in caches.iter().zip(&requests) {
            cache.check(qkv).map_err(Error::wrap)?;
        }
        let mut out = Vec::with_capacity(q.len());
        for (cache, qkv) in caches.iter_mut().zip(requests) {
            // A single token reads nothing but the rings.
            let step = if q.dim().1 == 1 { cache.decode(qkv) } else { cache.prefill(qkv) };
            out.extend(step.map_err(Error::wrap)?.o);
        }
        Ok((CpuStorage::F32(out), q_layout.shape().clone()))
    }
}

/// A float32 tensor of four dimensions, where it lies.
fn view<'a>(tensor: &str, storage: &'a CpuStorage, layout: &Layout) -> Result<ArrayView4<'a, f32>> {
    let CpuStorage::F32(data) = storage else {
        candle_core::bail!("`{tensor}` is {:?}, expected F32: convert it first", dtype(storage));
    };
    let shape = layout.shape().dims4()?;
    let &[batch, token, head, element] = layout.stride() else {
        candle_core::bail!("`{tensor}` has {} strides for 4 dimensions", layout.stride().len());
    };
    let strided = shape.strides((batch, token, head, element));
    ArrayView4::from_shape(strided, &data[layout.start_offset()..]).map_err(|error| {
        Error::msg(format!("`{tensor}` has strides that do not work, make it contiguous: {error}"))
    })
}

fn dtype(storage: &CpuStorage) -> candle_core::DType {
    use candle_core::backend::BackendStorage;
    storage.dtype()
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::CachedAttention;
    use moac_runtime::backend::Qkv;
    use moac_runtime::reference::{Spans, oracle};

    fn spans() -> Spans {
        Spans { head_dim: 8, scale: 0.3, sink: 2, length: 64, span: vec![5, 9, 12, 3], kv_span: vec![9, 12] }
    }

    fn random(tokens: usize, heads: usize) -> Tensor {
        Tensor::randn(0f32, 1f32, (2, tokens, heads, 8), &Device::Cpu).unwrap()
    }

    /// [tokens, heads, 8] of one request.
    fn array(tensor: &Tensor, request: usize) -> ndarray::Array3<f32> {
        let (_, tokens, heads, dim) = tensor.dims4().unwrap();
        let data = tensor.get(request).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        ndarray::Array3::from_shape_vec((tokens, heads, dim), data).unwrap()
    }

    /// Views of one fused product, in a chunk and a decode step, for two requests, against the oracle.
    #[test]
    fn views_and_steps_agree_with_the_oracle() {
        let fused = random(31, 8);
        let part = |start, heads, tokens: std::ops::Range<usize>| {
            let part = fused.narrow(2, start, heads).unwrap();
            part.narrow(1, tokens.start, tokens.len()).unwrap()
        };
        let attention = CachedAttention::new([&spans(), &spans()]);
        let mut out = Vec::new();
        for tokens in [0..20, 20..21, 21..31] {
            let [q, k, v] = [(0, 4), (4, 2), (6, 2)].map(|(start, heads)| part(start, heads, tokens.clone()));
            assert!(!q.is_contiguous());
            out.push(attention.forward(&q, &k, &v).unwrap());
        }
        let out = Tensor::cat(&out, 1).unwrap();
        for request in 0..2 {
            let [q, k, v] =
                [(0, 4), (4, 2), (6, 2)].map(|(start, heads)| array(&part(start, heads, 0..31), request));
            let expected = oracle::attend(&spans(), Qkv::new(&q, &k, &v)).unwrap().o;
            let error = array(&out, request).mapv(f64::from) - &expected;
            assert!(error.iter().all(|e| e.abs() < 1e-5), "request {request}");
        }
        assert_eq!(attention.cached(), [31, 31]);
        attention.clear();
        assert_eq!(attention.cached(), [0, 0]);
    }

    #[test]
    fn what_does_not_fit_is_named_and_changes_nothing() {
        let attention = CachedAttention::new([&spans(), &spans()]);
        let error = |q: &Tensor, k: &Tensor| attention.forward(q, k, &random(3, 2)).unwrap_err().to_string();
        let (q, k) = (random(3, 4), random(3, 2));
        assert!(error(&q.to_dtype(DType::F64).unwrap(), &k).contains("`q` is F64, expected F32"));
        assert!(error(&q.narrow(0, 0, 1).unwrap(), &k).contains("`q` has a batch of 1, the caches one of 2"));
        assert!(error(&q, &random(3, 4)).contains("`k` has shape [3, 4, 8], expected [3, 2, 8]"));
        assert!(error(&q.get(0).unwrap(), &k).contains("unexpected rank"));
        let long = attention.forward(&random(65, 4), &random(65, 2), &random(65, 2)).unwrap_err();
        assert!(long.to_string().contains("context full"), "{long}");
        assert_eq!(attention.cached(), [0, 0]);
    }
}
