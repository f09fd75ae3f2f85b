// The two warps of a decode CTA that supply the math warps (stage.cuh): the copier and the clerk.
//
// Both walk the CTA's range. The copier keeps bulk copies of K and V in flight and does nothing else. The clerk writes
// what a segment is and fetches its queries, which takes longer than issuing a copy; beside the copier nobody waits for
// it. A kernel of one tile per CTA is as fast as its first copy is early: it depends on two rounds of loads, the
// requests' fields and the table of the bucket, and on as few instructions as can be.
//
// Before the wait of a dependent launch it reads only what the host writes once a step and what the rings hold from the
// steps before; so the kernel in front must not write those. The new token's rows, and all that is written, come behind
// the wait.
#pragma once

#include <moac/sm90/split.cuh>
#include <moac/sm90/stage.cuh>

namespace moac {
namespace sm90 {

// The same value, which the compiler takes for a new one: nothing that follows from it is computed any sooner. Before
// the first copy is on its way every instruction counts.
__device__ __forceinline__ i64 here(i64 value) {
  asm volatile("" : "+l"(value));
  return value;
}

// Both warps walk the CTA's range with it, stretch by stretch; one copies, the other describes.
template <class Spec>
struct Supply {
  using T = RingTile<Spec::kHeadDim>;
  using S = Stages<Spec>;
  static constexpr int kGroup = S::kGroup;

  const DecodeParams& p;
  S stages;
  // Of the stretch at hand.
  unsigned char* k;
  unsigned char* v;
  int kv_span, new_slot, written;

  __device__ __forceinline__ void take(const Walk<Spec>& walk, const Stretch& s) {
    k = walk.slab + p.call.layer_base[walk.bucket] + 2 * static_cast<i64>(T::kBytes) * s.prefix;
    v = k + static_cast<i64>(T::kBytes) * s.kv_tiles;
    kv_span = s.kv_tiles * kTile;
    written = min(walk.length, kv_span);
    new_slot = walk.length - 1;
    if (new_slot >= kv_span) {
      const unsigned behind = new_slot - Spec::kSink;
      new_slot = Spec::kSink + behind % static_cast<unsigned>(kv_span - Spec::kSink);
    }
  }

  // The copier's part: every tile.
  __device__ __forceinline__ void copy(const Walk<Spec>& walk, const Stretch& s) {
    const int lane = threadIdx.x & 31;
#pragma unroll 1
    for (int tile = s.first; tile < s.last; ++tile) {
      const int rows = min(kTile, written - tile * kTile);
      const int fresh = static_cast<unsigned>(new_slot - tile * kTile) < kTile ? new_slot - tile * kTile : kTile;
      const u32 full = stages.tile_full();
      barrier_wait(stages.tile_empty(), stages.tile.phase ^ 1);
      if (lane == 0) barrier_arrive_expect(full, 2 * rows * T::kRowBytes);
      __syncwarp();
      if (rows == kTile && fresh == kTile) {
        if (lane == 0) load_tile<Spec::kHeadDim>(stages.keys(), k, v, tile, full);
      } else {
        const Params& call = p.call;
        const i64 row = here(walk.row);
        const unsigned char* new_k =
            static_cast<const unsigned char*>(call.k) + (row * call.k_token + s.kv_head * call.k_head) * 2;
        const unsigned char* new_v =
            static_cast<const unsigned char*>(call.v) + (row * call.v_token + s.kv_head * call.v_head) * 2;
        wait_for_inputs();
        load_rows<Spec::kHeadDim>(stages.keys(), k, v, new_k, new_v, tile, rows, fresh, full);
      }
      stages.tile.next();
    }
  }

  // The clerk's part: the description, and the queries, which are the last to be there.
  __device__ __forceinline__ void describe(const Walk<Spec>& walk, const Stretch& s, const Ranges& ranges, int part) {
    const int lane = threadIdx.x & 31;
    const Params& call = p.call;
    const int head = s.kv_head * kGroup;
    const u32 full = stages.desk_full();
    barrier_wait(stages.desk_empty(), stages.desk.phase ^ 1);
    if (lane == 0) barrier_expect(full, kGroup * T::kRowBytes);
    __syncwarp();
    const int window = lane < kGroup ? Window<Spec>::span(walk.bucket, head + lane) - Spec::kSink : kNowhere;
    const int smallest = __reduce_min_sync(kAllLanes, window);
    Segment<kGroup>& to = stages.segment();
    if (lane < Segment<kGroup>::kWindows) to.window[lane] = window;
    if (lane == 0) {
      to.k = k;
      to.v = v;
      to.row = walk.row;
      to.kv_head = s.kv_head;
      to.first = s.first;
      to.last = s.last;
      to.written = written;
      to.new_slot = new_slot;
      to.kv_span = kv_span;
      to.counter = walk.request * Spec::kKvHeads + s.kv_head;
      to.smallest_window = smallest;
      const bool whole = s.last - s.first == s.tiles;
      const int first_part = whole ? part : ranges.part_of(s.origin);
      const int last_part = whole ? part : ranges.part_of(s.origin + s.tiles - 1);
      to.splits = last_part - first_part + 1;
      to.split = part - first_part;
      to.first_part = first_part;
    }
    wait_for_inputs();
    if (lane < kGroup) {
      const unsigned char* q =
          static_cast<const unsigned char*>(call.q) + (walk.row * call.q_token + (head + lane) * call.q_head) * 2;
      bulk_load(stages.queries() + lane * S::kQueryPitch, q, T::kRowBytes, full);
    }
    __syncwarp();
    if (lane == 0) barrier_arrive(full);
    stages.desk.next();
  }

  // The clerk tells the math warps that no segment follows.
  __device__ __forceinline__ void stop() {
    barrier_wait(stages.desk_empty(), stages.desk.phase ^ 1);
    if ((threadIdx.x & 31) == 0) {
      stages.segment().first = stages.segment().last = 0;
      barrier_arrive(stages.desk_full());
    }
  }
};

}  // namespace sm90
}  // namespace moac
