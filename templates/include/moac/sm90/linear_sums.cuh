// Where the sums of a linear kernel's warps (linear.cuh) meet and become results.
#pragma once

#include <moac/sm90/linear_stage.cuh>

namespace moac {
namespace sm90 {

// A round of tiles at a time, so that each thread adds up two sums, always in the order of the warps: those of rows 2i and
// 2i + 1 of a tile, or of a gate and its up.
template <class Spec>
struct WarpSums {
  using L = LinearShape<Spec>;
  using Element = typename Spec::Element;
  static constexpr int kTileThreads = L::kColumns * 8;
  static constexpr int kRound = L::kMathThreads / kTileThreads;
  static constexpr int kPitch = (L::kRows + 4) * 4;  // of a column: a lane's stores fall into distinct banks
  static constexpr int kTileBytes = L::kColumns * kPitch;
  static constexpr int kWarpBytes = kRound * kTileBytes;
  static constexpr int kSquares = L::kWarps * kWarpBytes;  // where the sums of squares begin
  static constexpr int kBytes = kSquares + (Spec::kNorm ? L::kWarps * L::kColumns * 4 : 0);

  u32 base;
  u32 old[L::kTilesAtOnce / kRound];  // what the thread's two results are added to

  static __device__ __forceinline__ int column() { return threadIdx.x / 8 % L::kColumns; }
  static __device__ __forceinline__ int tile_of_round() { return threadIdx.x / kTileThreads; }

  // Where the thread's results of a tile lie in y, or -1 where it has none.
  static __device__ __forceinline__ i64 place(const LinearParams& p, int tile) {
    const int at = tile * L::kTileResults + (threadIdx.x & 7) * (Spec::kActivate ? 1 : 2);
    return column() < static_cast<int>(p.rows) && at < L::kResults ? static_cast<i64>(column()) * L::kResults + at : -1;
  }

  // Leaves the warp's sums of squares of the rows lane / 4 of each block for `factor`.
  __device__ __forceinline__ void put_squares(const float (&of_row)[L::kBlocks]) const {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
#pragma unroll
    for (int n = 0; n < L::kBlocks; ++n) {
      float sum = of_row[n];
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2);
      const u32 to = base + kSquares + (warp * L::kColumns + n * 8 + (lane >> 2)) * 4;
      if ((lane & 3) == 0) store_shared(to, __float_as_uint(sum));
    }
  }

  // 1 / the root of the mean square of a row of x.
  __device__ __forceinline__ float factor(int row) const {
    float sum = 0.f;
#pragma unroll
    for (int w = 0; w < L::kWarps; ++w) sum += load_shared_float(base + kSquares + (w * L::kColumns + row) * 4);
    return rsqrt_fast(sum / Spec::kIn + Spec::kEpsilon);
  }

  // Reads what the results of `count` tiles will be added to.
  __device__ __forceinline__ void fetch(const LinearParams& p, int tile, int count) {
#pragma unroll
    for (int i = 0; i < L::kTilesAtOnce; i += kRound) {
      const int t = i + tile_of_round();
      const i64 at = place(p, tile + t);
      old[i / kRound] = 0;
      if (t < count && at >= 0) old[i / kRound] = *reinterpret_cast<const u32*>(static_cast<Element*>(p.y) + at);
    }
  }

  // The round that begins with tile `i` of the `count` at hand. With `kScale` the results are those of a norm whose factor
  // is still missing.
  template <bool kScale>
  __device__ __forceinline__ void meet(const LinearParams& p, int tile, int i, int count,
                                       const float (&acc)[L::kTilesAtOnce][L::kBlocks][4]) {
    const int lane = threadIdx.x & 31;
    const u32 mine = base + (threadIdx.x >> 5) * kWarpBytes + (lane & 3) * 2 * kPitch + (lane >> 2) * 4;
#pragma unroll
    for (int t = 0; t < kRound; ++t) {
#pragma unroll
      for (int n = 0; n < L::kBlocks; ++n) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const u32 to = mine + t * kTileBytes + (n * 8 + (j & 1)) * kPitch + (j >> 1) * 32;
          store_shared(to, __float_as_uint(acc[i + t][n][j]));
        }
      }
    }
    named_barrier_sync<1, L::kMathThreads>();
    const int t = tile_of_round();
    float2 sum = {0.f, 0.f};
#pragma unroll
    for (int w = 0; w < L::kWarps; ++w) {
      const float2 part = of_warp(w, t);
      sum = {sum.x + part.x, sum.y + part.y};
    }
    if constexpr (kScale) {
      const float scale = factor(column());
      sum = {sum.x * scale, sum.y * scale};
    }
    const i64 at = place(p, tile + i + t);
    if (i + t < count && at >= 0) store(p, at, sum, old[i / kRound]);
    named_barrier_sync<1, L::kMathThreads>();
  }

 private:
  // What a warp has of the thread's two sums in tile `t` of the round.
  __device__ __forceinline__ float2 of_warp(int warp, int t) const {
    const u32 from = base + warp * kWarpBytes + t * kTileBytes + column() * kPitch;
    const int i = threadIdx.x & 7;
    if constexpr (Spec::kActivate) return {load_shared_float(from + i * 4), load_shared_float(from + i * 4 + 32)};
    return load_shared_pair(from + i * 8);
  }

  static __device__ __forceinline__ void store(const LinearParams& p, i64 at, float2 sum, u32 before) {
    if constexpr (Spec::kActivate) {
      constexpr float kLog2E = 1.4426950408889634f;
      const float h = sum.x * reciprocal_fast(1.f + exp2_fast(-sum.x * kLog2E)) * sum.y;
      static_cast<Element*>(p.y)[at].bits = static_cast<unsigned short>(Element::pack(h, 0.f));
    } else if constexpr (Spec::kFloatOut) {
      *reinterpret_cast<float2*>(static_cast<float*>(p.y) + at) = sum;
    } else {
      const float2 v = Spec::kAdd ? Element::unpack(before) : float2{0.f, 0.f};
      *reinterpret_cast<u32*>(static_cast<Element*>(p.y) + at) = Element::pack(sum.x + v.x, sum.y + v.y);
    }
  }
};

}  // namespace sm90
}  // namespace moac
