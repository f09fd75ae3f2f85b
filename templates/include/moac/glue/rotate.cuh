// The new rows of q, k and v, made ready for attention in place: bias, the norm of each head of q and k, RoPE of q and k.
//
// A thread has a vector of the first half of a head and the same vector of the second half, which are eight pairs. Pair i
// turns by position * turns(i), in whole turns: each turns(i) is the sum of two floats, and whole turns are dropped before
// anything is rounded, so that position 2^20 is as accurate as position 1.
#pragma once

#include <moac/glue/common.cuh>

namespace moac {
namespace glue {

// The sine and cosine of `position` times `high + low` turns.
__device__ __forceinline__ float2 turn(float position, float high, float low) {
  const float whole = rintf(position * high);
  const float part = fmaf(position, low, fmaf(position, high, -whole));
  float2 angle;
  sincospif(2.f * part, &angle.x, &angle.y);
  return angle;
}

template <class Spec>
__device__ __forceinline__ void rotate(const RotateParams& p) {
  using Element = typename Spec::Element;
  constexpr int kLanes = Spec::kHeadDim / 16;  // threads of a head
  constexpr int kTurned = Spec::kHeads + Spec::kKvHeads, kAll = kTurned + Spec::kKvHeads;
  constexpr int kUsed = Spec::kBias ? kAll : kTurned;  // v has nothing but a bias
  const int lane = threadIdx.x % kLanes;
  const int head = blockIdx.y * (Spec::kThreads / kLanes) + threadIdx.x / kLanes;
  const bool valid = head < kUsed, turned = head < kTurned;
  const int first = head * 2 * kLanes + lane;  // the thread's first vector in a row
  const i64 row = blockIdx.x;

  let_next_begin();
  const float position = static_cast<float>(p.table[row].position);
  float2 angle[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    angle[i] = turn(position, Spec::kTurnsHigh[lane * 8 + i], Spec::kTurnsLow[lane * 8 + i]);
  }
  wait_for_inputs();

  const i64 at = row * kAll * 2 * kLanes + first;
  // Threads without a head stay for the sums of their warp.
  Eight a = Eight::of<Element>(valid ? load(p.qkv, at) : Vec16{});
  Eight b = Eight::of<Element>(valid ? load(p.qkv, at + kLanes) : Vec16{});
  if constexpr (Spec::kBias) {
    const Eight bias_a = Eight::of<Element>(valid ? load(p.bias, first) : Vec16{});
    const Eight bias_b = Eight::of<Element>(valid ? load(p.bias, first + kLanes) : Vec16{});
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      a.value[i] += bias_a.value[i];
      b.value[i] += bias_b.value[i];
    }
  }
  if constexpr (Spec::kNorm) {
    float sum = 0.f;
#pragma unroll
    for (int i = 0; i < 8; ++i) sum = fmaf(a.value[i], a.value[i], fmaf(b.value[i], b.value[i], sum));
#pragma unroll
    for (int step = 1; step < kLanes; step *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    const float scale = 1.f / sqrtf(sum * (1.f / Spec::kHeadDim) + Spec::kEpsilon);
    const void* weight = head < Spec::kHeads ? p.q_norm : p.k_norm;
    const Eight by_a = Eight::of<Element>(load(weight, lane));
    const Eight by_b = Eight::of<Element>(load(weight, lane + kLanes));
    if (turned) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        a.value[i] *= scale * by_a.value[i];
        b.value[i] *= scale * by_b.value[i];
      }
    }
  }
  if (turned) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float x = a.value[i], y = b.value[i];
      a.value[i] = fmaf(x, angle[i].y, -y * angle[i].x);
      b.value[i] = fmaf(y, angle[i].y, x * angle[i].x);
    }
  }
  if (!valid) return;
  store(p.qkv, at, a.rounded<Element>());
  store(p.qkv, at + kLanes, b.rounded<Element>());
}

}  // namespace glue
}  // namespace moac
