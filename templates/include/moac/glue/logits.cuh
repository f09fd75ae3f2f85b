// A sample's row of logits as threads read it: four tokens at a time, with the repetition penalty; and the distances
// behind the likeliest token by which tokens are cut and weighed.
#pragma once

#include <moac/glue/common.cuh>
#include <moac/tile.cuh>

namespace moac {
namespace glue {

constexpr float kLog2E = 1.44269504088896341f;

// Orders floats as unsigned numbers.
__device__ __forceinline__ u32 ordered(float x) {
  const u32 bits = __float_as_uint(x);
  return bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
}

__device__ __forceinline__ float from_ordered(u32 bits) {
  return __uint_as_float(bits ^ (bits >> 31 ? 0x80000000u : 0xffffffffu));
}

// A likelier token's key is larger; of equally likely ones, the first's.
__device__ __forceinline__ u64 key(float x, u32 token) {
  return static_cast<u64>(ordered(x)) << 32 | ~token;
}

__device__ __forceinline__ u32 token_of(u64 key) {
  return ~static_cast<u32>(key);
}

template <class Spec>
struct Logits {
  const float* row;
  const u32* seen;  // null where nothing is penalised
  float penalty, discount;  // of negative logits, and 1 / penalty of positive ones

  __device__ __forceinline__ Logits(const SampleParams& p, const Sample& s, i64 index) {
    constexpr int kWords = (Spec::kVocab + 31) / 32;
    row = p.logits + index * Spec::kVocab;
    seen = p.seen == nullptr || s.penalty == 1.f ? nullptr : p.seen + static_cast<i64>(s.lane) * kWords;
    penalty = s.penalty;
    discount = 1.f / penalty;
  }

  // The logits of tokens `first`..+3, a multiple of four, as they are; minus infinity behind the last.
  __device__ __forceinline__ void four(float (&x)[4], int first) const {
    if constexpr (Spec::kVocab % 4 == 0) {
      float4 v = {neg_inf(), neg_inf(), neg_inf(), neg_inf()};
      if (first < Spec::kVocab) v = *reinterpret_cast<const float4*>(row + first);
      x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) x[i] = first + i < Spec::kVocab ? row[first + i] : neg_inf();
    }
  }

  // Penalises the logits of tokens that were in the lane before; a NaN becomes minus infinity.
  __device__ __forceinline__ void penalise(float (&x)[4], int first) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) x[i] = fmaxf(x[i], neg_inf());
    if (seen == nullptr || first >= Spec::kVocab) return;
    const u32 bits = seen[first / 32] >> (first % 32);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (bits >> i & 1) x[i] *= x[i] > 0.f ? discount : penalty;
    }
  }
};

// The distances of tokens behind the likeliest one, in steps of 2^-16 of a natural unit after the temperature, and their
// weights. A step is computed without a conversion, which is slow; a token 22 units behind weighs nothing.
struct Scale {
  static constexpr int kBits = 21;
  static constexpr u32 kFar = 22 << 16;

  float best;      // the likeliest logit
  float per_step;  // 65536 / temperature

  __device__ __forceinline__ float distance(float x) const { return fminf((best - x) * per_step, kFar + 1.f); }

  // The logit from which on tokens have at most so many steps, and some more have.
  __device__ __forceinline__ float least(u32 steps) const { return best - (steps + 2.f) / per_step; }

  // The nearest whole number: adding 2^23 leaves it in the fraction.
  static __device__ __forceinline__ u32 steps(float distance) {
    return __float_as_uint(distance + 8388608.f) & 0x7fffffu;
  }

  // The probability relative to the likeliest token's, in units of 2^-31: whole numbers, so that sums do not depend on
  // their order.
  static __device__ __forceinline__ u32 weight(float distance) {
    return __float2uint_rn(exp2_fast(fmaf(distance, -kLog2E / 65536.f, 31.f)));
  }
};

}  // namespace glue
}  // namespace moac
