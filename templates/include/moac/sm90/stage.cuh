// The shared memory of a decode CTA: what two warps fill ahead of the math warps.
//
// The copier fills stages, each a tile of K and of V. The clerk fills desks, each the description of a segment and its
// query rows. Each has a `full` barrier, which counts its filler and the bytes of the copies, and an `empty` barrier,
// which counts the math warps. A description with last = 0 says that there is no more work.
#pragma once

#include <moac/sm90/ring.cuh>

namespace moac {
namespace sm90 {

// Announces `bytes` of copies that complete on the barrier, without arriving.
__device__ __forceinline__ void barrier_expect(u32 barrier, u32 bytes) {
  asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

// The warp is done with a stage or a desk, which may be copied into again. Its reads may still wait in a queue, behind
// slow loads from global memory: no arrival orders them before an asynchronous copy, only a proxy fence does.
__device__ __forceinline__ void give_back(u32 empty) {
  async_proxy_fence();
  __syncwarp();
  if ((threadIdx.x & 31) == 0) barrier_arrive(empty);
}

// A stretch of tiles of one KV head of one request, as the math warps need to know it.
template <int kGroup>
struct alignas(16) Segment {
  unsigned char* k;  // the rings
  unsigned char* v;
  i64 row;  // of q, k, v and o
  int kv_head;
  int first, last;  // tiles
  int written;      // slots that hold a token once the new one is in
  int new_slot;     // the new token's
  int kv_span;
  int counter;     // of the KV head, among `Params::counters`
  int splits;      // segments of the KV head, one a CTA
  int split;       // this one's number
  int first_part;  // the CTA of the first
  int smallest_window;
  static constexpr int kWindows = kGroup / 4 * 4 + 3;  // no bytes are left over: a vector load may take all
  int window[kWindows];  // of each query head; past the group no limit
};

// A place in a ring of `kSlots`, and the phase of its barriers.
template <int kSlots>
struct Cursor {
  int slot = 0;
  u32 phase = 0;

  __device__ __forceinline__ void next() {
    if (++slot == kSlots) {
      slot = 0;
      phase ^= 1;
    }
  }
};

template <class Spec>
struct Stages {
  using T = RingTile<Spec::kHeadDim>;
  static constexpr int kGroup = Spec::kHeads / Spec::kKvHeads;
  static constexpr int kQueryPitch = T::kRowBytes + 16;  // so that eight rows fall into distinct banks
  static constexpr int kDesks = 2;
  static constexpr int kDeskBytes = kGroup * kQueryPitch + static_cast<int>(sizeof(Segment<kGroup>));
  static constexpr int kTilesBytes = Spec::kStages * 2 * T::kBytes;
  static constexpr int kBarriers = kTilesBytes + kDesks * kDeskBytes;  // where they begin
  static constexpr int kBytes = kBarriers + (Spec::kStages + kDesks) * 16;

  unsigned char* memory;
  u32 base;  // the address of `memory`
  Cursor<Spec::kStages> tile;
  Cursor<kDesks> desk;

  __device__ __forceinline__ explicit Stages(unsigned char* memory_) : memory(memory_), base(shared_address(memory_)) {}

  __device__ __forceinline__ u32 keys() const { return base + tile.slot * 2 * T::kBytes; }
  __device__ __forceinline__ u32 values() const { return keys() + T::kBytes; }
  __device__ __forceinline__ u32 tile_full() const { return base + kBarriers + tile.slot * 16; }
  __device__ __forceinline__ u32 tile_empty() const { return tile_full() + 8; }

  __device__ __forceinline__ Segment<kGroup>& segment() const {
    return *reinterpret_cast<Segment<kGroup>*>(memory + kTilesBytes + desk.slot * kDeskBytes);
  }
  __device__ __forceinline__ u32 queries() const {
    return base + kTilesBytes + desk.slot * kDeskBytes + static_cast<u32>(sizeof(Segment<kGroup>));
  }
  __device__ __forceinline__ u32 desk_full() const { return base + kBarriers + (Spec::kStages + desk.slot) * 16; }
  __device__ __forceinline__ u32 desk_empty() const { return desk_full() + 8; }

  // One thread does, before a barrier of the CTA.
  __device__ __forceinline__ void init() const {
#pragma unroll
    for (int i = 0; i < Spec::kStages + kDesks; ++i) {
      barrier_init(base + kBarriers + i * 16, 1);
      barrier_init(base + kBarriers + i * 16 + 8, Spec::kWarps);
    }
    barrier_init_fence();
  }
};

}  // namespace sm90
}  // namespace moac
