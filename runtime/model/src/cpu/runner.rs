//! The engine's steps on the CPU.
//!
//! Slabs are counted as on a GPU, out of one reservation by the plan's geometry, though each is memory of its own: what is
//! admitted here and when is what a GPU of as many bytes would admit, but for an element's size.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Device, IndexOp as _, Tensor};
use moac_runtime::backend::LayerError;
use moac_runtime::geometry::Geometry;
use moac_runtime::matvec::FEW;
use moac_runtime::plan::{DType, Plan};
use moac_runtime::space::{ALIGNMENT, Space};
use rayon::prelude::*;

use super::cache::{Batch, Cache};
use super::forward::{CHUNK, Decoder};
use crate::engine::runner::{Bucket, Choice, Chosen, Decode, Limits, Prefill, Runner};
use crate::engine::{Seen, choose};
use crate::{Config, ModelError};

/// How much a runner on the CPU takes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuOptions {
    /// Requests that run at once.
    pub lanes: u32,
    /// Bytes of slabs; none for one of the largest bucket per lane.
    pub slab_bytes: Option<u64>,
    /// Whether a row has the same bits whatever else is in its step: tokens that are decoded then go through the layers four at
    /// a time, and each chunk of a prompt alone.
    pub deterministic: bool,
}

impl Default for CpuOptions {
    fn default() -> Self {
        Self { lanes: 8, slab_bytes: None, deterministic: false }
    }
}

/// Runs steps on the CPU, in float32. A step is computed when it is started.
#[derive(Debug)]
pub struct CpuRunner {
    decoder: Decoder,
    plan: Plan,
    limits: Limits,
    space: Arc<Mutex<Space>>,
    lanes: Vec<Lane>,
    done: VecDeque<Vec<Chosen>>,
}

/// The state of a lane.
#[derive(Clone, Debug)]
struct Lane {
    newest: u32,
    seen: Seen,
}

/// The cache of one request, and its part of the reservation.
#[derive(Debug)]
pub struct CpuSlab {
    cache: Cache,
    space: Arc<Mutex<Space>>,
    start: u64,
    bytes: u64,
}

impl Drop for CpuSlab {
    fn drop(&mut self) {
        with(&self.space, |space| space.give_back(self.start, self.bytes));
    }
}

fn with<T>(space: &Mutex<Space>, act: impl FnOnce(&mut Space) -> T) -> T {
    // A panic elsewhere leaves the ranges as they were: each change of them is whole.
    act(&mut space.lock().unwrap_or_else(PoisonError::into_inner))
}

impl CpuRunner {
    /// A runner for contexts of the `lengths`, each of which can be a cache's.
    ///
    /// # Errors
    /// [`ModelError::Argument`] for a length that cannot be, or no lane.
    pub fn new(
        decoder: Decoder,
        plan: &Plan,
        lengths: &[u32],
        options: &CpuOptions,
    ) -> Result<Self, ModelError> {
        let limits = Self::predict(decoder.config(), plan, lengths, options)?;
        let lane = Lane { newest: 0, seen: Seen::new(decoder.config().vocab_size) };
        Ok(Self {
            decoder,
            plan: plan.clone(),
            space: Arc::new(Mutex::new(Space::new(limits.slab_bytes))),
            lanes: vec![lane; options.lanes as usize],
            done: VecDeque::new(),
            limits,
        })
    }

    /// The limits of a runner of a model, whose weights need not be read.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn predict(
        config: &Config,
        plan: &Plan,
        lengths: &[u32],
        options: &CpuOptions,
    ) -> Result<Limits, ModelError> {
        let mut lengths = lengths.to_vec();
        lengths.sort_unstable();
        lengths.dedup();
        if lengths.is_empty() || options.lanes == 0 {
            let (what, found) = ("the number of context lengths or of lanes", "0".into());
            return Err(ModelError::Argument { what, found, expected: "at least one of each".into() });
        }
        for &length in &lengths {
            super::cache::spans(plan, length)?;
        }
        // The geometry counts in elements of two bytes, and these have four.
        let geometry = Geometry::new(plan, 0..plan.model.num_kv_heads, &lengths, DType::Bf16);
        let bucket = |(at, &length): (usize, &u32)| {
            let slab_bytes = (2 * geometry.slab_bytes[at]).next_multiple_of(ALIGNMENT);
            Bucket { length, slab_bytes, intact: geometry.shortest_ring(at) }
        };
        let buckets: Vec<Bucket> = lengths.iter().enumerate().map(bucket).collect();
        let largest = buckets.iter().map(|bucket| bucket.slab_bytes).max().unwrap_or(0);
        let slab_bytes = options.slab_bytes.unwrap_or(largest.saturating_mul(options.lanes.into()));
        Ok(Limits {
            lanes: options.lanes,
            rows: CHUNK as u32 + options.lanes,
            buckets,
            slab_bytes,
            vocab: config.vocab_size as u32,
            deterministic: options.deterministic,
        })
    }

    /// The reservation.
    #[cfg(test)]
    pub(crate) fn space(&self) -> Arc<Mutex<Space>> {
        self.space.clone()
    }

    /// Some rows of a step through all layers, and the tokens that they choose.
    fn forward(&self, parts: &mut [Part<'_>]) -> Result<Vec<Chosen>, ModelError> {
        let tokens: Vec<u32> = parts.iter().flat_map(|part| part.tokens.iter().copied()).collect();
        let mut last = Vec::new();
        let mut rows = 0;
        for part in &*parts {
            rows += part.tokens.len() as u32;
            last.extend(part.choice.map(|choice| (rows - 1, part.lane, choice)));
        }
        let caches = parts.iter_mut().map(|part| (&mut *part.cache, part.tokens.len())).collect();
        let hidden = self.decoder.forward(&tokens, &mut Batch::new(caches))?;
        if last.is_empty() {
            return Ok(Vec::new());
        }
        let rows: Vec<u32> = last.iter().map(|&(row, ..)| row).collect();
        let logits = self.decoder.logits(&hidden.index_select(&Tensor::new(rows, &Device::Cpu)?, 0)?)?;
        let logits = (0..last.len()).map(|row| logits.i(row)?.to_vec1::<f32>());
        let logits = logits.collect::<Result<Vec<_>, _>>()?;
        let chosen = last.into_par_iter().zip(logits).map(|((_, lane, choice), logits)| {
            let (outcome, top) = choose(&logits, &self.lanes[lane as usize].seen, choice);
            Chosen { lane, outcome, top }
        });
        Ok(chosen.collect())
    }
}

