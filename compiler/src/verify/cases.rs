//! The cases that prove a kernel, chosen from the layer's own spans so that its own edges are covered.
//!
//! [`whole`] runs every launch whole and is for short buckets on any device. [`boundary`] is for the emulator and any
//! bucket: chosen CTAs of prefill, a few requests of decode. [`every_bucket`] is for a GPU.

use std::collections::BTreeSet;

use moac_runtime::launch::Phase;

use super::candidate::Candidate;
use super::case::{Case, Layout, Request, Work};
use super::layer::Layer;
use crate::lower::family::Tile;

/// Keys, in tiles, that the chosen CTAs of one boundary case may walk: about a second on the emulator.
const WALK: u32 = 512;

/// The longest bucket that counts as short.
const SHORT: u32 = 1024;

/// Every code path, each launch whole.
pub fn whole(candidate: &Candidate) -> Vec<Case> {
    match candidate.phase() {
        Phase::Prefill => whole_prefill(&candidate.layer),
        Phase::Decode => whole_decode(&candidate.layer),
    }
}

fn whole_prefill(layer: &Layer) -> Vec<Case> {
    let mut cases = Vec::new();
    // From the first token: whole buckets, odd lengths, none.
    let mut requests = Vec::new();
    for bucket in buckets(layer) {
        let length = layer.bucket(bucket).length;
        requests.extend([(bucket, 0, length), (bucket, 0, length - 37), (bucket, 0, 0)]);
    }
    // One token, and one token less than a block of 128.
    requests.extend([(0, 0, 1), (0, 0, layer.bucket(0).length.min(127))]);
    cases.push(case("from the first token", requests, Work::Prefill, Layout::Packed, true));
    // In the middle: chunks of all kinds of lengths that cross all kinds of edges.
    for (bucket, layout) in
        buckets(layer).zip([Layout::Fused, Layout::HeadMajor, Layout::Packed].into_iter().cycle())
    {
        let length = layer.bucket(bucket).length;
        let mut requests = Vec::new();
        for (n, edge) in edges(layer, bucket).into_iter().enumerate() {
            let chunk = [1, 20, 64, 7, 131, 65][n % 6];
            let cached = edge.saturating_sub([1, 11, 64, 0, 70, 3][n % 6]);
            requests.push((bucket, cached, chunk.min(length - cached)));
        }
        let name = format!("chunks in the bucket of {length}");
        cases.push(case(name, requests, Work::Prefill, layout, layout != Layout::Fused));
    }
    // The last row of some 32 stands exactly a window behind the first key of a tile: the one key it does not see. In
    // every other request it is also the last row of the chunk.
    let aligned = |length: u32| length * 3 / 4 / 64 * 64 + 33;
    let requests = buckets(layer)
        .map(|bucket| (bucket, layer.bucket(bucket).length))
        .filter(|&(_, length)| aligned(length) < length)
        .flat_map(|(bucket, length)| {
            [70, 32].map(|rows| (bucket, aligned(length), (length - aligned(length)).min(rows)))
        })
        .collect();
    cases.push(case("rows a window behind a tile", requests, Work::Prefill, Layout::Packed, true));
    // A chunk longer than every ring, behind a ring that has wrapped.
    let last = buckets(layer).last().unwrap_or(0);
    let length = layer.bucket(last).length;
    let cached = length / 3 + 1;
    let requests = vec![(last, cached, length - cached), (0, 0, 0), (0, 5, 3)];
    cases.push(case("a chunk longer than the rings", requests, Work::Prefill, Layout::HeadMajor, true));
    cases
}

