// A warp's attention over 16 slots at a time, with the slots as the M side of the products and the query heads as N.
//
// scores^T [16 slots x 8n heads] = K Q^T, output^T [head_dim x 8n heads] += V^T weights^T: heads pad to 8, not to 16,
// and each warp keeps its own softmax, so that no warp waits for another. A lane holds, of the scores, slots lane / 4
// and + 8 of heads 8n + 2 (lane % 4) and + 1; of the output, elements 16m + lane / 4 and + 8 of the same heads.
#pragma once

#include <moac/element.cuh>
#include <moac/sm90/stage.cuh>
#include <moac/softmax.cuh>

namespace moac {
namespace sm90 {

constexpr int kWarpSlots = 16;

// An 8x8 matrix of 16-bit elements in the registers of a warp, transposed.
__device__ __forceinline__ u32 transpose(u32 matrix) {
  u32 transposed;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(transposed) : "r"(matrix));
  return transposed;
}

// The largest and the sum of a value over the eight lanes that share a head.
__device__ __forceinline__ float head_max(float x) {
#pragma unroll
  for (int lane = 4; lane < 32; lane *= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, lane));
  return x;
}

__device__ __forceinline__ float head_sum(float x) {
#pragma unroll
  for (int lane = 4; lane < 32; lane *= 2) x += __shfl_xor_sync(0xffffffffu, x, lane);
  return x;
}

template <class Spec>
struct NarrowRows {
  using Element = typename Spec::Element;
  using T = RingTile<Spec::kHeadDim>;
  static constexpr int kGroup = Spec::kHeads / Spec::kKvHeads;
  static constexpr int kBlocks = (kGroup + 7) / 8;  // of 8 heads
  static constexpr int kSteps = Spec::kHeadDim / 16;

  u32 queries[kSteps][kBlocks][2];
  float out[kSteps][kBlocks][4];
  float peak[kBlocks][2], sum[kBlocks][2];  // raw scores; the lane's own share of the sum
  int window[kBlocks][2];
  int smallest_window, new_slot, written, span_window;

  // The head of column `parity` of the lane's two in a block of 8.
  static __device__ __forceinline__ int head(int block, int parity) {
    return block * 8 + 2 * (threadIdx.x & 3) + parity;
  }

  // Reads the queries and the windows from the stage that holds the segment's first tile.
  __device__ __forceinline__ void begin(const Segment<kGroup>& s, u32 from) {
    const int lane = threadIdx.x & 31;
#pragma unroll
    for (int n = 0; n < kBlocks; ++n) {
      // Columns past the group repeat its last head; their results are never used.
      const u32 row = from + min(8 * n + (lane & 7), kGroup - 1) * Stages<Spec>::kQueryPitch + (lane >> 3) * 16;
#pragma unroll
      for (int k = 0; k < kSteps; k += 2) {
        u32 b[4];
        load_matrix(b, row + k * 32);
        queries[k][n][0] = b[0];
        queries[k][n][1] = b[1];
        queries[k + 1][n][0] = b[2];
        queries[k + 1][n][1] = b[3];
      }
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        peak[n][j] = neg_inf();
        sum[n][j] = 0.f;
        window[n][j] = s.window[min(head(n, j), kGroup - 1)];
      }
#pragma unroll
      for (int m = 0; m < kSteps; ++m) {
#pragma unroll
        for (int j = 0; j < 4; ++j) out[m][n][j] = 0.f;
      }
    }
    smallest_window = s.smallest_window;
    new_slot = s.new_slot;
    written = s.written;
    span_window = s.kv_span - Spec::kSink;
  }

  // Attends to the 16 slots from `first`, in rows `row`.. of the tile at `keys` with its values at `values`.
  __device__ __forceinline__ void attend(u32 keys, u32 values, int row, int first) {
    float s[kBlocks][4];
    scores(s, T::lane_rows(keys, row));
    mask(s, first);
    u32 weights[kBlocks][2];
#pragma unroll
    for (int n = 0; n < kBlocks; ++n) weigh(s[n], n, weights[n]);
    const u32 from = T::lane_transposed(values, row);
#pragma unroll
    for (int m = 0; m < kSteps; ++m) {
      u32 a[4];
      load_matrix_transposed(a, T::step(from, m));
#pragma unroll
      for (int n = 0; n < kBlocks; ++n) {
        // Of the four matrices read, the second is slots + 0, elements + 8, as the second of the operand has to be.
        Element::mma(out[m][n], a, weights[n][0], weights[n][1]);
      }
    }
  }

 private:
  // Two chains of products, so that one need not wait for the other.
  __device__ __forceinline__ void scores(float (&s)[kBlocks][4], u32 from) const {
    float odd[kBlocks][4];
#pragma unroll
    for (int n = 0; n < kBlocks; ++n) {
#pragma unroll
      for (int j = 0; j < 4; ++j) s[n][j] = odd[n][j] = 0.f;
    }
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      u32 a[4];
      load_matrix(a, T::step(from, k));
#pragma unroll
      for (int n = 0; n < kBlocks; ++n) Element::mma(k & 1 ? odd[n] : s[n], a, queries[k][n][0], queries[k][n][1]);
    }
