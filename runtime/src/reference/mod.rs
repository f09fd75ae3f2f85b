//! Attention on the CPU, written to be read: what the kernels must compute, and the CPU path.
//!
//! - [`Spans`]: what each head of a layer sees in a bucket.
//! - [`oracle`]: the definition in float64, over a whole sequence, with no cache. Everything is measured against it.
//! - [`LayerCache`]: the same attention with the rings, in float32 or float64: prefill in chunks, decode, eviction.
//!   It skips what no query sees and needs memory linear in the context.
//! - [`CpuLayer`]: a batch of such caches as a [`LayerBackend`](crate::backend::LayerBackend).
//!
//! The oracle and the caches share [`Spans`] and nothing else, so each checks the other.
//!
//! Every element of q, k and v must be finite: a key that is masked still takes part with weight 0.
//!
//! ```
//! use moac_runtime::backend::Qkv;
//! use moac_runtime::reference::{LayerCache, Spans, oracle};
//! use ndarray::{Array3, Axis};
//!
//! // 2 query heads on 1 KV head: one sees 1 sink token and 2 more, the other 1 and 4.
//! let spans = Spans { head_dim: 4, scale: 0.5, sink: 1, length: 16, span: vec![3, 5], kv_span: vec![5] };
//! let wave = |seed: f64| move |(t, h, d): (usize, usize, usize)| (seed + (t * 7 + h * 3 + d) as f64).sin();
//! let q = Array3::from_shape_fn((10, 2, 4), wave(0.1));
//! let k = Array3::from_shape_fn((10, 1, 4), wave(0.2));
//! let v = Array3::from_shape_fn((10, 1, 4), wave(0.3));
//!
//! let all = Qkv::new(&q, &k, &v);
//!
//! let whole = oracle::attend(&spans, all)?;
//!
//! // Six tokens at once, then the rest one by one out of a ring of five slots.
//! let mut cache = LayerCache::<f64>::new(&spans);
//! cache.prefill(all.tokens(0..6))?;
//! for t in 6..10 {
//!     let step = cache.decode(all.tokens(t..t + 1))?;
//!     let error = &step.o.index_axis(Axis(0), 0) - &whole.o.index_axis(Axis(0), t);
//!     assert!(error.iter().all(|e| e.abs() < 1e-12));
//! }
//! # Ok::<(), moac_runtime::backend::LayerError>(())
//! ```

mod block;
mod cache;
mod cpu;
#[cfg(feature = "simd")]
mod few;
#[cfg(feature = "simd")]
pub mod lanes;
#[cfg(feature = "simd")]
mod online;
pub mod oracle;
mod plain;
mod real;
mod ring;
mod softmax;
mod spans;

pub use cache::{Attended, LayerCache};
pub use cpu::CpuLayer;
pub use real::Real;
pub use ring::Ring;
pub use spans::Spans;