fn whole_decode(layer: &Layer) -> Vec<Case> {
    let mut all = Vec::new();
    for bucket in buckets(layer) {
        let length = layer.bucket(bucket).length;
        let positions: BTreeSet<u32> = edges(layer, bucket)
            .into_iter()
            .flat_map(|edge| [edge.saturating_sub(1), edge, edge + 1])
            .chain([0, length - 1])
            .filter(|&position| position < length)
            .collect();
        all.extend(positions.into_iter().map(|position| (bucket, position, 1)));
    }
    // Neighbours in the batch are of different buckets and lengths, and some sit the step out.
    let mut order: Vec<usize> = (0..all.len()).collect();
    order.sort_by_key(|&n| n * 7919 % 104_729);
    let mut batch: Vec<(usize, u32, u32)> = order.into_iter().map(|n| all[n]).collect();
    for n in (0..batch.len()).step_by(5).rev() {
        batch.insert(n, (0, 17, 0));
    }
    let layouts = [Layout::Packed, Layout::Fused, Layout::HeadMajor];
    let mut cases = Vec::new();
    for (n, ctas) in [0, 1, 3, 61].into_iter().enumerate() {
        // The slow grids get a part of the batch each. One CTA alone takes more requests than a warp has lanes.
        let part: Vec<_> = batch.iter().skip(n).step_by(if ctas <= 1 { 1 } else { 4 }).copied().collect();
        let name = format!("{} requests, {ctas} CTAs", part.len());
        cases.push(case(name, part, Work::Decode { ctas }, layouts[n % 3], n != 1));
    }
    // One request alone, split over many CTAs, and a batch in which no request has a token.
    let last = buckets(layer).last().unwrap_or(0);
    let alone = vec![(last, layer.bucket(last).length - 1, 1)];
    cases.push(case(
        "one request, more CTAs than tiles",
        alone,
        Work::Decode { ctas: 300 },
        Layout::Packed,
        true,
    ));
    let idle = vec![(0, 9, 0), (last, 70, 0)];
    cases.push(case("nobody has a token", idle, Work::Decode { ctas: 2 }, Layout::Packed, true));
    cases
}

/// The rows that the emulator can check in seconds: all of a short context, the edges of a long one.
pub fn for_emulator(candidate: &Candidate) -> Vec<Case> {
    let longest = candidate.layer.geometry.buckets.iter().map(|bucket| bucket.length).max().unwrap_or(0);
    if longest <= SHORT { whole(candidate) } else { boundary(candidate) }
}

/// The edges of a layer's own spans, met by few CTAs.
pub fn boundary(candidate: &Candidate) -> Vec<Case> {
    let layer = &candidate.layer;
    match candidate.phase() {
        Phase::Prefill => boundary_prefill(candidate),
        Phase::Decode => boundary_decode(layer),
    }
}

