//! The expected content of a slab: the rings of one layer of one request, made from the geometry alone.
//!
//! Both before a launch, so that it can start at any position of a long context, and after it, to be compared byte
//! for byte.

use std::ops::Range;

use moac_runtime::geometry::{position, slot};
use moac_runtime::launch::{PANEL_ROW_BYTES as PANEL_ROW, RingLayout, VECTOR_BYTES};
use moac_runtime::plan::TILE;
use rayon::prelude::*;

use super::inputs::{At, Inputs, Tensor};
use super::layer::Layer;

/// The rings of one layer of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    /// The sequence of the request.
    pub sequence: u32,
    /// Its bucket.
    pub bucket: usize,
    /// Tokens that have been appended: positions `0..len`.
    pub len: u32,
    /// The byte that slots hold which no token reached.
    pub blank: u8,
}

/// One of the two rings of a KV head in a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ring {
    /// K or V.
    pub tensor: Tensor,
    /// The KV head.
    pub kv_head: u32,
    /// Where it starts, in bytes from the layer's base.
    pub offset: u64,
    /// Its slots.
    pub slots: u32,
    sink: u32,
}

/// Every ring of a layer in a bucket, in the order in which they lie, without gaps.
pub fn rings(layer: &Layer, bucket: usize) -> impl Iterator<Item = Ring> {
    let at = layer.bucket(bucket);
    let (row_bytes, sink) = (layer.row_bytes(), layer.sink);
    (0..).zip(at.kv_span.iter().zip(&at.ring)).flat_map(move |(kv_head, (&slots, &first))| {
        let ring = |tensor, row| Ring { tensor, kv_head, offset: row * row_bytes, slots, sink };
        [ring(Tensor::K, first), ring(Tensor::V, first + u64::from(slots))]
    })
}

impl Ring {
    /// The slots that change when positions `from..to` are appended.
    pub fn changed(&self, from: u32, to: u32) -> impl Iterator<Item = u32> + use<> {
        let Self { slots, sink, .. } = *self;
        // More than a window behind the last, a position of the range is overwritten by another one of it.
        let stays = to.saturating_sub(slots - sink).max(sink).max(from);
        (from..to.min(sink)).chain(stays..to).map(move |position| slot(position, sink, slots))
    }
}

/// The bytes of a ring that its first `slots` slots take, as ranges from the ring's start.
pub fn written(layout: RingLayout, slots: u32, row_bytes: u64) -> Vec<Range<u64>> {
    let (slots, tile) = (u64::from(slots), u64::from(TILE));
    match layout {
        RingLayout::Rows => std::iter::once(0..slots * row_bytes).collect(),
        RingLayout::Swizzled => {
            let (tiles, rows) = (slots / tile, slots % tile);
            let panel = |n: u64| {
                let start = layout.vector(tiles * tile, n * PANEL_ROW, row_bytes) / PANEL_ROW * PANEL_ROW;
                start..start + rows * PANEL_ROW
            };
            let panels = if rows == 0 { 0 } else { row_bytes / PANEL_ROW };
            std::iter::once(0..tiles * tile * row_bytes).chain((0..panels).map(panel)).collect()
        }
    }
}

impl Image {
    /// Writes what a slot of a ring holds.
    fn slot(&self, inputs: &Inputs, ring: &Ring, slot: u32, to: &mut [u8]) {
        match position(slot, ring.sink, ring.slots, self.len) {
            Some(position) => {
                let Self { sequence, .. } = *self;
                inputs.bytes(At { tensor: ring.tensor, sequence, position, head: ring.kv_head }, to);
            }
            None => to.fill(self.blank),
        }
    }

    /// Writes a whole ring.
    pub fn fill_ring(&self, layer: &Layer, inputs: &Inputs, ring: &Ring, to: &mut [u8]) {
        let row_bytes = layer.row_bytes();
        let tiles = to.par_chunks_mut((u64::from(TILE) * row_bytes) as usize);
        tiles.zip((0..ring.slots).into_par_iter().step_by(TILE as usize)).for_each(|(tile, first)| {
            let mut row = [0; MOST_ROW_BYTES];
            let row = &mut row[..row_bytes as usize];
            for slot in 0..TILE {
                self.slot(inputs, ring, first + slot, row);
                layer.ring_layout.each_vector(u64::from(slot), row_bytes, |at, byte| {
                    tile[at..at + VECTOR].copy_from_slice(&row[byte..byte + VECTOR]);
                });
            }
        });
    }

    /// Writes all rings of the layer, from the layer's base.
    pub fn fill(&self, layer: &Layer, inputs: &Inputs, mut to: &mut [u8]) {
        for ring in rings(layer, self.bucket) {
            let (own, rest) = to.split_at_mut(ring.slots as usize * layer.row_bytes() as usize);
            self.fill_ring(layer, inputs, &ring, own);
            to = rest;
        }
    }

    /// Compares all rings of the layer with the expected ones: the number of slots that differ, and the first in words.
    pub fn compare(&self, layer: &Layer, inputs: &Inputs, found: &[u8]) -> Option<(usize, String)> {
        let row_bytes = layer.row_bytes() as usize;
        let differing: Vec<(Ring, u32)> = rings(layer, self.bucket)
            .flat_map(|ring| {
                let own = &found[ring.offset as usize..][..ring.slots as usize * row_bytes];
                let differs = |slot: u32| {
                    let mut expected = [0; MOST_ROW_BYTES];
                    let expected = &mut expected[..row_bytes];
                    self.slot(inputs, &ring, slot, expected);
                    let mut same = true;
                    layer.ring_layout.each_vector(u64::from(slot), row_bytes as u64, |at, byte| {
                        same &= own[at..at + VECTOR] == expected[byte..byte + VECTOR];
                    });
                    (!same).then_some((ring, slot))
                };
                (0..ring.slots).into_par_iter().filter_map(differs).collect::<Vec<_>>()
            })
            .collect();
        let (ring, slot) = differing.first()?;
        let first = format!("slot {slot} of the {:?} ring of KV head {}", ring.tensor, ring.kv_head);
        Some((differing.len(), first))
    }
}

/// Bytes of a vector that [`RingLayout::each_vector`] visits.
const VECTOR: usize = VECTOR_BYTES as usize;
/// Bytes of a row at `head_dim` 128, the largest.
const MOST_ROW_BYTES: usize = 256;
