//! The span formula, the visibility rule, rings and tile tables against brute force that shares no code with them.

use std::collections::BTreeSet;

use moac_runtime::geometry::{Geometry, LayerGeometry, position, slot, span, visible};
use moac_runtime::plan::{DType, ModelShape, PLAN_FORMAT, Plan, Rule};
use proptest::prelude::*;

/// A number that is exact as `units / 256`, so that integers can follow it.
fn rational(units: i64) -> f64 {
    units as f64 / 256.0
}

/// `s(h, N)` in integers: alpha and beta in 256ths, the smallest multiple of 64 found by counting up.
fn span_by_counting(alpha: i64, beta: i64, n: i64, min_span: i64) -> i64 {
    let raw = (alpha + beta * n).div_euclid(256);
    let wanted = raw.max(min_span);
    let mut span = 0;
    while span < wanted && span < n {
        span += 64;
    }
    span.min(n)
}

/// A ring as a list of the positions it holds, appended to one by one.
struct BruteRing {
    slots: Vec<Option<u32>>,
    sink: usize,
    next: usize,
}

impl BruteRing {
    fn new(sink: u32, kv_span: u32) -> Self {
        Self { slots: vec![None; kv_span as usize], sink: sink as usize, next: 0 }
    }

    /// The sink fills once; after it the oldest is overwritten, the write head walking round.
    fn append(&mut self, position: u32) {
        self.slots[self.next] = Some(position);
        self.next = if self.next + 1 == self.slots.len() { self.sink } else { self.next + 1 };
    }
}

prop_compose! {
    fn tiles(most: u32)(tiles in 1..=most) -> u32 { tiles * 64 }
}

prop_compose! {
    /// Any valid plan of a small model, with few rules per layer so that heads share some.
    fn any_plan()(
        group in 1..=4u32, kv_heads in 1..=5u32, layers in 1..=3u32, sink in tiles(3), extra in tiles(4)
    )(
        picks in prop::collection::vec((-512i64..=4096, -64i64..=320), 1..=3),
        choice in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(),
            (group * kv_heads) as usize), layers as usize),
        shape in Just((group, kv_heads, layers, sink, extra)),
    ) -> Plan {
        let (group, kv_heads, layers, sink, extra) = shape;
        let rules: Vec<Vec<(i64, i64)>> =
            choice.iter().map(|row| row.iter().map(|pick| *pick.get(&picks)).collect()).collect();
        let table = |of: fn(&(i64, i64)) -> i64| {
            rules.iter().map(|row| row.iter().map(|rule| rational(of(rule))).collect()).collect()
        };
        Plan {
            format: PLAN_FORMAT.to_owned(),
            model: ModelShape {
                name: "any".to_owned(), num_layers: layers, num_heads: group * kv_heads, num_kv_heads: kv_heads,
                head_dim: 64, rope_theta: None, context: None, softmax_scale: None,
            },
            sink,
            min_span: sink + extra,
            alphas: table(|rule| rule.0 * 256),
            betas: table(|rule| rule.1),
            provenance: None,
        }
    }
}