/// A request's rows of a step.
struct Part<'a> {
    lane: u32,
    tokens: &'a [u32],
    cache: &'a mut Cache,
    choice: Option<Choice<'a>>,
}

impl Runner for CpuRunner {
    type Slab = CpuSlab;

    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn slab(&mut self, max_len: u32) -> Result<Option<CpuSlab>, ModelError> {
        let Some(&Bucket { length, slab_bytes: bytes, .. }) =
            self.limits.buckets.iter().find(|bucket| bucket.length >= max_len)
        else {
            return Err(ModelError::Argument {
                what: "the context length of a request",
                found: max_len.to_string(),
                expected: format!("at most {}", self.limits.buckets.last().map_or(0, |bucket| bucket.length)),
            });
        };
        let Some(start) = with(&self.space, |space| space.take(bytes)) else { return Ok(None) };
        let space = self.space.clone();
        match Cache::new(&self.plan, length) {
            Ok(cache) => Ok(Some(CpuSlab { cache, space, start, bytes })),
            Err(error) => {
                with(&self.space, |space| space.give_back(start, bytes));
                Err(error)
            }
        }
    }

    fn copy(&mut self, from: &CpuSlab, to: &mut CpuSlab) -> Result<(), ModelError> {
        if from.cache.length() != to.cache.length() {
            return Err(ModelError::Argument {
                what: "the context length of a copy",
                found: to.cache.length().to_string(),
                expected: from.cache.length().to_string(),
            });
        }
        to.cache.clone_from(&from.cache);
        Ok(())
    }

    fn rewind(&mut self, slab: &mut CpuSlab, tokens: u32) -> Result<(), ModelError> {
        slab.cache.rewind(tokens as usize)
    }

    fn reset(&mut self, lane: u32, seen: &[u32]) -> Result<(), ModelError> {
        let lane = &mut self.lanes[lane as usize].seen;
        lane.clear();
        for &token in seen {
            lane.insert(token);
        }
        Ok(())
    }

    fn start(
        &mut self,
        decodes: &mut [Decode<'_, CpuSlab>],
        prefills: &mut [Prefill<'_, CpuSlab>],
    ) -> Result<(), ModelError> {
        let newest: Vec<u32> = decodes.iter().map(|of| self.lanes[of.lane as usize].newest).collect();
        let decodes = decodes.iter_mut().zip(&newest).map(|(of, newest)| Part {
            lane: of.lane,
            tokens: std::slice::from_ref(newest),
            cache: &mut of.slab.cache,
            choice: Some(of.choice),
        });
        let prefills = prefills.iter_mut().map(|of| Part {
            lane: of.lane,
            tokens: of.tokens,
            cache: &mut of.slab.cache,
            choice: of.choice,
        });
        let mut parts: Vec<Part<'_>> = decodes.chain(prefills).collect();
        for Part { lane, tokens, cache, .. } in &parts {
            LayerError::check_room(cache.len() as u32, tokens.len(), cache.length() as u32)?;
            for &token in *tokens {
                self.lanes[*lane as usize].seen.insert(token);
            }
        }
        // A product of at most so many rows computes each of them as if it were alone.
        let few = |part: &Part<'_>| part.tokens.len() == 1;
        let same = |a: &Part<'_>, b: &Part<'_>| !self.limits.deterministic || few(a) && few(b);
        let most = if self.limits.deterministic { FEW } else { usize::MAX };
        let mut chosen = Vec::new();
        for run in parts.chunk_by_mut(same) {
            for group in run.chunks_mut(most.min(run.len())) {
                chosen.append(&mut self.forward(group)?);
            }
        }
        for Chosen { lane, outcome, .. } in &chosen {
            self.lanes[*lane as usize].newest = outcome.token;
        }
        self.done.push_back(chosen);
        Ok(())
    }

    fn finish(&mut self) -> Result<Vec<Chosen>, ModelError> {
        Ok(self.done.pop_front().unwrap_or_default())
    }
}
