// The linear layers of a step of at most 16 rows on Hopper: y[rows, out] = x[rows, in] W[out, in]^T, in the time of
// reading W once. The norm of x in front and the addition or the activation behind are part of the launch.
//
// The weights are the M side of the products and the rows of x the N side, so that 1 row costs what 8 do. The grid is
// one wave; each CTA has a run of tiles, 16 rows of W over the whole depth. Two warps copy: a stage holds a stretch of a
// tile's depth, row by row, as W lies in memory. The others multiply: each takes its slice of every stage, with its part
// of x in registers, and after a few tiles their sums meet. So nothing is added up across CTAs, and a row's result
// depends neither on the other rows nor on the device.
//
// The copies do not wait for the kernel in front, whose results are x alone: with dependent launch the stages are full
// when x is there.
#pragma once

#include <moac/sm90/linear_sums.cuh>

namespace moac {
namespace sm90 {

// A lane's part of x for a chunk: of each block of 8 rows, row lane / 4, and of each 32 elements of the warp's slice the
// 8 from 8 (lane % 4). A product takes 4 of them, in an order that W's operand shares.
template <class Spec>
struct Inputs {
  using L = LinearShape<Spec>;
  using Element = typename Spec::Element;

  Vec16 x[L::kBlocks][L::kSteps];
  Vec16 norm[Spec::kNorm ? L::kSteps : 1];

  __device__ __forceinline__ void load(const LinearParams& p, int chunk) {
    const int lane = threadIdx.x & 31;
    const int at = chunk * L::kDepth + (threadIdx.x >> 5) * L::kSlice + (lane & 3) * 8;
#pragma unroll
    for (int n = 0; n < L::kBlocks; ++n) {
      // Columns past the last row repeat it; their results are never stored.
      const i64 row = min(n * 8 + (lane >> 2), static_cast<int>(p.rows) - 1);
      load_slice(x[n], static_cast<const Element*>(p.x) + row * Spec::kIn + at, chunk);
    }
    if constexpr (Spec::kNorm) load_slice(norm, static_cast<const Element*>(p.norm) + at, chunk);
  }

  // Two elements of the operand: x, or x * factor * norm.
  __device__ __forceinline__ u32 operand(int n, int s, int word, float factor) const {
    if constexpr (Spec::kNorm) {
      const float2 v = Element::unpack(x[n][s].word[word]), w = Element::unpack(norm[s].word[word]);
      return Element::pack(v.x * factor * w.x, v.y * factor * w.y);
    } else {
      return x[n][s].word[word];
    }
  }

  // Adds the squares of the lane's part of row lane / 4 of block `n`.
  __device__ __forceinline__ void add_squares(float& sum, int n, int chunk) const {
#pragma unroll
    for (int s = 0; s < L::kSteps; ++s) {
      if (!L::in_depth(chunk, s)) continue;
#pragma unroll
      for (int word = 0; word < 4; ++word) {
        const float2 v = Element::unpack(x[n][s].word[word]);
        sum = fmaf(v.x, v.x, fmaf(v.y, v.y, sum));
      }
    }
  }

 private:
  static __device__ __forceinline__ void load_slice(Vec16 (&to)[L::kSteps], const Element* from, int chunk) {
#pragma unroll
    for (int s = 0; s < L::kSteps; ++s) {
      if (L::in_depth(chunk, s)) to[s] = *reinterpret_cast<const Vec16*>(from + s * L::kStep);
    }
  }
};

// A multiplying warp.
template <class Spec>
struct LinearWarp {
  using L = LinearShape<Spec>;
  using Element = typename Spec::Element;
  // The norm's factor of a row, 1 / the root of its mean square, is known only once all of x was seen. Where x * norm
  // fits the element type, it multiplies the sums in the end; else x is read once more before the products.
  static constexpr bool kFactorFirst = Spec::kNorm && !Element::kWide;

  const LinearParams& p;
  WeightStages<Spec> stages;
  WarpSums<Spec> sums;
  float factor[L::kBlocks];
  float acc[L::kTilesAtOnce][L::kBlocks][4];

  __device__ __forceinline__ void find_factors() {
#pragma unroll
    for (int n = 0; n < L::kBlocks; ++n) factor[n] = 1.f;
    if constexpr (kFactorFirst) {
      float squares[L::kBlocks] = {};
#pragma unroll 1
      for (int chunk = 0; chunk < L::kChunks; ++chunk) {
        Inputs<Spec> in;
        in.load(p, chunk);
#pragma unroll
        for (int n = 0; n < L::kBlocks; ++n) in.add_squares(squares[n], n, chunk);
      }
      sums.put_squares(squares);
      named_barrier_sync<1, L::kMathThreads>();
#pragma unroll
      for (int n = 0; n < L::kBlocks; ++n) factor[n] = sums.factor(n * 8 + ((threadIdx.x & 31) >> 2));
    }
  }