fn lengths(plan: &Plan) -> Vec<u32> {
    vec![plan.min_span, plan.min_span + 64, 2048, 4160]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_span_is_what_integers_say(
        alpha in -1_000_000i64..=1_000_000, beta in -4096i64..=4096, n in 2u32..=16384, min_tiles in 2u32..=40
    ) {
        let (n, min_span) = (n * 64, min_tiles * 64);
        prop_assume!(min_span <= n);
        let rule = Rule { alpha: rational(alpha), beta: rational(beta) };
        let expected = span_by_counting(alpha, beta, i64::from(n), i64::from(min_span));
        let found = span(rule, n, min_span);
        prop_assert_eq!(i64::from(found), expected);
        prop_assert!(found.is_multiple_of(64) && (min_span..=n).contains(&found));
    }

    #[test]
    fn a_query_sees_the_sink_and_its_window(sink in tiles(3), window in tiles(5), i in 0u32..1500) {
        // The window is the query's own position and the ones before it, counted one by one.
        let mut seen: BTreeSet<u32> = (0..sink.min(i + 1)).collect();
        let mut j = i;
        for _ in 0..window {
            seen.insert(j);
            let Some(before) = j.checked_sub(1) else { break };
            j = before;
        }
        for j in 0..i + 70 {
            prop_assert_eq!(visible(i, j, sink, window), seen.contains(&j), "i {} j {}", i, j);
        }
        // So a span is the most keys that a query sees, and every later query sees exactly as many.
        prop_assert_eq!(seen.len() as u32, (i + 1).min(sink + window));
    }

    #[test]
    fn a_ring_holds_what_appending_leaves(sink in tiles(3), window in tiles(4), appends in 0u32..3000) {
        let kv_span = sink + window;
        let mut ring = BruteRing::new(sink, kv_span);
        for p in 0..appends {
            prop_assert_eq!(slot(p, sink, kv_span) as usize, ring.next, "position {}", p);
            ring.append(p);
        }
        for (index, &held) in (0u32..).zip(&ring.slots) {
            prop_assert_eq!(position(index, sink, kv_span, appends), held, "slot {} of {}", index, kv_span);
        }
    }

    #[test]
    fn a_ring_keeps_every_key_that_its_heads_see(
        sink in tiles(2), window in tiles(3), shorter in 0u32..3, i in 0u32..1200
    ) {
        // A head of the group whose window is shorter than the ring's.
        let own = (window - (shorter * 64).min(window - 64)).max(64);
        let kv_span = sink + window;
        let held: BTreeSet<u32> =
            (0..kv_span).filter_map(|index| position(index, sink, kv_span, i + 1)).collect();
        for j in 0..=i {
            prop_assert!(!visible(i, j, sink, own) || held.contains(&j), "query {} key {}", i, j);
        }
    }

    #[test]
    fn tables_are_sums_of_the_spans(plan in any_plan()) {
        let lengths = lengths(&plan);
        let heads = plan.model.num_kv_heads;
        let geometry = Geometry::new(&plan, 0..heads, &lengths, DType::Bf16);
        let mut base = vec![0u64; lengths.len()];
        for (l, layer) in geometry.layers.iter().enumerate() {
            for (b, bucket) in layer.buckets.iter().enumerate() {
                prop_assert_eq!(geometry.layer_base[l][b], base[b]);
                let (mut tiles, mut rows) = (0, 0);
                for g in 0..heads as usize {
                    let group = g as u32 * plan.model.group_size()..(g as u32 + 1) * plan.model.group_size();
                    let longest = group.map(|h| span(plan.rule(l as u32, h), lengths[b], plan.min_span)).max();
                    prop_assert_eq!(Some(bucket.kv_span[g]), longest);
                    prop_assert_eq!(bucket.tile_prefix[g], tiles);
                    prop_assert_eq!(bucket.ring[g], rows);
                    tiles += bucket.kv_span[g] / 64;
                    rows += 2 * u64::from(bucket.kv_span[g]); // K and V
                }
                prop_assert_eq!(bucket.tile_prefix[heads as usize], tiles);
                prop_assert_eq!(layer.rows(b), rows);
                base[b] += rows * 64 * 2;
            }
            for h in 0..plan.model.num_heads {
                let group = layer.group_of_head[h as usize] as usize;
                prop_assert_eq!(layer.rules[group], plan.rule(l as u32, h));
            }
        }
        prop_assert_eq!(&geometry.slab_bytes, &base);
        for need in [1, plan.min_span, plan.min_span + 1, 2048, 2049, 4160, 4161] {
            let smallest = lengths.iter().filter(|&&length| length >= need).min();
            prop_assert_eq!(geometry.bucket_for(need).map(|b| &lengths[b]), smallest);
        }
    }

    #[test]
    fn a_range_of_kv_heads_is_a_slice_of_the_whole(plan in any_plan(), ends in any::<[prop::sample::Index; 2]>()) {
        let heads = plan.model.num_kv_heads;
        let mut ends = ends.map(|end| end.index(heads as usize + 1) as u32);
        ends.sort_unstable();
        let [start, end] = ends;
        prop_assume!(start < end);
        let lengths = lengths(&plan);
        let r = plan.model.group_size();
        for l in 0..plan.model.num_layers {
            let whole = LayerGeometry::new(&plan, l, 0..heads, &lengths);
            let part = LayerGeometry::new(&plan, l, start..end, &lengths);
            for (whole_bucket, part_bucket) in whole.buckets.iter().zip(&part.buckets) {
                let (from, to) = (start as usize, end as usize);
                prop_assert_eq!(&part_bucket.kv_span, &whole_bucket.kv_span[from..to]);
                let shifted: Vec<u32> =
                    whole_bucket.tile_prefix[from..=to].iter().map(|t| t - whole_bucket.tile_prefix[from]).collect();
                prop_assert_eq!(&part_bucket.tile_prefix, &shifted);
                let shifted: Vec<u64> =
                    whole_bucket.ring[from..to].iter().map(|row| row - whole_bucket.ring[from]).collect();
                prop_assert_eq!(&part_bucket.ring, &shifted);
                for h in 0..(end - start) * r {
                    let span_of = |layer: &LayerGeometry, bucket: &[u32], head: u32| {
                        bucket[layer.group_of_head[head as usize] as usize]
                    };
                    prop_assert_eq!(
                        span_of(&part, &part_bucket.span, h),
                        span_of(&whole, &whole_bucket.span, h + start * r)
                    );
                }
            }
        }
    }
}
