// The online softmax of the rows a lane holds two of, in float32 and in base 2.
//
// `peak` is the largest raw score so far, `sum` this lane's share of the sum of 2^((score - peak) * scale). A row
// that has seen no key has peak -inf and sum 0.
#pragma once

#include <moac/tile.cuh>

namespace moac {

constexpr float kLn2 = 0.693147180559945309f;

struct SoftmaxRow {
  float peak = neg_inf();
  float sum = 0.f;

  // Takes the scores of one half of `s`, leaves the weights there; returns the factor for what was accumulated.
  template <int kColumns>
  __device__ __forceinline__ float update(Accumulator<kColumns>& s, int half, float scale_log2) {
    float next = peak;
#pragma unroll
    for (int i = 0; i < Accumulator<kColumns>::kBlocks; ++i) {
      next = fmaxf(next, fmaxf(s.value[i][2 * half], s.value[i][2 * half + 1]));
    }
    next = quad_max(next);
    // While a row has seen no key its peak is -inf, and -inf - -inf is NaN: subtract 0 instead.
    const float offset = next == neg_inf() ? 0.f : next * scale_log2;
    const float factor = exp2_fast(peak * scale_log2 - offset);
    peak = next;
    sum *= factor;
#pragma unroll
    for (int i = 0; i < Accumulator<kColumns>::kBlocks; ++i) {
#pragma unroll
      for (int j = 2 * half; j < 2 * half + 2; ++j) {
        s.value[i][j] = exp2_fast(fmaf(s.value[i][j], scale_log2, -offset));
        sum += s.value[i][j];
      }
    }
    return factor;
  }
};

// The natural log-sum-exp of a row.
__device__ __forceinline__ float log_sum_exp(float peak, float sum, float scale_log2) {
  return (peak * scale_log2 + log2_fast(sum)) * kLn2;
}

}  // namespace moac
