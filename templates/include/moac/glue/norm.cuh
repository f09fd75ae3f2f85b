// The RMS norm of rows: a CTA for each row holds it in registers, so that it is read once.
#pragma once

#include <moac/glue/common.cuh>

namespace moac {
namespace glue {

template <class Spec>
__device__ __forceinline__ void norm(const NormParams& p) {
  using Element = typename Spec::Element;
  constexpr int kVectors = Spec::kHidden / 8;
  constexpr int kOfThread = (kVectors + Spec::kThreads - 1) / Spec::kThreads;
  __shared__ float sums[32];
  const i64 row = blockIdx.x;
  const auto index = [](int i) { return static_cast<int>(threadIdx.x) + i * Spec::kThreads; };

  let_next_begin();
  Vec16 weight[kOfThread], x[kOfThread];
#pragma unroll
  for (int i = 0; i < kOfThread; ++i) weight[i] = index(i) < kVectors ? load(p.weight, index(i)) : Vec16{};
  const i64 from = p.samples == nullptr ? row : min(p.samples[row].row, p.of_rows - 1);
  wait_for_inputs();

  float sum = 0.f;
#pragma unroll
  for (int i = 0; i < kOfThread; ++i) x[i] = index(i) < kVectors ? load(p.x, from * kVectors + index(i)) : Vec16{};
#pragma unroll
  for (int i = 0; i < kOfThread; ++i) {
    const Eight of = Eight::of<Element>(x[i]);
#pragma unroll
    for (int j = 0; j < 8; ++j) sum = fmaf(of.value[j], of.value[j], sum);
  }
  sum = join_cta<Spec::kThreads>(sum, sums, 0.f, [](float a, float b) { return a + b; });
  const float scale = 1.f / sqrtf(sum * (1.f / Spec::kHidden) + Spec::kEpsilon);
#pragma unroll
  for (int i = 0; i < kOfThread; ++i) {
    if (index(i) >= kVectors) break;
    Eight of = Eight::of<Element>(x[i]);
    const Eight by = Eight::of<Element>(weight[i]);
#pragma unroll
    for (int j = 0; j < 8; ++j) of.value[j] = of.value[j] * scale * by.value[j];
    store(p.y, row * kVectors + index(i), of.rounded<Element>());
  }
}

}  // namespace glue
}  // namespace moac
