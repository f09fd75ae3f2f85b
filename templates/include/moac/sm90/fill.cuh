// The append of a chunk to swizzled rings: a launch of its own, after every reader of the old keys is done.
//
// Written are the chunk's sink tokens and the last min(chunk, window) of the others: one writer per slot.
#pragma once

#include <moac/tile.cuh>
#include <moac/window.cuh>

namespace moac {
namespace sm90 {

// Where a 16-byte chunk of a slot lies in its ring: tiles of 64 slots, each as panels of 64 rows of 128 bytes.
template <int kHeadDim>
__device__ __forceinline__ i64 swizzled(int slot, int chunk) {
  constexpr int kTileBytes = kTile * kHeadDim * 2;
  return static_cast<i64>(slot / kTile) * kTileBytes + chunk / 8 * (kTile * 128) + slot % kTile * 128 +
         ((chunk % 8 ^ slot % 8) << 4);
}

// Grid: (ceil(longest chunk / kTileM), KV heads, requests). All loads of a thread are under way before its first store.
template <class Spec>
__device__ __forceinline__ void fill(const Params& p) {
  using T = Tile<Spec::kHeadDim>;
  constexpr int kRowsPerStep = Spec::kWarps * 32 / T::kChunks;
  constexpr int kSteps = (Spec::kTileM + kRowsPerStep - 1) / kRowsPerStep;
  const int request = blockIdx.z, kv_head = blockIdx.y;
  const int offset = blockIdx.x * Spec::kTileM;
  const int chunk = p.chunk[request];
  if (offset >= chunk) return;

  const Ring<Spec> ring(p, request, p.buckets[request], kv_head);
  const int cached = p.cached[request];
  const int kept = cached + chunk - (ring.kv_span - Spec::kSink);  // the oldest position that stays, or before
  const int end = min(offset + Spec::kTileM, chunk);
  if (cached + offset >= Spec::kSink && cached + end <= kept) return;

  const int part = threadIdx.x % T::kChunks, first = offset + threadIdx.x / T::kChunks;
  const i64 start = p.starts[request] + first;
  const unsigned char* k = static_cast<const unsigned char*>(p.k) + (start * p.k_token + kv_head * p.k_head) * 2;
  const unsigned char* v = static_cast<const unsigned char*>(p.v) + (start * p.v_token + kv_head * p.v_head) * 2;
  k += part * 16;
  v += part * 16;
  Vec16 keys[kSteps], values[kSteps];
  const auto stays = [&](int step) {
    const int row = step * kRowsPerStep, position = cached + first + row;
    return first + row < end && (position < Spec::kSink || position >= kept);
  };
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    if (stays(step)) {
      keys[step] = *reinterpret_cast<const Vec16*>(k + step * kRowsPerStep * p.k_token * 2);
      values[step] = *reinterpret_cast<const Vec16*>(v + step * kRowsPerStep * p.v_token * 2);
    }
  }
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    if (stays(step)) {
      const int slot = Window<Spec>::slot(cached + first + step * kRowsPerStep, ring.kv_span);
      const i64 to = swizzled<Spec::kHeadDim>(slot, part);
      *reinterpret_cast<Vec16*>(ring.k + to) = keys[step];
      *reinterpret_cast<Vec16*>(ring.v + to) = values[step];
    }
  }
}

}  // namespace sm90
}  // namespace moac
