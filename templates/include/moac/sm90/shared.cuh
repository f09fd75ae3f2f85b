// The shared memory of a prefill CTA, and the barrier that guards each part.
//
// Q: the rows of two items, one part of 64 rows for each multiplying warpgroup, which puts its result there in the end.
// K and V: kStages blocks each. Of each pair of barriers `full` ends when the copies have landed, `empty` when all
// warps that use the place are done with it. The note of an item is guarded as its Q is.
#pragma once

#include <moac/sm90/walk.cuh>
#include <moac/sm90/wgmma.cuh>

namespace moac {
namespace sm90 {

constexpr int kRowsOfGroup = 64;  // query rows of a warpgroup; also the rows of a box of q
constexpr int kPanel = 128;       // bytes of a row in a panel

// The registers of a producing and of a multiplying thread.
template <class Spec>
constexpr int kProducerRegisters = Spec::kTileM == 128 ? 40 : 32;
template <class Spec>
constexpr int kMultiplierRegisters = Spec::kTileM == 128 ? 232 : 160;

// The producer's description of an item, which it also reads itself, since it has few registers.
template <class Spec>
struct alignas(16) Note {
  Item item;  // `head` is -1 when there is no other
  Walk<Spec> walk;
  const unsigned char *ring_k, *ring_v;
  int kv_span;
};

template <class Spec>
struct Shared {
  static constexpr int kGroups = Spec::kTileM / kRowsOfGroup;
  static constexpr int kPanels = Spec::kHeadDim / 64;
  static constexpr int kQueryBytes = kRowsOfGroup * kPanels * kPanel;  // of a warpgroup
  static constexpr int kBlockPanelBytes = kBlock * kPanel;
  static constexpr int kBlockBytes = kPanels * kBlockPanelBytes;
  static constexpr int kHalfPanelBytes = kBlockPanelBytes / 2;

  static constexpr int kItems = 2;  // at hand and next

  static constexpr int kQueries = 0;
  static constexpr int kKeys = kQueries + kItems * kGroups * kQueryBytes;
  static constexpr int kValues = kKeys + Spec::kStages * kBlockBytes;
  static constexpr int kNotes = kValues + Spec::kStages * kBlockBytes;
  static constexpr int kQueue = kNotes + kItems * static_cast<int>(sizeof(Note<Spec>));
  static constexpr int kBarriers = kQueue + (static_cast<int>(sizeof(Queue<Spec>)) + 7) / 8 * 8;
  static constexpr int kBytes = kBarriers + (1 + 2 * kItems + 4 * Spec::kStages) * 8;

  unsigned char* base;
  u32 address;

  __device__ __forceinline__ explicit Shared(unsigned char* shared) : base(shared), address(shared_address(shared)) {}

  __device__ __forceinline__ u32 barrier(int n) const { return address + kBarriers + 8 * n; }
  __device__ __forceinline__ u32 mended() const { return barrier(0); }  // the producer's own, for values it mends
  __device__ __forceinline__ u32 queries_full(int item) const { return barrier(1 + item); }
  __device__ __forceinline__ u32 queries_empty(int item) const { return barrier(1 + kItems + item); }
  __device__ __forceinline__ u32 keys_full(int stage) const { return barrier(1 + 2 * kItems + stage); }
  __device__ __forceinline__ u32 keys_empty(int stage) const { return keys_full(stage + Spec::kStages); }
  __device__ __forceinline__ u32 values_full(int stage) const { return keys_full(stage + 2 * Spec::kStages); }
  __device__ __forceinline__ u32 values_empty(int stage) const { return keys_full(stage + 3 * Spec::kStages); }

  __device__ __forceinline__ u32 queries(int item, int group) const {
    return address + kQueries + (item * kGroups + group) * kQueryBytes;
  }
  __device__ __forceinline__ u32 keys(int stage) const { return address + kKeys + stage * kBlockBytes; }
  __device__ __forceinline__ u32 values(int stage) const { return address + kValues + stage * kBlockBytes; }

  __device__ __forceinline__ Note<Spec>& note(int item) const {
    return *reinterpret_cast<Note<Spec>*>(base + kNotes + item * sizeof(Note<Spec>));
  }

  __device__ __forceinline__ Queue<Spec>& queue() const { return *reinterpret_cast<Queue<Spec>*>(base + kQueue); }

  __device__ __forceinline__ void init_barriers() const {
    barrier_init(mended(), 1);
    for (int item = 0; item < kItems; ++item) {
      barrier_init(queries_full(item), 1);
      barrier_init(queries_empty(item), 4 * kGroups + 1);
    }
    for (int stage = 0; stage < Spec::kStages; ++stage) {
      barrier_init(keys_full(stage), 1);
      barrier_init(keys_empty(stage), 4 * kGroups);
      barrier_init(values_full(stage), 1);
      barrier_init(values_empty(stage), 4 * kGroups);
    }
    barrier_init_fence();
  }
};

// A place in a ring of stages, and the parity of its barriers.
template <int kStages>
struct Stage {
  u32 count = 0;

  __device__ __forceinline__ int index() const { return count % kStages; }
  __device__ __forceinline__ u32 parity() const { return count / kStages & 1; }
  __device__ __forceinline__ void advance() { ++count; }
};

}  // namespace sm90
}  // namespace moac
