// Parts that the engine's kernels share: rows in vectors of eight elements, sums over a CTA, and the order of launches.
#pragma once

#include <moac/element.cuh>
#include <moac/glue/params.cuh>
#include <moac/ptx/hopper.cuh>

namespace moac {
namespace glue {

constexpr bool kOverlaps = __CUDA_ARCH__ >= 900;

// Dependent launch, where the architecture has it and the host asks for it: the kernel behind may begin from here on.
__device__ __forceinline__ void let_next_begin() {
  if constexpr (kOverlaps) let_next_kernel_start();
}

// After the wait, all that the kernels before this one wrote is visible, and they read nothing more. Only the step's
// tables and the weights may be read before it. Every thread waits, so a kernel that waits for this one waits for them too.
__device__ __forceinline__ void wait_for_inputs() {
  if constexpr (kOverlaps) moac::wait_for_inputs();
}

// Eight elements of a row, in float32.
struct Eight {
  float value[8];

  template <class Element>
  static __device__ __forceinline__ Eight of(const Vec16& vector) {
    Eight eight;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 pair = Element::unpack(vector.word[i]);
      eight.value[2 * i] = pair.x;
      eight.value[2 * i + 1] = pair.y;
    }
    return eight;
  }

  template <class Element>
  __device__ __forceinline__ Vec16 rounded() const {
    Vec16 vector;
#pragma unroll
    for (int i = 0; i < 4; ++i) vector.word[i] = Element::pack(value[2 * i], value[2 * i + 1]);
    return vector;
  }
};

// Vector `index` behind `base`.
__device__ __forceinline__ Vec16 load(const void* base, i64 index) {
  return static_cast<const Vec16*>(base)[index];
}

__device__ __forceinline__ void store(void* base, i64 index, const Vec16& vector) {
  static_cast<Vec16*>(base)[index] = vector;
}

// The value of all of a CTA's threads joined by `join`, in all of them and always in the same order. `shared` has a place
// for each of 32 warps; every thread calls.
template <int kThreads, class T, class Join>
__device__ __forceinline__ T join_cta(T value, T (&shared)[32], T neutral, Join join) {
  constexpr int kWarps = kThreads / 32;
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value = join(value, __shfl_xor_sync(0xffffffffu, value, step));
  if constexpr (kWarps > 1) {
    const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    __syncthreads();  // all threads have read the last call's values
    if (lane == 0) shared[warp] = value;
    __syncthreads();
    value = lane < kWarps ? shared[lane] : neutral;
#pragma unroll
    for (int step = 16; step > 0; step /= 2) value = join(value, __shfl_xor_sync(0xffffffffu, value, step));
  }
  return value;
}

}  // namespace glue
}  // namespace moac
