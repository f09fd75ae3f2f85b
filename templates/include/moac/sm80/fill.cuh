// The append of a chunk to the rings: a launch of its own, after every reader of the old keys is done.
//
// Written are the chunk's sink tokens and the last min(chunk, window) of the others: one writer per slot.
#pragma once

#include <moac/tile.cuh>
#include <moac/window.cuh>

namespace moac {
namespace sm80 {

// Grid: (ceil(longest chunk / kTileM), KV heads, requests).
template <class Spec>
__device__ __forceinline__ void fill(const Params& p) {
  using T = Tile<Spec::kHeadDim>;
  const int request = blockIdx.z, kv_head = blockIdx.y;
  const int offset = blockIdx.x * Spec::kTileM;
  const int chunk = p.chunk[request];
  if (offset >= chunk) return;

  const Ring<Spec> ring(p, request, p.buckets[request], kv_head);
  const int cached = p.cached[request];
  const int kept = cached + chunk - (ring.kv_span - Spec::kSink);  // the oldest position that stays, or before
  const unsigned char* k =
      static_cast<const unsigned char*>(p.k) + (p.starts[request] * p.k_token + kv_head * p.k_head) * 2;
  const unsigned char* v =
      static_cast<const unsigned char*>(p.v) + (p.starts[request] * p.v_token + kv_head * p.v_head) * 2;
  const int rows = min(Spec::kTileM, chunk - offset);
  for (int i = threadIdx.x; i < rows * T::kChunks; i += blockDim.x) {
    const i64 token = offset + i / T::kChunks;
    const int position = cached + static_cast<int>(token), byte = i % T::kChunks * 16;
    if (position >= Spec::kSink && position < kept) continue;
    const i64 to = static_cast<i64>(Window<Spec>::slot(position, ring.kv_span)) * T::kRowBytes + byte;
    *reinterpret_cast<Vec16*>(ring.k + to) = *reinterpret_cast<const Vec16*>(k + token * p.k_token * 2 + byte);
    *reinterpret_cast<Vec16*>(ring.v + to) = *reinterpret_cast<const Vec16*>(v + token * p.v_token * 2 + byte);
  }
}

}  // namespace sm80
}  // namespace moac
