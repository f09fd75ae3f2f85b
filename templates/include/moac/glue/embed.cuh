// Tokens to activations: a CTA for each row copies the token's row of the embedding, and notes the token in the lane.
#pragma once

#include <moac/glue/common.cuh>

namespace moac {
namespace glue {

template <class Spec>
__device__ __forceinline__ void embed(const EmbedParams& p) {
  constexpr int kVectors = Spec::kHidden / 8, kWords = (Spec::kVocab + 31) / 32;
  const i64 row = blockIdx.x;
  const Row r = p.table[row];
  let_next_begin();
  wait_for_inputs();
  const bool idle = r.lane == kIdle, has_lane = r.lane < p.lanes;
  u32 token = r.token;
  if (token == kNewest) token = has_lane ? p.newest[r.lane] : 0;
  token = min(token, static_cast<u32>(Spec::kVocab - 1));
  for (int i = threadIdx.x; i < kVectors; i += Spec::kThreads) {
    store(p.x, row * kVectors + i, idle ? Vec16{} : load(p.embedding, static_cast<i64>(token) * kVectors + i));
  }
  if (threadIdx.x == 0 && has_lane && p.seen != nullptr) {
    atomicOr(p.seen + static_cast<i64>(r.lane) * kWords + token / 32, 1u << (token % 32));
  }
}

}  // namespace glue
}  // namespace moac