fn boundary_prefill(candidate: &Candidate) -> Vec<Case> {
    let layer = &candidate.layer;
    let tile_m = candidate.tile_m();
    let heads = heads_of_each_span(layer);
    let mut cases = Vec::new();
    let last = buckets(layer).last().unwrap_or(0);
    for bucket in BTreeSet::from([0, last]) {
        let length = layer.bucket(bucket).length;
        // The whole context at once, with a ragged tail: first tile, where sink and window part, middle, tail.
        let chunk = length - 27;
        let mut tiles = BTreeSet::new();
        let mut walk = 0;
        for (n, &head) in heads.iter().enumerate() {
            let span = layer.window(bucket, head) + layer.sink;
            let tail = (chunk - 1) / tile_m;
            let wanted = [tail, span.min(chunk - 1) / tile_m, tail / 2, 0];
            for index in if n == 0 { &wanted[..] } else { &wanted[..2] } {
                let keys = span.min((index + 1) * tile_m) / 64 + 2;
                if walk + keys <= WALK && tiles.insert(Tile { request: 0, head, index: *index }) {
                    walk += keys;
                }
            }
        }
        let name = format!("tiles of {chunk} tokens");
        let work = Work::Tiles(tiles.into_iter().collect());
        cases.push(case(name, vec![(bucket, 0, chunk)], work, Layout::Packed, true));
        // A chunk in the middle, behind rings that have wrapped: old keys on both sides of the wrap.
        let mut tiles = BTreeSet::new();
        let mut walk = 0;
        let mut requests = Vec::new();
        for &head in heads.iter().rev() {
            let edges = wraps(layer, bucket, layer.kv_head(head));
            let Some(&edge) = edges.last() else { continue };
            let chunk = (tile_m + 9).min(length - (edge - 45));
            let span = layer.window(bucket, head) + layer.sink;
            let keys = (span / 64 + 2) * chunk.div_ceil(tile_m);
            if walk + keys > WALK {
                continue;
            }
            walk += keys;
            let request = requests.len() as u32;
            requests.push((bucket, edge - 45, chunk));
            tiles.extend((0..chunk.div_ceil(tile_m)).map(|index| Tile { request, head, index }));
        }
        if !requests.is_empty() {
            let name = format!("tiles behind wrapped rings in the bucket of {length}");
            cases.push(case(
                name,
                requests,
                Work::Tiles(tiles.into_iter().collect()),
                Layout::HeadMajor,
                true,
            ));
        }
        // The append: over the sink's edge, over a wrap, and a chunk longer than the shortest ring.
        let mut requests = vec![(bucket, layer.sink - 5, 12)];
        if let Some(edge) =
            (0..layer.kv_heads()).filter_map(|g| wraps(layer, bucket, g).last().copied()).max()
        {
            requests.push((bucket, edge - 30, 61.min(length - (edge - 30))));
        }
        let shortest = layer.bucket(bucket).kv_span.iter().min().copied().unwrap_or(0);
        if shortest + 90 < length && shortest <= 1024 {
            requests.push((bucket, 33, shortest + 50));
        }
        let name = format!("appends in the bucket of {length}");
        cases.push(case(name, requests, Work::Fill, Layout::Packed, false));
    }
    cases
}

fn boundary_decode(layer: &Layer) -> Vec<Case> {
    let mut cases = Vec::new();
    let last = buckets(layer).last().unwrap_or(0);
    // The first bucket: rings that fill, are full, and have wrapped.
    let length = layer.bucket(0).length;
    let spans: BTreeSet<u32> = layer.bucket(0).kv_span.iter().copied().collect();
    let longest = spans.last().copied().unwrap_or(length);
    let requests = vec![
        (0, layer.sink - 1, 1),
        (0, longest / 2 + 1, 1),
        (0, 7, 0),
        (0, longest.min(length - 1), 1),
        (0, length - 1, 1),
    ];
    cases.push(case(
        format!("the bucket of {length}"),
        requests,
        Work::Decode { ctas: 7 },
        Layout::Fused,
        true,
    ));
    // The longest one, somewhere behind its last wrap.
    let length = layer.bucket(last).length;
    let requests = vec![(last, length - 1 - length / 37, 1)];
    let name = format!("the bucket of {length}");
    cases.push(case(name, requests, Work::Decode { ctas: 11 }, Layout::Packed, true));
    cases
}

