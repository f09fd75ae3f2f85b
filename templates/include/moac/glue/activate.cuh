// The gated activation of the MLP: silu(gate) * up, a vector for each thread.
#pragma once

#include <moac/glue/common.cuh>

namespace moac {
namespace glue {

__device__ __forceinline__ float silu(float x) {
  constexpr float kLog2E = 1.44269504088896341f;
  return x * reciprocal_fast(1.f + exp2_fast(-x * kLog2E));
}

template <class Spec>
__device__ __forceinline__ void activate(const ActivateParams& p) {
  using Element = typename Spec::Element;
  constexpr int kVectors = Spec::kIntermediate / 8;
  const i64 row = blockIdx.x;
  const int i = blockIdx.y * Spec::kThreads + threadIdx.x;
  let_next_begin();
  wait_for_inputs();
  if (i >= kVectors) return;
  Eight gate = Eight::of<Element>(load(p.gate_up, row * 2 * kVectors + i));
  const Eight up = Eight::of<Element>(load(p.gate_up, row * 2 * kVectors + kVectors + i));
#pragma unroll
  for (int j = 0; j < 8; ++j) gate.value[j] = silu(gate.value[j]) * up.value[j];
  store(p.y, row * kVectors + i, gate.rounded<Element>());
}

}  // namespace glue
}  // namespace moac
