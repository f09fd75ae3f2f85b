// The producing warps: one takes items and copies their queries and keys to shared memory, the other their values.
//
// The chunk's rows come by tensor copies, old keys from the ring by bulk copies: a ring's tile lies as its operand
// does. Rows that nobody wrote are not read, and are zero in shared memory; so are values behind the chunk's end,
// which belong to others: the producer waits for such a block, mends it, and passes it on.
#pragma once

#include <moac/sm90/params.cuh>
#include <moac/sm90/shared.cuh>

namespace moac {
namespace sm90 {

template <class Spec, bool kOfValues>
struct Producer {
  using S = Shared<Spec>;
  static constexpr int kTileBytes = kTile * Spec::kHeadDim * 2;

  const PrefillParams& params;
  S shared;
  Stage<S::kItems> taken;
  Stage<Spec::kStages> blocks;
  u32 mended_parity = 0;
  u32 ticket = 0;  // lane 0's, on its way from the counter

  // Writes zeros over the rows `row`..`end` - 1 of a block in shared memory; all lanes.
  static __device__ __forceinline__ void clear_rows(u32 block, int row, int end) {
#pragma unroll 1
    for (int i = row * 8 + (threadIdx.x & 31); i < end * 8; i += 32) {
      for (int panel = 0; panel < S::kPanels; ++panel) {
        store_shared(block + panel * S::kBlockPanelBytes + i * 16, Vec16{{0, 0, 0, 0}});
      }
    }
    async_proxy_fence();
    __syncwarp();
  }

  __device__ __forceinline__ void load_old(const Block& block, u32 to, u32 full, const Note<Spec>& note) const {
    const int lane = threadIdx.x & 31;
    const int low = min(block.end - block.begin[0], kTile), high = min(max(block.end - block.begin[1], 0), kTile);
    if (low < kTile) clear_rows(to, low, kTile);
    if (high < kTile) clear_rows(to, kTile + high, kBlock);
    if (lane == 0) barrier_arrive_expect(full, (low + high) * S::kPanels * kPanel);
    __syncwarp();
    // A lane for each panel of each half.
    const int half = lane / S::kPanels, panel = lane % S::kPanels, count = half == 0 ? low : high;
    if (half < 2 && count > 0) {
      const unsigned char* ring = kOfValues ? note.ring_v : note.ring_k;
      const int tile = Window<Spec>::slot_tile((half == 0 ? block.begin[0] : block.begin[1]) / kTile, note.kv_span);
      bulk_load(to + panel * S::kBlockPanelBytes + half * S::kHalfPanelBytes,
                ring + static_cast<i64>(tile) * kTileBytes + panel * S::kHalfPanelBytes, count * kPanel, full);
    }
    __syncwarp();
  }

  __device__ __forceinline__ void load_own(const Block& block, u32 to, u32 full, const Item& item) const {
    if ((threadIdx.x & 31) == 0) {
      barrier_arrive_expect(full, S::kBlockBytes);
      tensor_load(to, kOfValues ? &params.v : &params.k, full, 0,
                  static_cast<int>(item.start) + block.begin[0] - item.cached, 0, item.kv_head, kEvictLast);
    }
    __syncwarp();
  }

  __device__ __forceinline__ void load(const Block& block, const Note<Spec>& note) {
    const int stage = blocks.index();
    const u32 to = kOfValues ? shared.values(stage) : shared.keys(stage);
    const u32 full = kOfValues ? shared.values_full(stage) : shared.keys_full(stage);
    barrier_wait(kOfValues ? shared.values_empty(stage) : shared.keys_empty(stage), blocks.parity() ^ 1);
    const int rows = block.end - block.begin[0];
    if (block.from_ring) {
      load_old(block, to, full, note);
    } else if (!kOfValues || rows >= kBlock) {
      load_own(block, to, full, note.item);
    } else {
      load_own(block, to, shared.mended(), note.item);
      barrier_wait(shared.mended(), mended_parity);
      mended_parity ^= 1;
      clear_rows(to, rows, kBlock);
      if ((threadIdx.x & 31) == 0) barrier_arrive(full);
    }
    blocks.advance();
  }

  // Notes the next item, or that there is none, and copies its queries.
  __device__ __forceinline__ void take(bool first) {
    const u32 full = shared.queries_full(taken.index());
    barrier_wait(shared.queries_empty(taken.index()), taken.parity() ^ 1);
    if ((threadIdx.x & 31) == 0) {
      const Params& p = params.call;
      Note<Spec>& note = shared.note(taken.index());
      Queue<Spec>& queue = shared.queue();
      if (!first) queue.advance(ticket);
      if (queue.take(note.item, p)) {
        const Item& item = note.item;
        const Ring<Spec> ring(p, item.request, item.bucket, item.kv_head);
        note.ring_k = ring.k;
        note.ring_v = ring.v;
        note.kv_span = ring.kv_span;
        note.walk = Walk<Spec>(item);
        barrier_arrive_expect(full, S::kGroups * S::kQueryBytes);
        for (int group = 0; group < S::kGroups; ++group) {
          tensor_load(shared.queries(taken.index(), group), &params.q, full, 0,
                      static_cast<int>(item.row) + group * kRowsOfGroup, 0, item.head, kEvictFirst);
        }
        if (queue.counted) ticket = take_ticket(p.counters);
      } else {
        note.item.head = -1;
        barrier_arrive(full);
      }
    }
    __syncwarp();
  }

  __device__ __forceinline__ void run() {
    if (!kOfValues && (threadIdx.x & 31) == 0) shared.queue() = Queue<Spec>(params.call);
#pragma unroll 1
    for (bool first = true;; first = false) {
      if (!kOfValues) {
        take(first);
      } else {
        barrier_wait(shared.queries_full(taken.index()), taken.parity());
      }
      const Note<Spec>& note = shared.note(taken.index());
      if (note.item.head < 0) break;
      const int count = note.walk.count;
#pragma unroll 1
      for (int n = 0; n < count; ++n) load(note.walk[n], note);
      if (kOfValues) {
        __syncwarp();
        if ((threadIdx.x & 31) == 0) barrier_arrive(shared.queries_empty(taken.index()));
      }
      taken.advance();
    }
  }
};

}  // namespace sm90
}  // namespace moac
