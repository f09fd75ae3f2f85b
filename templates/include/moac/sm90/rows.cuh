// The 64 query rows of a multiplying warpgroup: products, mask, softmax, and the store of the result.
#pragma once

#include <moac/sm90/shared.cuh>
#include <moac/softmax.cuh>

namespace moac {
namespace sm90 {

template <class Spec>
struct Rows {
  using Element = typename Spec::Element;
  using Product = Wgmma<Element>;
  using S = Shared<Spec>;
  using T = Tile<Spec::kHeadDim>;
  static constexpr int kDim = Spec::kHeadDim;

  template <int kKeys>
  using Weights = u32[kKeys / 16][4];  // A operands of P V

  Accumulator<kDim> out;
  SoftmaxRow softmax[2];

  __device__ __forceinline__ void clear() {
    out.clear();
    softmax[0] = softmax[1] = SoftmaxRow{};
  }

  // Starts Q K of a block, or of the half of it that begins at `keys`.
  template <int kKeys>
  static __device__ __forceinline__ void start_scores(Accumulator<kKeys>& s, u32 queries, u32 keys) {
    const u32 a = row_operand(queries), b = row_operand(keys);
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      const int column = k % 4 * 32;
      Product::scores(s, a + (k / 4 * (kRowsOfGroup * kPanel) + column) / 16,
                      b + (k / 4 * S::kBlockPanelBytes + column) / 16, k != 0);
    }
  }

  // Starts P V of a block, or of the half of it that begins at `values`.
  template <int kKeys>
  __device__ __forceinline__ void start_values(const Weights<kKeys>& weights, u32 values) {
    const u32 b = column_operand<S::kBlockPanelBytes>(values);
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k) Product::values(out, weights[k], b + k * kPanel);
  }

  // A bit for each of a lane's 16 keys of a half, which lie 8n + j behind its first: set for those up to `last`.
  static __device__ __forceinline__ u32 keys_up_to(int last) {
    const int count = last < 0 ? 0 : min(2 * (last >> 3) + min(last & 7, 1) + 1, 16);
    return (1u << count) - 1;
  }

  // Hides what the warpgroup's queries `first`.. do not see of a half, which begins at `begin`: the columns of the
  // scores from `kColumn` on.
  template <int kColumn, int kKeys>
  static __device__ __forceinline__ void mask(Accumulator<kKeys>& s, Sight sight, int first, int begin, int end,
                                              int window) {
    if (sight == Sight::kAll) return;
    const int key = begin + 2 * (threadIdx.x & 3);
    const int row = first + (threadIdx.x >> 2 & 7) + (threadIdx.x >> 5 & 3) * 16;
    const u32 sink = keys_up_to(Spec::kSink - 1 - key);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int query = row + 8 * i;
      const u32 seen = keys_up_to(min(query, end - 1) - key) & (~keys_up_to(query - window - key) | sink);
#pragma unroll
      for (int n = 0; n < kTile / 8; ++n) {
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          if ((seen >> (2 * n + j) & 1) == 0) s.value[kColumn / 8 + n][2 * i + j] = neg_inf();
        }
      }
    }
  }

  // The largest scores so far of the lane's two rows.
  template <int kKeys>
  __device__ __forceinline__ void find_peaks(float (&peak)[2], const Accumulator<kKeys>& s) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float a = softmax[half].peak, b = s.value[0][2 * half + 1];
#pragma unroll
      for (int i = 0; i < kKeys / 8; ++i) {
        a = fmaxf(a, s.value[i][2 * half]);
        b = fmaxf(b, s.value[i][2 * half + 1]);
      }
      peak[half] = quad_max(fmaxf(a, b));
    }
  }

  // Turns scores into weights, in place; the factors are for what was accumulated.
  template <int kKeys>
  __device__ __forceinline__ void weigh(Accumulator<kKeys>& s, float (&factor)[2], const float (&peak)[2]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      SoftmaxRow& row = softmax[half];
      // While a row has seen no key its peak is -inf, and -inf - -inf is NaN: subtract 0 instead.
      const float offset = peak[half] == neg_inf() ? 0.f : peak[half] * Spec::kScaleLog2;
      factor[half] = exp2_fast(row.peak * Spec::kScaleLog2 - offset);
      row.peak = peak[half];
      float sum[2] = {row.sum * factor[half], 0.f};  // two chains: an addition waits for the one before it
#pragma unroll
      for (int i = 0; i < kKeys / 8; ++i) {
        float* pair = &s.value[i][2 * half];
        pair[0] = exp2_fast(fmaf(pair[0], Spec::kScaleLog2, -offset));
        pair[1] = exp2_fast(fmaf(pair[1], Spec::kScaleLog2, -offset));
        sum[i & 1] += pair[0] + pair[1];
      }
      row.sum = sum[0] + sum[1];
    }
  }

  template <int kKeys>
  static __device__ __forceinline__ void pack(Weights<kKeys>& weights, const Accumulator<kKeys>& s) {
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float* pair = &s.value[2 * k + (j >> 1)][2 * (j & 1)];
        weights[k][j] = Element::pack(pair[0], pair[1]);
      }
    }
  }

  __device__ __forceinline__ void scale(const float (&factor)[2]) {
    out.scale(0, factor[0]);
    out.scale(1, factor[1]);
  }

  // Writes the warpgroup's first `count` rows; each warp its own, through its part of `stage`.
  __device__ __forceinline__ void store(u32 stage, unsigned char* rows, i64 pitch, float* lse, i64 lse_pitch,
                                        int count) {
    const int lane = threadIdx.x & 31, warp_row = (threadIdx.x >> 5 & 3) * 16;
    stage += warp_row * T::kRowBytes;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = half * 8 + (lane >> 2);
      const float sum = quad_sum(softmax[half].sum);
      if (lse != nullptr && (lane & 3) == 0 && warp_row + row < count) {
        lse[(warp_row + row) * lse_pitch] = log_sum_exp(softmax[half].peak, sum, Spec::kScaleLog2);
      }
      const float inverse = reciprocal_fast(sum);
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n) {
        const float* pair = &out.value[n][2 * half];
        store_shared(T::at(stage, row, n) + (lane & 3) * 4, Element::pack(pair[0] * inverse, pair[1] * inverse));
      }
    }
    __syncwarp();
    constexpr int kRowsPerStep = 32 / T::kChunks;
    const int first = lane / T::kChunks, chunk = lane % T::kChunks;
    rows += (warp_row + first) * pitch + chunk * 16;
#pragma unroll
    for (int step = 0; step < 16 / kRowsPerStep; ++step) {
      const int row = step * kRowsPerStep + first;
      store_global(rows, load_shared(T::at(stage, row, chunk)), warp_row + row < count);
      rows += kRowsPerStep * pitch;
    }
  }
};

}  // namespace sm90
}  // namespace moac