  // Adds the products of a stage to the sums of tile `i` of those at hand.
  __device__ __forceinline__ void multiply(int i, int chunk, const u32 (&b)[L::kBlocks][L::kSteps][4]) {
    barrier_wait(stages.full(), stages.cursor.phase);
    const int lane = threadIdx.x & 31;
    const u32 from = stages.slot() + (lane >> 2) * L::kPitch + (threadIdx.x >> 5) * (L::kSlice * 2) + (lane & 3) * 16;
#pragma unroll
    for (int s = 0; s < L::kSteps; ++s) {
      if (!L::in_depth(chunk, s)) continue;
      const Vec16 low = load_shared(from + s * 64), high = load_shared(from + s * 64 + 8 * L::kPitch);
#pragma unroll
      for (int h = 0; h < 4; h += 2) {
        const u32 a[4] = {low.word[h], high.word[h], low.word[h + 1], high.word[h + 1]};
#pragma unroll
        for (int n = 0; n < L::kBlocks; ++n) Element::mma(acc[i][n], a, b[n][s][h], b[n][s][h + 1]);
      }
    }
    give_back(stages.empty());
    stages.cursor.next();
  }

  // `count` tiles from `tile` on.
  __device__ __forceinline__ void run(int tile, int count) {
    if constexpr (Spec::kAdd) sums.fetch(p, tile, count);
    float squares[L::kBlocks] = {};
    Inputs<Spec> in;
    in.load(p, 0);
#pragma unroll
    for (int i = 0; i < L::kTilesAtOnce; ++i) {
#pragma unroll
      for (int n = 0; n < L::kBlocks; ++n) {
#pragma unroll
        for (int j = 0; j < 4; ++j) acc[i][n][j] = 0.f;
      }
    }
#pragma unroll 1
    for (int chunk = 0; chunk < L::kChunks; ++chunk) {
      u32 b[L::kBlocks][L::kSteps][4];
#pragma unroll
      for (int n = 0; n < L::kBlocks; ++n) {
#pragma unroll
        for (int s = 0; s < L::kSteps; ++s) {
          if (!L::in_depth(chunk, s)) continue;
#pragma unroll
          for (int word = 0; word < 4; ++word) b[n][s][word] = in.operand(n, s, word, factor[n]);
        }
        if constexpr (Spec::kNorm && !kFactorFirst) in.add_squares(squares[n], n, chunk);
      }
      if (chunk + 1 < L::kChunks) in.load(p, chunk + 1);
#pragma unroll
      for (int i = 0; i < L::kTilesAtOnce; ++i) {
        if (i < count) multiply(i, chunk, b);
      }
    }
    if constexpr (Spec::kNorm && !kFactorFirst) sums.put_squares(squares);
#pragma unroll
    for (int i = 0; i < L::kTilesAtOnce; i += WarpSums<Spec>::kRound) {
      if (i < count) sums.template meet<Spec::kNorm && !kFactorFirst>(p, tile, i, count, acc);
    }
  }
};

template <class Spec>
__device__ __forceinline__ void linear(const LinearParams& p) {
  using L = LinearShape<Spec>;
  static_assert(L::kThreads == Spec::kThreads && WeightStages<Spec>::kBytes + WarpSums<Spec>::kBytes == Spec::kSharedBytes,
                "runtime/src/glue/linear.rs and the header disagree");
  extern __shared__ __align__(1024) unsigned char shared[];
  WeightStages<Spec> stages(shared_address(shared));
  let_next_kernel_start();
  if (threadIdx.x == 0) stages.init();
  __syncthreads();
  const int first = L::tiles_before(blockIdx.x), last = L::tiles_before(blockIdx.x + 1);
  if (threadIdx.x >= L::kMathThreads) {
    supply_weights(p, stages, first, last);
    return;
  }
  LinearWarp<Spec> warp{p, stages, {stages.base + WeightStages<Spec>::kBytes}};
  wait_for_inputs();
  warp.find_factors();
#pragma unroll 1
  for (int tile = first; tile < last;) {
    const int count = L::taken(last - tile);
    warp.run(tile, count);
    tile += count;
  }
}

}  // namespace sm90
}  // namespace moac
