//! What a slab must hold: the rings of one layer of one request, made from the geometry alone.
//!
//! Both before a launch, so that it can start at any position of a long context, and after it, to be compared byte
//! for byte.

use moac_runtime::geometry::{position, slot};
use rayon::prelude::*;

use super::candidate::Layer;
use super::inputs::{At, Inputs, Tensor};

/// One of the two rings of a KV head of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingAt {
    /// K or V.
    pub tensor: Tensor,
    /// The sequence of the request.
    pub sequence: u32,
    /// Its bucket.
    pub bucket: usize,
    /// The KV head.
    pub kv_head: u32,
}

impl RingAt {
    /// Where the ring starts, in bytes from the layer's base.
    pub fn offset(&self, layer: &Layer) -> u64 {
        let bucket = layer.bucket(self.bucket);
        let g = self.kv_head as usize;
        let rows = match self.tensor {
            Tensor::V => bucket.ring[g] + u64::from(bucket.kv_span[g]),
            Tensor::Q | Tensor::K => bucket.ring[g],
        };
        rows * layer.row_bytes()
    }

    /// Its slots.
    pub fn slots(&self, layer: &Layer) -> u32 {
        layer.bucket(self.bucket).kv_span[self.kv_head as usize]
    }

    /// The ring's bytes once positions `0..len` have been written; slots that none of them reached hold `blank`.
    pub fn bytes(&self, layer: &Layer, inputs: &Inputs, len: u32, blank: u8) -> Vec<u8> {
        let slots = self.slots(layer);
        let row_bytes = layer.row_bytes() as usize;
        let mut bytes = Vec::with_capacity(slots as usize * row_bytes);
        for slot in 0..slots {
            match position(slot, layer.sink, slots, len) {
                Some(position) => inputs.bytes(self.row(position), &mut bytes),
                None => bytes.resize(bytes.len() + row_bytes, blank),
            }
        }
        bytes
    }

    /// Appends the bytes that a slot holds once positions `0..len` have been written.
    pub fn slot_bytes(&self, layer: &Layer, inputs: &Inputs, slot: u32, len: u32, out: &mut Vec<u8>) {
        if let Some(position) = position(slot, layer.sink, self.slots(layer), len) {
            inputs.bytes(self.row(position), out);
        }
    }

    /// Slots that hold a token once positions `0..len` have been written: the first ones.
    pub fn written(&self, layer: &Layer, len: u32) -> u32 {
        self.slots(layer).min(len)
    }

    /// The slots that change when positions `from..to` are appended, ascending.
    pub fn changed(&self, layer: &Layer, from: u32, to: u32) -> Vec<u32> {
        let slots = self.slots(layer);
        // More than a window behind the last, a position of the range is overwritten by another one of it.
        let stays = to.saturating_sub(slots - layer.sink).max(layer.sink).max(from);
        let mut changed: Vec<u32> =
            (from..to.min(layer.sink)).chain(stays..to).map(|p| slot(p, layer.sink, slots)).collect();
        changed.sort_unstable();
        changed
    }

    fn row(&self, position: u32) -> At {
        At { tensor: self.tensor, sequence: self.sequence, position, head: self.kv_head }
    }
}

/// Every ring of a layer of one request.
pub fn rings(layer: &Layer, bucket: usize, sequence: u32) -> impl Iterator<Item = RingAt> {
    (0..layer.kv_heads()).flat_map(move |kv_head| {
        [Tensor::K, Tensor::V].map(|tensor| RingAt { tensor, sequence, bucket, kv_head })
    })
}

/// The whole layer of a request's slab, from the layer's base.
pub fn layer_bytes(
    layer: &Layer,
    inputs: &Inputs,
    bucket: usize,
    sequence: u32,
    len: u32,
    blank: u8,
) -> Vec<u8> {
    let rings: Vec<RingAt> = rings(layer, bucket, sequence).collect();
    let parts: Vec<Vec<u8>> = rings.par_iter().map(|ring| ring.bytes(layer, inputs, len, blank)).collect();
    parts.concat()
}

/// Where byte `at` of a slab lies, in words. The layer's rings start at byte `base`.
pub fn place(layer: &Layer, bucket: usize, at: u64, base: u64) -> String {
    let inside = at.checked_sub(base).filter(|&at| at < layer.ring_bytes(bucket));
    let ring = inside.and_then(|at| rings(layer, bucket, 0).filter(|ring| ring.offset(layer) <= at).last());
    match (ring, inside) {
        (Some(ring), Some(at)) => {
            let slot = (at - ring.offset(layer)) / layer.row_bytes();
            format!("slot {slot} of the {:?} ring of KV head {}", ring.tensor, ring.kv_head)
        }
        _ => format!("byte {at}, outside of the layer's rings"),
    }
}