#pragma unroll
    for (int n = 0; n < kBlocks; ++n) {
#pragma unroll
      for (int j = 0; j < 4; ++j) s[n][j] += odd[n][j];
    }
  }

  // Tokens since the one in `slot` was written; 0 is the new one.
  __device__ __forceinline__ int age(int slot) const {
    const int behind = new_slot - slot;
    return behind >= 0 ? behind : behind + span_window;
  }

  // Hides slots from `first` that hold no token yet or one that has left a head's window.
  __device__ __forceinline__ void mask(float (&s)[kBlocks][4], int first) const {
    const int last = first + kWarpSlots - 1;
    // The oldest token of these slots lies right behind the new one, or else in the first of them.
    const bool wraps = first <= new_slot && new_slot < last;
    const int oldest = wraps ? span_window - 1 : age(first);
    if (last < written && (first < Spec::kSink || oldest < smallest_window)) return;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int slot = first + half * 8 + ((threadIdx.x & 31) >> 2);
      const int its_age = slot < Spec::kSink ? 0 : age(slot);
#pragma unroll
      for (int n = 0; n < kBlocks; ++n) {
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          if (slot >= written || its_age >= window[n][j]) s[n][2 * half + j] = neg_inf();
        }
      }
    }
  }

  // The online softmax of a block of heads: takes the scores, gives the weights as an operand, scales the output.
  __device__ __forceinline__ void weigh(float (&s)[4], int n, u32 (&weights)[2]) {
    float factor[2];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const float next = head_max(fmaxf(peak[n][j], fmaxf(s[j], s[2 + j])));
      // While a head has seen no key its peak is -inf, and -inf - -inf is NaN: subtract 0 instead.
      const float offset = next == neg_inf() ? 0.f : next * Spec::kScaleLog2;
      factor[j] = exp2_fast(fmaf(peak[n][j], Spec::kScaleLog2, -offset));
      peak[n][j] = next;
      s[j] = exp2_fast(fmaf(s[j], Spec::kScaleLog2, -offset));
      s[2 + j] = exp2_fast(fmaf(s[2 + j], Spec::kScaleLog2, -offset));
      sum[n][j] = sum[n][j] * factor[j] + (s[j] + s[2 + j]);
    }
    weights[0] = transpose(Element::pack(s[0], s[1]));
    weights[1] = transpose(Element::pack(s[2], s[3]));
#pragma unroll
    for (int m = 0; m < kSteps; ++m) {
#pragma unroll
      for (int j = 0; j < 4; ++j) out[m][n][j] *= factor[j & 1];
    }
  }
};

}  // namespace sm90
}  // namespace moac
