//! Opens, checks, loads and runs the attention kernels that moac compiled.
//!
//! In a plan every attention head has a span that grows with the context; a head sees the first tokens (the sink) and
//! the last ones (its window), and its cache never holds more. This crate is what a program needs to run such a
//! plan's kernels, and what tests need to know that they are right. It never names the compiler or the emulator.
//!
//! | module | owns |
//! |---|---|
//! | [`plan`], [`geometry`], [`arch`], [`abi`], [`launch`] | the vocabulary shared with the compiler: pure data and arithmetic |
//! | [`digest`], [`file`](mod@file) | SHA-256, and files that are written whole or not at all |
//! | [`artifact`] | the `.moac` file, and the ordered checks of an untrusted one |
//! | [`reference`](mod@reference) | attention on the CPU: the float64 oracle, and the rings in float32 |
//! | [`attention`] | what a call is: the checks of its tensors and batch, and the ordered list of its launches |
//! | [`backend`], [`element`] | one layer on host tensors, whatever the device; element types |
//! | `gpu` (feature `gpu`, default) | devices, slabs, prefill and decode; the only module that talks to CUDA |
//! | `simd`, `matvec` (feature `simd`) | vector arithmetic of the CPU path, which is slower without |
//!
//! From a plan to a decoded token, on the CPU; `gpu` has the same on a GPU:
//!
//! ```
//! use moac_runtime::backend::{LayerBackend, Rows, Qkv};
//! use moac_runtime::geometry::LayerGeometry;
//! use moac_runtime::plan::Plan;
//! use moac_runtime::reference::{CpuLayer, Spans};
//! use ndarray::Array3;
//!
//! // One layer: two query heads on one KV head. One sees 128 tokens, the other 64 and half of the context.
//! let plan: Plan = serde_json::from_str(
//!     r#"{"format": "moac.plan/1", "alphas": [[128, 64]], "betas": [[0, 0.5]],
//!         "model": {"name": "tiny", "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "head_dim": 64}}"#,
//! )?;
//! let geometry = LayerGeometry::new(&plan, 0, 0..1, &[1024]);
//! let spans = Spans::new(&plan, &geometry, 0);
//! assert_eq!((&spans.span[..], &spans.kv_span[..]), (&[128, 576][..], &[576][..]));
//!
//! let mut layer = CpuLayer::new([&spans]);
//! let wave = |tokens, heads| Array3::from_shape_fn((tokens, heads, 64), |(t, h, d)| ((t * 7 + h + d) as f32).sin());
//! let (q, kv) = (wave(700, 2), wave(700, 1));
//! layer.prefill(&Rows { chunk: &[700], qkv: Qkv::new(&q, &kv, &kv) })?;
//! let (q, kv) = (wave(1, 2), wave(1, 1));
//! let out = layer.decode(&Rows { chunk: &[1], qkv: Qkv::new(&q, &kv, &kv) })?;
//! assert_eq!((out.o.dim(), layer.cached()), ((1, 2, 64), vec![701]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![deny(unsafe_code)]

pub mod abi;
pub mod arch;
pub mod artifact;
pub mod attention;
pub mod backend;
pub mod digest;
pub mod element;
pub mod file;
pub mod geometry;
pub mod glue;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod launch;
#[cfg(feature = "simd")]
pub mod matvec;
pub mod plan;
pub mod reference;
#[cfg(feature = "simd")]
pub mod simd;
pub mod space;