/// Every bucket: whole contexts, chunks behind wrapped rings, decode in mixed batches.
pub fn every_bucket(candidate: &Candidate, sms: u32) -> Vec<Case> {
    let layer = &candidate.layer;
    let mut cases = Vec::new();
    match candidate.phase() {
        Phase::Prefill => {
            for bucket in buckets(layer) {
                let length = layer.bucket(bucket).length;
                let name = format!("{length} tokens at once");
                cases.push(case(name, vec![(bucket, 0, length)], Work::Prefill, Layout::Packed, true));
            }
            let mut chunks: Vec<(usize, u32, u32)> = buckets(layer)
                .map(|bucket| {
                    let length = layer.bucket(bucket).length;
                    let edge = wraps(layer, bucket, bucket as u32 % layer.kv_heads()).last().copied();
                    let cached = edge.unwrap_or(length / 2).min(length - 1).saturating_sub(45);
                    (bucket, cached, (length - cached).min(300))
                })
                .collect();
            chunks.push((0, 0, 0));
            chunks.push((0, layer.sink - 5, 12));
            let name = "chunks in every bucket";
            cases.push(case(name, chunks.clone(), Work::Prefill, Layout::Fused, true));
            chunks.truncate(3);
            cases.push(case("chunks, by head", chunks, Work::Prefill, Layout::HeadMajor, false));
        }
        Phase::Decode => {
            let batch: Vec<(usize, u32, u32)> = buckets(layer)
                .flat_map(|bucket| {
                    let length = layer.bucket(bucket).length;
                    // Full in every other bucket, somewhere behind the last wrap in the rest.
                    let position = length - 1 - if bucket % 2 == 0 { 0 } else { length / 37 };
                    [(bucket, position, 1), (bucket, 5, 0)]
                })
                .collect();
            cases.push(case("every bucket", batch, Work::Decode { ctas: 0 }, Layout::Packed, true));
            // The first bucket at all its edges, under grids of other sizes.
            let edges: Vec<(usize, u32, u32)> = edges(layer, 0)
                .into_iter()
                .flat_map(|edge| [edge.saturating_sub(1), edge, edge + 1])
                .filter(|&position| position < layer.bucket(0).length)
                .map(|position| (0, position, 1))
                .collect();
            for (ctas, layout) in
                [(1, Layout::Fused), (sms / 2 + 1, Layout::HeadMajor), (5000, Layout::Packed)]
            {
                let name = format!("{} requests, {ctas} CTAs", edges.len());
                cases.push(case(name, edges.clone(), Work::Decode { ctas }, layout, layout != Layout::Fused));
            }
        }
    }
    cases
}

fn case(
    name: impl Into<String>,
    requests: Vec<(usize, u32, u32)>,
    work: Work,
    layout: Layout,
    lse: bool,
) -> Case {
    let requests = (0..)
        .zip(requests)
        .map(|(sequence, (bucket, cached, chunk))| Request { sequence, bucket, cached, chunk })
        .collect();
    Case { name: name.into(), requests, work, layout, lse }
}

fn buckets(layer: &Layer) -> std::ops::Range<usize> {
    0..layer.geometry.buckets.len()
}

/// Positions in a bucket where something changes for some head: ascending, below the length.
fn edges(layer: &Layer, bucket: usize) -> Vec<u32> {
    let length = layer.bucket(bucket).length;
    let mut edges = BTreeSet::from([0, layer.sink, length / 2 + 5]);
    edges.extend(&layer.bucket(bucket).span);
    for kv_head in 0..layer.kv_heads() {
        let wraps = wraps(layer, bucket, kv_head);
        edges.extend(wraps.first());
        edges.extend(wraps.last());
    }
    edges.into_iter().filter(|&edge| edge < length).collect()
}

/// The positions in a bucket that go to the first slot of a KV head's ring behind the sink again.
fn wraps(layer: &Layer, bucket: usize, kv_head: u32) -> Vec<u32> {
    let BucketSize { length, window } = BucketSize::of(layer, bucket, kv_head);
    (layer.sink + window..length).step_by(window as usize).collect()
}

struct BucketSize {
    length: u32,
    window: u32,
}

impl BucketSize {
    fn of(layer: &Layer, bucket: usize, kv_head: u32) -> Self {
        let bucket = layer.bucket(bucket);
        Self { length: bucket.length, window: bucket.kv_span[kv_head as usize] - layer.sink }
    }
}

/// One query head of each distinct rule, no two of one KV head where that can be helped: longest span first.
fn heads_of_each_span(layer: &Layer) -> Vec<u32> {
    let last = layer.geometry.buckets.len() - 1;
    let mut heads = Vec::<u32>::new();
    for group in 0..layer.geometry.rules.len() as u32 {
        let of_group = || (0..layer.heads()).filter(|&h| layer.geometry.group_of_head[h as usize] == group);
        let fresh = of_group().find(|&h| heads.iter().all(|&other| layer.kv_head(other) != layer.kv_head(h)));
        heads.extend(fresh.or_else(|| of_group().next_back()));
    }
    heads.sort_by_key(|&head| std::cmp::Reverse(layer.window(last, head)));
    heads
}
